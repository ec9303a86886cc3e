"""What a sandbox or file system may refuse before the game is started, which then starts all the same."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from pathlib import Path

import pytest

from agent.init import limits
from agent.init.sockets import listen_unix


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_socket_where_files_cannot_be_locked(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that an agent before this one has left is replaced."""

    def refuse(_fd: int, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    made, why = listen_unix(str(tmp_path / "s"))
    assert made is not None, why
    made.close()


def test_limits_that_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seccomp profile without prlimit64: there is nothing to restore then."""

    def refuse(_which: int) -> tuple[int, int]:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(limits, "_at_start", {})
    monkeypatch.setattr(resource, "getrlimit", refuse)
    limits.remember_limits()
    limits.restore_limits()

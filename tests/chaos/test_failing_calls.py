"""One system call of PID 1 fails, once, at each of many moments: the game must not notice. Needs strace.

What is asked of each life: the game runs, hears its stop signal and its exit code is passed on, or it could not be
started, which is said. What a plain init survives must not be the end of a game here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.process.harness import Launcher, eventually, game

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SWEEPS = [
    ("poll", "ENOMEM", range(1, 24)),
    ("pipe2", "EMFILE", range(1, 5)),
    ("eventfd2", "EMFILE", range(1, 2)),
    ("clone,clone3", "EAGAIN", range(1, 14)),
    ("socketpair", "EMFILE", range(1, 2)),
    ("write", "ENOSPC", range(1, 12)),
    ("rename", "EROFS", range(1, 3)),
    ("flock", "ENOSYS", range(1, 3)),
    ("getdents64", "EMFILE", range(40, 62, 3)),
    ("openat", "EMFILE", range(150, 400, 12)),
    ("mmap", "ENOMEM", range(60, 120, 6)),
]


def can_trace() -> bool:
    """Whether strace is there and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-q", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace here")
@pytest.mark.parametrize(("call", "error", "moments"), SWEEPS, ids=[call for call, _, _ in SWEEPS])
def test_one_call_fails(tmp_path: Path, call: str, error: str, moments: Iterable[int]) -> None:
    """At each of these occurrences of the call, counted from the interpreter's start."""
    found = {moment: wrong_in_a_life(tmp_path / str(moment), call, error, moment) for moment in moments}
    assert not any(found.values()), {moment: wrong for moment, wrong in found.items() if wrong}


def wrong_in_a_life(files: Path, call: str, error: str, moment: int) -> object:
    """Lives one life, and returns how it ended where that is not right."""
    files.mkdir()
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={moment}"]
    prefix = ["strace", "-DDD", "-q", "-o", "/dev/null", *inject]  # -DDD: the agent keeps its number
    with Launcher(files) as launch:
        run = launch(game("polite", "4"), prefix=prefix, mode="subreaper")
        assert run.stdout is not None
        seen = run.stdout
        eventually(lambda: b"ready" in seen.data or run.process.poll() is not None, "it is started, or not")
        if b"ready" in seen.data:
            done = run.stop()
            right = done.code == 4 and done.stdout == b"ready\nbye\n" and done.seconds < 5
        else:
            done = run.finish()
            right = done.code > 0 and bool(done.stderr)
    return None if right else done

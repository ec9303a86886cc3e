"""What is reaped, and under which name."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from agent.game import reaper
from agent.game.reaper import Reaper


class Children:
    """Children that have ended, by process id with their exit code; more end after each look."""

    def __init__(self, *ends: dict[int, int]) -> None:
        self.later = list(ends)
        self.ended: dict[int, int] = {}

    def waitid(self, *_: int) -> SimpleNamespace | None:
        """Shows one without reaping it, then lets others end."""
        seen = next(iter(self.ended.items()), None)
        if self.later:
            self.ended |= self.later.pop(0)
        return None if seen is None else SimpleNamespace(si_pid=seen[0], si_status=seen[1])

    def waitpid(self, pid: int, _options: int) -> tuple[int, int]:
        """Reaps one."""
        pid = next(iter(self.ended), 0) if pid == -1 else pid
        return (pid, self.ended.pop(pid) << 8) if pid else (0, 0)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    """No child of the test's own is touched."""
    made = Children()
    monkeypatch.setattr(os, "waitid", made.waitid)
    monkeypatch.setattr(os, "waitpid", made.waitpid)
    monkeypatch.setattr(reaper, "name_of", lambda pid: f"name of {pid}" if pid in made.ended else "")
    return made


def test_only_what_did_not_end_with_0_and_is_no_helper_is_named(children: Children) -> None:
    """All of them are reaped."""
    one = Reaper()
    one.add_helper(3)
    children.ended = {1: 0, 2: 7, 3: 9}
    names: dict[int, str] = {}
    ended, left = one.reap(names)
    assert ended == {1: 0, 2: 7 << 8, 3: 9 << 8}
    assert names == {2: "name of 2"}
    assert left


def test_a_child_that_ends_while_others_are_looked_at_keeps_its_name(children: Children) -> None:
    """It is reaped together with its name, now or at the next look."""
    one = Reaper()
    children.later = [{5: 1}]
    names: dict[int, str] = {}
    for _ in range(2):
        ended, _left = one.reap(names)
        assert set(ended) == set(names)
        if ended:
            break
    assert names == {5: "name of 5"}


@pytest.mark.usefixtures("children")
@pytest.mark.parametrize("refused", ["listdir", "open"])
def test_a_game_that_cannot_be_seen_has_not_ended(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last descriptor is taken before /proc, or one of the processes in it, is read, and free again afterwards."""
    one = Reaper()
    one.add_helper(3)
    monkeypatch.setattr(os, refused, _no_descriptor)
    assert one.reap({}, [os.getpgid(0)])[1]


def _no_descriptor(*_: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

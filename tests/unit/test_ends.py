"""Servers behind a start script: which are watched, and what is known of their ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import pytest

from agent.game import ends
from agent.game.tree import Process

MAIN = 10


class Loop:
    """Remembers what is waited for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.readers: dict[int, Callable[[], object]] = {}

    def time(self) -> float:
        """The present moment."""
        return self.now

    def call_later(self, _seconds: float, _callback: Callable[[], object]) -> Any:
        """Never calls back."""
        return self

    def cancel(self) -> None:
        """Of a timer."""

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Keeps it."""
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        """Forgets it."""
        del self.readers[fd]


class World:
    """A script and its servers, whose ends the kernel tells."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, program: str = "bash") -> None:
        self.loop = Loop()
        self.processes = [Process(MAIN, 1, name="run.sh", file=program)]
        self.statuses: dict[int, int] = {}
        self.descriptors: dict[int, int] = {}
        monkeypatch.setattr(ends, "look", lambda pids: [one for one in self.processes if one.pid in pids])
        monkeypatch.setattr(os, "pidfd_open", self._open)
        monkeypatch.setattr(ends, "wait_status", lambda fd: self.statuses.get(self.descriptors[fd]))
        self.ends = ends.Ends(cast("Any", self.loop), lambda: [one.pid for one in self.processes], lambda: MAIN)

    def _open(self, pid: int) -> int:
        fd = os.open("/dev/null", os.O_RDONLY)
        self.descriptors[fd] = pid
        return fd

    def starts(self, pid: int, name: str = "server", parent: int = MAIN) -> None:
        """A server of the script."""
        self.processes.append(Process(pid, parent, name=name, file=name))

    def dies(self, pid: int, status: int) -> None:
        """It has ended, and the script has waited for it."""
        self.processes = [one for one in self.processes if one.pid != pid]
        self.statuses[pid] = status
        (fd,) = (fd for fd, whose in self.descriptors.items() if whose == pid and fd in self.loop.readers)
        self.loop.readers[fd]()


def test_the_latest_of_each_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that started its server again is judged by how that ended; what ended long before does not count."""
    world = World(monkeypatch)
    for pid, name, status in ((11, "server", 11), (12, "old", 6), (13, "other", 3 << 8), (14, "tee", 13)):
        world.starts(pid, name)
        world.ends.look()
        if name != "tee":
            world.dies(pid, status)
        world.loop.now += 40.0
    world.starts(15)
    world.starts(16, "adopted", os.getpid())
    world.ends.look()
    world.dies(15, 0)
    world.ends.close()
    world.ends.close()
    assert [(pid, name, status) for _, pid, name, status in world.ends.found(world.loop.now - 40.0)] == [
        (13, "other", 3 << 8)
    ]
    assert not world.loop.readers


def test_few_are_watched_and_those_that_ended_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors are few."""
    world = World(monkeypatch)
    for pid in range(11, 31):
        world.starts(pid, f"s{pid}")
    world.ends.look()
    assert len(world.loop.readers) == 8
    world.dies(12, 9)
    world.ends.look()
    assert len(world.loop.readers) == 8
    assert 19 in world.descriptors.values()
    world.ends.close()


def test_a_game_that_is_no_script_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its helpers end with is its own business."""
    world = World(monkeypatch, program="server")
    world.starts(11)
    world.ends.look()
    assert not world.loop.readers
    world.ends.close()

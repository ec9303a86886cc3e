"""Two read the agent's spool: what the store has confirmed is deleted when the other one has it too."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agent.link.messages import SegmentClosed, SegmentState
from agent.logs.runs import Segment
from agent.logs.writer import MEMORY
from agent.runtime.link import Link
from agent.runtime.remote_spool import RemoteSpool

MAX_BYTES = 1 << 20


class World:
    """A spool whose init is this test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[tuple[int, str]] = []
        self.taken: list[Segment] = []
        self._on: dict[type, Callable[[Any, bytes], None]] = {}
        self.spool = RemoteSpool(
            cast("Link", self),
            directory=str(directory),
            run_id="run",
            started_ns=0,
            next_number=1,
            max_bytes=MAX_BYTES,
            owner="",
            segments=[],
        )

    def handle(self, kind: type, handler: Callable[[Any, bytes], None]) -> None:
        """As the link."""
        self._on[kind] = handler

    def send(self, message: SegmentState) -> None:
        """As the link."""
        self.said.append((message.number, message.state))

    send_threadsafe = send

    def close_segment(self, number: int, size: int = 6, *, in_memory: bool = False) -> Path:
        """The init has closed a segment; returns its file."""
        path = self.directory / f"{number}.seg"
        path.write_bytes(b"frames")
        self.tell_closed(number, None if in_memory else str(path), size)
        return path

    def tell_closed(self, number: int, path: str | None, size: int) -> None:
        """As the init does."""
        self._on[SegmentClosed](SegmentClosed(number, 0, size, path, 0, json.dumps({"stdout": size})), b"")

    def confirm(self, number: int) -> None:
        """The store has it."""
        self.spool.confirm(next(one for one in self.spool.segments() if one.number == number))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One of its own."""
    return World(tmp_path)


def test_a_segment_that_both_have_is_deleted_whoever_is_first(world: World) -> None:
    """The init is told only then, because it would count its bytes as free; the shipper sees it no more at once."""
    early = world.close_segment(1)
    world.spool.tap(world.taken.append)
    late = world.close_segment(2)
    assert [one.number for one in world.taken] == [1, 2], "what was there before is shown as well"
    world.confirm(1)
    assert early.exists()
    assert (world.said, [one.number for one in world.spool.segments()]) == ([], [2])
    world.spool.taken(world.taken[0])
    assert not early.exists()
    world.spool.taken(world.taken[1])
    assert late.exists()
    world.confirm(2)
    assert not late.exists()
    assert world.said == [(1, "confirmed"), (2, "confirmed")]


def test_a_reader_that_gives_up_holds_nothing(world: World) -> None:
    """Nor is it shown what comes later."""
    world.spool.tap(world.taken.append)
    path = world.close_segment(1)
    world.confirm(1)
    world.spool.tap(None)
    assert not path.exists()
    later = world.close_segment(2)
    world.confirm(2)
    assert not later.exists()
    assert len(world.taken) == 1


def test_what_the_store_has_does_not_fill_the_spool_for_a_slow_reader(world: World) -> None:
    """The oldest is let go of; else the init dropped it to make room, and counted it as lost."""
    world.spool.tap(world.taken.append)
    files = []
    for number in range(1, 6):
        files.append(world.close_segment(number, size=MAX_BYTES // 10))
        world.confirm(number)
    assert world.said == [(1, "confirmed"), (2, "confirmed"), (3, "confirmed")]
    assert [path.exists() for path in files] == [False, False, False, True, True]
    with pytest.raises(FileNotFoundError):
        list(world.taken[0].pieces())
    for segment in world.taken:
        world.spool.taken(segment)
    assert world.said == [(number, "confirmed") for number in range(1, 6)]


def test_what_the_store_has_makes_way_for_what_it_has_not(world: World) -> None:
    """A store that is not there for a while needs the room more than a slow reader."""
    world.spool.tap(world.taken.append)
    for number in (1, 2):
        world.close_segment(number, size=MAX_BYTES // 10)
        world.confirm(number)
    for number in range(3, 9):
        world.close_segment(number, size=MAX_BYTES // 10)
        assert len(world.said) == max(0, number - 7), number
    assert world.said == [(1, "confirmed")]


def test_memory_has_a_bound_of_its_own(world: World) -> None:
    """Where the disk takes nothing the init keeps less."""
    world.spool.tap(world.taken.append)
    for number in range(1, 4):
        world.close_segment(number, size=MEMORY // 8, in_memory=True)
        world.confirm(number)
    assert world.said == [(1, "confirmed")]


def test_segments_come_and_go_in_two_threads(world: World) -> None:
    """They are closed in the loop's thread, and confirmed in the shipper's."""
    closed, problems = threading.Event(), list[Exception]()

    def confirm_all() -> None:
        try:
            while not closed.is_set() or world.spool.segments():
                for segment in world.spool.segments():
                    world.spool.confirm(segment)
        except Exception as problem:
            problems.append(problem)

    thread = threading.Thread(target=confirm_all)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for number in range(1, 2000):
            world.tell_closed(number, None, 6)
            world.spool.segments()
    finally:
        sys.setswitchinterval(before)
        closed.set()
        thread.join(10)
    assert problems == []
    assert len(world.said) == 1999

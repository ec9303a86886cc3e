"""What runs that are over left behind is adopted, bounded, and let go of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.logs import frames
from agent.logs.runs import Segment
from tests.local_spool import LocalSpool

Make = Callable[..., LocalSpool]


def soon() -> float:
    """A deadline that only a failing test reaches."""
    return time.monotonic() + 10


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Make]:
    """Opens spools of one directory, and closes those that the test has not."""
    made: list[LocalSpool] = []

    def make(max_bytes: int = 1 << 20, **options: Any) -> LocalSpool:
        made.append(LocalSpool(str(tmp_path / "spool"), max_bytes, **options))
        return made[-1]

    yield make
    for one in made:
        one.close(soon())


def sealed(spool: LocalSpool) -> list[Segment]:
    """All its segments, once everything is closed."""
    spool.seal()
    assert spool.flush(soon())
    return spool.segments()


def bytes_of(segments: list[Segment]) -> bytes:
    """The log in them."""
    return b"".join(
        body for segment in segments for kind, _, _, body in frames.parse(segment.pieces()) if kind == frames.DATA
    )


def test_what_a_dead_agent_left_is_adopted_and_a_living_ones_is_not(open_spool: Make) -> None:
    """Two agents on one machine never touch each other's; the lock tells."""
    dead, alive = open_spool(), open_spool()
    dead.append("stdout", b"from the dead\n")
    alive.append("stdout", b"from the living\n")
    sealed(dead)
    sealed(alive)
    assert dead.close(soon())
    heir = open_spool()
    assert heir.adopt() == [dead.run]
    assert bytes_of(heir.segments()) == b"from the dead\n"
    assert heir.adopt() == []
    assert open_spool().adopt() == []
    heir.append("stdout", b"my own\n")
    assert bytes_of(sealed(heir)) == b"from the dead\nmy own\n"
    heir.release(dead.run, delete=True)
    assert not os.path.exists(dead.run)


def test_nothing_of_another_deployment_or_command_is_adopted(open_spool: Make) -> None:
    """On a machine with several agents and one spool directory; it is said how many there are."""
    for deployment, command in (("a", ["./game"]), ("b", ["./game"]), ("a", ["./other"])):
        one = open_spool(deployment_id=deployment, command=command)
        one.append("stdout", b"something\n")
        assert one.close(soon())
    heir = open_spool(deployment_id="a", command=["./game"])
    assert len(heir.adopt()) == 1
    assert heir.earlier.others == 2


def test_a_segment_that_was_being_written_when_the_agent_was_killed_is_adopted(
    tmp_path: Path, open_spool: Make
) -> None:
    """With a frame cut in the middle, as SIGKILL leaves it."""
    victim = open_spool()
    victim.append("stdout", b"complete\n")
    assert victim.flush(soon())
    [open_file] = Path(victim.run).glob("*.open")
    copy = tmp_path / "spool" / "20250101T000000Z-deadbeef"
    copy.mkdir()
    (copy / open_file.name).write_bytes(open_file.read_bytes() + frames.header(frames.DATA, 1, 100, 5) + b"cut of")
    (copy / "000009.open").write_bytes(b"\xa7")
    (copy / "lock").write_text(victim.owner)
    heir = open_spool()
    assert heir.adopt() == [str(copy)]
    assert bytes_of(heir.segments()) == b"complete\n"
    assert [segment.number for segment in heir.segments()] == [1]


def test_what_was_dropped_is_remembered_for_whoever_adopts(open_spool: Make) -> None:
    """The gap is in the log also when another agent ships it."""
    first = open_spool(max_bytes=65536, segment_bytes=4096)
    for _ in range(100):
        first.append("stdout", b"q" * 2047 + b"\n")
    sealed(first)
    dropped = first.counters()["bytes_dropped"]
    assert dropped > 0
    assert first.close(soon())
    heir = open_spool()
    heir.adopt()
    assert heir.dropped_before(heir.segments()[0]) == dropped


def test_what_does_not_fit_is_dropped_oldest_first_and_leaves_a_gap(open_spool: Make) -> None:
    """A container that crashes again and again does not fill the disk; what is being shipped is kept."""
    for _ in range(5):
        one = open_spool()
        one.append("stdout", b"c" * 50_000)
        assert one.close(soon())
    earlier = open_spool().earlier
    earlier.adopt()
    first, second, third, *_ = earlier.segments
    first.busy = True
    earlier.bound(200_000)
    assert earlier.segments[0] is first
    assert second not in earlier.segments
    assert sum(segment.size for segment in earlier.segments) <= 200_000
    assert earlier.bytes_dropped == earlier.dropped_before(earlier.segments[1])
    assert (third in earlier.segments) is (earlier.segments_dropped == 1)
    assert not os.path.exists(str(second.path))

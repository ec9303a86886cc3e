"""The spool is bounded, survives crashes and bad disks, and never makes anybody wait."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.logs import frames, runs, writer
from agent.logs.runs import Segment
from agent.logs.shared_counts import DROPPED, SHIPPED, SharedCounts
from agent.logs.spool import Spool


def soon(seconds: float = 10.0) -> float:
    """A deadline that only a failing test reaches."""
    return time.monotonic() + seconds


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something is so, or fails."""
    until = soon()
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.005)


def bytes_of(segments: list[Segment], stream: str = "stdout") -> bytes:
    """What segments hold of one stream, in order."""
    return b"".join(
        body
        for segment in segments
        for kind, _, name, body in frames.parse(segment.pieces())
        if kind == frames.DATA and name == stream
    )


def sealed(spool: Spool) -> list[Segment]:
    """All segments, after everything appended so far is in one."""
    spool.seal()
    assert spool.flush(soon())
    return spool.segments()


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    """Makes spools, and closes them at the end; whatever happened, the agent's process is shown the same counts."""
    with contextlib.ExitStack() as stack:

        def make(directory: Path | str = tmp_path / "spool", max_bytes: int = 1 << 20, **options: object) -> Spool:
            shown = SharedCounts()
            made = Spool(str(directory), max_bytes, counts=shown, **options)  # type: ignore[arg-type]  # passed on as they are

            def close() -> None:
                made.close(soon())
                counted = made.counters()
                assert (shown[SHIPPED], shown[DROPPED]) == (counted["bytes_shipped"], counted["bytes_dropped"])

            stack.callback(close)
            return made

        yield make


def test_everything_comes_back_in_order_with_stream_and_time(open_spool: Callable[..., Spool]) -> None:
    """Interleaved streams, any bytes."""
    spool = open_spool()
    spool.append("stdout", b"one\n", 1_000)
    spool.append("stderr", b"\x00\xff", 2_000)
    spool.append("stdout", b"two", 3_000)
    [segment] = sealed(spool)
    assert list(frames.parse(segment.pieces())) == [
        (frames.DATA, 1_000, "stdout", b"one\n"),
        (frames.DATA, 2_000, "stderr", b"\x00\xff"),
        (frames.DATA, 3_000, "stdout", b"two"),
    ]
    assert segment.since == 1_000
    assert segment.streams == {"stdout": 7, "stderr": 2}


def test_segments_are_closed_by_size_at_the_end_of_a_line(open_spool: Callable[..., Spool]) -> None:
    """So that few lines are in two segments; one that has no end in sight is cut."""
    spool = open_spool(segment_bytes=4096)
    line = b"x" * 99 + b"\n"
    for _ in range(200):
        spool.append("stdout", line * 2)
    spool.append("stdout", b"y" * 10_000)
    segments = sealed(spool)
    assert len(segments) > 4
    for segment in segments[:-1]:
        assert bytes_of([segment]).endswith((b"\n", b"y"))
    assert bytes_of(segments) == line * 400 + b"y" * 10_000
    assert [segment.number for segment in segments] == list(range(1, len(segments) + 1))


def test_a_small_segment_is_closed_when_it_is_old_enough(open_spool: Callable[..., Spool]) -> None:
    """That is what makes a quiet game's log leave the container while it runs."""
    spool = open_spool()
    heard: list[int] = []
    spool.listen(lambda: heard.append(1))
    spool.seal_after(0.05)
    spool.append("stdout", b"hello\n")
    eventually(lambda: bool(heard))
    assert bytes_of(spool.segments()) == b"hello\n"


def test_the_oldest_are_dropped_first_and_counted_where_they_are_missing(open_spool: Callable[..., Spool]) -> None:
    """The bound holds, and whoever reads the log learns how much is missing, and where."""
    said: list[str] = []
    spool = open_spool(max_bytes=65536, segment_bytes=4096, say=said.append)
    total = 0
    for number in range(4000):
        data = b"%07d " % number * 10 + b"\n"
        spool.append("stdout" if number % 2 else "stderr", data)
        total += len(data)
    segments = sealed(spool)
    counts = spool.counters()
    assert sum(os.stat(str(segment.path)).st_size for segment in segments) <= 65536
    assert counts["bytes_dropped"] + sum(segment.log_bytes for segment in segments) == total == counts["bytes_in"]
    assert spool.dropped_before(segments[0]) == counts["bytes_dropped"]
    assert [spool.dropped_before(segment) for segment in segments[1:]] == [0] * (len(segments) - 1)
    by_stream = spool.by_stream()
    assert sum(dropped for _, _, dropped in by_stream.values()) == counts["bytes_dropped"]
    assert by_stream.keys() == {"stdout", "stderr"}
    assert counts["segments_dropped"] > 0
    assert len(said) == 1
    assert "the spool is full" in said[0]


def test_one_piece_larger_than_the_bound_is_kept_in_part(open_spool: Callable[..., Spool]) -> None:
    """A flood is read in large pieces: of one that does not fit as a whole, the end is kept, in whole lines."""
    spool = open_spool(max_bytes=65536)
    lines = [b"%07d " % number * 10 + b"\n" for number in range(4000)]
    spool.append("stdout", b"".join(lines))
    segments = sealed(spool)
    kept = bytes_of(segments)
    assert sum(os.stat(str(segment.path)).st_size for segment in segments) <= 65536
    assert len(kept) > 65536 // 2
    assert kept == b"".join(lines[-(len(kept) // len(lines[0])) :])
    assert spool.dropped_before(segments[0]) == 4000 * len(lines[0]) - len(kept)


def test_a_segment_on_its_way_is_the_last_to_be_dropped(open_spool: Callable[..., Spool]) -> None:
    """It would be dropped and confirmed at the same time otherwise."""
    spool = open_spool(max_bytes=65536, segment_bytes=8192)
    spool.append("stdout", b"first\n")
    [first] = sealed(spool)
    first.busy = True
    for _ in range(100):
        spool.append("stdout", b"z" * 8191 + b"\n")
    assert sealed(spool)[0] is first
    assert spool.dropped_before(spool.segments()[1]) == spool.counters()["bytes_dropped"] > 0


def test_a_confirmed_segment_is_gone(open_spool: Callable[..., Spool]) -> None:
    """From the disk too; and counted as shipped."""
    spool = open_spool()
    spool.append("stdout", b"hello\n")
    [segment] = sealed(spool)
    spool.confirm(segment)
    assert spool.segments() == []
    assert not os.path.exists(str(segment.path))
    assert spool.by_stream() == {"stdout": (6, 6, 0)}


@pytest.mark.parametrize("trouble", ["missing and cannot be made", "read-only", "a file"])
def test_without_a_usable_directory_the_end_of_the_log_is_kept_in_memory(
    tmp_path: Path, trouble: str, open_spool: Callable[..., Spool]
) -> None:
    """Bounded, counted, said once, and readable as any other segment."""
    directory = tmp_path / "spool"
    if trouble == "read-only":
        if os.geteuid() == 0:
            directory = Path("/proc/self/spool")  # root may write to read-only directories, but not here
        else:
            directory.mkdir(mode=0o500)
    elif trouble == "a file":
        directory.write_text("")
    else:
        directory = tmp_path / "file" / "spool"
        (tmp_path / "file").write_text("")
    said: list[str] = []
    spool = open_spool(directory, say=said.append)
    line = b"m" * 1023 + b"\n"
    for _ in range(10_000):
        spool.append("stdout", line)
    segments = sealed(spool)
    kept = bytes_of(segments)
    assert 0 < len(kept) <= writer.MEMORY
    assert kept == line * (len(kept) // 1024)
    assert spool.counters()["bytes_dropped"] == 10_000 * 1024 - len(kept)
    # With a queue of 8 MiB, some may have been dropped before it got that far; then a frame says so.
    assert len([text for text in said if text.startswith("cannot write to the spool directory")]) == 1
    assert "AGENT_SPOOL_DIR" in said[0]
    spool.put_file("exit.json", b"{}")
    assert spool.flush(soon())
    assert spool.unwritten["exit.json"]


def test_a_disk_that_works_again_gets_what_was_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_spool: Callable[..., Spool]
) -> None:
    """Nothing is lost when it was only full for a while."""
    monkeypatch.setattr(writer, "_DISK_AGAIN", 0.05)
    blocker = tmp_path / "spool"
    blocker.write_text("")
    said: list[str] = []
    spool = open_spool(blocker, say=said.append)
    spool.append("stdout", b"while it was broken\n")
    assert bytes_of(sealed(spool)) == b"while it was broken\n"
    blocker.unlink()
    time.sleep(0.06)
    spool.append("stdout", b"and after\n")
    segments = sealed(spool)
    assert bytes_of(segments) == b"while it was broken\nand after\n"
    assert all(segment.path is not None for segment in segments)
    assert said[-1] == "the spool directory takes logs again"


def test_a_failure_halfway_through_making_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_spool: Callable[..., Spool]
) -> None:
    """What was made of it is no obstacle to the next attempt, which is locked as well."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", _no_room)
        spool = open_spool(tmp_path / "spool")
    assert spool.problem
    spool.put_file("exit.json", b"{}")
    assert spool.flush(soon())
    assert Path(spool.run, "exit.json").read_bytes() == b"{}"
    assert spool.unwritten == {"exit.json": ""}
    assert runs.lock(spool.run) == -1


def _no_room(_fd: int, _data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_directory_that_another_user_made_beforehand_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_spool: Callable[..., Spool]
) -> None:
    """Whoever owns it decides what is read from it and shipped; the end of the log is kept in memory."""
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o777)
    if os.geteuid() == 0:
        os.chown(directory, 54321, 54321)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    spool = open_spool(directory)
    assert "it belongs to another user" in spool.problem
    spool.append("stdout", b"kept\n")
    assert bytes_of(sealed(spool)) == b"kept\n"
    assert not list(directory.iterdir())


def test_a_directory_that_is_deleted_while_it_is_used_is_made_again(open_spool: Callable[..., Spool]) -> None:
    """A game that cleans /tmp does not end the log."""
    spool = open_spool()
    spool.append("stdout", b"gone with the directory\n")
    [lost] = sealed(spool)
    runs.remove(spool.run)
    spool.append("stdout", b"kept in memory at least\n")
    assert bytes_of(sealed(spool)[1:]) == b"kept in memory at least\n"
    spool.forget(lost)
    assert spool.counters()["bytes_dropped"] == 24


def test_a_disk_that_hangs_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch, open_spool: Callable[..., Spool]) -> None:
    """What it does not take in time is dropped, and its place is marked once it takes something again."""
    go, hangs = os.pipe()
    hanging = threading.Event()
    real = os.writev

    def hang(fd: int, pieces: list[bytes]) -> int:
        hanging.set()
        os.read(go, 1)
        return real(fd, pieces)

    monkeypatch.setattr(os, "writev", hang)
    spool = open_spool(max_bytes=1 << 26)
    spool.append("stdout", b"the first\n")
    assert hanging.wait(10), "what comes before the disk hangs could leave a gap of its own"
    began = time.monotonic()
    for number in range(300):
        spool.append("stdout", b"%06d " % number * 15_000 + b"\n")
    assert time.monotonic() - began < 5
    assert spool.flush(time.monotonic() + 0.01) is False
    assert spool.counters()["bytes_dropped"] > 0
    os.close(hangs)
    segments = sealed(spool)
    found = [(kind, body) for segment in segments for kind, _, _, body in frames.parse(segment.pieces())]
    [gap] = [body for kind, body in found if kind == frames.GAP]
    assert int(gap.split()[0]) == spool.counters()["bytes_dropped"]
    assert gap.endswith(b"the disk was slower than the game wrote")
    os.close(go)


def test_runs_do_not_inherit_the_lock_to_the_game(open_spool: Callable[..., Spool]) -> None:
    """A game that outlives its agent would keep the run from being adopted."""
    spool = open_spool()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(spool.run):
                assert fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_nothing_is_taken_after_the_end(open_spool: Callable[..., Spool]) -> None:
    """A late writer does no harm, and closing twice neither."""
    spool = open_spool()
    spool.append("stdout", b"x")
    assert spool.close(soon())
    spool.append("stdout", b"late")
    assert spool.close(soon())


def test_a_spool_that_is_never_used_makes_no_thread_and_no_segment(open_spool: Callable[..., Spool]) -> None:
    """A game that says nothing costs nothing."""
    spool = open_spool()
    spool.seal()
    assert spool.flush(soon())
    assert spool.segments() == []
    assert os.listdir(spool.run) == ["lock"]
    assert runs.owner_of(spool.run) == ""
    assert runs.owner_of(open_spool(deployment_id="23c01225b99d").run) == "23c01225b99d"


def test_the_gaps_of_a_run_are_the_last_ones_that_were_saved(tmp_path: Path) -> None:
    """Nothing remains of a longer list: its end would be read as gaps that there are not."""
    length = 0
    for gaps in ({7: 123_456_789, 12: 1}, {12: 22}, {12: 22, 300: 4}, {}):
        length = runs.save_gaps(str(tmp_path), gaps, length)
        assert runs.load(str(tmp_path)) == ([], gaps)

"""Log files of a game are followed through everything that log rotation does to them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.logs import files as files_module
from agent.logs import frames
from agent.logs.files import FileFollower
from agent.logs.redact import Redactor
from agent.logs.spool import Spool

Spooled = Callable[[Path], bytes]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool that is closed at the end."""
    made = Spool(str(tmp_path / "spool"), 1 << 24)
    yield made
    made.close(time.monotonic() + 10)


@pytest.fixture
def spooled(spool: Spool) -> Spooled:
    """What the spool has of a file."""

    def read(path: Path) -> bytes:
        spool.seal()
        assert spool.flush(time.monotonic() + 10)
        return b"".join(
            body
            for segment in spool.segments()
            for kind, _, name, body in frames.parse(segment.pieces())
            if kind == frames.DATA and name == str(path)
        )

    return read


def follow(tmp_path: Path, spool: Spool, pattern: str = "*.log*", **options: Any) -> FileFollower:
    """A follower that looks for new files each time it is told to look."""
    follower = FileFollower([str(tmp_path / "logs" / "**" / pattern)], spool, Redactor(["topsecret"]), **options)
    follower._stop.set()  # it searches at every look then
    return follower


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory for log files."""
    path = tmp_path / "logs"
    path.mkdir()
    return path


def append(path: Path, data: bytes) -> None:
    """Appends to a file, as a game does."""
    with path.open("ab") as file:
        file.write(data)


def test_what_is_appended_is_read_once(tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled) -> None:
    """From the beginning, and also in directories that come later; secrets stay out."""
    follower = follow(tmp_path, spool)
    append(logs / "game.log", b"one\n")
    follower.look()
    append(logs / "game.log", b"two tops")
    follower.look()
    append(logs / "game.log", b"ecret\n")
    (logs / "deeper").mkdir()
    append(logs / "deeper" / "other.log", b"other\n")
    follower.look()
    follower.look()
    assert spooled(logs / "game.log") == b"one\ntwo [redacted]\n"
    assert spooled(logs / "deeper" / "other.log") == b"other\n"
    assert follower.bytes_read == 24


def test_a_rotated_file_is_read_to_its_end_and_its_successor_from_the_beginning(
    tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled
) -> None:
    """Though the pattern matches the old one under its new name, nothing is read twice."""
    follower = follow(tmp_path, spool)
    log = logs / "game.log"
    append(log, b"old 1\n")
    follower.look()
    with log.open("ab") as still_open:
        log.rename(logs / "game.log.1")
        append(log, b"new 1\n")
        follower.look()
        still_open.write(b"old 2\n")
    follower.look()
    (logs / "game.log.1.gz").write_bytes(b"\x1f\x8bpacked")
    append(log, b"new 2\n")
    (logs / "game.log.1").unlink()
    follower.look()
    text = spooled(log)
    assert sorted(text.splitlines()) == [b"new 1", b"new 2", b"old 1", b"old 2"]
    assert text.index(b"new 1") < text.index(b"new 2")
    assert spooled(logs / "game.log.1") == b""
    assert len(follower._files) == 1


@pytest.mark.parametrize("later", [b"b\n", b"b is much longer than what was there before\n"])
def test_a_truncated_file_is_read_from_its_new_beginning(
    tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled, later: bytes
) -> None:
    """`copytruncate`, also when it has grown beyond its old size before the next look."""
    follower = follow(tmp_path, spool)
    append(logs / "game.log", b"a was here first\n")
    follower.look()
    os.truncate(logs / "game.log", 0)
    append(logs / "game.log", later)
    follower.look()
    assert spooled(logs / "game.log") == b"a was here first\n" + later


def test_what_was_there_before_the_game_is_left_out(tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled) -> None:
    """An earlier run's log was shipped by the earlier run; what is added now is new."""
    append(logs / "game.log", b"from yesterday\n")
    os.utime(logs / "game.log", (1, 1))
    follower = follow(tmp_path, spool)
    follower.look()
    append(logs / "game.log", b"from today\n")
    follower.look()
    assert spooled(logs / "game.log") == b"from today\n"


def test_what_is_no_file_is_left_alone(tmp_path: Path, logs: Path, spool: Spool) -> None:
    """A FIFO would make the thread wait for ever."""
    os.mkfifo(logs / "pipe.log")
    (logs / "directory.log").mkdir()
    (logs / "nowhere.log").symlink_to("/does/not/exist")
    follower = follow(tmp_path, spool)
    assert follower.look() is False
    assert follower._files == {}


def test_more_files_than_can_be_held_open_are_read_all_the_same(
    tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have not changed for longest are closed, and opened again where they were left."""
    monkeypatch.setattr(files_module, "_MOST", 3)
    follower = follow(tmp_path, spool)
    for number in range(8):
        append(logs / f"{number}.log", b"x%d\n" % number)
        follower.look()
    assert len(follower._files) <= 3
    for _ in range(4):
        for number in range(8):
            append(logs / f"{number}.log", b"y%d\n" % number)
        for _ in range(8):
            follower.look()
    for number in range(8):
        assert spooled(logs / f"{number}.log") == b"x%d\n" % number + b"y%d\n" % number * 4


def test_the_rest_is_read_when_the_game_has_ended(tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled) -> None:
    """By the thread, as it is used; whatever was written last is there."""
    follower = FileFollower([str(logs / "*.log")], spool, Redactor())
    follower.start()
    data = b"".join(b"%07d\n" % number for number in range(300_000))
    append(logs / "game.log", data)
    assert follower.finish(time.monotonic() + 20)
    assert spooled(logs / "game.log") == data
    assert FileFollower([], spool, Redactor()).finish(time.monotonic())


def test_a_file_that_grows_for_ever_does_not_hold_up_the_end(tmp_path: Path, logs: Path, spool: Spool) -> None:
    """Somebody whom the game left behind may write on."""
    follower = FileFollower([str(logs / "*.log")], spool, Redactor())
    monkey = follower.look
    follower.look = lambda: monkey() or True  # type: ignore[method-assign]  # there is always more
    follower.start()
    append(logs / "game.log", b"x")
    began = time.monotonic()
    follower.finish(began + 0.2)
    assert time.monotonic() - began < 10


def test_the_hole_of_a_truncated_file_is_left_out(tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled) -> None:
    """Copytruncate under a writer without O_APPEND, which goes on where it was."""
    path = logs / "a.log"
    follower = follow(tmp_path, spool)
    with path.open("wb", buffering=0) as file:
        file.write(b"before\n" * 100_000)
        while follower.look():
            pass
        os.truncate(path, 0)
        file.write(b"after\n")
        while follower.look():
            pass
    follower.finish(0)
    assert spooled(path) == b"before\n" * 100_000 + b"after\n"


def test_the_kernels_files_are_not_followed(tmp_path: Path, logs: Path, spool: Spool) -> None:
    """A link to the agent's own environment is no log file."""
    (logs / "a.log").symlink_to("/proc/self/environ")
    follower = follow(tmp_path, spool, since=0.0)
    follower.look()
    assert follower.bytes_read == 0


def test_another_process_goes_on_where_one_was_killed(
    tmp_path: Path, logs: Path, spool: Spool, spooled: Spooled
) -> None:
    """What it had kept is how far it had read; nothing is read twice, and nothing is left out."""
    kept: dict[str, str] = {}
    append(logs / "game.log", b"one\n")
    follow(tmp_path, spool, since=0.0, keep=kept.__setitem__).look()
    append(logs / "game.log", b"two\n")
    follow(tmp_path, spool, since=0.0, kept=kept).look()
    assert spooled(logs / "game.log") == b"one\ntwo\n"


def test_searches_that_cost_much_are_rare_and_said(tmp_path: Path, spool: Spool) -> None:
    """A fiftieth of a core at most, however many files a pattern means."""
    said: list[str] = []
    follower = FileFollower([str(tmp_path / "**")], spool, Redactor(), say=said.append)
    follower._bound(0.001)
    assert (follower._pause, said) == (0.5, [])
    follower._bound(0.4)
    follower._bound(0.5)
    assert follower._pause == 25.0
    assert len(said) == 1
    assert "every 20 s" in said[0]

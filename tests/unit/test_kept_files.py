"""Files of the container that are kept open between scrapes, and counters that two processes share."""

import os
import resource
from pathlib import Path

import pytest

from agent.logs.shared_counts import DROPPED, LOST_STDOUT, SHIPPED, SharedCounts
from agent.metrics.kept_files import KeptFiles


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("limit", [256, 1024])
def test_what_is_read_is_what_the_file_says_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Also where it is longer than one read; descriptors are kept only where there are enough of them."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    path = tmp_path / "memory.current"
    files, before = KeptFiles(), descriptors()
    assert files.text(str(path)) is None
    for content in ("1\n", "22\n", "", "x" * 40_000):
        path.write_text(content)
        assert files.whole_text(str(path)) == content
    assert descriptors() - before == (1 if limit == 1024 else 0)
    files.close()
    assert descriptors() == before
    assert files.text(str(path)) == "x" * 16384


def test_a_file_that_cannot_be_read_any_more_is_looked_for_again(tmp_path: Path) -> None:
    """As with the cgroup of a container that was removed, and made again by the same name."""
    path = tmp_path / "cpu.stat"
    path.write_text("old")
    files = KeptFiles()
    assert files.text(str(path)) == "old"
    (kept,) = files._open.values()
    directory = os.open(tmp_path, os.O_RDONLY)
    os.dup2(directory, kept)  # reading it fails
    os.close(directory)
    path.unlink()
    path.write_text("new")
    assert files.text(str(path)) == "new"
    files.close()


def test_a_forked_process_sees_the_counts_that_are_written_later() -> None:
    """All of their 64 bits, and each cell on its own."""
    counts = SharedCounts()
    assert counts.shared
    written, told = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.read(written[0], 1)
        os.write(told[1], f"{counts[SHIPPED]} {counts[DROPPED]} {counts[LOST_STDOUT]}".encode())
        os._exit(0)
    counts[SHIPPED] = 1 << 60
    counts.writer(LOST_STDOUT)(7)
    os.write(written[1], b"x")
    assert os.read(told[0], 100) == f"{1 << 60} 0 7".encode()
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (*written, *told):
        os.close(descriptor)

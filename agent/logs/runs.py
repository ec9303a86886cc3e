"""The directories of runs in the spool directory, and the segments in them. Standard library only, quick to import."""

import contextlib
import fcntl
import os

from agent.logs import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = ".open"  # a segment that is being written
DONE = ".seg"  # one that is closed
LOCK = "lock"
GAPS = "gaps"


class Segment:
    """A part of the log, complete in itself.

    Attributes:
        number: counts from 1 within its run; a missing number is a gap.
        path: its file, or None while it is in memory.
        size: bytes.
        since: when its first bytes were read, in nanoseconds since 1970.
        run: directory of the run that it belongs to.
        busy: whether it is being shipped; it is then the last to be dropped.
    """

    __slots__ = ("busy", "memory", "number", "path", "run", "since", "size")

    def __init__(self, number: int, run: str, path: "str | None" = None, size: int = 0, since: int = 0) -> None:
        """Takes what is known of it."""
        self.number = number
        self.run = run
        self.path = path
        self.size = size
        self.since = since
        self.memory: list[bytes] = []
        self.busy = False

    def pieces(self) -> "Iterator[bytes]":
        """Its bytes, for `frames.parse`; raises OSError when its file cannot be read."""
        if self.path is None:
            yield from list(self.memory)
        else:
            yield from frames.read_file(self.path)


def unlink(path: "str | None") -> None:
    """Deletes a file, if there is one."""
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def lock(run: str) -> int:
    """Locks a run's directory; -1 when its agent lives (or the directory cannot be used)."""
    try:
        fd = os.open(f"{run}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def all_runs(directory: str) -> "list[str]":
    """Directories of runs, oldest first."""
    try:
        names = sorted(name for name in os.listdir(directory) if name[:1].isdigit())
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if os.path.isdir(f"{directory}/{name}")]


def load(run: str) -> "tuple[list[Segment], dict[tuple[str, int], int]]":
    """The segments that a run left, and how many bytes it dropped before each."""
    found: list[Segment] = []
    gaps: dict[tuple[str, int], int] = {}
    try:
        for name in sorted(os.listdir(run)):
            base, dot, end = name.partition(".")
            if base.isdigit() and dot + end in (OPEN, DONE):
                path = f"{run}/{name}"
                size, since = _look(path)
                if size:
                    found.append(Segment(int(base), run, path, size, since))
                else:
                    unlink(path)
        with open(f"{run}/{GAPS}") as lines:
            for line in lines:
                number, _, size_text = line.strip().partition(" ")
                if number.isdigit() and size_text.isdigit():
                    gaps[(run, int(number))] = int(size_text)
    except OSError:
        pass
    return found, gaps


def _look(path: str) -> "tuple[int, int]":
    """Size of a segment and when its first bytes were read; size 0 when there is no whole frame in it."""
    with open(path, "rb") as file:
        first = file.read(frames.HEADER.size)
        size = os.fstat(file.fileno()).st_size
    if len(first) < frames.HEADER.size:
        return 0, 0
    return size, int(frames.HEADER.unpack(first)[4])


def save_gaps(run: str, gaps: "dict[int, int]") -> None:
    """Leaves word of what was dropped for whoever adopts the run."""
    try:
        with open(f"{run}/{GAPS}", "w") as file:
            file.writelines(f"{number} {size}\n" for number, size in gaps.items())
    except OSError:
        pass


def remove(run: str) -> None:
    """Deletes a run's directory; it has no sub-directories."""
    try:
        for name in os.listdir(run):
            if name != LOCK:
                unlink(f"{run}/{name}")
        unlink(f"{run}/{LOCK}")
        os.rmdir(run)
    except OSError:
        pass

"""The directories of runs in the spool directory, and the files in them. Standard library only, quick to import.

<spool directory>/20251124T081200Z-5f1e2d3c/     one run of an agent; its name sorts by time
    lock            held with flock() for as long as that agent lives; says which deployment it is
    000001.seg      closed segments
    000002.open     the one that is being written
    gaps            what was dropped before which segment
    parts.json      where in the store its segments go
    exit.json       how it ended
"""

import contextlib
import fcntl
import os

from agent.logs import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Parts: TypeAlias = list[tuple[int, str]]

OPEN = ".open"
DONE = ".seg"
_LOCK = "lock"
_GAPS = "gaps"
RUN = "run.json"
_PARTS = "parts.json"
EXIT = "exit.json"
_SHIPPED = "exit.shipped"
_ATTEMPTS = "attempts.json"
_REMEMBERED = 100  # deployments whose attempts are counted; one container sees one, a laptop many


class Segment:
    """A part of the log, complete in itself.

    Attributes:
        number: counts from 1 within its run; a missing number is a gap.
        run: directory of the run that it belongs to, whether it could be made or not.
        path: its file, or None while it is in memory.
        memory: its frames while they are in memory.
        size: bytes, with the headers of the frames.
        streams: bytes of the log in it by stream; empty for one of an earlier run, whose frames nobody has read yet.
        since: when its first bytes were read, in nanoseconds since 1970.
        busy: whether it is being shipped; it is then the last to be dropped.
    """

    __slots__ = ("busy", "memory", "number", "path", "run", "since", "size", "streams")

    def __init__(self, number: int, run: str, since: int, path: "str | None" = None, size: int = 0) -> None:
        """Makes the record; nothing is read."""
        self.number = number
        self.run = run
        self.since = since
        self.path = path
        self.size = size
        self.memory: list[bytes] = []
        self.streams: dict[str, int] = {}
        self.busy = False

    @property
    def log_bytes(self) -> int:
        """Bytes of the log in it; its size where that is all that is known."""
        return sum(self.streams.values()) or self.size

    def pieces(self) -> "Iterator[bytes]":
        """Its frames, for `frames.parse`; raises OSError when its file cannot be read."""
        if self.path is None:
            yield from list(self.memory)
        else:
            yield from frames.read_file(self.path)

    def discard(self) -> None:
        """Deletes its bytes."""
        self.memory = []
        unlink(self.path)


def make(directory: str, run_id: str, owner: str) -> int:
    """Makes the directory of a run, and locks it before anybody else can see it under a name to be adopted.

    Returns:
        The descriptor that holds the lock; -1 where the file system knows no locks.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    hidden, path = f"{directory}/.{run_id}", f"{directory}/{run_id}"
    os.mkdir(hidden, 0o700)
    fd = lock(hidden)
    if fd >= 0:
        os.write(fd, owner.encode("utf-8", "surrogateescape"))
    os.rename(hidden, path)
    return fd


def lock(run: str) -> int:
    """Locks a run's directory; -1 when its agent lives, or the directory cannot be used."""
    try:
        fd = os.open(f"{run}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def owner_of(run: str) -> str:
    """The deployment that a run belongs to; "" where that is not known."""
    try:
        with open(f"{run}/{_LOCK}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""


def all_runs(directory: str) -> "list[str]":
    """The directories of all runs, oldest first."""
    try:
        names = sorted(name for name in os.listdir(directory) if name[:1].isdigit())
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if os.path.isdir(f"{directory}/{name}")]


def load(run: str, *, clean: bool = True) -> "tuple[list[Segment], dict[int, int]]":
    """The segments in a run's directory, in order, and how many bytes were dropped before which number.

    Args:
        run: the directory.
        clean: whether to delete segments with nothing in them; not in a run that lives.
    """
    found: list[Segment] = []
    gaps: dict[int, int] = {}
    try:
        for name in sorted(os.listdir(run)):
            base, dot, end = name.partition(".")
            if base.isdigit() and dot + end in (OPEN, DONE):
                path = f"{run}/{name}"
                size, since = _look(path)
                if size:
                    found.append(Segment(int(base), run, since, path, size))
                elif clean:
                    unlink(path)
        with open(f"{run}/{_GAPS}") as lines:
            for line in lines:
                number, _, size_text = line.strip().partition(" ")
                if number.isdigit() and size_text.isdigit():
                    gaps[int(number)] = int(size_text)
    except OSError:
        pass
    return found, gaps


def save_gaps(run: str, gaps: "dict[int, int]") -> None:
    """Leaves word of what was dropped for whoever adopts the run."""
    try:
        with open(f"{run}/{_GAPS}", "w") as file:
            file.writelines(f"{number} {size}\n" for number, size in gaps.items())
    except OSError:
        pass


def write(directory: str, name: str, data: bytes) -> "str | None":
    """Writes a file as a whole or not at all.

    Returns:
        Its path, or None where it cannot be written.
    """
    path = f"{directory}/{name}"
    try:
        fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(f"{path}.tmp", path)
    except OSError:
        return None
    return path


def add_part(directory: str, first: int, key: str) -> "Parts":
    """Notes that the run's segments from number `first` on go to the store's directory `key`.

    One run has several parts where the game was started again: each start is an attempt with a directory of its own.

    Returns:
        All parts, in order.
    """
    import json  # noqa: PLC0415 - not on the way to the game

    known = [*(part for part in parts(directory) if part[0] < first), (first, key)]
    write(directory, _PARTS, json.dumps(known).encode() + b"\n")
    return known


def parts(directory: str) -> "Parts":
    """The first segment's number and the store's directory of each part of a run; empty where they are not known."""
    import json  # noqa: PLC0415 - not on the way to the game

    try:
        with open(f"{directory}/{_PARTS}", "rb") as file:
            return [(int(first), str(key)) for first, key in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []


def key_of(known: "Parts", number: int) -> str:
    """The store's directory for the segment with this number; there is at least one part."""
    return next((key for first, key in reversed(known) if first <= number), known[0][1])


def put_aside(directory: str) -> None:
    """Keeps the `exit.json` of an earlier attempt of this run beside the one that is to come."""
    with contextlib.suppress(OSError):
        number = 1 + sum(name.startswith("exit-") for name in os.listdir(directory))
        os.rename(f"{directory}/{EXIT}", f"{directory}/exit-{number}.json")
    with contextlib.suppress(OSError):
        os.unlink(f"{directory}/{_SHIPPED}")


def count_attempt(spool_directory: str, deployment_id: str) -> int:
    """Counts this run of the agent for a deployment; 1 where the count cannot be kept."""
    import json  # noqa: PLC0415 - not on the way to the game

    try:
        fd = os.open(f"{spool_directory}/{_ATTEMPTS}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return 1
    with os.fdopen(fd, "r+b") as file, contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            counts = {str(name): int(count) for name, count in json.loads(file.read() or b"{}").items()}
        except (ValueError, AttributeError, TypeError):
            counts = {}
        attempt = counts.pop(deployment_id, 0) + 1
        counts[deployment_id] = attempt
        file.seek(0)
        file.truncate()
        file.write(json.dumps(dict(list(counts.items())[-_REMEMBERED:])).encode())
        return attempt
    return 1


def unshipped_exit(directory: str) -> "bytes | None":
    """The `exit.json` of a run that did not get to ship it, or None."""
    if os.path.exists(f"{directory}/{_SHIPPED}"):
        return None
    try:
        with open(f"{directory}/{EXIT}", "rb") as file:
            return file.read()
    except OSError:
        return None


def mark_shipped(directory: str) -> None:
    """Notes that the store has the run's `exit.json`."""
    write(directory, _SHIPPED, b"")


def stale(spool_directory: str, runs: "list[str]", kept: int = 10) -> "list[str]":
    """Of these runs, the oldest ones beyond `kept`; all of those that left no `exit.json` to look at."""
    empty = [run for run in runs if not os.path.exists(f"{run}/{EXIT}")]
    rest = sorted(set(runs) - set(empty))
    return empty + rest[: max(0, len(rest) - kept)]


def remove(run: str) -> None:
    """Deletes a run's directory; it has no sub-directories."""
    try:
        names = os.listdir(run)
    except OSError:
        return
    for name in sorted(names, key=lambda name: name == _LOCK):  # the lock last
        unlink(f"{run}/{name}")
    with contextlib.suppress(OSError):
        os.rmdir(run)


def unlink(path: "str | None") -> None:
    """Deletes a file, if there is one."""
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _look(path: str) -> "tuple[int, int]":
    """Size of a segment and when its first bytes were read; size 0 when there is no whole frame in it."""
    with open(path, "rb") as file:
        first = file.read(frames.HEADER.size)
        size = os.fstat(file.fileno()).st_size
    if len(first) < frames.HEADER.size:
        return 0, 0
    return size, int(frames.HEADER.unpack(first)[4])

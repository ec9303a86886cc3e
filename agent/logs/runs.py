"""The directories of runs in the spool directory, and the files in them. Standard library only, quick to import.

<spool directory>/20251124T081200Z-5f1e2d3c/     one run of an agent; its name sorts by time
    lock            held with flock() while that agent is running; contains the deployment
    000001.seg      closed segments
    000002.open     the one that is being written
    gaps            how many bytes were dropped before which segment
    parts.json      which attempt its segments belong to
    000003.damaged  a segment that cannot be read, kept for analysis
    exit.json       how it ended
"""

import binascii
import contextlib
import errno
import fcntl
import os

from agent.logs import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
_DAMAGED = ".damaged"
_MOST = 1 << 31
_LARGEST = 1 << 20  # bytes of a small file
_REMEMBERED = 100  # deployments whose attempts are counted; a container has one, a laptop many


class Segment:
    """A part of the log, complete in itself.

    Attributes:
        number: counts from 1 within its run; a missing number is a gap.
        run: directory of the run that it belongs to, even if it could not be created.
        path: its file, or None while it is in memory.
        memory: its frames while they are in memory.
        size: bytes, with the headers of the frames.
        streams: bytes of the log in it by stream; empty for a segment of an earlier run, which was not parsed yet.
        since: when its first bytes were read, in nanoseconds since 1970.
        busy: whether it is being shipped; it is then the last to be dropped.
    """

    __slots__ = ("busy", "memory", "number", "path", "run", "since", "size", "streams")

    def __init__(self, number: int, run: str, since: int, path: "str | None" = None, size: int = 0) -> None:
        """Creates the record; reads nothing."""
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
        """Bytes of the log in it; its size if only that is known."""
        return sum(self.streams.values()) or self.size

    def pieces(self) -> "Iterator[bytes]":
        """Its frames, for `frames.parse`; raises OSError if its file cannot be read."""
        if self.path is None:
            yield from list(self.memory)
        else:
            yield from frames.read_file(self.path)

    def discard(self) -> None:
        """Deletes its bytes."""
        self.memory = []
        unlink(self.path)


def make(directory: str, run_id: str, owner: str) -> int:
    """Creates the directory of a run, and locks it before another agent can see and adopt it.

    Returns:
        The descriptor that holds the lock; -1 if the file system does not support locks.

    Raises:
        OSError: it cannot be created.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    _check_owner(directory)
    hidden, path = f"{directory}/.{run_id}", f"{directory}/{run_id}"
    with contextlib.suppress(FileExistsError):  # left by an attempt that failed halfway
        os.mkdir(hidden, 0o700)
    fd = lock(hidden)
    try:
        if fd >= 0:
            os.write(fd, owner.encode("utf-8", "surrogateescape"))
        os.rename(hidden, path)
    except OSError:
        if fd >= 0:
            os.close(fd)  # the next attempt could not lock it
        raise
    return fd


def _check_owner(directory: str) -> None:
    """Refuses a directory of another user, because its owner controls what would be read and shipped."""
    above = os.path.dirname(os.path.abspath(directory))
    own = [directory, *([above] if os.path.basename(above).startswith("arbitrium-agent-") else [])]
    for path in own:
        status = os.lstat(path)
        if status.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "it belongs to another user", path)


def identity(deployment_id: str, command: "Sequence[str]") -> str:
    """The owner of a run; only an agent with the same deployment and command adopts it."""
    words = "\0".join(command).encode("utf-8", "surrogateescape")
    return f"{deployment_id}\ncommand {binascii.crc32(words):08x}" if command else deployment_id


def lock(run: str) -> int:
    """Locks a run's directory; -1 if its agent is running, or the directory cannot be used."""
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
    """The owner of a run, as `identity` returned it for `make`; "" if unknown."""
    try:
        fd = os.open(f"{run}/{_LOCK}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_LARGEST).strip()
    except OSError:
        return ""


def all_runs(directory: str) -> "list[str]":
    """The directories of all runs, oldest first."""
    try:
        names = sorted(name for name in os.listdir(directory) if _is_run(name))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if os.path.isdir(f"{directory}/{name}")]


def _is_run(name: str) -> bool:
    """Whether this is a valid name of a run's directory, such as `20251124T081200Z-5f1e2d3c`."""
    time, _, end = name.partition("-")
    return len(time) == 16 and time[8] + time[15] == "TZ" and (time[:8] + time[9:15]).isdigit() and end.isalnum()


def load(run: str, *, clean: bool = True) -> "tuple[list[Segment], dict[int, int]]":
    """The segments in a run's directory, in order, and how many bytes were dropped before which number.

    Args:
        run: the directory.
        clean: whether to delete empty segments; not for a run that is still active.
    """
    found: list[Segment] = []
    gaps: dict[int, int] = {}
    try:
        names = sorted(os.listdir(run))
    except OSError:
        return found, gaps
    for name in names:
        base, dot, end = name.partition(".")
        if base.isascii() and base.isdigit() and len(base) < 10 and dot + end in (OPEN, DONE):
            path = f"{run}/{name}"
            try:
                size, since = _look(path)
            except OSError:
                continue
            if size:
                found.append(Segment(int(base), run, since, path, size))
            elif clean:
                unlink(path)
    with contextlib.suppress(OSError), open(f"{run}/{_GAPS}", "rb") as lines:
        for line in lines.read(_LARGEST).splitlines():
            number, _, size_text = line.strip().partition(b" ")
            if number.isdigit() and size_text.isdigit() and len(line) < 40:
                gaps[int(number)] = int(size_text)
    return found, gaps


def keep_damaged(segment: Segment) -> None:
    """Renames the file of a segment that cannot be shipped, so that it is not tried again."""
    if segment.path is not None:
        with contextlib.suppress(OSError):
            os.rename(segment.path, segment.path.rpartition(".")[0] + _DAMAGED)


def save_gaps(run: str, gaps: "dict[int, int]", length: int = 0) -> int:
    """Writes the gaps for an agent that adopts the run.

    Args:
        run: the directory of the run.
        gaps: bytes dropped right before the segment with this number.
        length: what the last call returned, so that nothing of what that one wrote remains.

    Returns:
        Bytes in the file.
    """
    text = "".join(f"{number} {size}\n" for number, size in gaps.items()).ljust(length, "\n")
    with contextlib.suppress(OSError):
        # A file object would make twice as many system calls, after each of which the thread waits for the reader's.
        # And no O_TRUNC: ext4 would write the file to the disk when it is closed (man 5 ext4, auto_da_alloc), and the
        # next call would wait for that (3 ms).
        fd = os.open(f"{run}/{_GAPS}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)
    return len(text)


def write(directory: str, name: str, data: bytes) -> "str | None":
    """Writes a file atomically.

    Returns:
        Its path, or None if it cannot be written.
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


def add_attempt(run: str, first: int, attempt: int) -> "list[tuple[int, int]]":
    """Records that the run's segments from number `first` on belong to this attempt.

    A run has several attempts if the game was restarted. Only numbers are stored, so that files in the spool cannot
    influence the place in the store in any other way.

    Returns:
        First segment and number of all attempts, in order.
    """
    import json  # noqa: PLC0415 - not on the way to the game

    known = [*(one for one in attempts(run) if one[0] < first), (first, attempt)]
    write(run, _PARTS, json.dumps(known).encode() + b"\n")
    return known


def attempts(run: str) -> "list[tuple[int, int]]":
    """First segment and number of each attempt of a run; empty if unknown, or if the file is damaged."""
    found = _load_json(f"{run}/{_PARTS}")
    if not isinstance(found, list) or not all(isinstance(one, list) and len(one) == 2 for one in found):
        return []
    pairs = [(_count(first), _count(attempt)) for first, attempt in found]
    return [(first, attempt) for first, attempt in pairs if first and attempt]


def _count(value: object) -> int:
    """A valid number of a segment or an attempt; 0 for everything else."""
    return value if isinstance(value, int) and 0 < value < _MOST else 0


def _load_json(path: str) -> object:
    """The content of a small JSON file; None if it cannot be read."""
    import json  # noqa: PLC0415 - not on the way to the game

    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            return json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None


def key_of(known: "Parts", number: int) -> str:
    """The store's directory for the segment with this number; there is at least one part."""
    return next((key for first, key in reversed(known) if first <= number), known[0][1])


def put_aside(directory: str) -> None:
    """Renames the `exit.json` of an earlier attempt of this run, before the next one is written."""
    with contextlib.suppress(OSError):
        number = 1 + sum(name.startswith("exit-") for name in os.listdir(directory))
        os.rename(f"{directory}/{EXIT}", f"{directory}/exit-{number}.json")
    with contextlib.suppress(OSError):
        os.unlink(f"{directory}/{_SHIPPED}")


def count_attempt(spool_directory: str, deployment_id: str) -> int:
    """Counts this run of the agent for a deployment; 1 if the count cannot be stored."""
    import json  # noqa: PLC0415 - not on the way to the game

    path = f"{spool_directory}/{_ATTEMPTS}"
    attempt = 1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        with os.fdopen(fd, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = _load_json(path)
            counts = {name: _count(count) for name, count in found.items()} if isinstance(found, dict) else {}
            attempt = counts.pop(deployment_id, 0) + 1
            counts[deployment_id] = attempt
            file.truncate()
            file.write(json.dumps(dict(list(counts.items())[-_REMEMBERED:])).encode())
    except OSError:  # also for errors of close(): a full disk may be reported only then
        pass
    return attempt


def unshipped_exit(directory: str) -> "bytes | None":
    """The `exit.json` of a run that could not ship it, or None."""
    if os.path.exists(f"{directory}/{_SHIPPED}"):
        return None
    try:
        with open(
            os.open(f"{directory}/{EXIT}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), "rb"
        ) as file:
            return file.read()
    except OSError:
        return None


def mark_shipped(directory: str) -> None:
    """Records that the store has the run's `exit.json`."""
    write(directory, _SHIPPED, b"")


def stale(spool_directory: str, runs: "list[str]", kept: int = 10) -> "list[str]":
    """The runs to delete: the oldest ones beyond `kept`, and all without an `exit.json`."""
    empty = [run for run in runs if not os.path.exists(f"{run}/{EXIT}") and not _has_damaged(run)]
    rest = sorted(set(runs) - set(empty))
    return empty + rest[: max(0, len(rest) - kept)]


def _has_damaged(run: str) -> bool:
    try:
        return any(name.endswith(_DAMAGED) for name in os.listdir(run))
    except OSError:
        return False


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
    """Size of a segment and when its first bytes were read; size 0 if it contains no complete frame."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        first = file.read(frames.HEADER.size)
        size = os.fstat(file.fileno()).st_size
    if len(first) < frames.HEADER.size:
        return 0, 0
    return size, int(frames.HEADER.unpack(first)[4])

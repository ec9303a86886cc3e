"""Writes segments: on disk, or in memory if the disk cannot be written. Standard library only, quick to import.

Only the spool's thread may call it.
"""

import contextlib
import errno
import os
import time

from agent.logs import frames, runs
from agent.logs.runs import Segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 4 * 1024 * 1024  # bytes kept in memory if the disk cannot be written
_DISK_AGAIN = 5.0  # seconds between attempts to use a disk that failed
_FILE_TRIES = 2  # a file is written once, at the end: what was missing for a moment may be there again
_BATCH = 512  # buffers written with one system call, two for each frame; 1024 is the most (IOV_MAX, man 2 writev)


class SegmentWriter:
    """Writes one run's segments, one after the other.

    Attributes:
        path: the run's directory, even if it could not be created.
        made: whether it exists.
        active: the segment that is being written, or None.
        problem: why the disk is not used now, in words; "" while it is.
        errors: how often the disk failed.
        seal_seconds: age at which even a small segment is closed, or None for never.
    """

    def __init__(
        self,
        directory: str,
        run_id: str,
        owner: str,
        segment_bytes: int,
        *,
        say: "Callable[[str], None]",
        sealed: "Callable[[Segment], None]",
        recovered: "Callable[[], None]",
    ) -> None:
        """Creates and locks the run's directory.

        Args:
            directory: the spool directory.
            run_id: name of the run's directory in it.
            owner: the deployment that it belongs to.
            segment_bytes: size at which a segment is closed.
            say: called with a message when the disk fails or works again.
            sealed: called with each closed segment.
            recovered: called when the disk works again.
        """
        self.path = f"{directory}/{run_id}"
        self.made = False
        self.active: Segment | None = None
        self.problem = ""
        self.errors = 0
        self.seal_seconds: float | None = None
        self._directory = directory
        self._run_id = run_id
        self._owner = owner
        self._segment_bytes = segment_bytes
        self._say = say
        self._sealed = sealed
        self._recovered = recovered
        self._number = 1
        self._since = 0.0
        self._fd = -1
        self._lock_fd = -1
        self._numbers: dict[str, int] = {}  # of the streams, in the active segment
        self._disk_again = 0.0
        self._make_run()

    @property
    def next_number(self) -> int:
        """The number of the segment that is being written, or of the next one."""
        return self.active.number if self.active is not None else self._number

    def write(self, batch: "list[tuple[int, str, bytes | memoryview]]") -> None:
        """Writes `(ts, stream, bytes)` in order, and closes segments as they become full."""
        pieces: list[bytes | memoryview] = []
        streams: dict[str, int] = {}
        for ts, stream, data in batch:
            rest = data
            while rest:
                if self.active is None:
                    self._begin(ts)
                number = self._numbers.get(stream)
                if number is None:
                    number = self._numbers[stream] = len(self._numbers) + 1
                    pieces += _name_frame(number, stream, ts)
                size = (self.active.size if self.active is not None else 0) + sum(map(len, pieces))
                limit = self._limit()
                full = size + len(rest) >= limit
                # If possible, a segment ends at the end of a line, so that few lines are divided between two segments.
                most = min(len(rest), max(limit - size, limit // 2)) if full else len(rest)
                cut = (bytes(rest[:most]).rfind(b"\n") + 1 if full else 0) or most
                part, rest = (rest, b"") if cut == len(rest) else (rest[:cut], rest[cut:])
                pieces += (frames.header(frames.DATA, number, len(part), ts), part)
                streams[stream] = streams.get(stream, 0) + len(part)
                if full or len(pieces) >= _BATCH:
                    self._append(pieces, streams)
                    pieces, streams = [], {}
                if full:
                    self.seal()
        if pieces:
            self._append(pieces, streams)

    def write_gap(self, dropped: int, why: str) -> None:
        """Writes a frame which says that bytes are missing here."""
        if self.active is None:
            self._begin(time.time_ns())
        self._append([frames.gap(dropped, why)], {})

    def due(self) -> "float | None":
        """Seconds until the open segment is old enough to be closed; None if age does not matter."""
        # A segment in memory is closed when the disk is tried again, so that the next one can be on disk.
        age = self.seal_seconds if self._fd >= 0 else _DISK_AGAIN
        if self.active is None or age is None:
            return None
        return max(0.0, self._since + age - time.monotonic())

    def seal(self) -> None:
        """Closes the open segment, if there is one."""
        segment, self.active = self.active, None
        if segment is None:
            return
        self._numbers.clear()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                # Removes a partly written frame (disk full); this needs no disk space.
                if os.fstat(fd).st_size != segment.size:
                    os.ftruncate(fd, segment.size)
            with contextlib.suppress(OSError):  # a full disk may be reported only now; the earlier frames are complete
                os.close(fd)
            done = f"{self.path}/{segment.number:06d}{runs.DONE}"
            try:
                os.rename(str(segment.path), done)
                segment.path = done
            except OSError as problem:
                self._fail(problem)
        if segment.size:
            self._sealed(segment)
        else:
            segment.discard()

    def move_to_disk(self, segment: Segment) -> bool:
        """Writes a closed segment that was held in memory; False if the disk fails again."""
        path = f"{self.path}/{segment.number:06d}{runs.DONE}"
        try:
            with open(path, "xb") as file:
                file.writelines(segment.memory)
        except OSError as problem:
            runs.unlink(path)
            self._fail(problem)
            return False
        segment.path, segment.memory = path, []
        return True

    def put_file(self, name: str, data: bytes) -> str:
        """Writes a small file next to the segments, atomically; an existing one is renamed.

        Returns:
            Why it could not be written; "" if it was.
        """
        why = ""
        for _ in range(_FILE_TRIES):
            if not (self.made and os.path.isdir(self.path)) and not self._make_run():
                why = self.problem
                continue
            try:
                self._put_file(name, data)
            except OSError as problem:
                self._fail(problem)
                why = _words(problem)
            else:
                return ""
        return why

    def _put_file(self, name: str, data: bytes) -> None:
        part = f"{self.path}/{name}.first"
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            runs.put_aside(self.path)
            os.rename(part, f"{self.path}/{name}")
        except OSError:
            runs.unlink(part)
            raise

    def release(self) -> None:
        """Unlocks the run: from now on a later agent may adopt it."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _append(self, pieces: "list[bytes | memoryview]", streams: "dict[str, int]") -> None:
        """Appends whole frames to the open segment, on disk or else in memory."""
        segment = self.active
        assert segment is not None, "a segment was begun"
        size = sum(map(len, pieces))
        if self._fd >= 0:
            try:
                if os.writev(self._fd, pieces) != size:
                    raise OSError(errno.ENOSPC, "written in part")
            except OSError as problem:
                # This segment ends here, and the next one, in memory, gets all of these frames.
                self._fail(problem)
                numbers = dict(self._numbers)
                self.seal()
                self._begin(time.time_ns())
                self._numbers = numbers
                segment = self.active
                assert segment is not None, "a segment was begun"
                names: list[bytes | memoryview] = [
                    part for stream, number in numbers.items() for part in _name_frame(number, stream, 0)
                ]
                pieces = names + pieces
                size = sum(map(len, pieces))
        if self._fd < 0:
            segment.memory += map(bytes, pieces)
        segment.size += size
        for stream, count in streams.items():
            segment.streams[stream] = segment.streams.get(stream, 0) + count

    def _limit(self) -> int:
        """Size at which the open segment is closed; smaller in memory, because the ring drops whole segments."""
        return self._segment_bytes if self._fd >= 0 else min(self._segment_bytes, MEMORY // 8)

    def _begin(self, ts: int) -> None:
        now = time.monotonic()
        segment = Segment(self._number, self.path, ts)
        if now >= self._disk_again and (self.made or self._make_run()):
            path = f"{self.path}/{self._number:06d}{runs.OPEN}"
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
                segment.path = path
            except OSError as problem:
                # The directory may have been deleted; the next segment creates a new one.
                self.made = os.path.isdir(self.path)
                self._fail(problem)
        self._number += 1
        self._since = now
        self.active = segment
        if segment.path is not None and self.problem:
            self.problem = ""
            self._say("the spool directory takes logs again")
            self._recovered()

    def _make_run(self) -> bool:
        try:
            fd = runs.make(self._directory, self._run_id, self._owner)
        except OSError as problem:
            self._fail(problem)
            return False
        self.release()
        self.made = True
        self._lock_fd = fd
        return True

    def _fail(self, problem: OSError) -> None:
        self.errors += 1
        self._disk_again = time.monotonic() + _DISK_AGAIN
        if not self.problem:
            self.problem = _words(problem)
            self._say(
                f"cannot write to the spool directory {self._directory}: {self.problem}; until it works again, the "
                f"last {MEMORY // 1024**2} MiB of log are kept in memory; make room or set AGENT_SPOOL_DIR"
            )


def _words(problem: OSError) -> str:
    return (problem.strerror or os.strerror(problem.errno or errno.EIO)).lower()


def _name_frame(number: int, stream: str, ts: int) -> "tuple[bytes, bytes]":
    name = stream.encode("utf-8", "surrogateescape")
    return frames.header(frames.NAME, number, len(name), ts), name

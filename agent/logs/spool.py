"""The spool: log bytes on disk that are not shipped yet. Standard library only, quick to import.

`append` only puts bytes into a short queue; a thread writes them, so that a disk that is slow, full, read-only or hangs
never reaches whoever reads the game's output. Where the disk does not take them, a small ring in memory does. Both are
bounded; what does not fit is dropped, oldest first, counted, and marked at its place in the log.

Every run of an agent has a directory of its own below the spool directory, locked with `flock` for as long as it
lives. Two agents never touch each other's; what a dead one left behind is adopted by a later one.
"""

import errno
import os
import threading
import time
from collections import deque

from agent.logs import frames, runs
from agent.logs.runs import Segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_QUEUE = 8 * 1024 * 1024  # bytes read from the game that the disk has not taken yet
_MEMORY = 4 * 1024 * 1024  # bytes kept in memory where the disk takes none
_SEGMENT = 4 * 1024 * 1024  # size at which a segment is closed
_DISK_AGAIN = 5.0  # seconds between attempts to use a disk that failed
_BATCH = 256  # frames written with one system call; each takes two of at most 1024 buffers (IOV_MAX, man 2 writev)


class Spool:
    """One run's spool, and what earlier runs left in the same directory.

    No method raises because of the disk, and none but `flush` and `close` waits for it.

    Attributes:
        directory: the spool directory.
        run: this run's own directory in it, or "" while it cannot be made.
        run_id: its name: the time it started and a random part. Sorts by time.
        max_bytes: what all segments together may take on disk.
        seal_seconds: age at which a segment is closed though it is small, or None for never.
        problem: why the disk is not used at present, in words; "" while it is.
    """

    def __init__(
        self,
        directory: str,
        max_bytes: int,
        *,
        segment_bytes: int = 0,
        say: "Callable[[str], None] | None" = None,
    ) -> None:
        """Makes and locks the run's directory; no thread is started before there is something to write.

        Args:
            directory: made if it is not there.
            max_bytes: bound of the bytes on disk; at least 64 KiB is used.
            segment_bytes: size at which a segment is closed; 0 chooses one that suits `max_bytes`.
            say: called with one line for people when the disk cannot be used, when it can again, and when something
                is dropped; from any thread.
        """
        self.directory = directory
        self.max_bytes = max(max_bytes, 65536)
        self.segment_bytes = segment_bytes or min(_SEGMENT, self.max_bytes // 8)
        self.seal_seconds: float | None = None
        self.problem = ""
        self.started_ns = time.time_ns()
        self.run_id = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.started_ns / 1e9)) + "-" + os.urandom(4).hex()
        self.run = ""
        self._say = say
        self._listener: Callable[[], None] | None = None
        self._lock = threading.Lock()  # guards what follows; never held while the disk is used
        self._changed = threading.Condition(self._lock)
        self._queue: deque[tuple[int, str, bytes]] = deque()
        self._queued = 0
        self._writing = False
        self._segments: list[Segment] = []  # closed ones, oldest first; those of earlier runs come first
        self._gaps: dict[tuple[str, int], int] = {}  # bytes dropped right before (run, number)
        self._lost_in_queue = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._seal_now = False
        self._counts = dict.fromkeys(
            ("bytes_in", "bytes_dropped", "segments_dropped", "bytes_shipped", "segments_shipped", "disk_errors"), 0
        )
        # Owned by the writing thread.
        self._number = 1
        self._active: Segment | None = None
        self._active_since = 0.0
        self._fd = -1
        self._streams: dict[str, int] = {}
        self._disk_again = 0.0
        self._locked: dict[str, int] = {}  # run directory: descriptor of its lock
        self._make_run()

    # For whoever reads the game's output -----------------------------------------------------------------------------

    def append(self, stream: str, data: bytes, ts: "int | None" = None) -> None:
        """Takes bytes of a stream; cheap, and never waits for the disk.

        Args:
            stream: its name: `stdout`, `stderr`, `agent`, or the path of a file.
            data: redacted bytes; kept as they are.
            ts: when they were read, in nanoseconds since 1970; now by default.
        """
        if not data:
            return
        with self._changed:
            self._queue.append((time.time_ns() if ts is None else ts, stream, data))
            self._queued += len(data)
            self._counts["bytes_in"] += len(data)
            while self._queued > _QUEUE and len(self._queue) > 1:
                lost = len(self._queue.popleft()[2])
                self._queued -= lost
                self._lost_in_queue += lost
                self._counts["bytes_dropped"] += lost
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
                self._thread.start()
            else:
                self._changed.notify_all()

    def counters(self) -> "dict[str, int]":
        """What happened so far: bytes and segments in, dropped, shipped; and `bytes_held`, `segments_held` now."""
        with self._lock:
            held = sum(segment.size for segment in self._segments) + (self._active.size if self._active else 0)
            return {**self._counts, "bytes_held": held + self._queued, "segments_held": len(self._segments)}

    # For whoever ships -----------------------------------------------------------------------------------------------

    def listen(self, listener: "Callable[[], None] | None") -> None:
        """Calls `listener()` from the writing thread whenever a segment was closed; None ends that."""
        self._listener = listener

    def segments(self) -> "list[Segment]":
        """The closed segments that are still held, oldest first."""
        with self._lock:
            return list(self._segments)

    def dropped_before(self, segment: Segment) -> int:
        """How many bytes were dropped right before this segment."""
        with self._lock:
            return self._gaps.get((segment.run, segment.number), 0)

    def confirm(self, segment: Segment) -> None:
        """The store has it: it is deleted here."""
        with self._lock:
            if segment in self._segments:
                self._segments.remove(segment)
                self._counts["bytes_shipped"] += segment.size
                self._counts["segments_shipped"] += 1
            self._gaps.pop((segment.run, segment.number), None)
        segment.memory = []
        runs.unlink(segment.path)

    def forget(self, segment: Segment) -> None:
        """It cannot be read any more (its file was deleted or damaged): counted as dropped."""
        with self._lock:
            if segment in self._segments:
                self._drop(segment)

    def seal(self) -> None:
        """Asks for the segment that is being written to be closed now; `flush` waits until it is."""
        with self._changed:
            self._seal_now = True
            self._changed.notify_all()

    def flush(self, deadline: float) -> bool:
        """Waits until everything appended so far is on disk (or in the ring) and what `seal` asked for is done.

        Args:
            deadline: seconds of the monotonic clock.

        Returns:
            False when the deadline came first: the disk hangs.
        """
        with self._changed:
            while self._queue or self._writing or (self._seal_now and self._thread is not None):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def adopt(self) -> "list[str]":
        """Takes over what runs that are over left in the spool directory.

        Their segments count towards `max_bytes` and are dropped first. Nothing of a run that lives is touched.

        Returns:
            The directories of these runs, oldest first.
        """
        adopted = []
        for path in runs.all_runs(self.directory):
            if path == self.run or path in self._locked:
                continue
            fd = runs.lock(path)
            if fd < 0:
                continue
            self._locked[path] = fd
            found, gaps = runs.load(path)
            adopted.append(path)
            with self._lock:
                own = next(
                    (i for i, segment in enumerate(self._segments) if segment.run == self.run), len(self._segments)
                )
                self._segments[own:own] = found
                self._gaps.update(gaps)
                doomed = self._excess()
            self._delete(doomed)
        return adopted

    def release(self, run: str, *, delete: bool) -> None:
        """Lets go of an adopted run, and deletes its directory where nothing in it is needed any more."""
        fd = self._locked.pop(run, -1)
        if delete:
            runs.remove(run)
        if fd >= 0:
            os.close(fd)

    def close(self, deadline: float) -> bool:
        """Writes what is queued, closes the segment, ends the thread and unlocks the run.

        Args:
            deadline: seconds of the monotonic clock; a disk that hangs is not waited for any longer.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                return False
        for fd in self._locked.values():
            os.close(fd)
        self._locked.clear()
        return True

    # The writing thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._seal_now and not self._closing:
                    if not self._changed.wait(self._until_sealed()):
                        break
                batch = list(self._queue)
                self._queue.clear()
                self._queued = 0
                self._writing = bool(batch)
                lost, self._lost_in_queue = self._lost_in_queue, 0
                seal, closing = self._seal_now, self._closing
            if lost:
                self._complain(
                    f"cannot keep up: the disk is slower than the game writes; {lost} bytes of log are dropped"
                )
                if self._active is None:
                    self._begin(time.time_ns())
                self._write([frames.gap(lost, "the disk was slower than the game wrote")])
            self._store(batch)
            if seal or closing or self._until_sealed() == 0:
                self._seal()
            with self._changed:
                self._writing = False
                if seal:
                    self._seal_now = False
                self._changed.notify_all()
                if closing and not self._queue:
                    return

    def _until_sealed(self) -> "float | None":
        """Seconds until the open segment is old enough to be closed; None when no time does that."""
        # What is in memory is closed when the disk is tried again, so that the next segment can be on disk.
        age = self.seal_seconds if self._fd >= 0 else _DISK_AGAIN
        if self._active is None or age is None:
            return None
        return max(0.0, self._active_since + age - time.monotonic())

    def _store(self, batch: "list[tuple[int, str, bytes]]") -> None:
        pieces: list[bytes] = []
        size = 0
        for ts, stream, data in batch:
            rest = data
            while rest:
                if self._active is None:
                    self._begin(ts)
                number = self._streams.get(stream)
                if number is None:
                    number = self._streams[stream] = len(self._streams) + 1
                    name = stream.encode("utf-8", "surrogateescape")
                    pieces += (frames.header(frames.NAME, number, len(name), ts), name)
                    size += frames.HEADER.size + len(name)
                full = self._size() + size + frames.HEADER.size + len(rest) >= self._limit()
                # A segment ends with a line where it can, so that few lines are in two.
                cut = (rest.rfind(b"\n") + 1 if full else 0) or len(rest)
                part, rest = (rest, b"") if cut == len(rest) else (rest[:cut], rest[cut:])
                pieces += (frames.header(frames.DATA, number, len(part), ts), part)
                size += frames.HEADER.size + len(part)
                if full or len(pieces) >= _BATCH:
                    self._write(pieces)
                    pieces, size = [], 0
                if full:
                    self._seal()
        if pieces:
            self._write(pieces)

    def _size(self) -> int:
        return self._active.size if self._active is not None else 0

    def _limit(self) -> int:
        """Size at which the open segment is closed; in memory a small one, as the ring drops whole segments."""
        return self.segment_bytes if self._fd >= 0 else min(self.segment_bytes, _MEMORY // 8)

    def _write(self, pieces: "list[bytes]") -> None:
        """Appends whole frames to the open segment, on disk or else in memory."""
        segment = self._active
        assert segment is not None, "a segment was begun"
        size = sum(map(len, pieces))
        if self._fd >= 0:
            try:
                if os.writev(self._fd, pieces) != size:
                    raise OSError(errno.ENOSPC, "written in part")
            except OSError as problem:
                # These frames go to the next segment as a whole, which is in memory; this one ends before them.
                self._fail(problem)
                streams = dict(self._streams)
                self._seal()
                self._begin(time.time_ns())
                self._streams = streams
                segment = self._active
                assert segment is not None, "a segment was begun"
                names = [(number, name.encode("utf-8", "surrogateescape")) for name, number in streams.items()]
                again = [part for n, name in names for part in (frames.header(frames.NAME, n, len(name), 0), name)]
                pieces = again + pieces
                size += sum(map(len, again))
        if self._fd < 0:
            segment.memory += pieces
        with self._lock:
            segment.size += size

    def _begin(self, ts: int) -> None:
        now = time.monotonic()
        segment = Segment(self._number, self.run, since=ts)
        if now >= self._disk_again and (self.run or self._make_run()):
            segment.run = self.run
            path = f"{self.run}/{self._number:06d}{runs.OPEN}"
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
                segment.path = path
            except OSError as problem:
                if problem.errno == errno.ENOENT:
                    self.run = ""  # somebody deleted it; the next segment makes a new one
                self._fail(problem)
        if segment.path is not None and self.problem:
            self.problem = ""
            self._complain("the spool directory takes logs again")
            self._spill()
        self._number += 1
        self._active_since = now
        with self._lock:
            self._active = segment

    def _spill(self) -> None:
        """Moves what had to stay in memory to the disk, which works again."""
        for segment in [segment for segment in self.segments() if segment.path is None and not segment.busy]:
            path = f"{self.run}/{segment.number:06d}{runs.DONE}"
            try:
                with open(path, "xb") as file:
                    file.writelines(segment.memory)
            except OSError as problem:
                runs.unlink(path)
                self._fail(problem)
                return
            with self._lock:
                segment.path = path
            segment.memory = []

    def _fail(self, problem: OSError) -> None:
        with self._lock:
            self._counts["disk_errors"] += 1
        self._disk_again = time.monotonic() + _DISK_AGAIN
        if not self.problem:
            self.problem = os.strerror(problem.errno or errno.EIO).lower()
            self._complain(
                f"cannot write to the spool directory {self.directory}: {self.problem}; the last "
                f"{_MEMORY // 1024**2} MiB of log are kept in memory until it works again; "
                "make room or set AGENT_SPOOL_DIR"
            )

    def _seal(self) -> None:
        segment = self._active
        if segment is None:
            return
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                # A frame that was written in part (disk full) is cut off; this takes no space.
                if os.fstat(fd).st_size != segment.size:
                    os.ftruncate(fd, segment.size)
            except OSError:
                pass
            os.close(fd)
            done = f"{segment.run}/{segment.number:06d}{runs.DONE}"
            try:
                os.rename(str(segment.path), done)
                segment.path = done
            except OSError as problem:
                self._fail(problem)
        with self._lock:
            self._active = None
            self._streams.clear()
            if segment.size:
                self._segments.append(segment)
            doomed = self._excess()
        if not segment.size:
            runs.unlink(segment.path)
        self._delete(doomed)
        if self._listener is not None:
            self._listener()

    def _excess(self) -> "list[Segment]":
        """Takes the oldest segments out until the bounds are kept; called with the lock held."""
        doomed: list[Segment] = []
        for on_disk, bound in ((True, self.max_bytes - self.segment_bytes), (False, _MEMORY)):
            kind = [segment for segment in self._segments if (segment.path is not None) is on_disk]
            total = sum(segment.size for segment in kind)
            for segment in sorted(
                kind, key=lambda segment: segment.busy
            ):  # stable: the oldest that is not busy is first
                if total <= bound:
                    break
                total -= segment.size
                self._drop(segment)
                doomed.append(segment)
        return doomed

    def _drop(self, segment: Segment) -> None:
        """Counts a segment as dropped and moves the gap to the one behind it; called with the lock held."""
        at = self._segments.index(segment)
        self._segments.remove(segment)
        gap = self._gaps.pop((segment.run, segment.number), 0) + segment.size
        later = self._segments[at] if at < len(self._segments) else None
        # Behind the last one of an earlier run there is nothing: the gap is told before the next run's first segment.
        key = (later.run, later.number) if later is not None else (self.run, self._number - (self._active is not None))
        self._gaps[key] = self._gaps.get(key, 0) + gap
        self._counts["bytes_dropped"] += segment.size
        self._counts["segments_dropped"] += 1

    def _delete(self, doomed: "list[Segment]") -> None:
        for segment in doomed:
            segment.memory = []
            runs.unlink(segment.path)
        for run in {segment.run for segment in doomed if segment.run}:
            with self._lock:
                gaps = {number: size for (gap_run, number), size in self._gaps.items() if gap_run == run}
            runs.save_gaps(run, gaps)

    def _make_run(self) -> bool:
        """Makes this run's directory and locks it, before anybody else can see it under a name to be adopted."""
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            hidden, path = f"{self.directory}/.{self.run_id}", f"{self.directory}/{self.run_id}"
            os.mkdir(hidden, 0o700)
            fd = runs.lock(hidden)
            os.rename(hidden, path)
        except OSError as problem:
            self._fail(problem)
            return False
        self.run = path
        if fd >= 0:
            self._locked[path] = fd
        return True

    def _complain(self, text: str) -> None:
        if self._say is not None:
            self._say(text)

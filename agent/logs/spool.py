"""The spool: log bytes on disk that are not shipped yet. Standard library only, quick to import.

`append` only puts bytes into a short queue, and a thread writes them, so that a slow, full, read-only or hanging disk
never blocks the reader of the game's output. If the disk cannot be written, a small ring buffer in memory is used. Both
are bounded; bytes that do not fit are dropped, oldest first, counted, and marked at their place in the log.

Every run of an agent has a separate directory below the spool directory, locked with `flock` while the agent is
running. Agents never touch each other's directories; a later agent adopts the segments of one that has ended (see
`agent.logs.earlier_runs`).
"""

import contextlib
import os
import threading
import time
from collections import deque

from agent.logs import runs
from agent.logs.runs import Segment
from agent.logs.shared_counts import DROPPED, SHIPPED, SharedCounts
from agent.logs.writer import MEMORY, SegmentWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUEUE = 8 * 1024 * 1024  # bytes read from the game and not written to the disk yet
_SEGMENT = 4 * 1024 * 1024  # size at which a segment is closed
_TOO_SLOW = "the disk was slower than the game wrote"
_SAY_AGAIN = 60.0  # seconds between two messages about the same problem


class Spool:
    """One run's spool.

    No method raises because of the disk, and only `flush` and `close` wait for it.

    Attributes:
        directory: the spool directory.
        run_id: name of this run's own directory in it: the time it started and a random part. Sorts by time.
        max_bytes: limit for all segments together on disk.
        started_ns: when this run started, in nanoseconds since 1970.
        owner: the deployment and command that it belongs to, as `runs.identity` writes them.
        unwritten: why a file of `put_file` could not be written, by name; "" for one that was.
    """

    def __init__(
        self,
        directory: str,
        max_bytes: int,
        *,
        segment_bytes: int = 0,
        queue_bytes: int = QUEUE,
        deployment_id: "str | None" = None,
        command: "Sequence[str]" = (),
        say: "Callable[[str], None] | None" = None,
        counts: "SharedCounts | None" = None,
    ) -> None:
        """Creates and locks the run's directory; starts no thread until there is something to write.

        Args:
            directory: created if it does not exist.
            max_bytes: limit of the bytes on disk; at least 64 KiB.
            segment_bytes: size at which a segment is closed; 0 chooses one that suits `max_bytes`.
            queue_bytes: limit of the bytes that wait for the disk.
            deployment_id: the deployment that the run belongs to, checked on adoption; by default the one that the
                platform injected (`ARBITRIUM_REQUEST_ID`).
            command: the game's program and arguments; runs of other commands on the same disk are not adopted.
            say: called with a message when the disk cannot be used, when it works again, and when bytes are
                dropped; from any thread.
            counts: where to write how many bytes were shipped and dropped.
        """
        self.directory = directory
        self.max_bytes = max(max_bytes, 65536)
        self.started_ns = time.time_ns()
        self.run_id = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.started_ns / 1e9)) + "-" + os.urandom(4).hex()
        self._segment_bytes = segment_bytes or min(_SEGMENT, self.max_bytes // 8)
        self._say = say or (lambda _: None)
        self._said_at = -_SAY_AGAIN
        self._listener: Callable[[], None] | None = None
        # Protects the attributes below; never held while the disk is used.
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[tuple[int, str, bytes | memoryview]] = deque()
        self._queued = 0
        self._most_queued = queue_bytes
        self.unwritten: dict[str, str] = {}
        self._files: list[tuple[str, bytes]] = []  # to be written beside the segments
        self.advice = "set AGENT_LOG_URL or AGENT_SPOOL_MAX"
        self._writing = False
        self._segments: list[Segment] = []  # closed ones, oldest first
        self._gaps: dict[int, int] = {}  # bytes dropped right before the segment with this number
        self._gaps_length = 0  # bytes of the file that says so
        self._lost_in_queue = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._here = False  # whether `flush` writes itself, for want of a thread
        self._seal_now = False
        self._received: dict[str, int] = {}
        self._shipped: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._counts = counts or SharedCounts()
        self._segments_shipped = 0
        self._segments_dropped = 0
        deployment = os.environ.get("ARBITRIUM_REQUEST_ID", "") if deployment_id is None else deployment_id
        self.owner = runs.identity(deployment, command)
        self._writer = SegmentWriter(
            directory,
            self.run_id,
            self.owner,
            self._segment_bytes,
            say=self._say,
            sealed=self._take_in,
            recovered=self._move_to_disk,
        )

    @property
    def run(self) -> str:
        """This run's own directory, even if it could not be created."""
        return self._writer.path

    @property
    def next_number(self) -> int:
        """The number of the segment that is being written, or of the next one."""
        return self._writer.next_number

    @property
    def problem(self) -> str:
        """Why the disk is not used now, in words; "" while it is."""
        return self._writer.problem

    # For the reader of the game's output -----------------------------------------------------------------------------

    def append(self, stream: str, data: "bytes | memoryview", ts: "int | None" = None) -> None:
        """Adds bytes of a stream; cheap, and never waits for the disk.

        Args:
            stream: its name: `stdout`, `stderr`, `agent`, or the path of a file.
            data: redacted bytes; stored unchanged.
            ts: when they were read, in nanoseconds since 1970; now by default.
        """
        if not data:
            return
        with self._changed:
            self._queue.append((time.time_ns() if ts is None else ts, stream, data))
            self._queued += len(data)
            _add(self._received, stream, len(data))
            while self._queued > self._most_queued and len(self._queue) > 1:
                _, lost_stream, lost = self._queue.popleft()
                self._queued -= len(lost)
                self._lost_in_queue += len(lost)
                self._count_dropped(lost_stream, len(lost))
            self._start()
            self._changed.notify_all()

    def put_file(self, name: str, data: bytes) -> None:
        """Writes a file next to the segments, atomically; an existing one is renamed. `flush` waits for it."""
        with self._changed:
            self.unwritten[name] = "the disk did not take it in time"
            self._files.append((name, data))
            self._start()
            self._changed.notify_all()

    def _start(self) -> None:
        """Starts the thread if it is not running; called with the lock held."""
        if self._thread is None and not self._closing and not self._here:
            thread = threading.Thread(target=self._run, name="spool", daemon=True)
            # No more threads at present (pids limit): tried again next time.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    # For the counters ------------------------------------------------------------------------------------------------

    def counters(self) -> "dict[str, int]":
        """Bytes of log and segments so far: received, shipped, dropped; and those held now."""
        with self._changed:
            return {
                "bytes_in": sum(self._received.values()),
                "bytes_shipped": sum(self._shipped.values()),
                "bytes_dropped": sum(self._dropped.values()),
                "bytes_held": self._queued + self._active_size() + sum(segment.size for segment in self._segments),
                "segments_shipped": self._segments_shipped,
                "segments_dropped": self._segments_dropped,
                "segments_held": len(self._segments),
                "disk_errors": self._writer.errors,
            }

    def by_stream(self) -> "dict[str, tuple[int, int, int]]":
        """`(received, shipped, dropped)` bytes of log by stream."""
        with self._changed:
            names = {**self._received, **self._shipped, **self._dropped}
            return {
                name: (self._received.get(name, 0), self._shipped.get(name, 0), self._dropped.get(name, 0))
                for name in names
            }

    # For shipping ----------------------------------------------------------------------------------------------------

    def seal_after(self, seconds: "float | None") -> None:
        """Closes even small segments at this age; None for never."""
        self._writer.seal_seconds = seconds
        with self._changed:
            self._changed.notify_all()

    def listen(self, listener: "Callable[[], None] | None") -> None:
        """Calls `listener()` from the writing thread after each closed segment; None ends that."""
        self._listener = listener

    def segments(self) -> "list[Segment]":
        """The closed segments that are still held, oldest first."""
        with self._changed:
            return list(self._segments)

    def dropped_before(self, segment: Segment) -> int:
        """How many bytes were dropped right before this segment."""
        with self._changed:
            return self._gaps.get(segment.number, 0)

    def confirm(self, segment: Segment) -> None:
        """The store has confirmed the segment: deletes it."""
        with self._changed:
            if segment in self._segments:
                self._segments.remove(segment)
                self._segments_shipped += 1
                for stream, size in segment.streams.items():
                    _add(self._shipped, stream, size)
                self._counts[SHIPPED] = sum(self._shipped.values())
            self._gaps.pop(segment.number, None)
        segment.discard()

    def forget(self, segment: Segment) -> None:
        """The segment cannot be read any more (its file was deleted or damaged): counts it as dropped."""
        with self._changed:
            if segment in self._segments:
                self._drop(segment)

    def seal(self) -> None:
        """Asks the thread to close the current segment now; `flush` waits for it."""
        with self._changed:
            self._seal_now = True
            self._changed.notify_all()

    def flush(self, deadline: float) -> bool:
        """Waits until everything appended so far is on disk (or in the ring) and `seal` is done.

        Args:
            deadline: seconds of the monotonic clock.

        Returns:
            False if the deadline came first: the disk hangs.
        """
        with self._changed:
            waits = bool(self._queue or self._files)
            if waits:
                self._start()
            self._here = alone = waits and self._thread is None
        if alone:  # no thread is to be had (pids limit): it is written here, whatever the disk takes for it
            self._write_what_waits()
            self._here = False
        with self._changed:
            while self._thread is not None and (self._queue or self._files or self._writing or self._seal_now):
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._changed.wait(min(left, 1.0))
            return True

    def close(self, deadline: float) -> bool:
        """Writes what is queued, closes the segment, ends the thread and unlocks the run.

        Args:
            deadline: seconds of the monotonic clock, for a disk that hangs.

        Returns:
            Whether all of this was done.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                return False
        self._writer.release()
        return True

    # The writing thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._files and not self._seal_now and not self._closing:
                    if not self._changed.wait(self._writer.due()):
                        break
            if self._write_what_waits():
                return

    def _write_what_waits(self) -> bool:
        """One round of writing; whether it was the last one."""
        with self._changed:
            batch = list(self._queue)
            self._queue.clear()
            files, self._files = self._files, []
            self._queued = 0
            self._writing = True
            lost, self._lost_in_queue = self._lost_in_queue, 0
            seal, closing = self._seal_now, self._closing
        try:
            if lost:
                self._complain(f"cannot keep {lost} bytes of log: {_TOO_SLOW}; they are dropped")
                self._writer.write_gap(lost, _TOO_SLOW)
            self._writer.write(batch)
            for name, data in files:
                self.unwritten[name] = self._writer.put_file(name, data)
            if seal or closing or self._writer.due() == 0:
                self._writer.seal()
        except Exception as problem:  # whatever the error, this thread must go on: the next bytes may succeed
            self._complain(f"cannot keep a part of the log ({type(problem).__name__}: {problem}); please report this")
        with self._changed:
            self._writing = False
            if seal:
                self._seal_now = False
            self._changed.notify_all()
            return closing and not self._queue

    def _take_in(self, segment: Segment) -> None:
        """A segment was closed."""
        with self._changed:
            self._segments.append(segment)
            doomed = self._excess()
        self._delete(doomed)
        listener = self._listener
        if listener is not None:
            listener()

    def _move_to_disk(self) -> None:
        for segment in self.segments():
            if segment.path is None and not segment.busy and not self._writer.move_to_disk(segment):
                return

    # Bounds ----------------------------------------------------------------------------------------------------------

    def _active_size(self) -> int:
        active = self._writer.active
        return active.size if active is not None else 0

    def _excess(self) -> "list[Segment]":
        """Removes the oldest segments until the limits are met; called with the lock held."""
        doomed: list[Segment] = []
        for on_disk, bound in ((True, self.max_bytes - self._segment_bytes), (False, MEMORY)):
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
        """Counts a segment as dropped and records the gap before the next one; called with the lock held."""
        at = self._segments.index(segment)
        self._segments.remove(segment)
        gap = self._gaps.pop(segment.number, 0) + segment.log_bytes
        later = self._segments[at].number if at < len(self._segments) else self._writer.next_number
        self._gaps[later] = self._gaps.get(later, 0) + gap
        self._segments_dropped += 1
        for stream, size in segment.streams.items():
            self._count_dropped(stream, size)

    def _count_dropped(self, stream: str, size: int) -> None:
        _add(self._dropped, stream, size)
        self._counts[DROPPED] = sum(self._dropped.values())

    def _delete(self, doomed: "list[Segment]") -> None:
        if not doomed:
            return
        for segment in doomed:
            segment.discard()
        if self._listener is not None:
            self._listener()
        with self._changed:
            gaps = dict(self._gaps)
        self._gaps_length = runs.save_gaps(self.run, gaps, self._gaps_length)
        self._complain(
            f"cannot keep all of the log: the spool is full, and {len(doomed)} of its oldest segments "
            f"({sum(segment.log_bytes for segment in doomed)} bytes) are dropped; {self.advice}"
        )

    def _complain(self, text: str) -> None:
        """Says it at most once a minute: a spool that overflows does so many times a second."""
        now = time.monotonic()
        if now - self._said_at >= _SAY_AGAIN:
            self._said_at = now
            self._say(text)


def _add(counts: "dict[str, int]", name: str, size: int) -> None:
    counts[name] = counts.get(name, 0) + size

"""The agent's view of the spool: the segments that the init has closed, and those of earlier runs on the same disk."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

from agent import log
from agent.errors import AgentError
from agent.link.messages import (
    CountersAsked,
    LogAppended,
    SealAfter,
    SegmentAsked,
    SegmentClosed,
    SegmentsDropped,
    SegmentState,
    SpoolFlushAsked,
)
from agent.logs import frames, runs
from agent.logs.earlier_runs import EarlierRuns
from agent.logs.runs import Segment
from agent.logs.writer import MEMORY
from agent.runtime.link import Link

_ASK_SECONDS = 10.0
# Segments that the store has confirmed, but that the second reader still needs, may take the first share of the spool,
# if together with the unconfirmed ones they take no more than the second: the init drops the rest, and counts it as
# lost.
_CONFIRMED_SHARE = 1 / 4
_FULL_SHARE = 3 / 4


class RemoteSegment(Segment):
    """A segment of the init's run; the init is told while it is being shipped, because it drops such segments last."""

    __slots__ = ("_busy", "_link", "dropped_before")

    def __init__(self, run: str, closed: SegmentClosed, link: Link) -> None:
        """Takes the init's data about the segment."""
        self._link = link
        self._busy = False
        super().__init__(closed.number, run, closed.since, closed.path, closed.size)
        self.streams = json.loads(closed.streams)
        self.dropped_before = closed.dropped_before

    @property
    def busy(self) -> bool:
        """Whether it is being shipped."""
        return self._busy

    @busy.setter
    def busy(self, busy: bool) -> None:
        if busy != self._busy:
            self._busy = busy
            self._link.send(SegmentState(self.number, "busy" if busy else "idle"))

    def pieces(self) -> Iterator[bytes]:
        """Its frames; called in a thread, because it waits for the init if they are in its memory."""
        if self.path is None:
            try:
                path, data = self._link.ask_from_thread(lambda ask: SegmentAsked(ask, self.number), _ASK_SECONDS)
            except (TimeoutError, AgentError) as problem:
                raise OSError(f"segment {self.number} cannot be read from the init: {problem}") from None
            if path is None:
                yield data
                return
            self.path = path  # the disk takes segments again
        yield from frames.read_file(str(self.path))


class RemoteSpool:
    """The interface of a spool for the shipper; see `agent.logs.spool.Spool` for each member.

    Attributes:
        directory, run, run_id, started_ns: of the init's run.
        next_number: number of the first segment of this attempt.
    """

    def __init__(
        self,
        link: Link,
        *,
        directory: str,
        run_id: str,
        started_ns: int,
        next_number: int,
        max_bytes: int,
        owner: str,
        segments: list[SegmentClosed],
    ) -> None:
        """Takes the init's data at the time when the agent was forked."""
        self.directory = directory
        self.run_id = run_id
        self.run = f"{directory}/{run_id}"
        self.started_ns = started_ns
        self.next_number = next_number
        self._max_bytes = max_bytes
        self._link = link
        self._listener: Callable[[], None] | None = None
        self._tap: Callable[[Segment], None] | None = None
        # Segments that the second reader still needs, and those of them that the store has already confirmed.
        self._needed: set[int] = set()
        self._confirmed: dict[int, RemoteSegment] = {}
        self._needing = threading.Lock()  # segments are confirmed in another thread
        self._own = {one.number: RemoteSegment(self.run, one, link) for one in segments}
        self._earlier = EarlierRuns(directory, self.run, owner)
        self._counters: dict[str, int] = {}
        link.handle(SegmentClosed, self._on_closed)
        link.handle(SegmentsDropped, self._on_dropped)

    # From the init ---------------------------------------------------------------------------------------------------

    def _on_closed(self, message: SegmentClosed, _payload: bytes) -> None:
        self._own[message.number] = segment = RemoteSegment(self.run, message, self._link)
        self.next_number = max(self.next_number, message.number + 1)
        self._bound()
        self._bound_confirmed()
        if self._tap is not None:
            self._needed.add(segment.number)
            self._tap(segment)
        if self._listener is not None:
            self._listener()

    def _on_dropped(self, message: SegmentsDropped, _payload: bytes) -> None:
        for number in message.numbers:
            self._own.pop(number, None)

    async def refresh(self) -> None:
        """Fetches the counters of the spool."""
        self._counters, _ = await self._link.ask(CountersAsked)

    # For the shipper -------------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """The counters of the last fetch, with the confirmations since then."""
        earlier = self._earlier
        return {
            **self._counters,
            "segments_held": len(self.segments()),
            "bytes_held": max(self._counters.get("bytes_held", 0), sum(segment.size for segment in earlier.segments)),
            "bytes_dropped": self._counters.get("bytes_dropped", 0) + earlier.bytes_dropped,
            "segments_dropped": self._counters.get("segments_dropped", 0) + earlier.segments_dropped,
        }

    @property
    def earlier_bytes_dropped(self) -> int:
        """Bytes of log of earlier runs that were given up."""
        return self._earlier.bytes_dropped

    def append(self, stream: str, data: bytes, ts: int | None = None) -> None:
        """Gives bytes of a file to the init's spool; from any thread."""
        if data:
            self._link.send_threadsafe(LogAppended(stream, time.time_ns() if ts is None else ts), data)

    def seal_after(self, seconds: float | None) -> None:
        """Asks the init to close segments of this age."""
        self._link.send(SealAfter(seconds))

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Calls back whenever a segment was closed."""
        self._listener = listener

    def tap(self, take: Callable[[Segment], None] | None) -> None:
        """Passes all segments of this run to a second reader, which calls `taken` for each.

        A confirmed segment is deleted only after that, or earlier if the spool has no space for it: then it cannot be
        read any more. None ends this, and releases the segments that are still held.
        """
        self._tap = take
        if take is None:
            for number in list(self._needed):
                self._let_go(number)
            return
        held = self._own_segments()
        self._needed.update(segment.number for segment in held)
        for segment in held:
            take(segment)

    def taken(self, segment: Segment) -> None:
        """The second reader has it."""
        self._let_go(segment.number)

    def _let_go(self, number: int) -> None:
        with self._needing:
            self._needed.discard(number)
            confirmed = self._confirmed.pop(number, None)
        if confirmed is not None:
            self._discard(confirmed)

    def _bound_confirmed(self) -> None:
        """Releases segments that the second reader reads too slowly, the oldest first; called in any thread."""
        waiting = self._own_segments()
        with self._needing:
            confirmed = sorted(self._confirmed.values(), key=lambda segment: segment.number)
        for on_disk, most in ((True, self._max_bytes), (False, MEMORY)):
            held = [segment for segment in confirmed if (segment.path is not None) is on_disk]
            used = sum(segment.size for segment in waiting if (segment.path is not None) is on_disk)
            excess = sum(segment.size for segment in held) - min(most * _CONFIRMED_SHARE, most * _FULL_SHARE - used)
            for segment in held:
                if excess <= 0:
                    break
                excess -= segment.size
                self._let_go(segment.number)

    def _discard(self, segment: RemoteSegment) -> None:
        runs.unlink(segment.path)
        self._link.send_threadsafe(SegmentState(segment.number, "confirmed"))

    def segments(self) -> list[Segment]:
        """The closed segments that are still held, oldest first; those of earlier runs come first."""
        return [*self._earlier.segments, *self._own_segments()]

    def _own_segments(self) -> list[RemoteSegment]:
        """Those of the init's run, oldest first; they come and go in two threads."""
        return sorted(self._own.values(), key=lambda segment: segment.number)

    def dropped_before(self, segment: Segment) -> int:
        """How many bytes were dropped right before this segment."""
        if isinstance(segment, RemoteSegment):
            return segment.dropped_before
        return self._earlier.dropped_before(segment)

    def confirm(self, segment: Segment) -> None:
        """The store has it; called in a thread."""
        if isinstance(segment, RemoteSegment):
            self._own.pop(segment.number, None)
            with self._needing:
                needed = segment.number in self._needed
                if needed:
                    self._confirmed[segment.number] = segment
            if needed:
                self._bound_confirmed()
            else:
                self._discard(segment)
        else:
            self._earlier.remove(segment)
            segment.discard()
        for key, size in (("bytes_shipped", segment.log_bytes), ("segments_shipped", 1)):
            self._counters[key] = self._counters.get(key, 0) + size

    def forget(self, segment: Segment) -> None:
        """It cannot be read any more."""
        if isinstance(segment, RemoteSegment):
            self._own.pop(segment.number, None)
            self._link.send(SegmentState(segment.number, "lost"))
        else:
            self._earlier.remove(segment)

    def seal(self) -> None:
        """Does nothing here: `flush` also asks the init to close the open segment."""

    def flush(self, deadline: float) -> bool:
        """Has the open segment closed and written; called in a thread, which waits until a moment at most."""
        left = max(0.0, deadline - time.monotonic())
        try:
            done, _ = self._link.ask_from_thread(lambda ask: SpoolFlushAsked(ask, deadline), left + 0.2)
        except (TimeoutError, AgentError):
            return False
        return bool(done)

    # Earlier runs ----------------------------------------------------------------------------------------------------

    def adopt(self) -> list[str]:
        """Adopts the segments that ended runs of the same deployment left in the spool directory; called in a thread.

        Returns:
            The directories of these runs, oldest first.
        """
        adopted = self._earlier.adopt()
        self._bound()
        if self._earlier.others:
            log.info(f"leaving {self._earlier.others} runs of other deployments or commands alone in {self.directory}")
        return adopted

    def release(self, run: str, *, delete: bool) -> None:
        """Releases an adopted run; with `delete`, also deletes its directory."""
        self._earlier.release(run, delete=delete)

    def _bound(self) -> None:
        """Segments of earlier runs count towards the limit, and are dropped first."""
        self._earlier.bound(self._max_bytes - sum(segment.size for segment in self._own_segments()))

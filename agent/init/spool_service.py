"""Serves the spool to the agent, which ships from it. Standard library only.

The init writes segments, limits their total size and drops the oldest; the agent reads them from disk and reports what
the store has confirmed. Segments kept in memory because the disk refuses writes are sent over the link.
"""

from __future__ import annotations

import json

from agent.link.messages import (
    Answer,
    CountersAsked,
    LogAppended,
    SealAfter,
    SegmentAsked,
    SegmentClosed,
    SegmentsDropped,
    SegmentState,
    SpoolFlushAsked,
    TailAsked,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.init.agent_process import AgentProcess
    from agent.init.loop import Loop
    from agent.init.output import Output
    from agent.logs.runs import Segment
    from agent.record import Record

_LOOK_EVERY = 0.01


class SpoolService:
    """Answers the agent's requests about the spool, and notifies it of changes."""

    def __init__(self, output: Output, agent: AgentProcess, loop: Loop) -> None:
        """Serves from now on."""
        self._output = output
        self._spool = output.spool
        self._agent = agent
        self._loop = loop
        self._told: set[int] = set()
        for kind, handler in (
            (SegmentState, self._on_state),
            (SealAfter, self._on_seal_after),
            (SpoolFlushAsked, self._on_flush),
            (SegmentAsked, self._on_segment),
            (CountersAsked, self._on_counters),
            (TailAsked, self._on_tail),
            (LogAppended, self._on_append),
        ):
            agent.handle(kind, handler)
        self._spool.listen(lambda: loop.call_soon_threadsafe(self._tell))

    def snapshot(self) -> list[SegmentClosed]:
        """The segments held now, for an agent about to be forked; it is notified of all later ones."""
        segments = self._spool.segments()
        for segment in segments:
            segment.busy = False
        self._told = {segment.number for segment in segments}
        return [self._closed(segment) for segment in segments]

    def _tell(self) -> None:
        """Tells the agent which segments were closed or dropped since the last message."""
        segments = {segment.number: segment for segment in self._spool.segments()}
        if dropped := tuple(sorted(self._told - segments.keys())):
            self._agent.tell(SegmentsDropped(dropped))
        for number in sorted(segments.keys() - self._told):
            self._agent.tell(self._closed(segments[number]))
        self._told = set(segments)

    def _closed(self, segment: Segment) -> SegmentClosed:
        return SegmentClosed(
            segment.number,
            segment.since,
            segment.size,
            segment.path,
            self._spool.dropped_before(segment),
            json.dumps(segment.streams),
        )

    def _find(self, number: int) -> Segment | None:
        return next((segment for segment in self._spool.segments() if segment.number == number), None)

    def _on_state(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, SegmentState), "registered for it"
        segment = self._find(message.number)
        if segment is None:
            return
        match message.state:
            case "confirmed":
                self._told.discard(segment.number)
                self._spool.confirm(segment)
            case "lost":
                self._told.discard(segment.number)
                self._spool.forget(segment)
            case state:
                segment.busy = state == "busy"

    def _on_seal_after(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, SealAfter), "registered for it"
        self._spool.seal_after(message.seconds)

    def _on_flush(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, SpoolFlushAsked), "registered for it"
        self._spool.seal()
        self._flushed(message.ask, message.deadline)

    def _flushed(self, ask: int, deadline: float) -> None:
        now = self._loop.time()
        done = self._spool.flush(now)
        if not done and now < deadline:
            self._loop.call_later(_LOOK_EVERY, self._flushed, ask, deadline)
            return
        self._tell()
        self._agent.tell(Answer(ask, json.dumps(done)))

    def _on_segment(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, SegmentAsked), "registered for it"
        segment = self._find(message.number)
        if segment is None:
            self._agent.tell(Answer(message.ask, error="it was dropped"))
        elif segment.path is not None:
            self._agent.tell(Answer(message.ask, json.dumps(segment.path)))
        else:
            self._agent.tell(Answer(message.ask), b"".join(segment.memory))

    def _on_counters(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, CountersAsked), "registered for it"
        self._agent.tell(Answer(message.ask, json.dumps(self._spool.counters())))

    def _on_tail(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, TailAsked), "registered for it"
        capture = self._output.capture
        tail = capture.tail() if capture is not None else b""
        self._agent.tell(Answer(message.ask), tail[-message.size :])

    def _on_append(self, message: Record, payload: bytes) -> None:
        assert isinstance(message, LogAppended), "registered for it"
        self._spool.append(message.stream, payload, message.ts)

"""The game's log over OTLP/HTTP, from the same segments of the spool that are shipped to a store.

A segment that the store has confirmed is kept until it was sent here as well, while there is room for it. A collector
that does not answer costs neither memory nor the shipping of logs: the oldest segments are left out here then, and that
is said.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Protocol

from agent import log
from agent.logs import objects
from agent.logs.runs import Segment

_MOST_SEGMENTS = 64
_BATCH = 1000  # records in one request, and characters of their lines
_BATCH_CHARACTERS = 1_000_000
_SECONDS = 10.0


class Tapped(Protocol):
    """A spool that shows its segments to one more reader beside the shipper."""

    def tap(self, take: Callable[[Segment], None] | None) -> None:
        """Calls back with each segment that is held or closed from now on; None ends that, and lets go of them."""

    def taken(self, segment: Segment) -> None:
        """The reader does not need it any more."""

    def seal_after(self, seconds: float | None) -> None:
        """Has segments of this age closed."""

    def flush(self, deadline: float) -> bool:
        """Has the open segment closed; called in a thread."""

    def dropped_before(self, segment: Segment) -> int:
        """Bytes dropped right before a segment."""


class Sender(Protocol):
    """Sends records; see `agent.metrics.otel.LogSender`."""

    def send(self, records: list[dict[str, Any]], seconds: float) -> bool:
        """Whether the collector has them; called in a thread."""


class LogExport:
    """Sends segments as they are closed, in their order."""

    def __init__(
        self, spool: Tapped, sender: Callable[[], Sender], *, interval: float, sent: int, on_sent: Callable[[int], None]
    ) -> None:
        """Holds the segments from now on; nothing is sent yet.

        Args:
            spool: where segments come from.
            sender: makes what sends them; called once, later.
            interval: seconds after which a segment is sent though it is small.
            sent: number of the last segment that was sent by an earlier process of the agent; 0 for none.
            on_sent: told the number of each that was sent.
        """
        self._spool = spool
        self._make_sender = sender
        self._sender: Sender | None = None
        self._interval = interval
        self._sent = sent
        self._on_sent = on_sent
        self._waiting: deque[Segment] = deque()
        self._more = asyncio.Event()
        self._sending = asyncio.Lock()
        self._failing = False
        spool.tap(self._take)

    async def run(self) -> None:
        """Sends what is closed, until it is cancelled."""
        self._spool.seal_after(self._interval)
        while True:
            await self._more.wait()
            await self._send_waiting(_SECONDS)

    async def finish(self, seconds: float) -> None:
        """Sends the rest.

        Args:
            seconds: how long it may take.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        await asyncio.to_thread(self._spool.flush, until - seconds / 2)
        async with asyncio.timeout_at(until):
            while self._waiting:
                await self._send_waiting(max(0.1, until - loop.time()))

    def give_up(self) -> None:
        """Holds no segments any more: they cannot be sent, or there is no time left for it."""
        self._waiting.clear()
        self._spool.tap(None)

    def _take(self, segment: Segment) -> None:
        if segment.number <= self._sent:
            self._spool.taken(segment)
            return
        self._waiting.append(segment)
        if len(self._waiting) > _MOST_SEGMENTS:
            self._spool.taken(self._waiting.popleft())
            self._fails("it takes less than the game writes; the oldest is left out")
        self._more.set()

    async def _send_waiting(self, seconds: float) -> None:
        async with self._sending:
            self._more.clear()
            while self._waiting:
                segment = self._waiting[0]
                try:
                    if not await asyncio.to_thread(self._send, segment, seconds):
                        self._fails("the collector has not taken it; it is left out")
                    else:
                        self._failing = False
                except FileNotFoundError:
                    self._fails("it takes less than the game writes; what the spool has no room for is left out")
                except Exception as problem:
                    self._fails(f"{type(problem).__name__}: {problem}; it is left out")
                if self._waiting and self._waiting[0] is segment:
                    self._waiting.popleft()
                self._sent = segment.number
                self._spool.taken(segment)
                self._on_sent(segment.number)

    def _send(self, segment: Segment, seconds: float) -> bool:
        if self._sender is None:
            self._sender = self._make_sender()
        batch: list[dict[str, Any]] = []
        size = 0
        for line in _lines(segment, self._spool.dropped_before(segment)):
            batch.append(line)
            size += len(line["line"])
            if len(batch) >= _BATCH or size >= _BATCH_CHARACTERS:
                # After a refusal the rest of the segment is not tried: each attempt may take all of its time.
                if not self._sender.send(batch, seconds):
                    return False
                batch, size = [], 0
        return not batch or self._sender.send(batch, seconds)

    def _fails(self, why: str) -> None:
        if not self._failing:
            log.warning(f"cannot export the log to OpenTelemetry: {why}; further errors are not logged until it works")
        self._failing = True


def _lines(segment: Segment, dropped_before: int) -> Iterator[dict[str, Any]]:
    """The lines as `agent.logs.objects` has them, with `ns`, the moment in nanoseconds since 1970."""
    for piece in objects.text(segment, "ndjson", dropped_before):
        # Not splitlines(): a line of the game's may hold other characters that Python takes for line breaks.
        for text in piece.split(b"\n"):
            if text:
                line = json.loads(text)
                yield line | {"ns": round(datetime.fromisoformat(line["ts"]).timestamp() * 1e6) * 1000}

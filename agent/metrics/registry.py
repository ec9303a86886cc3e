"""The interface of the metrics for the rest of the agent: counting events, reading values, and answering a scrape.

Nothing is collected in the background. Events are counted when they happen (`agent.metrics.counts`); current values
(processes, players, the phase) are read for a scrape or a push. Names are declared in `agent.metrics.families`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from agent.config.injected import Deployment
from agent.lifecycle.game_report import GameReport, HeartbeatReported, PlayersReported
from agent.lifecycle.states import Reason, Source, State
from agent.metrics.counts import Counted, LogCounts, StatsdCounts, Tally

if TYPE_CHECKING:
    import socket
    from ssl import SSLContext

    from agent.lifecycle.game_report import Fact
    from agent.metrics.collector import Collector
    from agent.metrics.container import ContainerReading
    from agent.metrics.exposition import Family, Formats
    from agent.metrics.network import Network
    from agent.metrics.server import MetricsServer
    from agent.metrics.statsd import StatsdListener

_KNOWN_STOPS = (
    (Source.GAME, Reason.REQUESTED),
    (Source.OPERATOR, Reason.REQUESTED),
    (Source.PLATFORM, Reason.PLATFORM_STOP),
)
# The least time between the end of a reading and the beginning of the next one.
_SHORTEST_INTERVAL = 0.02
# Seconds of CPU time. After a reading that took no longer, the next one is done on the event loop, because a thread and
# the way back cost a fifth more; after a longer one (many processes or sockets) in a thread, so that nobody waits.
_SHORT_READING = 0.003


class _Collected(NamedTuple):
    """The last reading, and its output by content type."""

    families: list[Family]
    written: dict[str, bytes]


class Metrics:
    """All metrics of one agent. All methods and callbacks run on the loop's thread, except those that say otherwise."""

    def __init__(
        self,
        *,
        version: str,
        deployment: Deployment,
        state: Callable[[], State],
        report: GameReport,
        root: Callable[[], int] = os.getpid,
        without: Callable[[], Collection[int]] = frozenset,
        logs: Callable[[], LogCounts] = LogCounts,
        container: Callable[[], ContainerReading] | None = None,
        network: Callable[[], Network] | None = None,
        attempt_results: Iterable[str] = (),
        trace_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_offset: float | None = None,
    ) -> None:
        """Takes the sources for a scrape, and starts counting.

        Args:
            version: of the agent.
            deployment: what the platform injected, without secrets.
            state: returns the current state of the lifecycle.
            report: the game's reports; this subscribes to it.
            root: returns the process whose descendants are the game: the init. Called in another thread.
            without: returns its descendants that are not the game: the agent, and helpers. Called in another thread.
            logs: returns the counters of the game's output.
            container: returns the counters of the container. Called in another thread.
            network: returns the counters of its network. Called in another thread.
            attempt_results: the possible results of a self-stop attempt, shown as 0 until they occur.
            trace_id: of the lifecycle's trace, if it is exported.
            clock: seconds of the monotonic clock that the lifecycle and the report use.
            wall_offset: seconds to add to `clock` to get Unix time; None to find it out here. That of the init is the
                same for each agent's process, so that the game's start does not seem to move with a new one.
        """
        self._version = version
        self._deployment = deployment
        self._state = state
        self._report = report
        self._root = root
        self._without = without
        self._logs = logs
        self._container = container
        self._network = network
        self._trace_id = trace_id
        self._clock = clock
        self._wall_offset = time.time() - clock() if wall_offset is None else wall_offset
        self._counted = Counted(
            stops=Tally((str(source), str(reason)) for source, reason in _KNOWN_STOPS),
            attempts=Tally((str(result),) for result in attempt_results),
        )
        self._collector: Collector | None = None
        self._collecting = asyncio.Lock()
        self._begun = 0
        self._next = 0.0
        self._latest: _Collected | None = None
        self._formats: Formats | None = None
        # Events before the (re)start of the agent's process count too.
        self._counted.joined, self._counted.heartbeats = report.count, report.heartbeats
        if (stop := state().stop) is not None:
            self.on_stop_request(stop.source, stop.reason)
        report.subscribe(self._on_report)

    # What the rooms tell ---------------------------------------------------------------------------------------------

    def on_request(self, transport: str, operation: str, status: int | str, seconds: float) -> None:
        """A request was answered.

        Args:
            transport: `http`, `socket` or another closed set of words, as is `operation`: they become labels.
            operation: which one, or one word for all unknown ones.
            status: HTTP status, or the code of a JSON-RPC error, or `ok`.
            seconds: from its arrival to its answer.
        """
        self._counted.requests.add(transport, operation, str(status))
        self._counted.durations.observe(seconds, transport, operation)

    def on_stop_request(self, source: str, reason: str) -> None:
        """A stop request was accepted."""
        self._counted.stops.add(str(source), str(reason))

    def on_self_stop_attempt(self, result: str) -> None:
        """The platform was asked to stop the deployment, with this result."""
        self._counted.attempts.add(str(result))

    def _on_report(self, fact: Fact) -> None:
        if isinstance(fact, HeartbeatReported):
            self._counted.heartbeats += 1
        elif isinstance(fact, PlayersReported):
            self._counted.joined += max(0, fact.count - fact.before)

    # The answer to a scrape ------------------------------------------------------------------------------------------

    async def serve(self, listening: socket.socket, *, token: str = "", tls: SSLContext | None = None) -> MetricsServer:
        """Serves `/metrics` on a listening socket.

        Args:
            listening: the socket.
            token: that a scrape must send; "" for none.
            tls: the TLS context; None for plain HTTP.

        Returns:
            The running server; its `close()` ends it and the socket.
        """
        from agent.metrics.server import MetricsServer  # noqa: PLC0415 - the counting above needs no HTTP

        return await MetricsServer.start(listening, self.expose, self._version, token=token, tls=tls)

    async def collect(self) -> list[Family]:
        """Reads all families, independent of the output format.

        Concurrent callers share one reading, and there are at most 50 readings a second, because this port may be
        reachable by anybody.
        """
        return (await self._collected()).families

    async def _collected(self) -> _Collected:
        begun = self._begun
        async with self._collecting:
            # Only a reading that began after this call is new enough for the caller.
            if self._begun > begun and self._latest is not None:
                return self._latest
            if (pause := self._next - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            self._begun += 1
            self._latest = _Collected(await self._read(), {})
            self._next = time.monotonic() + _SHORTEST_INTERVAL
            return self._latest

    async def _read(self) -> list[Family]:
        if self._collector is None:
            self._collector = await asyncio.to_thread(self._make_collector)
        if self._collector.took < _SHORT_READING:
            reading = self._collector.read()
        else:
            reading = await asyncio.to_thread(self._collector.read)
        return self._collector.families(reading)

    async def listen_statsd(self, listening: socket.socket) -> StatsdListener:
        """Receives the game's metrics from a bound datagram socket.

        Returns:
            The running listener; its `close()` ends it.
        """
        from agent.metrics.statsd import StatsdListener  # noqa: PLC0415 - only where it is switched on

        self._counted.statsd = StatsdCounts()
        return StatsdListener(listening, self._report.metrics, self._counted.statsd, asyncio.get_running_loop())

    async def expose(self, accept: str = "") -> tuple[bytes, str]:
        """Reads everything and formats it.

        Args:
            accept: the `Accept` header; OpenMetrics if it asks for that, otherwise the older text format.

        Returns:
            The body and its content type.
        """
        collected = await self._collected()
        from agent.metrics import exposition  # noqa: PLC0415 - imported with the first scrape, as all that collects

        if self._formats is None:
            self._formats = exposition.Formats()
        write, content_type = self._formats.negotiate(accept)
        if content_type not in collected.written:
            collected.written[content_type] = write(collected.families)
        return collected.written[content_type], content_type

    def _make_collector(self) -> Collector:
        from agent.metrics.collector import Collector  # noqa: PLC0415 - 5 ms that only a scrape should cost

        return Collector(
            version=self._version,
            deployment=self._deployment,
            state=self._state,
            report=self._report,
            counted=self._counted,
            root=self._root,
            without=self._without,
            logs=self._logs,
            container=self._container,
            network=self._network,
            trace_id=self._trace_id,
            clock=self._clock,
            wall_offset=self._wall_offset,
        )

"""Metrics, as the rest of the agent sees them: what the rooms tell, where the rest is read, and the answer to a scrape.

Nothing is collected in the background. What happens is counted as it happens (`agent.metrics.counts`); what merely is
(processes, players, the phase) is read when somebody scrapes.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from agent import log
from agent.config.injected import Deployment
from agent.game.cgroup import CgroupReading, read_cgroup
from agent.lifecycle.game_report import Fact, GameReport, HeartbeatReported, PlayersReported
from agent.lifecycle.states import Event, GameStarted, Reason, Source, State
from agent.metrics.counts import Latency, LogCounts, Tally
from agent.metrics.game import GameProcesses, Usage

if TYPE_CHECKING:
    import socket

    from prometheus_client.core import CollectorRegistry, Metric

    from agent.metrics.server import MetricsServer

_KNOWN_STOPS = (
    (Source.GAME, Reason.REQUESTED),
    (Source.OPERATOR, Reason.REQUESTED),
    (Source.PLATFORM, Reason.PLATFORM_STOP),
)


class Metrics:
    """All metrics of one agent. Every method, and what is given to it, is called on the loop's thread but for two."""

    def __init__(
        self,
        *,
        version: str,
        deployment: Deployment,
        state: Callable[[], State],
        pids: Callable[[], Iterable[int]],
        report: GameReport,
        logs: Callable[[], LogCounts] = LogCounts,
        container: Callable[[], CgroupReading] = read_cgroup,
        attempt_results: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Takes where to read what is asked for at a scrape, and starts to count.

        Args:
            version: of the agent.
            deployment: what the platform injected, without secrets.
            state: gives the present state of the lifecycle.
            pids: gives all processes of the game, parents before their children. Called in another thread, because
                finding them reads files of every process there is.
            report: what the game says; it is subscribed to.
            logs: gives what became of the game's output.
            container: gives the counters of the container's cgroup. Called in another thread as well.
            attempt_results: the results that a self-stop attempt can have, to be shown as 0 until they occur.
            clock: seconds of the monotonic clock that the lifecycle and the report use.
            wall: Unix time in seconds.
        """
        self._version = version
        self._deployment = deployment
        self._state = state
        self._pids = pids
        self._report = report
        self._logs = logs
        self._container = container
        self._clock = clock
        self._wall = wall
        self._stops = Tally((str(source), str(reason)) for source, reason in _KNOWN_STOPS)
        self._attempts = Tally((str(result),) for result in attempt_results)
        self._requests = Tally()
        self._durations = Latency()
        self._joined = 0
        self._heartbeats = 0
        self._started_at: float | None = None
        self._processes = GameProcesses()
        self._usage: Usage | BaseException = Usage()
        self._cgroup: CgroupReading | BaseException = CgroupReading()
        self._registry: CollectorRegistry | None = None
        self._scraping = asyncio.Lock()
        report.subscribe(self._on_report)

    # What the rooms tell ---------------------------------------------------------------------------------------------

    def on_request(self, transport: str, operation: str, status: int | str, seconds: float) -> None:
        """A request was answered.

        Args:
            transport: `http`, `socket` or another closed set of words, as is `operation`: they become labels.
            operation: which one, or one word for all that are none.
            status: HTTP status, or the code of a JSON-RPC error, or `ok`.
            seconds: from its arrival to its answer.
        """
        self._requests.add(transport, operation, str(status))
        self._durations.observe(seconds, transport, operation)

    def on_stop_request(self, source: str, reason: str) -> None:
        """A stop request was accepted."""
        self._stops.add(str(source), str(reason))

    def on_self_stop_attempt(self, result: str) -> None:
        """The platform was asked to stop the deployment, with this result."""
        self._attempts.add(str(result))

    def on_transition(self, _before: State, _after: State, event: Event) -> None:
        """The lifecycle went on. An observer for `Conductor.watch`."""
        if isinstance(event, GameStarted):
            self._started_at = self._wall() - max(0.0, self._clock() - event.at)

    def _on_report(self, fact: Fact) -> None:
        if isinstance(fact, HeartbeatReported):
            self._heartbeats += 1
        elif isinstance(fact, PlayersReported):
            self._joined += max(0, fact.count - fact.before)

    # The answer to a scrape ------------------------------------------------------------------------------------------

    async def serve(self, listening: socket.socket) -> MetricsServer:
        """Serves `/metrics` on a socket that listens already.

        Returns:
            The running server; its `close()` ends it and the socket.
        """
        from agent.metrics.server import MetricsServer  # noqa: PLC0415 - the counting above needs no HTTP

        return await MetricsServer.start(listening, self.expose, self._version)

    async def expose(self, accept: str = "") -> tuple[bytes, str]:
        """Reads everything and writes it down.

        Args:
            accept: the `Accept` header; OpenMetrics where it asks for that, the older text format otherwise.

        Returns:
            The body and its content type.
        """
        async with self._scraping:  # one at a time: two at once would each disturb what the other adds up
            self._usage, self._cgroup = await asyncio.gather(
                asyncio.to_thread(lambda: self._processes.sample(self._pids())),
                asyncio.to_thread(self._container),
                return_exceptions=True,
            )
            if self._registry is None:
                await asyncio.to_thread(importlib.import_module, "agent.metrics.families")
                self._registry = self._make_registry()
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - late, see above

        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # the header asks for a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def _make_registry(self) -> CollectorRegistry:
        from prometheus_client.core import CollectorRegistry  # noqa: PLC0415 - late, with the first scrape
        from prometheus_client.process_collector import ProcessCollector  # noqa: PLC0415 - likewise

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Parts(self._parts()))
        ProcessCollector(namespace="arbitrium_agent", registry=registry)
        return registry

    def _parts(self) -> dict[str, Callable[[], Iterable[Metric]]]:
        from agent.metrics import families  # noqa: PLC0415 - late, with the first scrape

        return {
            "build": lambda: families.build(self._version),
            "deployment": lambda: families.deployment(self._deployment),
            "lifecycle": lambda: families.lifecycle(self._state(), self._started_at, self._stops, self._attempts),
            "game": lambda: families.game(_read(self._usage)),
            "container": lambda: families.container(_read(self._cgroup)),
            "players": lambda: families.players(self._report, self._joined, self._heartbeats, self._clock()),
            "logs": lambda: families.logs(self._logs()),
            "requests": lambda: families.requests(self._requests, self._durations),
            "custom": lambda: families.custom(self._report.metrics),
        }


_T = TypeVar("_T")


def _read(value: _T | BaseException) -> _T:
    """The value, where reading it did not fail."""
    if isinstance(value, BaseException):
        raise value
    return value


class _Parts:
    """All families of a scrape, for the registry.

    A part that cannot be read is left out, counted, and logged once until it can be read again.
    """

    def __init__(self, parts: dict[str, Callable[[], Iterable[Metric]]]) -> None:
        self._parts = parts
        self._failures = Tally((part,) for part in parts)
        self._failing: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        from agent.metrics import families  # noqa: PLC0415 - late, with the first scrape

        for part, read in self._parts.items():
            try:
                yield from list(read())
            except Exception as problem:
                # Whatever it is, an operator is better served by the rest than by nothing.
                self._failures.add(part)
                if part not in self._failing:
                    log.warning(f"cannot read the metrics of {part}: {problem!r}; the others are served")
                self._failing.add(part)
            else:
                self._failing.discard(part)
        yield families.counter(
            "arbitrium_agent_collect_errors_total",
            "Parts of a scrape that could not be read.",
            ("part",),
            self._failures,
        )

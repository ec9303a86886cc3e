"""Facts to metric families, in the words of Prometheus. The only module that needs its client library.

Names begin with `agent_`, but for those the game made up itself, which begin with `game_`. Units are base units, and
counters end in `_total`: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
    UnknownMetricFamily,
)

from agent.lifecycle.states import Phase, State
from agent.metrics.counts import Labels, Latency, Tally

if TYPE_CHECKING:
    from agent.config.injected import Deployment
    from agent.lifecycle.game_report import CustomMetric, GameReport
    from agent.metrics.game import Usage
    from agent.metrics.registry import LogCounts

Families: TypeAlias = Iterator[Metric]


def _text(value: object) -> str:
    # A lone surrogate (JSON allows it) is no UTF-8 and would make the whole answer impossible.
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def counter(name: str, documentation: str, names: Labels, rows: Iterable[tuple[Labels, float]]) -> Metric:
    """A counter with the labels `names`; each row has their values and a number."""
    family = CounterMetricFamily(name, documentation, labels=names)
    for values, number in rows:
        family.add_metric([_text(value) for value in values], number)
    return family


def gauge(name: str, documentation: str, value: float | None) -> Families:
    """A gauge without labels; nothing where there is no value."""
    if value is not None:
        yield GaugeMetricFamily(name, documentation, value=value)


def build(version: str) -> Families:
    """What runs here."""
    yield InfoMetricFamily(
        "agent_build",
        "The version of arbitrium-agent and of the Python it runs on.",
        value={
            "version": version,
            "python_version": platform.python_version(),
            "python_implementation": platform.python_implementation(),
            "machine": platform.machine(),
        },
    )


def deployment(it: Deployment) -> Families:
    """Where it runs; what is not known is empty, which Prometheus takes for a label that is not there."""
    location = it.location
    facts: dict[str, object] = {
        "request_id": it.request_id,
        "fqdn": it.fqdn,
        "public_ip": it.public_ip,
        "host_id": it.host_id,
        "tags": ",".join(it.tags),
        "city": location and location.city,
        "country": location and location.country,
        "continent": location and location.continent,
        "administrative_division": location and location.administrative_division,
        "vcpu_units": it.vcpu_units,
        "memory_mb": it.memory_mb,
        "private_fleet_id": it.private_fleet_id,
        "match_id": it.match.match_id,
    }
    yield InfoMetricFamily(
        "agent_deployment",
        "The deployment, as the platform described it to the container.",
        value={name: _text(value) for name, value in facts.items()},
    )


def lifecycle(state: State, started_at: float | None, stops: Tally, attempts: Tally) -> Families:
    """Where the deployment is in its life.

    Args:
        state: the present state.
        started_at: Unix time at which the game was started last, in seconds; None before.
        stops: stop requests by source and reason.
        attempts: self-stop attempts by result.
    """
    yield StateSetMetricFamily(
        "agent_phase",
        "Where the deployment is in its life; 1 for the present phase, 0 for the others.",
        value={str(phase): phase is state.phase for phase in Phase},
    )
    yield from gauge("agent_game_start_time_seconds", "When the game was started last, in Unix time.", started_at)
    if state.started_at is not None and state.ready_at is not None:
        yield from gauge(
            "agent_game_startup_seconds",
            "From the game's last start to its word that players may come.",
            max(0.0, state.ready_at - state.started_at),
        )
    yield counter("agent_game_restarts_total", "Restarts of the game after a crash.", (), [((), state.restarts)])
    yield counter(
        "agent_stop_requests_total",
        "Stop requests that were accepted, by who asked and why; later ones for the same stop change nothing.",
        ("source", "reason"),
        stops,
    )
    yield counter(
        "agent_self_stop_attempts_total", "Calls to the platform to stop the deployment.", ("result",), attempts
    )


def game(usage: Usage) -> Families:
    """What the game's processes use."""
    yield counter(
        "agent_game_cpu_seconds_total",
        "CPU time of all processes of the game, those that have ended included.",
        ("mode",),
        [(("user",), usage.cpu.user), (("system",), usage.cpu.system)],
    )
    yield counter(
        "agent_game_context_switches_total",
        "Context switches of the game's threads: voluntary (it waited) and involuntary (its time was up).",
        ("kind",),
        [(("voluntary",), usage.switches.voluntary), (("involuntary",), usage.switches.involuntary)],
    )
    if (io := usage.io) is not None:
        yield counter(
            "agent_game_io_bytes_total",
            "Bytes that read and write calls of the game moved, from and to anything but sockets read with recv.",
            ("direction",),
            [(("read",), io.read_bytes), (("write",), io.written_bytes)],
        )
        yield counter(
            "agent_game_io_operations_total",
            "Read and write calls of the game.",
            ("direction",),
            [(("read",), io.read_calls), (("write",), io.write_calls)],
        )
        yield counter(
            "agent_game_storage_bytes_total",
            "Bytes that really came from or went to storage for the game.",
            ("direction",),
            [(("read",), io.storage_read_bytes), (("write",), io.storage_written_bytes)],
        )
    yield from gauge(
        "agent_game_resident_memory_bytes",
        "Memory of the game in RAM; pages that its processes share count once for each.",
        usage.resident_bytes,
    )
    yield from gauge("agent_game_threads", "Threads of the game.", usage.threads)
    yield from gauge("agent_game_open_fds", "Open file descriptors of the game.", usage.open_files)
    yield from gauge("agent_game_processes", "Processes of the game.", usage.processes)


def players(report: GameReport, joined: int, heartbeats: int, now: float) -> Families:
    """What the game says of itself.

    Args:
        report: the latest it said.
        joined: players that came, since the agent started.
        heartbeats: likewise.
        now: seconds of the monotonic clock.
    """
    if report.players_known:
        yield from gauge("agent_players", "Players now, as the game says.", report.count)
    yield from gauge("agent_players_capacity", "Players there can be, as the game says.", report.capacity)
    yield counter("agent_players_joined_total", "Players that came, as the game says.", (), [((), joined)])
    yield counter("agent_heartbeats_total", "Heartbeats of the game.", (), [((), heartbeats)])
    if report.last_heartbeat is not None:
        yield from gauge(
            "agent_heartbeat_age_seconds",
            "Seconds since the game's last heartbeat.",
            max(0.0, now - report.last_heartbeat),
        )


def logs(counts: LogCounts) -> Families:
    """What became of the game's output."""
    yield counter(
        "agent_log_received_bytes_total",
        "Bytes of output that the game wrote.",
        ("stream",),
        [((stream,), count) for stream, count in counts.received.items()],
    )
    for what, documentation, count in (
        ("shipped", "Bytes of the log that are where AGENT_LOG_URL says.", counts.shipped),
        ("dropped", "Bytes of the log given up because the spool was full; the oldest go first.", counts.dropped),
        ("not_passed_on", "Bytes that the container's own stdout and stderr did not take.", counts.not_passed_on),
    ):
        yield counter(f"agent_log_{what}_bytes_total", documentation, (), [((), count)])


def requests(counts: Tally, durations: Latency) -> Families:
    """What was asked of the agent."""
    yield counter(
        "agent_requests_total",
        "Requests to the local API, by transport (http, socket), operation and status.",
        ("transport", "operation", "status"),
        counts,
    )
    histogram = HistogramMetricFamily(
        "agent_request_duration_seconds",
        "From a request's arrival to its answer. Streams of events are not in it: they last.",
        labels=("transport", "operation"),
    )
    for values, spread in durations:
        histogram.add_metric([_text(value) for value in values], spread.cumulative(), spread.total)
    yield histogram


def custom(metrics: Mapping[str, CustomMetric]) -> Families:
    """The game's own figures, as `game_<name>`."""
    for name, metric in metrics.items():
        shown = f"game_{name}"
        documentation = _text(metric.help) or f"{name}, as the game says."
        if not metric.is_counter:
            yield GaugeMetricFamily(shown, documentation, value=metric.value)
            continue
        # In OpenMetrics a counter is called without `_total`, and so could be a gauge of the game's.
        base = name.removesuffix("_total")
        if not base or base in metrics or f"{base}_created" in metrics:
            yield UnknownMetricFamily(shown, documentation, value=metric.value)
        else:
            yield CounterMetricFamily(shown, documentation, value=metric.value)

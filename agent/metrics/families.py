"""Facts to metric families, in the words of Prometheus. The only module that needs its client library.

Names begin with `arbitrium_agent_` where they are about the agent itself and with `arbitrium_` where they are about the
deployment: its game, players, container and log. Those the game made up itself begin with `game_`. Units are base
units, and counters end in `_total`: https://prometheus.io/docs/practices/naming/.
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
from agent.metrics.counts import Labels, Latency, LogCounts, Tally

if TYPE_CHECKING:
    from agent.config.injected import Deployment
    from agent.game.cgroup import CgroupReading
    from agent.lifecycle.game_report import CustomMetric, GameReport
    from agent.metrics.game import Usage

Families: TypeAlias = Iterator[Metric]

_CONTAINER_GAUGES = (
    ("memory_usage_bytes", "Memory that the container uses, the page cache included.", "memory_current"),
    ("memory_peak_bytes", "The most memory that the container used at once.", "memory_peak"),
    ("memory_limit_bytes", "Memory that the container may use; absent without a limit.", "memory_limit"),
    ("cpus", "CPUs that the container may use; absent without a limit.", "cpu_limit"),
)
_CONTAINER_COUNTERS = (
    ("oom_kills_total", "Processes of the container that were killed because memory ran out.", "oom_kills"),
    ("oom_events_total", "How often the container's memory limit was reached.", "oom_events"),
    ("cpu_seconds_total", "CPU time that the container has used.", "cpu_seconds"),
    ("cpu_periods_total", "Periods in which the container's CPU limit was watched.", "cpu_periods"),
    ("cpu_throttled_periods_total", "Periods in which the CPU limit was reached.", "cpu_throttled_periods"),
    ("cpu_throttled_seconds_total", "How long the container had to wait for CPU time.", "cpu_throttled_seconds"),
)


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
        "arbitrium_agent_build",
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
        "arbitrium_deployment",
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
        "arbitrium_phase",
        "Where the deployment is in its life; 1 for the present phase, 0 for the others.",
        value={str(phase): phase is state.phase for phase in Phase},
    )
    yield from gauge("arbitrium_game_start_time_seconds", "When the game was started last, in Unix time.", started_at)
    if state.started_at is not None and state.ready_at is not None:
        yield from gauge(
            "arbitrium_game_startup_seconds",
            "From the game's last start to its word that players may come.",
            max(0.0, state.ready_at - state.started_at),
        )
    yield counter("arbitrium_game_restarts_total", "Restarts of the game after a crash.", (), [((), state.restarts)])
    yield counter(
        "arbitrium_stop_requests_total",
        "Stop requests that were accepted, by who asked and why; later ones for the same stop change nothing.",
        ("source", "reason"),
        stops,
    )
    yield counter(
        "arbitrium_self_stop_attempts_total", "Calls to the platform to stop the deployment.", ("result",), attempts
    )


def game(usage: Usage) -> Families:
    """What the game's processes use."""
    yield counter(
        "arbitrium_game_cpu_seconds_total",
        "CPU time of all processes of the game, those that have ended included.",
        ("mode",),
        [(("user",), usage.cpu.user), (("system",), usage.cpu.system)],
    )
    yield counter(
        "arbitrium_game_context_switches_total",
        "Context switches of the game's threads: voluntary (it waited) and involuntary (its time was up).",
        ("kind",),
        [(("voluntary",), usage.switches.voluntary), (("involuntary",), usage.switches.involuntary)],
    )
    if (io := usage.io) is not None:
        yield counter(
            "arbitrium_game_io_bytes_total",
            "Bytes that read and write calls of the game moved, from and to anything but sockets read with recv.",
            ("direction",),
            [(("read",), io.read_bytes), (("write",), io.written_bytes)],
        )
        yield counter(
            "arbitrium_game_io_operations_total",
            "Read and write calls of the game.",
            ("direction",),
            [(("read",), io.read_calls), (("write",), io.write_calls)],
        )
        yield counter(
            "arbitrium_game_storage_bytes_total",
            "Bytes that really came from or went to storage for the game.",
            ("direction",),
            [(("read",), io.storage_read_bytes), (("write",), io.storage_written_bytes)],
        )
    yield from gauge(
        "arbitrium_game_resident_memory_bytes",
        "Memory of the game in RAM; pages that its processes share count once for each.",
        usage.resident_bytes,
    )
    yield from gauge("arbitrium_game_threads", "Threads of the game.", usage.threads)
    yield from gauge("arbitrium_game_open_fds", "Open file descriptors of the game.", usage.open_files)
    yield from gauge("arbitrium_game_processes", "Processes of the game.", usage.processes)


def container(reading: CgroupReading) -> Families:
    """The families of the cgroup; what the kernel or the container's runtime does not show is not there."""
    for name, documentation, field in _CONTAINER_GAUGES:
        if (value := getattr(reading, field)) is not None:
            yield GaugeMetricFamily(f"arbitrium_container_{name}", documentation, value=value)
    for name, documentation, field in _CONTAINER_COUNTERS:
        if (value := getattr(reading, field)) is not None:
            yield CounterMetricFamily(f"arbitrium_container_{name}", documentation, value=value)


def players(report: GameReport, joined: int, heartbeats: int, now: float) -> Families:
    """What the game says of itself.

    Args:
        report: the latest it said.
        joined: players that came, since the agent started.
        heartbeats: likewise.
        now: seconds of the monotonic clock.
    """
    if report.players_known:
        yield from gauge("arbitrium_players", "Players now, as the game says.", report.count)
    yield from gauge("arbitrium_players_capacity", "Players there can be, as the game says.", report.capacity)
    yield counter("arbitrium_players_joined_total", "Players that came, as the game says.", (), [((), joined)])
    yield counter("arbitrium_heartbeats_total", "Heartbeats of the game.", (), [((), heartbeats)])
    if report.last_heartbeat is not None:
        yield from gauge(
            "arbitrium_heartbeat_age_seconds",
            "Seconds since the game's last heartbeat.",
            max(0.0, now - report.last_heartbeat),
        )


def logs(counts: LogCounts) -> Families:
    """What became of the game's output."""
    yield counter(
        "arbitrium_log_received_bytes_total",
        "Bytes of output that the game wrote.",
        ("stream",),
        [((stream,), count) for stream, count in counts.received.items()],
    )
    for what, documentation, count in (
        ("shipped", "Bytes of the log that are where AGENT_LOG_URL says.", counts.shipped),
        ("dropped", "Bytes of the log given up because the spool was full; the oldest go first.", counts.dropped),
        ("not_passed_on", "Bytes that the container's own stdout and stderr did not take.", counts.not_passed_on),
    ):
        yield counter(f"arbitrium_log_{what}_bytes_total", documentation, (), [((), count)])


def requests(counts: Tally, durations: Latency) -> Families:
    """What was asked of the agent."""
    yield counter(
        "arbitrium_agent_requests_total",
        "Requests to the local API, by transport (http, socket), operation and status.",
        ("transport", "operation", "status"),
        counts,
    )
    histogram = HistogramMetricFamily(
        "arbitrium_agent_request_duration_seconds",
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

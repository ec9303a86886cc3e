"""Declares the metrics (names, help texts, labels) and creates their families from facts.

Names begin with `arbitrium_agent_` for metrics of the agent itself and with `arbitrium_` for those of the deployment:
its game, players, container and log. Metrics defined by the game begin with `game_`. Units are base
units, and counters end in `_total`: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from agent.lifecycle.states import Phase, State
from agent.metrics.counts import LATENCY_BUCKETS, Counted, LogCounts
from agent.metrics.exposition import (
    Exemplar,
    Family,
    Sample,
    counter,
    gauge,
    gauges,
    histogram_samples,
    info,
    stateset,
)

if TYPE_CHECKING:
    from agent.config.injected import Deployment
    from agent.lifecycle.game_metrics import GameMetric, GameMetrics
    from agent.lifecycle.game_report import GameReport
    from agent.metrics.container import ContainerReading
    from agent.metrics.game import OwnProcesses, Usage
    from agent.metrics.network import Network

Families: TypeAlias = Iterator[Family]

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
    return "" if value is None else str(value)


def _known(name: str, documentation: str, value: float | None) -> Families:
    """A gauge without labels; nothing if there is no value."""
    if value is not None:
        yield gauge(name, documentation, value)


def build(version: str) -> Families:
    """What runs here."""
    yield info(
        "arbitrium_agent_build",
        "The version of arbitrium-agent and of the Python it runs on.",
        {
            "version": version,
            "python_version": platform.python_version(),
            "python_implementation": platform.python_implementation(),
            "machine": platform.machine(),
        },
    )


def deployment(it: Deployment) -> Families:
    """Where it runs; unknown values are empty, which Prometheus treats like a missing label."""
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
    yield info(
        "arbitrium_deployment",
        "The deployment, as the platform described it to the container.",
        {name: _text(value) for name, value in facts.items()},
    )


def lifecycle(state: State, counted: Counted, wall_offset: float, trace_id: str | None = None) -> Families:
    """The lifecycle of the deployment.

    Args:
        state: the current state.
        counted: the counters since the agent started.
        wall_offset: seconds to add to the monotonic clock to get Unix time.
        trace_id: of the lifecycle's trace; used in exemplars.
    """
    yield stateset(
        "arbitrium_phase",
        "Where the deployment is in its life; 1 for the present phase, 0 for the others.",
        {str(phase): phase is state.phase for phase in Phase},
    )
    if state.started_at is not None:
        yield gauge(
            "arbitrium_game_start_time_seconds",
            "When the game was started last, in Unix time.",
            state.started_at + wall_offset,
        )
    if state.started_at is not None and state.ready_at is not None:
        yield from _known(
            "arbitrium_game_startup_seconds",
            "From the game's last start to its word that players may come.",
            max(0.0, state.ready_at - state.started_at),
        )
    yield counter("arbitrium_game_restarts_total", "Restarts of the game after a crash.", (), [((), state.restarts)])
    stops = counter(
        "arbitrium_stop_requests_total",
        "Stop requests that were accepted, by who asked and why; later ones for the same stop change nothing.",
        ("source", "reason"),
        counted.stops,
    )
    if trace_id is not None:
        exemplar = Exemplar((("trace_id", trace_id),), 1.0)
        stops = stops._replace(samples=[it._replace(exemplar=exemplar) if it.value else it for it in stops.samples])
    yield stops
    yield counter(
        "arbitrium_self_stop_attempts_total",
        "Calls to the platform to stop the deployment.",
        ("result",),
        counted.attempts,
    )


def game(usage: Usage) -> Families:
    """The resources used by the game's processes."""
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
    yield from _known(
        "arbitrium_game_resident_memory_bytes",
        "Memory of the game in RAM; pages that its processes share count once for each.",
        usage.resident_bytes,
    )
    yield from _known("arbitrium_game_threads", "Threads of the game.", usage.threads)
    yield from _known("arbitrium_game_open_fds", "Open file descriptors of the game.", usage.open_files)
    yield from _known(
        "arbitrium_game_fds_used_ratio",
        "Open file descriptors of the game's process that is nearest to its limit, as a part of that limit.",
        usage.files_used,
    )
    yield from _known("arbitrium_game_processes", "Processes of the game.", usage.processes)


def container(reading: ContainerReading) -> Families:
    """The counters of the container; those not provided by the kernel or the container runtime are missing."""
    for name, documentation, field in _CONTAINER_GAUGES:
        yield from _known(f"arbitrium_container_{name}", documentation, getattr(reading.cgroup, field))
    used, inactive = reading.cgroup.memory_current, reading.inactive_file
    if used is not None and inactive is not None:
        yield gauge(
            "arbitrium_container_memory_working_set_bytes",
            "Memory that the container uses and that cannot be taken back at once: what counts against the limit.",
            max(0, used - inactive),
        )
    for name, documentation, field in _CONTAINER_COUNTERS:
        if (value := getattr(reading.cgroup, field)) is not None:
            yield counter(f"arbitrium_container_{name}", documentation, (), [((), value)])
    yield from _known("arbitrium_container_tasks", "Processes and threads of the container.", reading.tasks)
    yield from _known(
        "arbitrium_container_tasks_limit",
        "Processes and threads that the container may have; absent without a limit.",
        reading.task_limit,
    )
    if reading.pressure:
        yield counter(
            "arbitrium_container_pressure_seconds_total",
            "Time in which tasks of the container waited for a resource: some of them, or all that had work (full).",
            ("resource", "share"),
            reading.pressure.items(),
        )


_UDP_ERRORS = (
    ("receive_buffer", "RcvbufErrors"),
    ("send_buffer", "SndbufErrors"),
    ("checksum", "InCsumErrors"),
    ("no_port", "NoPorts"),
    ("memory", "MemErrors"),
)


def network(reading: Network) -> Families:
    """The counters of the container's network."""
    devices = reading.devices.items()
    for what, documentation in (
        ("bytes", "Bytes through a network interface of the container."),
        ("packets", "Packets through a network interface of the container."),
        ("errors", "Packets that a network interface of the container found faulty."),
        ("drops", "Packets that a network interface of the container dropped."),
    ):
        if devices:
            yield counter(
                f"arbitrium_container_network_{what}_total",
                documentation,
                ("device", "direction"),
                [
                    ((name, direction), getattr(device, f"{prefix}_{what}"))
                    for name, device in devices
                    for direction, prefix in (("received", "received"), ("sent", "sent"))
                ],
            )
    if reading.udp:
        yield counter(
            "arbitrium_container_udp_datagrams_total",
            "UDP datagrams that reached a socket of the container, or left one.",
            ("direction",),
            [(("received",), reading.udp.get("InDatagrams", 0)), (("sent",), reading.udp.get("OutDatagrams", 0))],
        )
        yield counter(
            "arbitrium_container_udp_errors_total",
            "UDP datagrams that were lost in the container, by why: receive_buffer is a game that read too late.",
            ("why",),
            [((why,), reading.udp[field]) for why, field in _UDP_ERRORS if field in reading.udp],
        )
    queues = sorted(reading.queues.items())
    if queues:
        yield gauges(
            "arbitrium_game_socket_queue_bytes",
            "Bytes waiting in the sockets of the game's ports: received and not read by it, or not sent yet.",
            ("port", "protocol", "direction"),
            [
                ((str(port.number), port.protocol, direction), number)
                for port, queue in queues
                for direction, number in (("receive", queue.receive_bytes), ("send", queue.send_bytes))
            ],
        )
    drops = [((str(port.number),), queue.drops) for port, queue in queues if queue.drops is not None]
    if drops:
        yield counter(
            "arbitrium_game_socket_drops_total",
            "Datagrams that the kernel threw away at the sockets of the game's UDP ports.",
            ("port",),
            drops,
        )


def players(report: GameReport, counted: Counted, now: float) -> Families:
    """The game's reports about itself.

    Args:
        report: its latest reports.
        counted: the counters since the agent started.
        now: seconds of the monotonic clock.
    """
    if report.players_known:
        yield from _known("arbitrium_players", "Players now, as the game says.", report.count)
    yield from _known("arbitrium_players_capacity", "Players there can be, as the game says.", report.capacity)
    yield counter("arbitrium_players_joined_total", "Players that came, as the game says.", (), [((), counted.joined)])
    yield counter("arbitrium_heartbeats_total", "Heartbeats of the game.", (), [((), counted.heartbeats)])
    if report.last_heartbeat is not None:
        yield from _known(
            "arbitrium_heartbeat_age_seconds",
            "Seconds since the game's last heartbeat.",
            max(0.0, now - report.last_heartbeat),
        )


def logs(counts: LogCounts) -> Families:
    """The counters of the game's output."""
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


def requests(counted: Counted) -> Families:
    """The requests to the agent."""
    yield counter(
        "arbitrium_agent_requests_total",
        "Requests to the local API, by transport (http, socket), operation and status.",
        ("transport", "operation", "status"),
        counted.requests,
    )
    if (statsd := counted.statsd) is not None:
        yield counter(
            "arbitrium_agent_statsd_datagrams_total",
            "StatsD datagrams: read, or lost because they came faster than they could be read.",
            ("result",),
            [(("read",), statsd.datagrams), (("lost",), statsd.lost)],
        )
        yield counter(
            "arbitrium_agent_statsd_samples_total",
            "StatsD samples: taken, or refused because they make no sense or are too many.",
            ("result",),
            [(("taken",), statsd.taken), (("refused",), statsd.refused)],
        )
    yield Family(
        "arbitrium_agent_request_duration_seconds",
        "histogram",
        "From a request's arrival to its answer. Streams of events are not in it: they last.",
        [
            sample
            for (transport, operation), spread in counted.durations
            for sample in histogram_samples(
                (("transport", transport), ("operation", operation)), LATENCY_BUCKETS, spread.buckets, spread.total
            )
        ],
    )


def process(own: OwnProcesses) -> Families:
    """The resources used by the agent itself."""
    rows = own.processes.items()
    yield counter(
        "arbitrium_agent_process_cpu_seconds_total",
        "CPU time of the agent's own processes.",
        ("process",),
        [((name,), sum(stat.cpu)) for name, stat in rows],
    )
    for what, documentation, field in (
        ("resident_memory_bytes", "Memory of the agent's own processes in RAM.", "resident_bytes"),
        ("virtual_memory_bytes", "Address space of the agent's own processes.", "virtual_bytes"),
        ("threads", "Threads of the agent's own processes.", "threads"),
    ):
        yield gauges(
            f"arbitrium_agent_process_{what}",
            documentation,
            ("process",),
            [((name,), getattr(stat, field)) for name, stat in rows],
        )
    yield gauges(
        "arbitrium_agent_process_start_time_seconds",
        "When the agent's own processes started, in Unix time.",
        ("process",),
        [((name,), stat.start_time) for name, stat in rows],
    )
    for what, documentation, numbers in (
        ("open_fds", "Open file descriptors of the agent's own processes.", own.files),
        ("max_fds", "File descriptors that the agent's own processes may have open.", own.files_limit),
    ):
        yield gauges(
            f"arbitrium_agent_process_{what}",
            documentation,
            ("process",),
            [((name,), number) for name, number in numbers.items() if number is not None],
        )


def custom(metrics: GameMetrics) -> Families:
    """The game's own metrics, as `game_<name>`, and how many reports were refused."""
    yield counter(
        "arbitrium_game_metrics_refused_total",
        "Figures of the game's own that were not taken, by why: limit means too many names or label sets.",
        ("why",),
        [((why,), count) for why, count in metrics.refused.items()],
    )
    yield gauge("arbitrium_game_metrics_series", "Time series of the game's own figures.", metrics.size)
    for name, metric in metrics.items():
        documentation = metric.help or f"{name}, as the game says."
        if metric.kind == "histogram":
            samples = [
                sample
                for labels, series in metric.series.items()
                for sample in histogram_samples(
                    labels,
                    metric.bounds,
                    series.counts,
                    series.value,
                    [it and Exemplar(*it) for it in series.exemplars],
                )
            ]
            yield Family(f"game_{name}", "histogram", documentation, samples)
        elif metric.kind == "gauge":
            rows = [Sample("", labels, series.value) for labels, series in metric.series.items()]
            yield Family(f"game_{name}", "gauge", documentation, rows)
        else:
            yield _game_counter(metric, documentation, metrics)


def _game_counter(metric: GameMetric, documentation: str, metrics: Mapping[str, GameMetric]) -> Family:
    # In OpenMetrics a counter's family has no `_total`, so it could collide with a gauge of the game.
    base = metric.name.removesuffix("_total")
    if not base or base in metrics or f"{base}_created" in metrics:
        plain = [Sample("", labels, series.value) for labels, series in metric.series.items()]
        return Family(f"game_{metric.name}", "unknown", documentation, plain)
    samples = []
    for labels, series in metric.series.items():
        it = series.exemplars[0] if series.exemplars else None
        samples.append(Sample("_total", labels, series.value, Exemplar(*it) if it is not None else None))
    return Family(f"game_{base}", "counter", documentation, samples)

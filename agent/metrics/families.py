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
from agent.metrics.counts import LATENCY_BUCKETS, Counted, Labels, Latency, LogCounts, Tally
from agent.metrics.exposition import (
    Declared,
    Exemplar,
    Family,
    Row,
    Sample,
    counter,
    gauge,
    histogram_samples,
    info,
)

if TYPE_CHECKING:
    from agent.config.injected import Deployment
    from agent.lifecycle.game_metrics import GameMetric, GameMetrics
    from agent.lifecycle.game_report import GameReport
    from agent.metrics.container import ContainerReading
    from agent.metrics.game import OwnProcesses, Usage
    from agent.metrics.network import Network

Families: TypeAlias = Iterator[Family]


def _text(value: object) -> str:
    return "" if value is None else str(value)


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


_PHASE = Declared(
    "arbitrium_phase",
    "stateset",
    "Where the deployment is in its life; 1 for the present phase, 0 for the others.",
    "",
    ("arbitrium_phase",),
)
_PHASES: dict[Phase, list[Row]] = {
    present: [((str(phase),), float(phase is present)) for phase in Phase] for present in Phase
}
_GAME_START = gauge("arbitrium_game_start_time_seconds", "When the game was started last, in Unix time.")
_GAME_STARTUP = gauge("arbitrium_game_startup_seconds", "From the game's last start to its word that players may come.")
_RESTARTS = counter("arbitrium_game_restarts_total", "Restarts of the game after a crash.")
_STOPS = counter(
    "arbitrium_stop_requests_total",
    "Stop requests that were accepted, by who asked and why; later ones for the same stop change nothing.",
    "source",
    "reason",
)
_ATTEMPTS = counter("arbitrium_self_stop_attempts_total", "Calls to the platform to stop the deployment.", "result")


def lifecycle(state: State, counted: Counted, wall_offset: float, trace_id: str | None = None) -> Families:
    """The lifecycle of the deployment.

    Args:
        state: the current state.
        counted: the counters since the agent started.
        wall_offset: seconds to add to the monotonic clock to get Unix time.
        trace_id: of the lifecycle's trace; used in exemplars.
    """
    yield _PHASE.family(_PHASES[state.phase])
    if state.started_at is not None:
        yield _GAME_START.single(state.started_at + wall_offset)
        if state.ready_at is not None:
            yield _GAME_STARTUP.single(max(0.0, state.ready_at - state.started_at))
    yield _RESTARTS.single(state.restarts)
    stops = _STOPS.family(list(counted.stops))
    if trace_id is not None:
        exemplar = Exemplar((("trace_id", trace_id),), 1.0)
        stops = stops._replace(samples=[it._replace(exemplar=exemplar) if it.value else it for it in stops.samples])
    yield stops
    yield _ATTEMPTS.family(list(counted.attempts))


_GAME_CPU = counter(
    "arbitrium_game_cpu_seconds_total",
    "CPU time of all processes of the game, those that have ended included.",
    "mode",
)
_GAME_SWITCHES = counter(
    "arbitrium_game_context_switches_total",
    "Context switches of the game's threads: voluntary (it waited) and involuntary (its time was up).",
    "kind",
)
_GAME_IO_BYTES = counter(
    "arbitrium_game_io_bytes_total",
    "Bytes that read and write calls of the game moved, from and to anything but sockets read with recv.",
    "direction",
)
_GAME_IO_CALLS = counter("arbitrium_game_io_operations_total", "Read and write calls of the game.", "direction")
_GAME_STORAGE_BYTES = counter(
    "arbitrium_game_storage_bytes_total", "Bytes that really came from or went to storage for the game.", "direction"
)
_GAME_RESIDENT = gauge(
    "arbitrium_game_resident_memory_bytes",
    "Memory of the game in RAM; pages that its processes share count once for each.",
)
_GAME_THREADS = gauge("arbitrium_game_threads", "Threads of the game.")
_GAME_FILES = gauge("arbitrium_game_open_fds", "Open file descriptors of the game.")
_GAME_FILES_USED = gauge(
    "arbitrium_game_fds_used_ratio",
    "Open file descriptors of the game's process that is nearest to its limit, as a part of that limit.",
)
_GAME_PROCESSES = gauge("arbitrium_game_processes", "Processes of the game.")


def game(usage: Usage) -> Families:
    """The resources used by the game's processes."""
    yield _GAME_CPU.family([(("user",), usage.cpu.user), (("system",), usage.cpu.system)])
    yield _GAME_SWITCHES.family(
        [(("voluntary",), usage.switches.voluntary), (("involuntary",), usage.switches.involuntary)]
    )
    if (io := usage.io) is not None:
        yield _GAME_IO_BYTES.family([(("read",), io.read_bytes), (("write",), io.written_bytes)])
        yield _GAME_IO_CALLS.family([(("read",), io.read_calls), (("write",), io.write_calls)])
        yield _GAME_STORAGE_BYTES.family([(("read",), io.storage_read_bytes), (("write",), io.storage_written_bytes)])
    yield _GAME_RESIDENT.single(usage.resident_bytes)
    yield _GAME_THREADS.single(usage.threads)
    if usage.open_files is not None:
        yield _GAME_FILES.single(usage.open_files)
    if usage.files_used is not None:
        yield _GAME_FILES_USED.single(usage.files_used)
    yield _GAME_PROCESSES.single(usage.processes)


# By the fields of `CgroupReading` that they show.
_CONTAINER_GAUGES = (
    (
        gauge("arbitrium_container_memory_usage_bytes", "Memory that the container uses, the page cache included."),
        "memory_current",
    ),
    (
        gauge("arbitrium_container_memory_peak_bytes", "The most memory that the container used at once."),
        "memory_peak",
    ),
    (
        gauge("arbitrium_container_memory_limit_bytes", "Memory that the container may use; absent without a limit."),
        "memory_limit",
    ),
    (gauge("arbitrium_container_cpus", "CPUs that the container may use; absent without a limit."), "cpu_limit"),
)
_CONTAINER_WORKING_SET = gauge(
    "arbitrium_container_memory_working_set_bytes",
    "Memory that the container uses and that cannot be taken back at once: what counts against the limit.",
)
_CONTAINER_COUNTERS = (
    (
        counter(
            "arbitrium_container_oom_kills_total",
            "Processes of the container that were killed because memory ran out.",
        ),
        "oom_kills",
    ),
    (
        counter("arbitrium_container_oom_events_total", "How often the container's memory limit was reached."),
        "oom_events",
    ),
    (counter("arbitrium_container_cpu_seconds_total", "CPU time that the container has used."), "cpu_seconds"),
    (
        counter("arbitrium_container_cpu_periods_total", "Periods in which the container's CPU limit was watched."),
        "cpu_periods",
    ),
    (
        counter("arbitrium_container_cpu_throttled_periods_total", "Periods in which the CPU limit was reached."),
        "cpu_throttled_periods",
    ),
    (
        counter("arbitrium_container_cpu_throttled_seconds_total", "How long the container had to wait for CPU time."),
        "cpu_throttled_seconds",
    ),
)
_CONTAINER_TASKS = gauge("arbitrium_container_tasks", "Processes and threads of the container.")
_CONTAINER_TASK_LIMIT = gauge(
    "arbitrium_container_tasks_limit",
    "Processes and threads that the container may have; absent without a limit.",
)
_CONTAINER_PRESSURE = counter(
    "arbitrium_container_pressure_seconds_total",
    "Time in which tasks of the container waited for a resource: some of them, or all that had work (full).",
    "resource",
    "share",
)


def container(reading: ContainerReading) -> Families:
    """The counters of the container; those not provided by the kernel or the container runtime are missing."""
    cgroup = reading.cgroup
    for metric, field in _CONTAINER_GAUGES:
        if (value := getattr(cgroup, field)) is not None:
            yield metric.single(value)
    used, inactive = cgroup.memory_current, reading.inactive_file
    if used is not None and inactive is not None:
        yield _CONTAINER_WORKING_SET.single(max(0, used - inactive))
    for metric, field in _CONTAINER_COUNTERS:
        if (value := getattr(cgroup, field)) is not None:
            yield metric.single(value)
    if reading.tasks is not None:
        yield _CONTAINER_TASKS.single(reading.tasks)
    if reading.task_limit is not None:
        yield _CONTAINER_TASK_LIMIT.single(reading.task_limit)
    if reading.pressure:
        yield _CONTAINER_PRESSURE.family(list(reading.pressure.items()))


_NETWORK_BYTES, _NETWORK_PACKETS, _NETWORK_ERRORS, _NETWORK_DROPS = (
    counter(f"arbitrium_container_network_{what}_total", documentation, "device", "direction")
    for what, documentation in (
        ("bytes", "Bytes through a network interface of the container."),
        ("packets", "Packets through a network interface of the container."),
        ("errors", "Packets that a network interface of the container found faulty."),
        ("drops", "Packets that a network interface of the container dropped."),
    )
)
_UDP_DATAGRAMS = counter(
    "arbitrium_container_udp_datagrams_total",
    "UDP datagrams that reached a socket of the container, or left one.",
    "direction",
)
_UDP_ERRORS = counter(
    "arbitrium_container_udp_errors_total",
    "UDP datagrams that were lost in the container, by why: receive_buffer is a game that read too late.",
    "why",
)
_UDP_WHYS = (
    ("receive_buffer", "RcvbufErrors"),
    ("send_buffer", "SndbufErrors"),
    ("checksum", "InCsumErrors"),
    ("no_port", "NoPorts"),
    ("memory", "MemErrors"),
)
_SOCKET_QUEUE = gauge(
    "arbitrium_game_socket_queue_bytes",
    "Bytes waiting in the sockets of the game's ports: received and not read by it, or not sent yet.",
    "port",
    "protocol",
    "direction",
)
_SOCKET_DROPS = counter(
    "arbitrium_game_socket_drops_total",
    "Datagrams that the kernel threw away at the sockets of the game's UDP ports.",
    "port",
)


def network(reading: Network) -> Families:
    """The counters of the container's network."""
    if reading.devices:
        sizes: list[Row] = []
        packets: list[Row] = []
        errors: list[Row] = []
        drops: list[Row] = []
        for name, it in reading.devices.items():
            received, sent = (name, "received"), (name, "sent")
            sizes += (received, it.received_bytes), (sent, it.sent_bytes)
            packets += (received, it.received_packets), (sent, it.sent_packets)
            errors += (received, it.received_errors), (sent, it.sent_errors)
            drops += (received, it.received_drops), (sent, it.sent_drops)
        yield _NETWORK_BYTES.family(sizes)
        yield _NETWORK_PACKETS.family(packets)
        yield _NETWORK_ERRORS.family(errors)
        yield _NETWORK_DROPS.family(drops)
    if udp := reading.udp:
        yield _UDP_DATAGRAMS.family(
            [(("received",), udp.get("InDatagrams", 0)), (("sent",), udp.get("OutDatagrams", 0))]
        )
        yield _UDP_ERRORS.family([((why,), udp[field]) for why, field in _UDP_WHYS if field in udp])
    queues = sorted(reading.queues.items())
    if queues:
        yield _SOCKET_QUEUE.family(
            [
                ((str(port.number), port.protocol, direction), number)
                for port, queue in queues
                for direction, number in (("receive", queue.receive_bytes), ("send", queue.send_bytes))
            ]
        )
    lost: list[Row] = [((str(port.number),), queue.drops) for port, queue in queues if queue.drops is not None]
    if lost:
        yield _SOCKET_DROPS.family(lost)


_PLAYERS = gauge("arbitrium_players", "Players now, as the game says.")
_CAPACITY = gauge("arbitrium_players_capacity", "Players there can be, as the game says.")
_JOINED = counter("arbitrium_players_joined_total", "Players that came, as the game says.")
_HEARTBEATS = counter("arbitrium_heartbeats_total", "Heartbeats of the game.")
_HEARTBEAT_AGE = gauge("arbitrium_heartbeat_age_seconds", "Seconds since the game's last heartbeat.")


def players(report: GameReport, counted: Counted, now: float) -> Families:
    """The game's reports about itself.

    Args:
        report: its latest reports.
        counted: the counters since the agent started.
        now: seconds of the monotonic clock.
    """
    if report.players_known:
        yield _PLAYERS.single(report.count)
    if report.capacity is not None:
        yield _CAPACITY.single(report.capacity)
    yield _JOINED.single(counted.joined)
    yield _HEARTBEATS.single(counted.heartbeats)
    if report.last_heartbeat is not None:
        yield _HEARTBEAT_AGE.single(max(0.0, now - report.last_heartbeat))


_LOG_RECEIVED = counter("arbitrium_log_received_bytes_total", "Bytes of output that the game wrote.", "stream")
_LOG_SHIPPED = counter("arbitrium_log_shipped_bytes_total", "Bytes of the log that are where AGENT_LOG_URL says.")
_LOG_DROPPED = counter(
    "arbitrium_log_dropped_bytes_total",
    "Bytes of the log given up because the spool was full; the oldest go first.",
)
_LOG_NOT_PASSED_ON = counter(
    "arbitrium_log_not_passed_on_bytes_total", "Bytes that the container's own stdout and stderr did not take."
)


def logs(counts: LogCounts) -> Families:
    """The counters of the game's output."""
    yield _LOG_RECEIVED.family([((stream,), count) for stream, count in counts.received.items()])
    yield _LOG_SHIPPED.single(counts.shipped)
    yield _LOG_DROPPED.single(counts.dropped)
    yield _LOG_NOT_PASSED_ON.single(counts.not_passed_on)


_REQUESTS = counter(
    "arbitrium_agent_requests_total",
    "Requests to the local API, by transport (http, socket), operation and status.",
    "transport",
    "operation",
    "status",
)
_STATSD_DATAGRAMS = counter(
    "arbitrium_agent_statsd_datagrams_total",
    "StatsD datagrams: read, or lost because they came faster than they could be read.",
    "result",
)
_STATSD_SAMPLES = counter(
    "arbitrium_agent_statsd_samples_total",
    "StatsD samples: taken, or refused because they make no sense or are too many.",
    "result",
)


class _Durations:
    """The histogram of the requests' durations: the samples of those label sets that nothing was added to are kept."""

    def __init__(self) -> None:
        """None yet."""
        self._known: dict[Labels, tuple[float, list[int], list[Sample]]] = {}
        self._last = self._family()

    def _family(self) -> Family:
        return Family(
            "arbitrium_agent_request_duration_seconds",
            "histogram",
            "From a request's arrival to its answer. Streams of events are not in it: they last.",
            [sample for _, _, samples in self._known.values() for sample in samples],
        )

    def family(self, durations: Latency) -> Family:
        """The histogram as it is now; the same family where that is what it was."""
        before, self._known = self._known, {}
        changed = False
        for labels, spread in durations:
            known = before.get(labels)
            if known is None or known[0] != spread.total or known[1] != spread.buckets:
                changed = True
                transport, operation = labels
                pairs = (("transport", transport), ("operation", operation))
                samples = histogram_samples(pairs, LATENCY_BUCKETS, spread.buckets, spread.total)
                known = (spread.total, list(spread.buckets), samples)
            self._known[labels] = known
        if changed or len(before) != len(self._known):
            self._last = self._family()
        return self._last


_DURATIONS = _Durations()


def requests(counted: Counted) -> Families:
    """The requests to the agent."""
    yield _REQUESTS.family(list(counted.requests))
    if (statsd := counted.statsd) is not None:
        yield _STATSD_DATAGRAMS.family([(("read",), statsd.datagrams), (("lost",), statsd.lost)])
        yield _STATSD_SAMPLES.family([(("taken",), statsd.taken), (("refused",), statsd.refused)])
    yield _DURATIONS.family(counted.durations)


_PROCESS_CPU = counter("arbitrium_agent_process_cpu_seconds_total", "CPU time of the agent's own processes.", "process")
_PROCESS_RESIDENT = gauge(
    "arbitrium_agent_process_resident_memory_bytes", "Memory of the agent's own processes in RAM.", "process"
)
_PROCESS_VIRTUAL = gauge(
    "arbitrium_agent_process_virtual_memory_bytes", "Address space of the agent's own processes.", "process"
)
_PROCESS_THREADS = gauge("arbitrium_agent_process_threads", "Threads of the agent's own processes.", "process")
_PROCESS_START = gauge(
    "arbitrium_agent_process_start_time_seconds",
    "When the agent's own processes started, in Unix time.",
    "process",
)
_PROCESS_FILES = gauge(
    "arbitrium_agent_process_open_fds", "Open file descriptors of the agent's own processes.", "process"
)
_PROCESS_FILES_LIMIT = gauge(
    "arbitrium_agent_process_max_fds",
    "File descriptors that the agent's own processes may have open.",
    "process",
)


def process(own: OwnProcesses) -> Families:
    """The resources used by the agent itself."""
    stats = [((name,), stat) for name, stat in own.processes.items()]
    yield _PROCESS_CPU.family([(labels, stat.cpu.user + stat.cpu.system) for labels, stat in stats])
    yield _PROCESS_RESIDENT.family([(labels, stat.resident_bytes) for labels, stat in stats])
    yield _PROCESS_VIRTUAL.family([(labels, stat.virtual_bytes) for labels, stat in stats])
    yield _PROCESS_THREADS.family([(labels, stat.threads) for labels, stat in stats])
    yield _PROCESS_START.family([(labels, stat.start_time) for labels, stat in stats])
    yield _PROCESS_FILES.family([((name,), files) for name, files in own.files.items() if files is not None])
    yield _PROCESS_FILES_LIMIT.family(
        [((name,), limit) for name, limit in own.files_limit.items() if limit is not None]
    )


_COLLECT_ERRORS = counter("arbitrium_agent_collect_errors_total", "Parts of a scrape that could not be read.", "part")


def failures(counted: Tally) -> Family:
    """The parts of a scrape that could not be read."""
    return _COLLECT_ERRORS.family(list(counted))


_REFUSED = counter(
    "arbitrium_game_metrics_refused_total",
    "Figures of the game's own that were not taken, by why: limit means too many names or label sets.",
    "why",
)
_SERIES = gauge("arbitrium_game_metrics_series", "Time series of the game's own figures.")


def custom(metrics: GameMetrics) -> Families:
    """The game's own metrics, as `game_<name>`, and how many reports were refused."""
    yield _REFUSED.family([((why,), count) for why, count in metrics.refused.items()])
    yield _SERIES.single(metrics.size)
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

"""What the container is given and what it has used of it: the counters of its cgroup as metric families."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from agent.game.cgroup import CgroupReading

_GAUGES = (
    ("memory_usage_bytes", "Memory that the container uses, the page cache included.", "memory_current"),
    ("memory_peak_bytes", "The most memory that the container used at once.", "memory_peak"),
    ("memory_limit_bytes", "Memory that the container may use; absent without a limit.", "memory_limit"),
    ("cpus", "CPUs that the container may use; absent without a limit.", "cpu_limit"),
)
_COUNTERS = (
    ("oom_kills_total", "Processes of the container that were killed because memory ran out.", "oom_kills"),
    ("oom_events_total", "How often the container's memory limit was reached.", "oom_events"),
    ("cpu_seconds_total", "CPU time that the container has used.", "cpu_seconds"),
    ("cpu_periods_total", "Periods in which the container's CPU limit was watched.", "cpu_periods"),
    ("cpu_throttled_periods_total", "Periods in which the CPU limit was reached.", "cpu_throttled_periods"),
    ("cpu_throttled_seconds_total", "How long the container had to wait for CPU time.", "cpu_throttled_seconds"),
)


def container(reading: CgroupReading) -> Iterator[Metric]:
    """The families of the cgroup; what the kernel or the container's runtime does not show is not there."""
    for name, documentation, field in _GAUGES:
        if (value := getattr(reading, field)) is not None:
            yield GaugeMetricFamily(f"agent_container_{name}", documentation, value=value)
    for name, documentation, field in _COUNTERS:
        if (value := getattr(reading, field)) is not None:
            yield CounterMetricFamily(f"agent_container_{name}", documentation, value=value)

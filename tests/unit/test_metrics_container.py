"""The counters of the container's cgroup as metrics."""

from agent.game.cgroup import CgroupReading
from agent.metrics.container import ContainerReading
from agent.metrics.families import container

FULL = CgroupReading(
    version=2,
    memory_path="/sys/fs/cgroup",
    memory_limit=3_000_000_000,
    memory_current=1_000_000_000,
    memory_peak=2_000_000_000,
    oom_kills=1,
    oom_events=2,
    cpu_seconds=12.5,
    cpu_periods=100,
    cpu_throttled_periods=7,
    cpu_throttled_seconds=0.25,
    cpu_limit=1.5,
)


def values(reading: CgroupReading) -> dict[str, float]:
    """What is shown of a cgroup, by the name of the sample."""
    families = container(ContainerReading(reading))
    return {family.name + sample.suffix: sample.value for family in families for sample in family.samples}


def test_each_counter_has_its_name_and_unit() -> None:
    """Everything that the kernel shows comes out, in base units."""
    samples = {
        family.name + sample.suffix: sample.value
        for family in container(ContainerReading(FULL))
        for sample in family.samples
    }
    assert samples == {
        "arbitrium_container_memory_usage_bytes": 1_000_000_000,
        "arbitrium_container_memory_peak_bytes": 2_000_000_000,
        "arbitrium_container_memory_limit_bytes": 3_000_000_000,
        "arbitrium_container_cpus": 1.5,
        "arbitrium_container_oom_kills_total": 1,
        "arbitrium_container_oom_events_total": 2,
        "arbitrium_container_cpu_seconds_total": 12.5,
        "arbitrium_container_cpu_periods_total": 100,
        "arbitrium_container_cpu_throttled_periods_total": 7,
        "arbitrium_container_cpu_throttled_seconds_total": 0.25,
    }


def test_what_is_not_shown_is_not_there() -> None:
    """A missing counter is no 0: outside a container, or without a limit, there is no such metric."""
    assert list(container(ContainerReading(CgroupReading()))) == []
    unlimited = CgroupReading(version=2, memory_current=5, cpu_seconds=0.0)
    names = {
        family.name + sample.suffix for family in container(ContainerReading(unlimited)) for sample in family.samples
    }
    assert names == {"arbitrium_container_memory_usage_bytes", "arbitrium_container_cpu_seconds_total"}

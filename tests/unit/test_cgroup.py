"""The kernel's counters, read from trees as containers of either version show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.game.cgroup import CgroupReading, oom_kills_between, read_cgroup, read_memory_limit


def tree(root: Path, files: dict[str, str]) -> None:
    """Writes a fake cgroup file system."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def membership(root: Path, text: str) -> str:
    """A fake /proc/self/cgroup."""
    path = root / "membership"
    path.write_text(text)
    return str(path)


V2 = {
    "memory.events": "low 0\nhigh 12\nmax 34\noom 3\noom_kill 2\noom_group_kill 0\n",
    "memory.max": "536870912\n",
    "memory.current": "1048576\n",
    "memory.peak": "536866816\n",
    "cpu.stat": "usage_usec 12500000\nuser_usec 1\nnr_periods 100\nnr_throttled 25\nthrottled_usec 1500000\n",
    "cpu.max": "150000 100000\n",
}


@pytest.mark.parametrize("inside", ["", "system.slice/docker-abc.scope"])
def test_version_2_is_read_where_the_container_sees_it(tmp_path: Path, inside: str) -> None:
    """At the mount itself in a namespace of its own, below it otherwise."""
    root = tmp_path / "fs"
    tree(root, {"cgroup.controllers": "cpu memory\n"})
    tree(root / inside, V2)
    reading = read_cgroup(str(root), membership(tmp_path, f"0::/{inside or 'not/visible/here'}\n"))
    expected = CgroupReading(
        version=2,
        memory_path=str(root / inside),
        memory_limit=536870912,
        memory_current=1048576,
        memory_peak=536866816,
        oom_kills=2,
        oom_events=3,
        cpu_seconds=12.5,
        cpu_periods=100,
        cpu_throttled_periods=25,
        cpu_throttled_seconds=1.5,
        cpu_limit=1.5,
    )
    assert repr(reading) == repr(expected)


def test_version_2_without_limits_and_on_an_old_kernel(tmp_path: Path) -> None:
    """`max` is no limit, and memory.peak came with Linux 5.19."""
    tree(tmp_path / "fs", {"cgroup.controllers": "", **V2, "memory.max": "max\n", "cpu.max": "max 100000\n"})
    (tmp_path / "fs" / "memory.peak").unlink()
    reading = read_cgroup(str(tmp_path / "fs"), membership(tmp_path, "0::/\n"))
    assert (reading.memory_limit, reading.memory_peak, reading.cpu_limit) == (None, None, None)
    assert reading.oom_kills == 2


def test_a_parents_lower_limit_is_the_one_that_bites(tmp_path: Path) -> None:
    """A pod's limit above a container without one."""
    root = tmp_path / "fs"
    tree(root, {"cgroup.controllers": "", "pod/memory.max": "1000\n", "pod/c/memory.max": "max\n"})
    tree(root / "pod" / "c", {"memory.events": "oom_kill 0\n"})
    assert read_cgroup(str(root), membership(tmp_path, "0::/pod/c\n")).memory_limit == 1000
    assert read_memory_limit(str(root), membership(tmp_path, "0::/pod/c\n")) == 1000


@pytest.mark.parametrize("cpu", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("inside", ["", "docker/abc"])
def test_version_1_is_read_too(tmp_path: Path, cpu: str, inside: str) -> None:
    """Its controllers are mounted apart, and it counts in other units."""
    root = tmp_path / "fs"
    tree(
        root,
        {
            f"memory/{inside}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
            f"memory/{inside}/memory.limit_in_bytes": "268435456\n",
            f"memory/{inside}/memory.usage_in_bytes": "4096\n",
            f"memory/{inside}/memory.max_usage_in_bytes": "268435456\n",
            f"memory/{inside}/memory.failcnt": "9\n",
            f"{cpu}/{inside}/cpu.stat": "nr_periods 10\nnr_throttled 5\nthrottled_time 2500000000\n",
            f"{cpu}/{inside}/cpu.cfs_quota_us": "50000\n",
            f"{cpu}/{inside}/cpu.cfs_period_us": "100000\n",
            f"{'cpuacct' if cpu == 'cpu' else cpu}/{inside}/cpuacct.usage": "3000000000\n",
        },
    )
    path = inside or "libpod/elsewhere"
    reading = read_cgroup(str(root), membership(tmp_path, f"4:memory:/{path}\n2:cpu,cpuacct:/{path}\n0::/\n"))
    assert (reading.version, reading.oom_kills, reading.oom_events) == (1, 7, 9)
    assert (reading.memory_limit, reading.memory_peak, reading.memory_current) == (268435456, 268435456, 4096)
    assert read_memory_limit(str(root), membership(tmp_path, f"4:memory:/{path}\n")) == 268435456
    assert (reading.cpu_seconds, reading.cpu_limit) == (3.0, 0.5)
    assert (reading.cpu_periods, reading.cpu_throttled_periods, reading.cpu_throttled_seconds) == (10, 5, 2.5)


def test_version_1_without_a_limit(tmp_path: Path) -> None:
    """It writes a very large number, and -1 for the CPU."""
    files = {
        "memory/memory.usage_in_bytes": "1\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu/cpu.stat": "nr_periods 0\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
    }
    tree(tmp_path / "fs", files)
    reading = read_cgroup(str(tmp_path / "fs"), membership(tmp_path, "4:memory:/\n2:cpu:/\n"))
    assert (reading.memory_limit, reading.cpu_limit, reading.oom_kills) == (None, None, None)
    assert read_memory_limit(str(tmp_path / "fs"), membership(tmp_path, "4:memory:/\n")) is None


def test_without_any_cgroup_nothing_is_known_and_nothing_fails(tmp_path: Path) -> None:
    """A sandbox may hide all of it, or show nonsense."""
    assert repr(read_cgroup(str(tmp_path / "none"), str(tmp_path / "neither"))) == "CgroupReading()"
    assert read_memory_limit(str(tmp_path / "none"), str(tmp_path / "neither")) is None
    tree(tmp_path / "fs", {"cgroup.controllers": "", "memory.events": "oom_kill what\n\x00\n", "cpu.max": "\n"})
    reading = read_cgroup(str(tmp_path / "fs"), membership(tmp_path, "nonsense"))
    assert (reading.version, reading.oom_kills, reading.cpu_limit) == (2, None, None)


def test_kills_are_counted_between_two_readings() -> None:
    """The container may have seen others before the game was started."""
    before, after = CgroupReading(version=2, oom_kills=3), CgroupReading(version=2, oom_kills=5)
    assert oom_kills_between(before, after) == 2
    assert oom_kills_between(before, CgroupReading()) is None
    assert oom_kills_between(None, after) is None
    assert oom_kills_between(after, before) == 0


def test_this_machines_own_counters_can_be_read() -> None:
    """Whatever it has; the fields are consistent with each other."""
    reading = read_cgroup()
    if reading.version is not None and reading.memory_peak is not None:
        assert reading.memory_current is not None
        assert reading.memory_peak >= reading.memory_current // 2

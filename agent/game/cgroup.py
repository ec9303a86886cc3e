"""Reads the kernel's counters for the container: memory, OOM kills, CPU throttling. cgroup v2 and v1.

The files are described in Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. Values that a kernel
or container runtime does not provide are None, never an error. Standard library only and quick to import, because the
first reading is before the game is spawned: a game can run out of memory before the rest of the agent is loaded.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# v1 reports "no limit" as the largest multiple of the page size that fits in 63 bits.
_NO_LIMIT = 1 << 60
_LONGEST = 16384


class CgroupReading:
    """The counters at one time; None if they are not available.

    Attributes:
        version: 1 or 2, or None where no cgroup is visible at all.
        memory_path: directory that the memory figures come from, or None.
        memory_limit: bytes, or None without a limit.
        memory_current: bytes in use.
        memory_peak: the most bytes that were in use at once (v2: since Linux 5.19).
        oom_kills: processes of this cgroup that the OOM killer has killed so far.
        oom_events: how often reclaiming memory was not enough to stay below the limit (v2), or the limit was hit (v1:
            `failcnt`).
        cpu_seconds: CPU time used.
        cpu_periods: enforcement periods so far; 0 without a CPU limit.
        cpu_throttled_periods: periods in which the limit was reached.
        cpu_throttled_seconds: how long tasks had to wait because of it, summed over all CPUs.
        cpu_limit: CPUs that may be used, such as 1.5; None without a limit.
    """

    __slots__ = (
        "cpu_limit",
        "cpu_periods",
        "cpu_seconds",
        "cpu_throttled_periods",
        "cpu_throttled_seconds",
        "memory_current",
        "memory_limit",
        "memory_path",
        "memory_peak",
        "oom_events",
        "oom_kills",
        "version",
    )

    def __init__(  # noqa: D107 - see the attributes
        self,
        *,
        version: "int | None" = None,
        memory_path: "str | None" = None,
        memory_limit: "int | None" = None,
        memory_current: "int | None" = None,
        memory_peak: "int | None" = None,
        oom_kills: "int | None" = None,
        oom_events: "int | None" = None,
        cpu_seconds: "float | None" = None,
        cpu_periods: "int | None" = None,
        cpu_throttled_periods: "int | None" = None,
        cpu_throttled_seconds: "float | None" = None,
        cpu_limit: "float | None" = None,
    ) -> None:
        self.version = version
        self.memory_path = memory_path
        self.memory_limit = memory_limit
        self.memory_current = memory_current
        self.memory_peak = memory_peak
        self.oom_kills = oom_kills
        self.oom_events = oom_events
        self.cpu_seconds = cpu_seconds
        self.cpu_periods = cpu_periods
        self.cpu_throttled_periods = cpu_throttled_periods
        self.cpu_throttled_seconds = cpu_throttled_seconds
        self.cpu_limit = cpu_limit

    def __repr__(self) -> str:
        """What is known."""
        known = ((name, getattr(self, name)) for name in self.__slots__)
        return f"CgroupReading({', '.join(f'{name}={value!r}' for name, value in known if value is not None)})"


class Places:
    """The directories of a cgroup's counters; finding them costs as much as reading the counters.

    Attributes:
        version: 1 or 2, or None where no cgroup is visible at all.
        memory: directory of the memory figures, or None.
        memory_root: the mount that this is in.
        cpu: directory of the CPU limit and of throttling, or None.
        usage: directory of the CPU time used, or None.
    """

    __slots__ = ("cpu", "memory", "memory_root", "usage", "version")

    def __init__(  # noqa: D107 - see the attributes
        self, version: "int | None", memory_root: str, memory: "str | None", cpu: "str | None", usage: "str | None"
    ) -> None:
        self.version = version
        self.memory_root = memory_root
        self.memory = memory
        self.cpu = cpu
        self.usage = usage


def find_places(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> Places:
    """Finds the cgroup that this process is in.

    Args:
        root: where the cgroup file systems are mounted.
        membership: the file that says which cgroup the process is in (man 7 cgroups).
    """
    paths = _memberships(membership)
    if os.path.exists(f"{root}/cgroup.controllers"):
        path = paths.get("", "/")
        cpu = _directory(root, path, "cpu.stat")
        return Places(2, root, _directory(root, path, "memory.events"), cpu, cpu)
    if not any(os.path.isdir(f"{root}/{name}") for name in ("memory", "cpu", "cpu,cpuacct")):
        return Places(None, root, None, None, None)
    memory = f"{root}/memory"
    cpu_root = next((f"{root}/{name}" for name in ("cpu", "cpu,cpuacct") if os.path.isdir(f"{root}/{name}")), root)
    usage_root = next(
        (f"{root}/{name}" for name in ("cpuacct", "cpu,cpuacct") if os.path.isdir(f"{root}/{name}")), root
    )
    return Places(
        1,
        memory,
        _directory(memory, paths.get("memory", "/"), "memory.usage_in_bytes"),
        _directory(cpu_root, paths.get("cpu", "/"), "cpu.stat"),
        _directory(usage_root, paths.get("cpuacct", "/"), "cpuacct.usage"),
    )


def read_places(places: Places, read: "Callable[[str], str | None] | None" = None) -> CgroupReading:
    """Reads the available counters.

    Args:
        places: where they are.
        read: reads a file by its path, and returns None where it cannot; each file is opened and closed by default.
    """
    if places.version is None:
        return CgroupReading()
    return _read_v2(places, read or read_text) if places.version == 2 else _read_v1(places, read or read_text)


def read_cgroup(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> CgroupReading:
    """Reads the counters of the cgroup that this process is in; arguments as `find_places`."""
    return read_places(find_places(root, membership))


def read_memory_limit(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> "int | None":
    """Reads the memory limit alone, as `CgroupReading.memory_limit` has it; arguments as `find_places`."""
    return _memory_limit(find_places(root, membership), read_text)


def oom_kills_between(before: "CgroupReading | None", after: "CgroupReading | None") -> "int | None":
    """How many processes the OOM killer killed between two readings; None if that is unknown."""
    if before is None or after is None or after.oom_kills is None or before.oom_kills is None:
        return None
    return max(0, after.oom_kills - before.oom_kills)


def _read_v2(places: Places, read: "Callable[[str], str | None]") -> CgroupReading:
    directory, cpu = places.memory, places.cpu
    events = _table(read, directory, "memory.events")
    stat = _table(read, cpu, "cpu.stat")
    quota, _, period = (_text(read, cpu, "cpu.max") or "").partition(" ")
    return CgroupReading(
        version=2,
        memory_path=directory,
        memory_limit=_memory_limit(places, read),
        memory_current=_number(read, directory, "memory.current"),
        memory_peak=_number(read, directory, "memory.peak"),
        oom_kills=events.get("oom_kill"),
        oom_events=events.get("oom"),
        cpu_seconds=_scaled(stat.get("usage_usec"), 1e6),
        cpu_periods=stat.get("nr_periods"),
        cpu_throttled_periods=stat.get("nr_throttled"),
        cpu_throttled_seconds=_scaled(stat.get("throttled_usec"), 1e6),
        cpu_limit=int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None,
    )


def _read_v1(places: Places, read: "Callable[[str], str | None]") -> CgroupReading:
    directory, cpu, usage = places.memory, places.cpu, places.usage
    stat = _table(read, cpu, "cpu.stat")
    quota, period = _number(read, cpu, "cpu.cfs_quota_us"), _number(read, cpu, "cpu.cfs_period_us")
    return CgroupReading(
        version=1,
        memory_path=directory,
        memory_limit=_memory_limit(places, read),
        memory_current=_number(read, directory, "memory.usage_in_bytes"),
        memory_peak=_number(read, directory, "memory.max_usage_in_bytes"),
        # Since Linux 4.13; the file's other two fields are older.
        oom_kills=_table(read, directory, "memory.oom_control").get("oom_kill"),
        oom_events=_number(read, directory, "memory.failcnt"),
        cpu_seconds=_scaled(_number(read, usage, "cpuacct.usage"), 1e9),
        cpu_periods=stat.get("nr_periods"),
        cpu_throttled_periods=stat.get("nr_throttled"),
        cpu_throttled_seconds=_scaled(stat.get("throttled_time"), 1e9),
        cpu_limit=quota / period if quota is not None and period and quota > 0 else None,
    )


def _memberships(path: str) -> "dict[str, str]":
    """Path by controller; the one of v2 has an empty name."""
    found: dict[str, str] = {}
    for line in (read_text(path) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, cgroup = rest.partition(":")
        for name in controllers.split(","):
            found[name] = cgroup
    return found


def _directory(root: str, path: str, file: str) -> "str | None":
    """The directory of a cgroup: below the mount, or the mount itself if a container sees only its own part."""
    for directory in (os.path.normpath(f"{root}/{path}"), root):
        if os.path.exists(f"{directory}/{file}"):
            return directory
    return None


def _memory_limit(places: Places, read: "Callable[[str], str | None]") -> "int | None":
    """The lowest limit: a parent's limit may be lower than the cgroup's own."""
    root, directory = places.memory_root, places.memory
    file = "memory.max" if places.version == 2 else "memory.limit_in_bytes"
    limits = []
    while directory is not None and (directory == root or directory.startswith(f"{root}/")):
        limit = _number(read, directory, file)
        if limit is not None and limit < _NO_LIMIT:
            limits.append(limit)
        directory = os.path.dirname(directory) if directory != root else None
    return min(limits, default=None)


def _table(read: "Callable[[str], str | None]", directory: "str | None", file: str) -> "dict[str, int]":
    table = {}
    for line in (_text(read, directory, file) or "").splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            table[name] = int(value)
    return table


def _number(read: "Callable[[str], str | None]", directory: "str | None", file: str) -> "int | None":
    text = _text(read, directory, file)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None  # "max": no limit


def _scaled(value: "int | None", unit: float) -> "float | None":
    return None if value is None else value / unit


def _text(read: "Callable[[str], str | None]", directory: "str | None", file: str) -> "str | None":
    return None if directory is None else read(f"{directory}/{file}")


def read_text(path: str) -> "str | None":
    """The beginning of a small file of the kernel, without the white space around it; None where it cannot be read."""
    try:
        # os.open() instead of open(), whose layers take most of the time for a file of a few bytes.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(file, _LONGEST).decode("ascii", "replace").strip()
    except OSError:
        return None
    finally:
        os.close(file)

"""Reads more of the kernel's values for the container than CPU and memory: pressure, tasks, and cached memory.

Pressure (PSI) is the time in which tasks had to wait for a resource: it shows that a container is too small before
anything is killed or throttled. It is available for a cgroup only with cgroup v2, also if that is mounted next to v1;
the machine's own values in `/proc/pressure` would include other containers, so they are not used.

Described in Linux Documentation/accounting/psi.rst, admin-guide/cgroup-v2.rst, cgroup-v1/pids.rst.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from agent.game.cgroup import CgroupReading, find_places, read_places, read_text
from agent.metrics.kept_files import KeptFiles


class ContainerReading(NamedTuple):
    """The container's values at one time; None, or missing, if they are not available.

    Attributes:
        cgroup: CPU and memory.
        pressure: seconds that tasks waited, by resource (`cpu`, `memory`, `io`) and share (`some` of them, or `full`:
            all that had work to do).
        inactive_file: bytes of the page cache that can be freed at once; the used memory without them is the working
            set.
        tasks: the number of processes and threads.
        task_limit: the most processes and threads; None without a limit.
    """

    cgroup: CgroupReading
    pressure: Mapping[tuple[str, str], float] = MappingProxyType({})
    inactive_file: int | None = None
    tasks: int | None = None
    task_limit: int | None = None


class ContainerReader:
    """Reads the counters of the cgroup of this process. Must not be used by two threads at once."""

    def __init__(self, root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> None:
        """Reads nothing yet.

        Args:
            root: where the cgroup file systems are mounted.
            membership: the file that says which cgroup the process is in (man 7 cgroups).
        """
        self._root = root
        self._membership = membership
        self._files = KeptFiles()
        self._find()

    def _find(self) -> None:
        root = self._root
        self._places = find_places(root, self._membership)
        self._unified = self._places.memory or root
        self._tasks: str | None = self._unified
        if self._places.version == 1:
            self._unified = self._find_unified(root)
            self._tasks = self._find_tasks(root)

    def _find_tasks(self, root: str) -> str | None:
        own = (self._places.memory or "").replace(f"{root}/memory", f"{root}/pids", 1)
        return next((tasks for tasks in (own, f"{root}/pids") if os.path.exists(f"{tasks}/pids.current")), None)

    def read(self) -> ContainerReading:
        """Reads each file once. If the files are gone, searches for them again."""
        cgroup = read_places(self._places, self._files.text)
        if cgroup.memory_current is None:
            self._files.close()
            self._find()
            cgroup = read_places(self._places, self._files.text)
        directory = cgroup.memory_path
        if cgroup.version is None or directory is None:
            return ContainerReading(cgroup)
        inactive = "\ninactive_file " if cgroup.version == 2 else "\ntotal_inactive_file "
        _, found, rest = f"\n{self._files.text(f'{directory}/memory.stat')}".partition(inactive)
        return ContainerReading(
            cgroup,
            pressure=self._pressure(),
            inactive_file=int(rest.partition("\n")[0]) if found else None,
            tasks=self._number(f"{self._tasks}/pids.current") if self._tasks else None,
            task_limit=self._number(f"{self._tasks}/pids.max") if self._tasks else None,
        )

    def _find_unified(self, root: str) -> str:
        """The directory of the v2 cgroup on a machine that also has v1."""
        for line in (read_text(self._membership) or "").splitlines():
            if line.startswith("0::"):
                directory = os.path.normpath(f"{root}/unified/{line[3:]}")
                return directory if os.path.exists(f"{directory}/cpu.pressure") else f"{root}/unified"
        return f"{root}/unified"

    def _pressure(self) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        for resource in ("cpu", "memory", "io"):
            # Such as `some avg10=0.12 avg60=0.10 avg300=0.02 total=123456`, in microseconds.
            for line in (self._files.text(f"{self._unified}/{resource}.pressure") or "").splitlines():
                share, _, rest = line.partition(" ")
                _, given, total = rest.partition("total=")
                if given and total.isdigit() and share in ("some", "full"):
                    found[resource, share] = int(total) / 1e6
        return found

    def _number(self, path: str) -> int | None:
        text = self._files.text(path)
        return int(text) if text is not None and text.isdigit() else None  # "max": no limit

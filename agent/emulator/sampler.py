"""Measures every running deployment's processes once a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from agent.emulator.deployment import Deployment
from agent.emulator.samples import Sample

if TYPE_CHECKING:
    from agent.emulator.platform import Platform

log = logging.getLogger(__name__)
MB = 1024 * 1024


@dataclass(frozen=True)
class Reading:
    """One process, at one moment."""

    pid: int
    created: float
    cpu_seconds: float
    resident: int
    read: int
    written: int


@dataclass
class Tally:
    """What has been added up of one deployment so far."""

    at: float
    received: int = 0
    transmitted: int = 0
    read: int = 0
    written: int = 0


def read_processes(roots: dict[str, tuple[int, int]]) -> dict[str, list[Reading]]:
    """Every process of some deployments, from one look at all processes.

    Args:
        roots: by name, the process below which all are, and one that belongs to them too wherever it is (0 for none).
    """
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process)
    readings: dict[str, list[Reading]] = {}
    for name, (root, inner) in roots.items():
        queue = list(children.get(root, []))
        if inner:
            with contextlib.suppress(psutil.Error):
                queue.append(psutil.Process(inner))
        found: dict[int, Reading] = {}
        while queue:
            process = queue.pop()
            if process.pid not in found:
                queue += children.get(process.pid, [])
                with contextlib.suppress(psutil.Error):
                    found[process.pid] = _read(process)
        readings[name] = list(found.values())
    return readings


def _read(process: psutil.Process) -> Reading:
    with process.oneshot():
        times = process.cpu_times()
        read = written = 0
        with contextlib.suppress(psutil.AccessDenied):
            io = process.io_counters()
            read, written = io.read_bytes, io.write_bytes
        return Reading(
            process.pid, process.create_time(), times.user + times.system, process.memory_info().rss, read, written
        )


def proportional_memory(pids: Iterable[int]) -> int:
    """Bytes of memory of some processes, shared pages counted once between those that share them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_full_info().pss
    return total


class Sampler:
    """One task that samples every running deployment.

    Args:
        platform: whose deployments.
    """

    def __init__(self, platform: Platform) -> None:
        """See the class."""
        self._platform = platform
        self._task: asyncio.Task[None] | None = None
        self._tallies: dict[str, Tally] = {}
        self._before: dict[tuple[int, float], Reading] = {}

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="sampler")

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._platform.settings.sample_seconds)
            try:
                await self._sample()
            except Exception:
                log.exception("cannot sample the deployments this time")

    async def _sample(self) -> None:
        running = {each.id: each for each in self._platform.deployments.values() if each.container and each.active}
        roots = {
            each.id: (each.container.shim_pid, each.container.inner_pid)
            for each in running.values()
            if each.container is not None and each.container.running
        }
        if not roots:
            self._tallies.clear()
            self._before.clear()
            return
        readings = await asyncio.to_thread(read_processes, roots)
        self._tallies = {name: tally for name, tally in self._tallies.items() if name in running}
        seen: dict[tuple[int, float], Reading] = {}
        for name, processes in readings.items():
            self._add(running[name], processes)
            seen |= {(reading.pid, reading.created): reading for reading in processes}
            if self._platform.settings.enforce_memory:
                await self._enforce_memory(running[name], processes)
        self._before = seen

    def _add(self, deployment: Deployment, processes: list[Reading]) -> None:
        """One sample, from what has changed since the one before."""
        moment = time.time()
        tally = self._tallies.get(deployment.id)
        if tally is None:
            tally = self._tallies[deployment.id] = Tally(deployment.started.timestamp())
        passed = max(moment - tally.at, 0.001)
        cpu = 0.0
        for reading in processes:
            before = self._before.get((reading.pid, reading.created))
            cpu += reading.cpu_seconds - (before.cpu_seconds if before else 0.0)
            tally.read += reading.read - (before.read if before else 0)
            tally.written += reading.written - (before.written if before else 0)
        traffic = deployment.forwarding.traffic if deployment.forwarding else None
        received, transmitted = (traffic.received, traffic.transmitted) if traffic else (0, 0)
        deployment.samples.append(
            Sample(
                at=moment,
                cpu_percent=100 * cpu / passed,
                memory_mb=sum(reading.resident for reading in processes) / MB,
                receive_rate=(received - tally.received) / passed,
                transmit_rate=(transmitted - tally.transmitted) / passed,
                received=received,
                transmitted=transmitted,
                disk_read=tally.read,
                disk_written=tally.written,
            )
        )
        tally.at, tally.received, tally.transmitted = moment, received, transmitted
        deployment.note_change()

    async def _enforce_memory(self, deployment: Deployment, processes: list[Reading]) -> None:
        """Kill a game that uses more than its version has, as the kernel of a host would."""
        limit = deployment.version.req_memory * MB
        container = deployment.container
        if container is None or sum(reading.resident for reading in processes) <= limit:
            return
        used = await asyncio.to_thread(proportional_memory, [reading.pid for reading in processes])
        if used > limit and container.running:
            log.warning("deployment %s uses %d of %d MB: killed", deployment.id, used // MB, limit // MB)
            container.out_of_memory = True
            container.kill()

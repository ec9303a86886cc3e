"""What a scrape of /metrics costs, next to a bare aiohttp app with prometheus_client's own default metrics.

The agent reads at most every 20 ms, so the bare app is asked no faster: after a pause nothing is left in the CPU's
caches, and whatever is asked takes twice the CPU time. A real scrape, every 15 s or so, finds the same.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

import psutil

from benchmarks import Row, skipped, summary
from benchmarks._tools import (
    CannotMeasureError,
    Client,
    Running,
    agent,
    bare,
    contained,
    cpu_seconds,
    own_processes,
    rounds,
)

FIRST, LATER, CPU = "first scrape", "scrape", "CPU time of a scrape"
MANY = 50
AIM, AIM_EACH = 2.0, 0.15  # ms of CPU: for a scrape, and for each process of the game
GZIP = "Accept-Encoding: gzip"  # as Prometheus asks
_PAUSE = 0.02  # seconds between two readings


def measure(quick: bool) -> list[Row]:
    """Measures the first scrape, which imports what collects, apart from the others."""
    seconds, scrapes = (4.0, 50) if quick else (15.0, 100)
    firsts: dict[str, list[float]] = {}
    laters: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    try:
        for _ in rounds(seconds, 5):
            subjects: dict[str, AbstractContextManager[Running]] = {
                "agent": agent(),
                "agent, PID 1 of a namespace": contained(),
                f"agent, a game of {MANY + 1} processes": agent(MANY),
                "bare aiohttp app, default metrics": bare("metrics"),
            }
            for who, process in subjects.items():
                with process as it, Client(it.metrics_port) as client:
                    firsts.setdefault(who, []).extend(_milliseconds(client.timed("GET", "/metrics", 1)))
                    pause = _PAUSE if who.startswith("bare") else 0.0
                    before = cpu_seconds(it.pid)
                    laters.setdefault(who, []).extend(
                        _milliseconds(client.timed("GET", "/metrics", scrapes, pause=pause))
                    )
                    cpu.setdefault(who, []).append((cpu_seconds(it.pid) - before) * 1000 / scrapes)
                    sizes[who] = len(client.ask(client.request("GET", "/metrics"))[1])
                    if "namespace" in who:
                        before = cpu_seconds(it.pid)
                        client.timed("GET", "/metrics", scrapes, GZIP)
                        cpu.setdefault(f"{who}, gzip", []).append((cpu_seconds(it.pid) - before) * 1000 / scrapes)
                    if not who.startswith("bare"):
                        cpu.setdefault(f"the files alone: {who}", []).append(_files_alone(it, scrapes))
    except CannotMeasureError as problem:
        return [skipped(LATER, "agent", "ms", str(problem))]
    aims = {
        "agent": AIM,
        "agent, PID 1 of a namespace": AIM,
        f"agent, a game of {MANY + 1} processes": AIM + (MANY + 1) * AIM_EACH,
    }
    rows = [summary(FIRST, who, values, "ms") for who, values in firsts.items()]
    for who, values in laters.items():
        waits = "" if who not in aims else "; waits for 20 ms between two readings"
        rows.append(summary(LATER, who, values, "ms", note=f"{sizes[who] / 1000:.1f} kB{waits}"))
    return rows + [summary(CPU, who, values, "ms", at_most=aims.get(who)) for who, values in cpu.items()]


def _milliseconds(seconds: list[float]) -> list[float]:
    return [each * 1000 for each in seconds]


def _files_alone(it: Running, times: int) -> float:
    """The floor: CPU time in ms of reading what a scrape reads, with nothing done to it.

    Args:
        it: an agent that was scraped; its descriptors say which files it keeps open.
        times: how often.
    """
    own = own_processes(it.pid)
    game = [process.pid for process in psutil.Process(it.pid).children(recursive=True) if process.pid not in own]
    with ExitStack() as stack:
        kept = [stack.enter_context(_opened(path)) for path in _kept_open(own[-1])]
        began = time.thread_time()
        for _ in range(times):
            for file in kept:
                os.pread(file, 16384, 0)
            os.listdir("/proc")
            for pid in (*own, *game):
                _read_once(f"/proc/{pid}/stat")
                os.stat(f"/proc/{pid}/fd")
            for pid in game:
                _read_once(f"/proc/{pid}/io")
                _read_once(f"/proc/{pid}/status")
            time.sleep(_PAUSE)
        return (time.thread_time() - began) * 1000 / times


def _kept_open(pid: int) -> list[str]:
    """Files of the kernel that a process has open, in a way that opens them from here: it may see another /proc."""
    links = {path: os.readlink(path) for entry in os.scandir(f"/proc/{pid}/fd") if (path := entry.path)}
    return [path for path, to in links.items() if to.startswith(("/proc/", "/sys/fs/cgroup/"))]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def _read_once(path: str) -> None:
    with _opened(path) as file:
        os.read(file, 8192)

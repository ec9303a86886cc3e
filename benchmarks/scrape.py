"""What a scrape of /metrics costs, next to a bare aiohttp app with prometheus_client's own default metrics."""

from __future__ import annotations

from contextlib import AbstractContextManager

from benchmarks import Row, skipped, summary
from benchmarks._tools import CannotMeasureError, Client, Running, agent, bare, contained, cpu_seconds, rounds

FIRST, LATER, CPU = "first scrape", "scrape", "CPU time of a scrape"
MANY = 50
AIM, AIM_EACH = 2.0, 0.15  # ms of CPU: for a scrape, and for each process of the game


def measure(quick: bool) -> list[Row]:
    """Measures the first scrape, which imports what collects, apart from the others."""
    seconds, scrapes = (4.0, 50) if quick else (12.0, 100)
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
                    before = cpu_seconds(it.pid)
                    laters.setdefault(who, []).extend(_milliseconds(client.timed("GET", "/metrics", scrapes)))
                    cpu.setdefault(who, []).append((cpu_seconds(it.pid) - before) * 1000 / scrapes)
                    sizes[who] = len(client.ask(client.request("GET", "/metrics"))[1])
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

"""What a scrape of /metrics costs, next to a bare aiohttp app with prometheus_client's own default metrics."""

from __future__ import annotations

from contextlib import AbstractContextManager

from benchmarks import Row, skipped, summary
from benchmarks._tools import CannotMeasureError, Client, Running, agent, bare

FIRST, LATER = "first scrape", "scrape"
MANY = 50


def measure(quick: bool) -> list[Row]:
    """Measures the first scrape, which imports the library, apart from the others."""
    rounds, scrapes = (1, 30) if quick else (5, 60)
    subjects: dict[str, AbstractContextManager[Running]] = {}
    firsts: dict[str, list[float]] = {}
    laters: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    try:
        for _ in range(rounds):
            subjects = {
                "agent": agent(),
                f"agent, a game of {MANY + 1} processes": agent(MANY),
                "bare aiohttp app, default metrics": bare("metrics"),
            }
            for who, process in subjects.items():
                with process as it, Client(it.metrics_port) as client:
                    firsts.setdefault(who, []).extend(_milliseconds(client.timed("GET", "/metrics", 1)))
                    laters.setdefault(who, []).extend(_milliseconds(client.timed("GET", "/metrics", scrapes)))
                    sizes[who] = len(client.ask(client.request("GET", "/metrics"))[1])
    except CannotMeasureError as problem:
        return [skipped(LATER, "agent", "ms", str(problem))]
    rows = [summary(FIRST, who, values, "ms") for who, values in firsts.items()]
    return rows + [
        summary(LATER, who, values, "ms", note=f"{sizes[who] / 1000:.1f} kB") for who, values in laters.items()
    ]


def _milliseconds(seconds: list[float]) -> list[float]:
    return [each * 1000 for each in seconds]

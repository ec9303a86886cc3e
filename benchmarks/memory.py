"""What the agent costs in memory: idle, and after a thousand requests."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager

from benchmarks import Row, skipped, summary
from benchmarks._tools import CannotMeasureError, Client, Running, agent, bare, memory

RSS, PSS = "RSS", "PSS"
IDLE, USED, SCRAPED = "idle", "after 1,000 requests", "after 1,000 requests and a scrape"


def measure(quick: bool) -> list[Row]:
    """Measures fresh processes; PSS counts a page that others use too in parts, so theirs lower ours."""
    rounds = 1 if quick else 3
    found: dict[tuple[str, str, str], list[float]] = {}
    try:
        for _ in range(rounds):
            _one("agent", agent(), found, scrape=True)
            _one("bare aiohttp app", bare(), found, scrape=False)
            _python(found)
    except CannotMeasureError as problem:
        return [skipped(f"{PSS}, {IDLE}", "agent", "MB", str(problem))]
    rows = []
    for moment in (IDLE, USED, SCRAPED):
        for kind in (RSS, PSS):
            for (what, when, who), values in found.items():
                if (what, when) == (kind, moment):
                    aim = 46.0 if (kind, moment, who) == (PSS, IDLE, "agent") else None
                    rows.append(summary(f"{kind}, {moment}", who, values, "MB", at_most=aim))
    return rows


def _one(
    who: str,
    process: AbstractContextManager[Running],
    found: dict[tuple[str, str, str], list[float]],
    *,
    scrape: bool,
) -> None:
    with process as it:
        _note(who, IDLE, it.pid, found)
        with Client(it.port) as client:
            for _ in range(5):
                client.timed("POST", "/v1/health", 100)
                client.timed("GET", "/v1/status", 100)
        _note(who, USED, it.pid, found)
        if scrape:
            with Client(it.metrics_port) as client:
                client.timed("GET", "/metrics", 1)
            _note(who, SCRAPED, it.pid, found)


def _python(found: dict[tuple[str, str, str], list[float]]) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _note("bare python3", IDLE, process.pid, found)
        process.kill()


def _note(who: str, moment: str, pid: int, found: dict[tuple[str, str, str], list[float]]) -> None:
    for kind, value in zip((RSS, PSS), memory(pid), strict=True):
        found.setdefault((kind, moment, who), []).append(value)

"""What the agent costs in memory: at its start, idle, and after a thousand requests.

The agent is two processes that share pages. PSS counts a page that several processes use in parts, so the sum of both
is what a machine has less of; it is compared with the version before there were two, where Git has it. RSS is the
agent's own process alone, which is what a list of processes shows; PID 1 stands beside it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from benchmarks import Row, skipped, summary
from benchmarks._tools import (
    HERE,
    CannotMeasureError,
    Client,
    Running,
    agent,
    bare,
    memory,
    own_processes,
    peak,
    rounds,
    scratch,
)

PSS, RSS, PEAK = "PSS of all processes", "RSS", "peak of RSS since the start, by RSS idle"
IDLE, USED, SCRAPED = "idle", "after 1,000 requests", "after 1,000 requests and a scrape"
ONE_PROCESS = "84d97a4"  # the last version that was one process
SETTLED = 1.5  # seconds; that version gave memory back a second after its start
_RSS_AIM, _PSS_MORE, _PEAK_AIM = 34.0, 5.0, 1.3

Found = dict[tuple[str, str], list[float]]


def measure(quick: bool) -> list[Row]:
    """Measures fresh processes in turn."""
    found: Found = {}
    missing: list[Row] = []
    try:
        earlier = {
            f"one process ({ONE_PROCESS}), giving pages back": _earlier("with"),
            f"one process ({ONE_PROCESS})": _earlier("without"),
        }
    except CannotMeasureError as problem:
        earlier = {}
        missing = [skipped(f"{PSS}, {IDLE}", f"one process ({ONE_PROCESS})", "MB", str(problem))]
    try:
        for _ in rounds(8 if quick else 24, 1 if quick else 3):
            _one("agent", agent(), found, scrape=True)
            _one("bare aiohttp app", bare(), found, scrape=False)
            for who, program in earlier.items():
                _one(who, agent(0, program), found, scrape=False)
            _python(found)
    except CannotMeasureError as problem:
        return [skipped(f"{PSS}, {IDLE}", "agent", "MB", str(problem))]
    before = found.get((f"{PSS}, {IDLE}", f"one process ({ONE_PROCESS})"))
    aims = {
        f"{PSS}, {IDLE}": None if before is None else sorted(before)[len(before) // 2] + _PSS_MORE,
        f"{RSS}, {IDLE}": _RSS_AIM,
        PEAK: _PEAK_AIM,
    }
    whats = list(dict.fromkeys(what for what, _ in found))
    return [
        summary(what, who, values, "" if what == PEAK else "MB", at_most=aims.get(what) if who == "agent" else None)
        for what in whats
        for (measured, who), values in found.items()
        if measured == what
    ] + missing


def _one(who: str, process: AbstractContextManager[Running], found: Found, *, scrape: bool) -> None:
    with process as it:
        time.sleep(SETTLED)
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


def _python(found: Found) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _note("bare python3", IDLE, process.pid, found)
        process.kill()


def _note(who: str, moment: str, pid: int, found: Found) -> None:
    own = own_processes(pid)
    figures = [memory(each) for each in own]
    found.setdefault((f"{PSS}, {moment}", who), []).append(sum(pss for _, pss in figures))
    found.setdefault((f"{RSS}, {moment}", who), []).append(figures[-1][0])
    if len(own) > 1:
        found.setdefault((f"{RSS}, {moment}", f"{who}: PID 1"), []).append(figures[0][0])
    if moment == IDLE:
        found.setdefault((PEAK, who), []).append(peak(own[-1]) / figures[-1][0])


def _earlier(kind: str) -> Sequence[str]:
    """The command of the version that was one process.

    Args:
        kind: `with` or `without` what it did to drop pages that are in the page cache anyway.

    Raises:
        CannotMeasureError: Git does not have it, or what it imports is not installed.
    """
    folder = scratch() / f"{kind}-{ONE_PROCESS}"
    if not folder.exists():
        archive = subprocess.run(
            ["git", "archive", ONE_PROCESS, "agent"], check=False, capture_output=True, cwd=HERE.parent
        )
        if archive.returncode != 0:
            raise CannotMeasureError(f"this checkout does not have the commit {ONE_PROCESS}")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        if kind == "without":
            with open(folder / "agent" / "memory.py", "a") as module:
                module.write("\n\ndef give_back(smaps: str = '') -> int:\n    return 0\n")
    # A script's own folder is where its imports are looked for first.
    program = folder / "start.py"
    program.write_text("import sys; from agent.__main__ import main; sys.exit(main())")
    done = subprocess.run([sys.executable, str(program), "--help"], check=False, capture_output=True, cwd=folder)
    if done.returncode != 0:
        why = done.stderr.decode().strip().rpartition("\n")[2]
        raise CannotMeasureError(f"the commit {ONE_PROCESS} does not start here: {why}")
    return [sys.executable, str(program)]

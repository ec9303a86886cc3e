"""What it costs to pass a game's output on and to keep it: bytes a second, CPU, how long a write takes, memory.

The same writer writes into the agent's capture, into `cat` with a file (which keeps but does not pass on), into a bare
`cat` (which passes on but does not keep), into `tee` with a file (which does both), and into `s6-log` and `svlogd`
where they are installed. What is passed on goes to `/dev/null`. The agent's capture is measured with the secrets to
look for that the platform injects, and without any.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks import Row, skipped, summary
from benchmarks._tools import HERE, CannotMeasureError, rounds, scratch

THROUGHPUT = "log output passed on and kept"
CPU = "CPU for 1 GB of log output"
STALL = "longest of 1,000 writes of the game (p99.9), 200 MB/s"
MEMORY = "memory gained from 1 s to the end at 200 MB/s"

_SECRETS = (
    "3f1c9a7be2d84d0c9a7be2d84d0c11aa",
    "https://api.edgegap.com/v1/self/stop/23c01225b99d/463660",
)


@dataclass(frozen=True)
class Subject:
    """Something that takes a log.

    Attributes:
        who: its name in the table.
        command: given a directory of its own and a file for results, the command that reads stdin.
        measures_itself: whether it writes its own CPU and memory into that file.
        share: it gets this part of what the others get: 10 for those that are ten times slower.
    """

    who: str
    command: Callable[[str, str], list[str]]
    measures_itself: bool = False
    share: int = 1


@dataclass(frozen=True)
class Result:
    """One measurement: bytes a second, CPU seconds for 1 GB, p99.9 of a write in ms, bytes of memory gained."""

    throughput: float
    cpu: float
    stall: float
    gained: float | None


def measure(quick: bool) -> list[Row]:
    """Measures all subjects in turn, as fast as they take it, and then at 200 MB/s."""
    seconds, most, size, paced = (15.0, 3, 300_000_000, 300_000_000) if quick else (60.0, 9, 1_000_000_000, 600_000_000)
    try:
        flood()
    except CannotMeasureError as problem:
        return [skipped(what, "agent", unit, str(problem)) for what, unit in ((THROUGHPUT, "MB/s"), (CPU, "s"))]
    subjects, missing = _subjects()
    fast: dict[str, list[Result]] = {subject.who: [] for subject in subjects}
    slow: dict[str, list[Result]] = {subject.who: [] for subject in subjects}
    for number in rounds(seconds, most):
        for subject in subjects:
            try:
                fast[subject.who].append(_run(subject, size // subject.share, 0, 65536))
                # One that is slower than this pace would only be measured again.
                if number % 3 == 0 and subject.share == 1:
                    slow[subject.who].append(_run(subject, paced, 200_000_000, 4096))
            except CannotMeasureError as problem:
                missing.append(skipped(THROUGHPUT, subject.who, "MB/s", str(problem)))
    least = 0.6 * statistics.median(one.throughput for one in fast["cat, into a file"]) / 1e6
    return [
        *_rows(THROUGHPUT, "MB/s", fast, lambda one: one.throughput / 1e6, at_least=least),
        *_rows(CPU, "s", fast, lambda one: one.cpu, at_most=4.0),
        *_rows(STALL, "ms", slow, lambda one: one.stall, at_most=5.0),
        *_rows(MEMORY, "MB", slow, lambda one: None if one.gained is None else one.gained / 1e6, at_most=4.0),
        *missing,
    ]


def _rows(
    what: str,
    unit: str,
    results: dict[str, list[Result]],
    figure: Callable[[Result], float | None],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> list[Row]:
    """One row a subject that has this figure; the aims are the agent's."""
    rows = []
    for who, some in results.items():
        values = [value for one in some if (value := figure(one)) is not None]
        aims = (at_most, at_least) if who.startswith("agent") else (None, None)
        if values:
            rows.append(summary(what, who, values, unit, at_most=aims[0], at_least=aims[1]))
    return rows


@cache
def flood() -> str:
    """The writer, compiled; see `_flood.c`. Raises CannotMeasureError without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotMeasureError("no C compiler (Debian: apt install gcc libc6-dev)")
    program = str(scratch() / "flood")
    subprocess.run([compiler, "-O2", "-o", program, str(HERE / "_flood.c")], check=True)
    return program


def _subjects() -> tuple[list[Subject], list[Row]]:
    def capture(*secrets: str) -> Callable[[str, str], list[str]]:
        return lambda place, result: [sys.executable, "-m", "benchmarks._capture_alone", place, result, *secrets]

    found = [
        Subject("agent", capture(*_SECRETS), measures_itself=True),
        Subject("agent, no secrets", capture(), measures_itself=True),
        Subject("cat, into a file", lambda place, _: ["sh", "-c", f"exec cat > {place}/log"]),
        Subject("cat, passing on only", lambda *_: ["cat"]),
        Subject("tee", lambda place, _: ["tee", f"{place}/log"]),
    ]
    missing = []
    peers: dict[str, Callable[[str, str], list[str]]] = {
        # As the agent: 64 MB in 16 files, and everything passed on to stdout.
        "s6-log": lambda place, _: ["s6-log", "n15", "s4194304", place, "1"],
        "svlogd": lambda place, _: ["svlogd", place],
    }
    for name, command in peers.items():
        if shutil.which(name) is None:
            package = {"s6-log": "s6", "svlogd": "runit"}[name]
            missing.append(skipped(THROUGHPUT, name, "MB/s", f"not installed (Debian: apt install {package})"))
        else:
            found.append(Subject(name, command, share=10))
    return found, missing


def _run(subject: Subject, size: int, rate: int, write: int) -> Result:
    place = tempfile.mkdtemp(dir=scratch())
    ours, theirs = f"{place}.writer", f"{place}.subject"
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    taker = subprocess.Popen(subject.command(place, theirs), stdin=reading, stdout=null, stderr=null, cwd=HERE.parent)
    os.close(reading)
    if subject.measures_itself:
        # An interpreter takes its time to start; the agent in a container did so long before the game writes much.
        while not os.path.exists(f"{theirs}.ready") and taker.poll() is None:
            time.sleep(0.005)
    writer = subprocess.Popen([flood(), ours, str(size), str(rate), str(write)], stdout=writing)
    os.close(writing)
    os.close(null)
    writer.wait()
    _, status, usage = os.wait4(taker.pid, 0)
    taker.returncode = os.waitstatus_to_exitcode(status)
    shutil.rmtree(place, ignore_errors=True)
    if taker.returncode != 0 or writer.returncode != 0:
        raise CannotMeasureError(f"{subject.who} ended with {taker.returncode}, the writer with {writer.returncode}")
    sent, seconds, _, stall, _ = map(float, Path(ours).read_text().split())
    cpu, gained = usage.ru_utime + usage.ru_stime, None
    if subject.measures_itself:
        _, cpu, early, late = map(float, Path(theirs).read_text().split())
        gained = late - early
    return Result(sent / seconds, cpu / sent * 1e9, stall / 1000, gained)

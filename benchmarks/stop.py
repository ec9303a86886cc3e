"""How long SIGTERM takes from the init to the game: in the middle of its life, and at its start on little CPU.

At the very start the init has to be there first. On a quarter of a CPU, which gives a process 25 ms of each 100 ms,
that takes longer than anything else, so the floor is an interpreter that does nothing but hear the signal itself. Other
inits are no measure there: they pass the signal on to a game that has no handler yet, which it kills. In the first two
seconds after it the agent's process uses up what CPU there is, so that each signal waits for a period's share as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import Row, skipped, summary
from benchmarks._tools import (
    PATIENCE,
    PEERS,
    CannotMeasureError,
    agent,
    agent_environment,
    free_port,
    moment,
    new_file,
    peer,
    rounds,
    running,
    stamp,
)
from benchmarks.start import START

WHAT = "SIGTERM to the game's receipt"
AT_START = "SIGTERM at the exec of the init to the game's receipt, on a quarter of a CPU"
IN_TWO_SECONDS = "SIGTERM in the first two seconds to the game's receipt, on a quarter of a CPU"
_FLOOR = "python3, to its own receipt"
_CPU = Path("/sys/fs/cgroup/cpu")  # cgroup v1
_HEARS = """
import _signal, os, sys, time
def heard(*_):
    with open(sys.argv[1], "a") as file:
        file.write(f"term {time.monotonic_ns()}\\n")
    os._exit(0)
_signal.signal(_signal.SIGTERM, heard)
_signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
time.sleep(20)
"""


def measure(quick: bool) -> list[Row]:
    """Measures all subjects in turn."""
    seconds, most = (6.0, 5) if quick else (10.0, 25)
    try:
        stamp()
    except CannotMeasureError as problem:
        return [skipped(WHAT, "agent", "ms", str(problem))]
    subjects: dict[str, Callable[[], float]] = {"agent": _agent}
    missing: list[Row] = []
    for name in PEERS:
        try:
            subjects[name] = _init(*peer(name))
        except CannotMeasureError as problem:
            missing.append(skipped(WHAT, name, "ms", str(problem)))
    subjects["the game itself"] = _init()
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in rounds(seconds, most, 3):
        for name, subject in subjects.items():
            found[name].append(subject() * 1000)
    rows = [summary(WHAT, name, values, "ms") for name, values in found.items()] + missing
    return rows + _at_start(quick) + _in_two_seconds(quick)


def _at_start(quick: bool) -> list[Row]:
    found: dict[str, list[float]] = {"agent": [], _FLOOR: []}
    try:
        for _ in rounds(4.0 if quick else 10.0, 15, 2):
            agents, floors = new_file(), new_file()
            found["agent"].append(_early([*START, stamp(), "wait", agents], agents, 0.0, held=True) * 1000)
            found[_FLOOR].append(_early([sys.executable, "-c", _HEARS, floors], floors, 0.0, held=True) * 1000)
    except CannotMeasureError as problem:
        return [skipped(AT_START, "agent", "ms", str(problem))]
    return [summary(AT_START, name, values, "ms") for name, values in found.items()]


def _in_two_seconds(quick: bool) -> list[Row]:
    subjects: dict[str, list[str]] = {"agent": START}
    rows: list[Row] = []
    for name in PEERS:
        try:
            subjects[name] = peer(name)
        except CannotMeasureError as problem:
            rows.append(skipped(IN_TWO_SECONDS, name, "ms", str(problem)))
    subjects["the game itself"] = []
    found: dict[str, list[float]] = {name: [] for name in subjects}
    try:
        for number in rounds(6.0 if quick else 40.0, 20, 1):
            after = 0.1 + number * 0.7 % 2.0  # 0.1 s, 0.8 s, 1.5 s, 0.2 s, ...: few rounds are spread as well
            for name, command in subjects.items():
                file = new_file()
                took = _early([*command, stamp(), "wait", file], file, after, held=name == "agent")
                found[name].append(took * 1000)
    except CannotMeasureError as problem:
        return [skipped(IN_TWO_SECONDS, "agent", "ms", str(problem))]
    return [summary(IN_TWO_SECONDS, name, values, "ms") for name, values in found.items()] + rows


def _early(command: Sequence[str], file: str, after: float, *, held: bool) -> float:
    """Seconds from a SIGTERM to the game's receipt.

    Args:
        command: the init with the game.
        file: where the game notes the moment.
        after: when it is sent, in seconds after the exec of the init.
        held: whether the signal is blocked until the init lets it in, as the launcher of an image leaves it.
    """
    with _quarter_of_a_cpu() as group:
        enter = ["sh", "-c", 'echo $$ >"$0" && exec env "$@"', f"{group}/cgroup.procs"]
        hold = ["--block-signal=TERM"] if held else []
        launched = [*enter, *hold, stamp(), "launch", file, *command]
        with running(launched, agent_environment(free_port(), free_port())) as process:
            sent = moment(file, "exec") + after
            time.sleep(max(0.0, sent - time.monotonic()))
            process.send_signal(signal.SIGTERM)
            received = moment(file, "term")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            return received - sent


@contextlib.contextmanager
def _quarter_of_a_cpu() -> Iterator[Path]:
    group = _CPU / f"arbitrium-benchmark-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("25000")
    except OSError as problem:
        raise CannotMeasureError(f"a cgroup (version 1) cannot be made in {_CPU}: {problem.strerror}") from None
    try:
        yield group
    finally:
        end = time.monotonic() + PATIENCE
        while (group / "cgroup.procs").read_text() and time.monotonic() < end:
            time.sleep(0.01)
        group.rmdir()


def _agent() -> float:
    with agent() as it:
        sent = time.monotonic()
        os.kill(it.pid, signal.SIGTERM)
        return moment(it.file, "term") - sent


def _init(*command: str) -> Callable[[], float]:
    def run() -> float:
        file = new_file()
        with running([*command, stamp(), "wait", file]) as process:
            moment(file, "started")
            sent = time.monotonic()
            process.send_signal(signal.SIGTERM)
            return moment(file, "term") - sent

    return run

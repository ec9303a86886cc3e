"""Instructions of a start and of one request: figures that a busy machine does not move. Counted by valgrind.

A start is counted to its end, which is a SIGTERM after the first answer: what an end takes is part of each figure. One
request is what a life with 300 of them took more than one with none.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import Row, skipped
from benchmarks._tools import (
    AGENT,
    HERE,
    CannotMeasureError,
    Client,
    agent_environment,
    first_answer,
    free_port,
    new_file,
    scratch,
    stamp,
)

START, REQUEST = "instructions of a start with an answer", "instructions of {}"
OPERATIONS = (("POST", "/v1/health", 1.05), ("GET", "/v1/status", 1.1))
_PATIENCE = 120.0  # seconds; programs run some thirty times slower
_TIMES = 300


def measure(quick: bool) -> list[Row]:
    """Counts a life of each subject, and, where there is time, one more for each operation."""
    try:
        stamp()
        floor = instructions_of([sys.executable, "-c", "pass"], {}, 0, "", "", 0)
        ours, theirs = _agent("", "", 0), _bare("", "", 0)
        rows = [
            _row(START, "agent", ours, 1.25 * theirs),
            _row(START, "bare aiohttp app", theirs, None),
            _row(START, "python3 -c pass", floor, None),
        ]
        for method, path, ratio in () if quick else OPERATIONS:
            each = (_agent(method, path, _TIMES) - ours) / _TIMES
            their_each = (_bare(method, path, _TIMES) - theirs) / _TIMES
            what = REQUEST.format(f"{method} {path}")
            rows += [
                _row(what, "agent", each, ratio * their_each, "k", 1e3),
                _row(what, "bare aiohttp app", their_each, None, "k", 1e3),
            ]
    except CannotMeasureError as problem:
        return [skipped(START, "agent", "M", str(problem))]
    return rows


def _row(what: str, who: str, value: float, most: float | None, unit: str = "M", by: float = 1e6) -> Row:
    return Row(what, who, value / by, unit, at_most=None if most is None else most / by)


def _agent(method: str, path: str, times: int) -> int:
    control = free_port()
    environment = agent_environment(control, 0)
    command = [AGENT, "run", "--", stamp(), "wait", new_file(), "0"]
    return instructions_of(command, environment, control, method, path, times)


def _bare(method: str, path: str, times: int) -> int:
    port = free_port()
    # As long as the agent's own answer about its status, within a few bytes.
    command = [sys.executable, "-m", "benchmarks._bare", str(port), "body=700"]
    return instructions_of(command, {}, port, method, path, times)


def instructions_of(
    command: Sequence[str], environment: dict[str, str], port: int, method: str = "", path: str = "", times: int = 0
) -> int:
    """Runs a program under valgrind, asks it, and ends it.

    Args:
        command: the program.
        environment: of an agent; empty for the bare server.
        port: where it answers; 0: it ends by itself.
        method: what is asked, once the first answer has come.
        path: likewise.
        times: how often.

    Returns:
        The instructions of the program and of the processes that it forked.

    Raises:
        CannotMeasureError: there is no valgrind, or it failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotMeasureError("valgrind is not installed (Debian: apt install valgrind)")
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        counted = [
            valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
            f"--log-file={folder}/%p", *command,
        ]  # fmt: skip
        # The order of sets and dictionaries is the same each time; nothing else of the environment matters.
        given = {"PATH": "/usr/bin:/bin", **environment, "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(
            counted, env=given, cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            if port:
                first_answer(port, "/healthz" if environment else "/v1/status", _PATIENCE)
                if times:
                    with Client(port) as client:
                        client.timed(method, path, times)
                time.sleep(0.2)
                process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise CannotMeasureError(f"{command[0]} did not end under valgrind") from None
        finally:
            process.kill()
            process.wait()
        logs = [log.read_text(errors="replace") for log in Path(folder).iterdir()]
    counts = [int(found[1].replace(",", "")) for log in logs if (found := re.search(r"I +refs: +([\d,]+)", log))]
    if not counts:
        raise CannotMeasureError("valgrind counted nothing")
    return sum(counts)

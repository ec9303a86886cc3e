"""How long a game has to wait for its start, and whoever calls the agent for the first answer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks import Row, skipped, summary
from benchmarks._tools import (
    PEERS,
    CannotMeasureError,
    agent_environment,
    first_answer,
    free_port,
    moment,
    moments,
    new_file,
    peer,
    rounds,
    running,
    stamp,
)

TO_EXEC = "exec of the init to exec of the game"
TO_ANSWER = "exec to the first answered request"
FLOOR = "python3 -c pass (to its end)"
# As packaging/main.c starts it in an image; the script that pip makes for a checkout imports `re` before it.
START = [sys.executable, "-c", "from agent.__main__ import main\nraise SystemExit(main())", "run", "--"]


def measure(quick: bool) -> list[Row]:
    """Measures all subjects in turn, again and again, so that a noisy moment meets all of them."""
    seconds, most = (5.0, 5) if quick else (14.0, 25)
    rows: list[Row] = []
    try:
        stamp()
    except CannotMeasureError as problem:
        return [skipped(TO_EXEC, "agent", "ms", str(problem)), skipped(TO_ANSWER, "agent", "ms", str(problem))]
    subjects: dict[str, Callable[[], float]] = {"agent": _agent, FLOOR: _python}
    for name in PEERS:
        try:
            subjects[name] = _init(peer(name))
        except CannotMeasureError as problem:
            rows.append(skipped(TO_EXEC, name, "ms", str(problem)))
    found: dict[str, list[float]] = {name: [] for name in subjects}
    _agent(), _agent_answers(), _bare_answers()  # bytecode is written, files are in the page cache
    for _ in rounds(seconds, most, 3):
        for name, subject in subjects.items():
            found[name].append(subject() * 1000)
    aims = {"agent": 1.8 * statistics.median(found[FLOOR])}
    rows = [summary(TO_EXEC, name, values, "ms", at_most=aims.get(name)) for name, values in found.items()] + rows
    answers: dict[str, list[float]] = {"agent": [], "bare aiohttp app": []}
    for _ in rounds(seconds, most, 3):
        answers["agent"].append(_agent_answers() * 1000)
        answers["bare aiohttp app"].append(_bare_answers() * 1000)
    aims = {"agent": 1.25 * statistics.median(answers["bare aiohttp app"])}
    return rows + [summary(TO_ANSWER, name, values, "ms", at_most=aims.get(name)) for name, values in answers.items()]


def _agent() -> float:
    file = new_file()
    command = [stamp(), "launch", file, *START, stamp(), "exit", file]
    subprocess.run(command, env=agent_environment(free_port(), free_port()), check=True, stdin=subprocess.DEVNULL)
    found = moments(file)
    return found["started"] - found["exec"]


def _init(command: list[str]) -> Callable[[], float]:
    def run() -> float:
        file = new_file()
        subprocess.run([stamp(), "launch", file, *command, stamp(), "exit", file], check=True)
        found = moments(file)
        return found["started"] - found["exec"]

    return run


def _python() -> float:
    file = new_file()
    process = subprocess.Popen([stamp(), "launch", file, sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    ended = time.monotonic()
    process.wait()
    return ended - moment(file, "exec")


def _agent_answers() -> float:
    file, control = new_file(), free_port()
    command = [stamp(), "launch", file, *START, stamp(), "wait", file]
    with running(command, agent_environment(control, free_port())):
        return first_answer(control, "/healthz") - moment(file, "exec")


def _bare_answers() -> float:
    file, port = new_file(), free_port()
    with running([stamp(), "launch", file, sys.executable, "-m", "benchmarks._bare", str(port)]):
        return first_answer(port, "/v1/status") - moment(file, "exec")

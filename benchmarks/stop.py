"""How long SIGTERM takes from the init to the game."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from benchmarks import Row, skipped, summary
from benchmarks._tools import PEERS, CannotMeasureError, agent, moment, new_file, peer, rounds, running, stamp

WHAT = "SIGTERM to the game's receipt"


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
    return [summary(WHAT, name, values, "ms") for name, values in found.items()] + missing


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

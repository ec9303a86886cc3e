"""Whether the game would hear a signal, read from /proc. Standard library only.

A signal that no process of the game handles ends each of them in the middle of whatever it does; one that is ignored
does nothing at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable


def reaction(masks: Iterable[tuple[int, int]], signum: int) -> str:
    """How a group of processes takes a signal.

    Args:
        masks: the signals that each handles, and those that it ignores, as bit masks.
        signum: the signal.

    Returns:
        `handled` where at least one has a handler; else `ignored` where one ignores it; else `default`; `unknown` where
        there is none.
    """
    answer, bit = "unknown", 1 << (signum - 1)
    for caught, ignored in masks:
        if caught & bit:
            return "handled"
        answer = "ignored" if ignored & bit or answer == "ignored" else "default"
    return answer


def handled(statuses: Iterable[str], signum: int) -> str:
    """The same from the text of `/proc/<pid>/status` of each (man 5 proc: `SigCgt`, `SigIgn`); see `reaction`."""
    masks = []
    for status in statuses:
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        try:
            masks.append((int(fields["SigCgt"], 16), int(fields["SigIgn"], 16)))
        except (KeyError, ValueError):
            continue
    return reaction(masks, signum)


def statuses(pids: Iterable[int]) -> list[str]:
    """The status of each process that is still there."""
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                found.append(file.read())
        except OSError:
            continue
    return found


def threads(pids: Iterable[int]) -> list[str]:
    """One line a thread: what it is called, its state, and what it waits for in the kernel (man 5 proc)."""
    lines = []
    for pid in pids:
        try:
            tasks = sorted(os.listdir(f"/proc/{pid}/task"), key=int)
        except OSError:
            continue
        for task in tasks:
            base = f"/proc/{pid}/task/{task}"
            name, state, waits = _first(f"{base}/comm"), _first(f"{base}/status", "State:"), _first(f"{base}/wchan")
            lines.append(f"hung: process {pid} thread {task} {name!r} {state or '?'} waits in {waits or '?'}")
    return lines


def _first(path: str, field: str = "") -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.removeprefix(field).strip() for line in file if line.startswith(field)), "")
    except OSError:
        return ""


REMEDY = (
    "handle it, or set AGENT_STOP to what the game understands: "
    "stdin:LINE, notify, command:HOOK, rcon:COMMAND or another signal"
)


def verdict(how: str, signum: int) -> str:
    """What is wrong with how a game takes a signal, in words; "" where all is well, or nothing is known."""
    if how in ("handled", "unknown"):
        return ""
    name = signal.Signals(signum).name
    if how == "ignored":
        return f"the game does not handle {name} but ignores it: a stop lasts the whole grace and ends in SIGKILL"
    return f"the game does not handle {name}: a stop ends it at once, in the middle of whatever it does"


def advice(how: str, signum: int) -> str:
    """The sentence for an operator; "" where all is well."""
    wrong = verdict(how, signum)
    return f"{wrong}. {REMEDY[0].upper()}{REMEDY[1:]}" if wrong else ""

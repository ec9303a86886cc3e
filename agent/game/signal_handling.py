"""Messages about how the game handles a signal, as `agent.game.stop_signal` judges it. Standard library only.

A signal without a handler ends a process in the middle of its work; an ignored signal does nothing. The agent's own
signals are handled in `agent.init.signals` and `agent.init.supervisor`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from agent.game.stop_signal import Judgement, is_shell
from agent.game.tree import executable

# These pass a signal on to their child only, and end with it; dumb-init signals the whole session.
_FORWARD_TO_ONE = frozenset(("catatonit", "docker-init", "tini", "tini-static"))


def deaf_shell_in_front(parent: int | None = None, proc: str = "/proc") -> str:
    """The shell that does not pass SIGTERM on to this process; "" if there is none.

    Container engines send a stop signal to PID 1 only, and the kernel drops it if PID 1 has no handler (man 7
    pid_namespaces). A shell below tini or similar is killed by it, and the container ends. A shell with a trap may pass
    it on; `doctor` reads the script to find out.

    Args:
        parent: the parent of the process in question; by default the parent of this process.
        proc: where procfs is mounted.
    """
    parent = os.getppid() if parent is None else parent
    name = _program(parent, proc) if parent > 0 else ""
    caught = _first(f"{proc}/{parent}/status", "SigCgt:")
    if not caught or not is_shell(name) or int(caught, 16) >> (signal.SIGTERM - 1) & 1:
        return ""
    if parent != 1 and (_first(f"{proc}/{parent}/status", "PPid:") != "1" or _program(1, proc) not in _FORWARD_TO_ONE):
        return ""
    return f"a shell ({name}, PID {parent})"


def _program(pid: int, proc: str) -> str:
    return executable(f"{proc}/{pid}/exe") or _first(f"{proc}/{pid}/status", "Name:")


def threads(pids: Iterable[int]) -> list[str]:
    """One line for each thread: its name, its state, and what it waits for in the kernel (man 5 proc)."""
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


def verdict(found: Judgement, signum: int) -> str:
    """The problem with how a game handles a signal, in words; "" if there is none, or nothing is known."""
    if found.how not in ("default", "ignored"):
        return ""
    name = signal.Signals(signum).name
    does = f" (it does handle {', '.join(found.others)})" if found.others else ""
    if found.how == "ignored":
        return f"the game does not handle {name} but ignores it{does}: a stop lasts the whole grace and ends in SIGKILL"
    return f"the game does not handle {name}{does}: a stop ends it at once, in the middle of whatever it does"


def unclear(found: Judgement, signum: int) -> str:
    """Why it is unknown how a game handles a signal; "" if it is known."""
    name = signal.Signals(signum).name
    if found.how == "runtime":
        return f"cannot tell whether the game handles {name}: {found.runtime} has a handler of its own, which ends it"
    if found.how == "script":
        return f"cannot tell whether the game hears {name}: only its start script ({found.name}) handles it"
    return ""


def advice(found: Judgement, signum: int) -> str:
    """The warning for an operator; "" if there is no problem."""
    wrong = verdict(found, signum)
    return f"{wrong}. {REMEDY[0].upper()}{REMEDY[1:]}" if wrong else ""

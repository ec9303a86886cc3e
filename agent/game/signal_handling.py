"""Which signals the game's processes handle, read from /proc. Standard library only.

A signal without a handler ends a process in the middle of its work; an ignored signal does nothing. The agent's own
signals are handled in `agent.init.main` and `agent.init.supervisor`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

# Processes of a start script that are no server: their handlers say nothing of the game, unless there is nothing else.
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "busybox", "ksh", "mksh", "zsh"))
# What starts a server, holds its terminal or stands beside it.
_OTHERS = """
    awk catatonit cat chrt cronolog dbus-daemon docker-init dtach dumb-init env faketime gawk gosu grep inotifywait
    ionice logger mawk nice nohup numactl pulseaudio rotatelogs runsv runuser s6-supervise screen script sed setpriv
    setsid sleep stdbuf su su-exec sudo supervisord tail taskset tee timeout tini tini-static tmux ts unbuffer
    wineserver x11vnc xvfb-run Xvfb Xvnc
"""
_HELPERS = frozenset(_OTHERS.split())
# These pass a signal on to their child alone, and end with it; dumb-init signals the whole session.
_FORWARD_TO_ONE = frozenset(("catatonit", "docker-init", "tini", "tini-static"))
# Go's runtime has a handler for each signal that one can have (os/signal, "Default behavior of signals in Go
# programs"), and so do few programs by themselves.
_MOST_SIGNALS = 48
# Handles SIGTERM and SIGINT itself to put the terminal right, and ends then (node's src/node.cc, SignalExit).
_NODE = frozenset(("node", "nodejs"))
_USUAL = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)


class Listener:
    """A process of the game, as far as signals go.

    Attributes:
        name: of its program.
        caught, ignored: the signals that it handles, and those that it ignores, as bit masks.
    """

    __slots__ = ("caught", "ignored", "name")

    def __init__(self, name: str, caught: int, ignored: int) -> None:
        """Takes what /proc says."""
        self.name = name
        self.caught = caught
        self.ignored = ignored

    def handles(self, signum: int) -> bool:
        """Whether it has a handler for a signal."""
        return bool(self.caught & 1 << (signum - 1))

    @property
    def runtime(self) -> str:
        """The language whose runtime handles signals on its own, or ""."""
        if self.name in _NODE:
            return "Node.js"
        if self.name.startswith("wine"):
            return "Wine"
        return "Go" if self.caught.bit_count() >= _MOST_SIGNALS else ""


class Judgement:
    """How a game takes a signal.

    Attributes:
        how: `handled` where a process has a handler; `runtime` where that is the language's own, so that nothing is
            known of the game's; `script` where only the start script has one; `ignored`; `default` where it would just
            end; `unknown` where there is nothing to be seen.
        name: the program that decides it.
        runtime: the language, for `runtime`.
        others: the names of the usual signals that the game does handle.
    """

    __slots__ = ("how", "name", "others", "runtime")

    def __init__(self, how: str, name: str = "", runtime: str = "", others: tuple[str, ...] = ()) -> None:
        """Takes the answer."""
        self.how = how
        self.name = name
        self.runtime = runtime
        self.others = others


def listeners(pids: Iterable[int], proc: str = "/proc") -> list[Listener]:
    """What can be seen of each process that is still there (man 5 proc: `SigCgt`, `SigIgn`)."""
    found = []
    for pid in pids:
        try:
            with open(f"{proc}/{pid}/status", encoding="ascii", errors="replace") as file:
                fields = dict(line.split(":", 1) for line in file if ":" in line)
            caught, ignored = int(fields["SigCgt"], 16), int(fields["SigIgn"], 16)
        except (OSError, KeyError, ValueError):
            continue
        try:
            # The name in `status` is that of the main thread, which some runtimes change.
            name = os.path.basename(os.readlink(f"{proc}/{pid}/exe")).removesuffix(" (deleted)")
        except OSError:
            name = fields.get("Name", "").strip()
        found.append(Listener(name, caught, ignored))
    return found


def deaf_shell_in_front(parent: int | None = None, proc: str = "/proc") -> str:
    """The shell of this container that keeps SIGTERM from the process behind it; "" where there is none.

    Engines send a stop signal to PID 1 alone, and the kernel drops it there where that has no handler (man 7
    pid_namespaces). A shell behind tini and its like dies of it, and the container with them. A shell with a trap may
    pass it on; whether it does is for `doctor` to find out, which reads the script.

    Args:
        parent: the parent of the process in question; this one's by default.
        proc: where procfs is mounted.
    """
    parent = os.getppid() if parent is None else parent
    found = listeners([parent] if parent > 0 else [], proc)
    if not found or found[0].name not in _SHELLS or found[0].handles(signal.SIGTERM):
        return ""
    if parent != 1:
        first = listeners([1], proc)
        if _first(f"{proc}/{parent}/status", "PPid:") != "1" or not first or first[0].name not in _FORWARD_TO_ONE:
            return ""
    return f"a shell ({found[0].name}, PID {parent})"


def judge(processes: Iterable[Listener], signum: int) -> Judgement:
    """How the game takes a signal: over the processes that count, which are the servers behind scripts and helpers.

    Args:
        processes: all processes of the game.
        signum: the signal.
    """
    everything = list(processes)
    servers = [one for one in everything if one.name not in _SHELLS and one.name not in _HELPERS]
    counted = servers or [one for one in everything if one.name not in _HELPERS] or everything
    if not counted:
        return Judgement("unknown")
    others = tuple(number.name for number in _USUAL if number != signum and any(one.handles(number) for one in counted))
    handling = [one for one in counted if one.handles(signum)]
    for one in handling:
        if not one.runtime:
            return Judgement("handled", one.name, "", others)
    if handling:
        return Judgement("runtime", handling[0].name, handling[0].runtime)
    script = next((one for one in everything if one.name in _SHELLS and one.handles(signum)), None)
    if script is not None:
        return Judgement("script", script.name, "", others)
    ignoring = next((one for one in counted if one.ignored & 1 << (signum - 1)), None)
    if ignoring is not None:
        return Judgement("ignored", ignoring.name, "", others)
    return Judgement("default", counted[0].name, "", others)


def is_helper(name: str) -> bool:
    """Whether a program of this name is no server, but starts one or stands beside it."""
    return name in _SHELLS or name in _HELPERS


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


def verdict(found: Judgement, signum: int) -> str:
    """What is wrong with how a game takes a signal, in words; "" where all is well, or nothing is known."""
    if found.how not in ("default", "ignored"):
        return ""
    name = signal.Signals(signum).name
    does = f" (it does handle {', '.join(found.others)})" if found.others else ""
    if found.how == "ignored":
        return f"the game does not handle {name} but ignores it{does}: a stop lasts the whole grace and ends in SIGKILL"
    return f"the game does not handle {name}{does}: a stop ends it at once, in the middle of whatever it does"


def unclear(found: Judgement, signum: int) -> str:
    """Why it cannot be told how a game takes a signal; "" where it can."""
    name = signal.Signals(signum).name
    if found.how == "runtime":
        return f"cannot tell whether the game handles {name}: {found.runtime} has a handler of its own, which ends it"
    if found.how == "script":
        return f"cannot tell whether the game hears {name}: only its start script ({found.name}) handles it"
    return ""


def advice(found: Judgement, signum: int) -> str:
    """The sentence for an operator; "" where all is well."""
    wrong = verdict(found, signum)
    return f"{wrong}. {REMEDY[0].upper()}{REMEDY[1:]}" if wrong else ""

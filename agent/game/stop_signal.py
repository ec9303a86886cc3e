"""Whom a stop signal reaches, and what it does there: pure, over the processes of the game. Standard library only.

The stop methods, the warning when the game is ready, and `doctor` all use `judge`.

Without the agent, only PID 1 of a container gets the stop signal, and start scripts are written for that: a script with
a trap passes the signal on, and helpers (`tee`, `Xvfb`) run until the server has ended. A script without a trap is
killed, and its server with the container. So the signal goes to the process that handles it and is nearest to the main
process:

1. If the main process handles the signal, only the main process gets it.
2. If it does not (a shell without a trap), its children are checked in the same way. If several handle it, the owners
of
   the game's port are chosen; else the one that was started last, because scripts start helpers first. Processes that
   wait for it are not signalled: they end by themselves afterwards. Helpers (`Xvfb`, `tee`) are not chosen, whatever
   they handle: they are not servers, and pass nothing on.
3. If no process handles it, all of them get it: they end at once, as they would without the agent.

The others are signalled when the chosen ones have ended, or late in the method's time (see `agent.init.stop_actions`);
no process is signalled twice.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Collection, Sequence

    from agent.game.tree import Process
else:
    import _signal as signal  # the C part: see agent.game.spawn

# Their handlers do harm: terminal multiplexers end at once and hang up the terminal of their children; util-linux' su
# and runuser give their child 2 s and then SIGKILL (login-utils/su-common.c).
_PASSED_OVER = frozenset(("tmux", "screen", "SCREEN", "su", "runuser"))
# Processes of a start script that are not servers: their handlers say nothing about the game, unless there is no other.
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "busybox", "ksh", "mksh", "zsh"))
# Helpers: the server needs them while it saves, but they do not pass signals on to it.
_THEIR_NAMES = """
    awk cat cronolog dbus-daemon gawk grep inotifywait logger mawk pulseaudio rotatelogs sed sleep tail tee ts
    wineserver x11vnc Xvfb Xvnc
"""
_BESIDE = frozenset(_THEIR_NAMES.split())
# They start a server, or own its terminal.
_OTHERS = """
    catatonit chrt docker-init dtach dumb-init env faketime gosu ionice nice nohup numactl runsv s6-supervise script
    setpriv setsid stdbuf su-exec sudo supervisord taskset timeout tini tini-static unbuffer xvfb-run
"""
_STARTERS = _PASSED_OVER | frozenset(_OTHERS.split())
# Go's runtime has a handler for almost every signal (os/signal, "Default behavior of signals in Go programs"), which
# few other programs have.
_MOST_SIGNALS = 48
# Node handles SIGTERM and SIGINT itself to restore the terminal, and then ends (node's src/node.cc, SignalExit).
_NODE = frozenset(("node", "nodejs"))
_USUAL = ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGTERM")


class Judgement:
    """Which processes get a signal, and how the game handles it.

    Attributes:
        asked: process ids of those that get it first, without duplicates; may be empty.
        how: `handled` if a process has a handler; `runtime` if it is the language runtime's handler, so that nothing
            is known about the game's; `script` if only the start script has one; `ignored`; `default` if the process
            would just end; `unknown` if nothing can be read.
        name: the program that decides it.
        runtime: the language, for `runtime`.
        others: the names of the usual signals that the game does handle.
    """

    __slots__ = ("asked", "how", "name", "others", "runtime")

    def __init__(
        self, asked: list[int], how: str, name: str = "", runtime: str = "", others: tuple[str, ...] = ()
    ) -> None:
        """Takes the answer."""
        self.asked = asked
        self.how = how
        self.name = name
        self.runtime = runtime
        self.others = others


def judge(
    processes: Sequence[Process], main: int, signum: int, *, owners: Collection[int] = (), target: str = ""
) -> Judgement:
    """Which processes get the signal first, and what it does to them and to their descendants, as scripts pass it on.

    Only servers count, or scripts and helpers if there is nothing else.

    Args:
        processes: all of the game, without zombies.
        main: the game's main process; it may be gone.
        signum: the signal.
        owners: processes that own the game's port.
        target: `main`, `group` (every process of the game's group), `port` (the owners of the game's port), or "" for
            the rule of this module.
    """
    asked = _choose(processes, main, signum, owners, target)
    present = {process.pid: process for process in processes}
    reached = [one for one in processes if any(_is_above(pid, (one.pid,), present) for pid in asked)]
    counted = (
        [one for one in reached if not is_helper(one.program)]
        or [one for one in reached if one.program not in _BESIDE | _STARTERS]
        or reached
    )
    if not counted:
        return Judgement(asked, "unknown")
    usual = {getattr(signal, name): name for name in _USUAL}
    others = tuple(
        name for number, name in usual.items() if number != signum and any(one.handles(number) for one in counted)
    )
    handling = [one for one in counted if one.handles(signum)]
    for one in handling:
        if not _runtime(one):
            return Judgement(asked, "handled", one.program, "", others)
    if handling:
        return Judgement(asked, "runtime", handling[0].program, _runtime(handling[0]))
    script = next((one for one in reached if one.program in _SHELLS and one.handles(signum)), None)
    if script is not None:
        return Judgement(asked, "script", script.program, "", others)
    ignoring = next((one for one in counted if one.ignores(signum)), None)
    if ignoring is not None:
        return Judgement(asked, "ignored", ignoring.program, "", others)
    return Judgement(asked, "default", counted[0].program, "", others)


def is_helper(program: str) -> bool:
    """Whether a program of this name is not a server, but starts one or is a helper."""
    return program in _SHELLS or program in _STARTERS or program in _BESIDE


def is_shell(program: str) -> bool:
    """Whether a program of this name runs shell scripts."""
    return program in _SHELLS


def _runtime(process: Process) -> str:
    """The language whose runtime handles signals on its own, or ""."""
    if process.program in _NODE:
        return "Node.js"
    if process.program.startswith("wine"):
        return "Wine"
    return "Go" if process.caught.bit_count() >= _MOST_SIGNALS else ""


def _choose(processes: Sequence[Process], main: int, signum: int, owners: Collection[int], target: str) -> list[int]:
    """Picks the processes that get the signal first; see `judge`."""
    present = {process.pid: process for process in processes}
    if target == "main" and main in present:
        return [main]
    if target == "port" and (found := [pid for pid in owners if pid in present]):
        return found
    if target == "group":
        return list(present)
    if main in present:
        hearing = _nearest(present[main], processes, signum, at_root=True)
    else:
        roots = [one for one in processes if one.parent not in present]
        hearing = [one for root in roots for one in _nearest(root, processes, signum)]
    if not hearing:
        # No process below the main one handles it: a server may run as a daemon, or in a terminal multiplexer.
        apart = [one for one in processes if one.parent not in present and one.pid != main]
        hearing = [one for root in apart for one in _nearest(root, processes, signum)]
    if not hearing:
        return list(present)
    if len(hearing) > 1:
        owning = [one for one in hearing if one.pid in owners or _is_above(one.pid, owners, present)]
        hearing = owning or [max(hearing, key=lambda one: (one.started, one.pid))]
    return [one.pid for one in hearing]


def hears(process: Process, signum: int) -> bool:
    """Whether a process gets the signal before those below it are looked at: as the main one, it gets it alone."""
    return process.handles(signum) and process.program not in _PASSED_OVER


def _nearest(process: Process, processes: Sequence[Process], signum: int, *, at_root: bool = False) -> list[Process]:
    """The topmost processes, from a process downwards, that handle the signal."""
    if hears(process, signum) and (at_root or process.program not in _BESIDE):
        return [process]
    children = (one for one in processes if one.parent == process.pid)
    return [found for child in children for found in _nearest(child, processes, signum)]


def _is_above(pid: int, owners: Collection[int], present: dict[int, Process]) -> bool:
    """Whether one of the owners is a descendant of a process."""
    for owner in owners:
        at = owner
        while at in present:
            if at == pid:
                return True
            at = present[at].parent
    return False

"""Whom a stop signal reaches, and what it does there: pure, over the processes of the game. Standard library only.

The stop plan, the warning when the game is ready, and `doctor` all go by `judge`.

A container without the agent signals PID 1 alone, and start scripts are written for that: a script with a trap passes
the signal on in its own way, helpers (`tee`, `Xvfb`) live until the server has ended. A script without a trap is killed
by it, and its server with the container. So the signal goes to whoever will hear it, nearest to the main process:

1. A main process that handles the signal gets it, alone.
2. One that does not (a shell in front without a trap) is passed over: its children are looked at in the same way. Of
   several that handle it, the owners of the game's port count; else the one that was started last, as scripts start
   helpers first. What waits for it is left alone: it ends by itself then. What stands beside a server (`Xvfb`, `tee`)
   does not count, whatever it handles: it is no server, and passes nothing on.
3. Where nobody handles it, all of them get it: they end at once, as they would without the agent.

Whoever was not asked is asked when those who were have ended, or late in the method's time (see
`agent.init.stop_actions`); nobody is asked twice.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from agent.game.tree import Process

# They handle the signal, and what they do then is worse than nothing: terminal multiplexers end at once and hang up on
# what runs inside; util-linux' su and runuser give their child 2 s and then SIGKILL (login-utils/su-common.c).
_PASSED_OVER = frozenset(("tmux", "screen", "SCREEN", "su", "runuser"))
# Processes of a start script that are no server: their handlers say nothing of the game, unless there is nothing else.
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "busybox", "ksh", "mksh", "zsh"))
# They stand beside a server: it needs them while it saves, and they do not know of it.
_THEIR_NAMES = """
    awk cat cronolog dbus-daemon gawk grep inotifywait logger mawk pulseaudio rotatelogs sed sleep tail tee ts
    wineserver x11vnc Xvfb Xvnc
"""
_BESIDE = frozenset(_THEIR_NAMES.split())
# They start a server, or hold its terminal.
_OTHERS = """
    catatonit chrt docker-init dtach dumb-init env faketime gosu ionice nice nohup numactl runsv s6-supervise script
    setpriv setsid stdbuf su-exec sudo supervisord taskset timeout tini tini-static unbuffer xvfb-run
"""
_STARTERS = _PASSED_OVER | frozenset(_OTHERS.split())
# Go's runtime has a handler for each signal that one can have (os/signal, "Default behavior of signals in Go
# programs"), and so do few programs by themselves.
_MOST_SIGNALS = 48
# Handles SIGTERM and SIGINT itself to put the terminal right, and ends then (node's src/node.cc, SignalExit).
_NODE = frozenset(("node", "nodejs"))
_USUAL = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)


class Judgement:
    """Whom a signal reaches, and how the game takes it.

    Attributes:
        asked: process ids of those who get it first, none twice; empty where there is nobody.
        how: `handled` where a process has a handler; `runtime` where that is the language's own, so that nothing is
            known of the game's; `script` where only the start script has one; `ignored`; `default` where it would just
            end; `unknown` where there is nothing to be seen.
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
    """Who gets the signal first, and what it does: to these, and to what is below them, as scripts pass it on.

    Of all those the servers count; scripts and helpers do where there is nothing else.

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
    others = tuple(number.name for number in _USUAL if number != signum and any(one.handles(number) for one in counted))
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
    """Whether a program of this name is no server, but starts one or stands beside it."""
    return program in _SHELLS or program in _STARTERS or program in _BESIDE


def is_shell(program: str) -> bool:
    """Whether a program of this name runs scripts of the shell."""
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
        # Below the main process nobody hears it: a server may have been started as a daemon, or in a multiplexer.
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
    """Those at or below a process that handle the signal and have none above them that does."""
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

"""Whom a stop signal reaches: a pure choice over the processes of the game. Standard library only.

A container without the agent signals PID 1 alone, and start scripts are written for that: a script with a trap passes
the signal on in its own way, helpers (`tee`, `Xvfb`) live until the server has ended. A script without a trap is killed
by it, and its server with the container. So the signal goes to whoever will hear it, nearest to the main process:

1. A main process that handles the signal gets it, alone.
2. One that does not (a shell in front without a trap) is passed over: its children are looked at in the same way. Of
   several that handle it, the owners of the game's port count; else the one that was started last, as scripts start
   helpers first. What waits for it is left alone: it ends by itself then.
3. Where nobody handles it, all of them get it: they end at once, as they would without the agent.

Whoever was not asked is asked when those who were have ended, or late in the method's time (see
`agent.init.stop_actions`); nobody is asked twice.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from agent.game.tree import Process

# They handle the signal, and what they do then is worse than nothing: terminal multiplexers end at once and hang up on
# what runs inside; util-linux' su and runuser give their child 2 s and then SIGKILL (login-utils/su-common.c).
_PASSED_OVER = ("tmux", "screen", "SCREEN", "su", "runuser")


def choose(
    processes: Sequence[Process], main: int, signum: int, *, owners: Collection[int] = (), target: str = ""
) -> list[int]:
    """Picks the processes that get the signal first.

    Args:
        processes: all of the game, without zombies.
        main: the game's main process; it may be gone.
        signum: the signal.
        owners: processes that own the game's port.
        target: `main`, `group` (every process of the game's group), `port` (the owners of the game's port), or "" for
            the rule above.

    Returns:
        Process ids, none twice; empty where there is nobody left to ask.
    """
    present = {process.pid: process for process in processes}
    if target == "main" and main in present:
        return [main]
    if target == "port" and (found := [pid for pid in owners if pid in present]):
        return found
    if target == "group":
        return list(present)
    roots = [present[main]] if main in present else [one for one in processes if one.parent not in present]
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


def _nearest(process: Process, processes: Sequence[Process], signum: int) -> list[Process]:
    """Those at or below a process that handle the signal and have none above them that does."""
    if process.handles(signum) and process.name.partition(":")[0] not in _PASSED_OVER:
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

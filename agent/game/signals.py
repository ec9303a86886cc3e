"""Applies the stop to the game's processes: the signal that asks, and the one that does not. Standard library only."""

import os
import signal

from agent.game.reaper import Reaper
from agent.game.tree import descendants


def signal_group(pid: int, signum: int) -> bool:
    """Sends a signal to the game's process group; False when nobody is left in it."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Part of the group runs as another user (a game that changed its own): the others were signalled.
        return True
    return True


def ask_to_end(pid: int, signum: int = signal.SIGTERM) -> bool:
    """Sends the stop signal to the group, and wakes it up in case it was suspended: it could not obey otherwise."""
    sent = signal_group(pid, signum)
    signal_group(pid, signal.SIGCONT)
    return sent


def sweep(game_pid: int, reaper: Reaper, *, group_was_asked: bool) -> int:
    """Asks what the game left behind to end, wherever it went (another group, another session).

    Args:
        game_pid: the game's main process, which has ended.
        reaper: knows the agent's own helpers, which are left alone.
        group_was_asked: whether the group got its stop signal already; a second one means "hurry" to some programs.

    Returns:
        How many processes were asked.
    """
    asked = 0
    for pid in descendants(os.getpid(), reaper.helpers):
        try:
            if group_was_asked and os.getpgid(pid) == game_pid:
                continue
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        except (ProcessLookupError, PermissionError):
            continue
        asked += 1
    return asked


def kill_all(game_pid: int, reaper: Reaper) -> int:
    """SIGKILL to the group at once, then to everything else below the agent.

    A process that forks faster than it is listed may leave a child behind; call it again until nothing is left.

    Returns:
        How many processes were left to kill.
    """
    signal_group(game_pid, signal.SIGKILL)
    killed = 0
    for pid in descendants(os.getpid(), reaper.helpers):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
        killed += 1
    return killed

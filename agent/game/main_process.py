"""Which process is the game, and how it ended.

Mostly it is the one that the agent executed. A launcher that starts the real server and leaves, or waits for it, can
name that one instead (sd_notify's `MAINPID=`): then its end is the game's end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from agent import log
from agent.game.spawn import Game


class MainProcess:
    """The game's main process, through all that is reaped.

    Attributes:
        over: whether it has ended.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, pids: Callable[[], list[int]], look: Callable[[], None]
    ) -> None:
        """Begins with whatever `game` it is asked about.

        Args:
            loop: watches a main process that is not the agent's own child.
            pids: every process of the game.
            look: reaps; called when a process that was named may have ended.
        """
        self.over = False
        self._loop = loop
        self._pids = pids
        self._look = look
        self._executed_ended: int | None = None
        self._watched: int | None = None

    def begin_again(self) -> None:
        """The game was started anew."""
        self.over, self._executed_ended = False, None
        self.close()

    def close(self) -> None:
        """Watches no more."""
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None

    def name(self, game: Game, pid: int) -> None:
        """The game says which process it is.

        Raises:
            ValueError: that is no process of the game.
        """
        if pid == game.main_pid or self.over:
            return
        if pid not in self._pids():
            raise ValueError(f"MAINPID={pid} is no process of the game")
        self.close()
        game.main_pid = pid
        log.info(f"process {pid} is the game's main one now: it says so (MAINPID)")
        try:
            self._watched = os.pidfd_open(pid)
        except OSError:  # no such call here, or gone already: what is reaped tells
            return
        self._loop.add_reader(self._watched, self._ended, game, pid)

    def take(self, game: Game, ended: Mapping[int, int], *, left: bool) -> int | None:
        """Looks at what was reaped.

        Args:
            game: the game.
            ended: wait statuses by process.
            left: whether any process of the game is left.

        Returns:
            The wait status of the game, once; None while it lives.
        """
        self._executed_ended = ended.get(game.pid, self._executed_ended)
        if self.over:
            return None
        status = ended.get(game.main_pid)
        if status is None and not left:
            # Somebody else waited for it. A launcher that did passes its code on.
            status = self._executed_ended if self._executed_ended is not None else 0
        self.over = status is not None
        return status

    def _ended(self, game: Game, pid: int) -> None:
        """The process that was named has ended: it is reaped now, unless it is somebody else's child."""
        self.close()
        self._look()
        if not self.over and game.main_pid == pid and self._executed_ended is None:
            # Whoever started it knows how it ended, and what follows.
            game.main_pid = game.pid

"""Which process is the game, and how it ended. Standard library only.

Mostly it is the one that was executed. A launcher that starts the real server and leaves, or waits for it, can name
that one instead (sd_notify's `MAINPID=`), and so can AGENT_MAIN: then its end is the game's end.
"""

from __future__ import annotations

import os

from agent import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from agent.game.spawn import Game

    class Watcher(Protocol):
        """What tells that a descriptor can be read."""

        def add_reader(self, fd: int, callback: Callable[[], object]) -> object:
            """Calls back whenever it can."""

        def remove_reader(self, fd: int) -> object:
            """Watches it no more."""


class MainProcess:
    """The main process of one start of the game, through all that is reaped.

    Attributes:
        over: whether it has ended.
    """

    def __init__(
        self, game: Game, watcher: Watcher, *, pids: Callable[[], list[int]], look: Callable[[], object]
    ) -> None:
        """Begins with the process that was executed.

        Args:
            game: the start.
            watcher: watches a main process that is not the agent's own child.
            pids: every process of the game.
            look: reaps; called when a process that was named may have ended.
        """
        self.over = False
        self._game = game
        self._watcher = watcher
        self._pids = pids
        self._look = look
        self._executed_ended: int | None = None
        self._watched: int | None = None

    def close(self) -> None:
        """Watches no more."""
        if self._watched is not None:
            self._watcher.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None

    def name(self, pid: int, why: str = "it says so (MAINPID)") -> None:
        """Takes another process for the main one.

        Raises:
            ValueError: that is no process of the game.
        """
        if pid == self._game.main_pid or self.over:
            return
        if pid not in self._pids():
            raise ValueError(f"MAINPID={pid} is no process of the game")
        self.close()
        self._game.main_pid = pid
        log.info(f"process {pid} is the game's main one now: {why}")
        try:
            self._watched = os.pidfd_open(pid)
        except OSError:  # no such call here, or gone already: what is reaped tells
            return
        self._watcher.add_reader(self._watched, self._ended)

    def take(self, ended: Mapping[int, int], *, left: bool) -> int | None:
        """Looks at what was reaped.

        Args:
            ended: wait statuses by process.
            left: whether any process of the game is left.

        Returns:
            The wait status of the game, once; None while it lives.
        """
        self._executed_ended = ended.get(self._game.pid, self._executed_ended)
        if self.over:
            return None
        status = ended.get(self._game.main_pid)
        if status is None and not left:
            # Somebody else waited for it. A launcher that did passes its code on.
            status = self._executed_ended if self._executed_ended is not None else 0
        self.over = status is not None
        if self.over:
            self._game.status = status
        return status

    def _ended(self) -> None:
        """The process that was named has ended: it is reaped now, unless it is somebody else's child."""
        pid = self._game.main_pid
        self.close()
        self._look()
        if not self.over and self._game.main_pid == pid and self._executed_ended is None:
            # Whoever started it knows how it ended, and what follows.
            self._game.main_pid = self._game.pid

"""Which process is the game, and how it ended. Standard library only.

Mostly it is the one that was executed. A launcher that starts the real server and leaves, or waits for it, can name
that one instead (sd_notify's `MAINPID=`), and so can AGENT_MAIN: then its end is the game's end. With AGENT_MAIN a
server that starts its successor and leaves is followed too.
"""

from __future__ import annotations

import os

from agent import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from agent.game.follow import Follow
    from agent.game.spawn import Game

    class Watcher(Protocol):
        """What tells that a descriptor can be read, and the time."""

        def call_later(self, seconds: float, callback: Callable[[], object]) -> object:
            """Calls back in so many seconds."""

        def time(self) -> float:
            """The present moment in seconds of the monotonic clock."""

        def add_reader(self, fd: int, callback: Callable[[], object]) -> object:
            """Calls back whenever it can."""

        def remove_reader(self, fd: int) -> object:
            """Watches it no more."""


# Until the process that AGENT_MAIN means is there, it is looked for this often; so long after the main one has ended.
_LOOK_EVERY = 0.5
_LOOK_AFTER_END = 0.1
_SUCCESSOR_SECONDS = 5.0


class MainProcess:
    """The main process of one start of the game, through all that is reaped.

    Attributes:
        over: whether it has ended.
        unknown: whether nobody can say how: its own parent waited for it.
    """

    def __init__(
        self,
        game: Game,
        watcher: Watcher,
        *,
        pids: Callable[[], list[int]],
        look: Callable[[], object],
        follow: Follow | None = None,
        lives: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begins with the process that was executed.

        Args:
            game: the start.
            watcher: watches a main process that is not the agent's own child.
            pids: every process of the game.
            look: reaps; called when a process that was named may have ended.
            follow: what AGENT_MAIN says, or None.
            lives: whether the game is meant to live; where it is being stopped nothing is followed any more.
        """
        self.over = self.unknown = False
        self._follow = follow
        self._lives = lives
        self._closed = False
        self._ended_with: int | None = None  # the main process, while its successor is looked for
        self._until: float | None = None
        self._game = game
        self._watcher = watcher
        self._pids = pids
        self._look = look
        self._executed_ended: int | None = None
        self._watched: int | None = None
        if follow is not None and follow.at_once:
            watcher.call_later(_LOOK_AFTER_END, self._search)

    @property
    def follows(self) -> bool:
        """Whether AGENT_MAIN says which process it is."""
        return self._follow is not None

    def close(self) -> None:
        """Watches no more."""
        self._closed = True
        self._unwatch()

    def _unwatch(self) -> None:
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
        self._unwatch()
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
        if self._follow is not None and self._until is None and status is not None and left and self._lives():
            self._search_successor(status)
            return None
        if self._until is not None:
            return self._end_of_search(status, left=left)
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
        self._unwatch()
        self._look()
        if self.over or self._game.main_pid != pid or self._executed_ended is not None or self._until is not None:
            return
        # Whoever started it knows how it ended, and what follows; with AGENT_MAIN it may wait for ever.
        self._game.main_pid = self._game.pid
        if self._follow is not None and self._lives():
            self._search_successor(None)

    # Following -------------------------------------------------------------------------------------------------------

    def _search_successor(self, status: int | None) -> None:
        """The main process has ended, with this wait status where it is known, and others of the game live."""
        self._ended_with = status
        self._until = self._watcher.time() + _SUCCESSOR_SECONDS
        self._search()

    def _search(self) -> None:
        """Looks for the process that AGENT_MAIN means, again and again."""
        if self._closed or self.over or self._follow is None:
            return
        found = self._follow.find(self._pids()) if self._lives() else None
        if found is not None:
            self.name(found, f"AGENT_MAIN={self._follow.setting}")
            self._until = None
        elif self._until is None:
            self._watcher.call_later(_LOOK_EVERY, self._search)
        elif self._lives() and self._watcher.time() < self._until:
            self._watcher.call_later(_LOOK_AFTER_END, self._search)
        else:
            self._watcher.call_later(0.0, self._look)

    def _end_of_search(self, status: int | None, *, left: bool) -> int | None:
        """The wait status of the game where no successor was found, or the game is being stopped; None before that."""
        self._ended_with = self._ended_with if status is None else status
        if left and self._lives() and self._watcher.time() < (self._until or 0.0):
            return None
        known = self._ended_with if self._ended_with is not None else self._executed_ended
        self.unknown = known is None
        self.over, self._game.status = True, known or 0
        return self._game.status

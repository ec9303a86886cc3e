"""Which process is the game, and how it ended. Standard library only.

Usually it is the executed process. A launcher that starts the real server, and then exits or waits for it, can name
that one instead (sd_notify's `MAINPID=`), and so can AGENT_MAIN: then its end is the game's end. With AGENT_MAIN, a
server that starts its successor and exits is followed too.
"""

from __future__ import annotations

import os

from agent import log
from agent.game.ends import wait_status
from agent.game.tree import look
from agent.lifecycle.states import ExitStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from agent.game.follow import Follow
    from agent.game.spawn import Game

    class Watcher(Protocol):
        """The parts of the loop that this module needs."""

        def call_later(self, seconds: float, callback: Callable[[], object]) -> object:
            """Calls back after a number of seconds."""

        def time(self) -> float:
            """The current time in seconds of the monotonic clock."""

        def add_reader(self, fd: int, callback: Callable[[], object]) -> object:
            """Calls back whenever the descriptor can be read."""

        def remove_reader(self, fd: int) -> object:
            """Stops watching the descriptor."""


# How often to search for the process of AGENT_MAIN until it exists, and how long after the main process has ended.
_LOOK_EVERY = 0.5
_LOOK_AFTER_END = 0.1
_SUCCESSOR_SECONDS = 5.0


class MainProcess:
    """Tracks the main process of one start of the game.

    Attributes:
        over: whether it has ended.
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
        """Starts with the executed process.

        Args:
            game: the start.
            watcher: watches a main process that is not the agent's own child.
            pids: every process of the game.
            look: reaps; called when a named main process may have ended.
            follow: the parsed AGENT_MAIN, or None.
            lives: whether the game is meant to run; during a stop, no other process is followed.
        """
        self.over = False
        self._follow = follow
        self._lives = lives
        self._closed = False
        self._until: float | None = None  # until when a successor of the main process is searched for
        self._game = game
        self._watcher = watcher
        self._pids = pids
        self._look = look
        self._executed_lives = True
        self._known: int | None = None  # the wait status of the main process
        self._watched: int | None = None  # a pidfd of the main process
        self._reading = False
        self._named = False  # whether the main process was named by MAINPID
        if follow is not None and follow.at_once:
            watcher.call_later(_LOOK_AFTER_END, self._search)

    @property
    def follows(self) -> bool:
        """Whether AGENT_MAIN decides which process it is."""
        return self._follow is not None

    def close(self) -> None:
        """Watches no more."""
        self._closed = True
        self._unwatch()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._read_no_more()
            os.close(self._watched)
            self._watched = None

    def _read_no_more(self) -> None:
        if self._watched is not None and self._reading:
            self._watcher.remove_reader(self._watched)
            self._reading = False

    def name(self, pid: int) -> None:
        """Makes another process the main one.

        Raises:
            ValueError: it is not a process of the game.
        """
        if pid == self._game.main_pid or self.over:
            return
        if pid not in self._pids():
            raise ValueError(f"MAINPID={pid} is no process of the game")
        # What the game says now is more than what a setting found before: nothing is searched for while that lives.
        self._named, self._until = True, None
        self._become(pid, "it says so (MAINPID)")

    def _become(self, pid: int, why: str) -> None:
        """Makes a process the main one; wait statuses of its predecessors no longer count."""
        self._unwatch()
        self._game.main_pid = pid
        self._known = None
        log.info(f"process {pid} is the game's main one now: {why}")
        try:
            self._watched = os.pidfd_open(pid)
        except ProcessLookupError:
            self._watcher.call_later(0.0, self._ended)
        except OSError:  # pidfd_open is not available here: rely on reaping
            pass
        else:
            self._watcher.add_reader(self._watched, self._ended)
            self._reading = True

    def take(self, ended: Mapping[int, int], *, left: bool) -> ExitStatus | None:
        """Handles reaped processes.

        Args:
            ended: wait statuses by process.
            left: whether any process of the game is left.

        Returns:
            How the game ended, once; None while it is running.
        """
        if self.over:
            return None
        own, executed = ended.get(self._game.main_pid), ended.get(self._game.pid)
        if executed is not None:
            self._executed_lives = False
        if own is not None:
            self._known = own
        elif executed is not None and self._known is None and not look([self._game.main_pid]):
            # It waited for the main process and passes its exit code on; a launcher that exits earlier does not know
            # it.
            self._known = executed
        if self._until is not None:
            if left and self._lives() and self._watcher.time() < self._until:
                return None
        elif left and own is None:
            return None
        elif left and self._follow is not None and self._lives():
            self._search_successor()
            return None
        self.over = True
        if self._known is None and self._watched is not None:
            self._known = wait_status(self._watched)
        return exit_status(self._known)

    def _ended(self) -> None:
        """The named main process has ended: reaps it, unless it is the child of another process."""
        pid = self._game.main_pid
        self._read_no_more()  # how it ended is known once its parent has waited for it
        self._look()
        if self.over or self._game.main_pid != pid or self._until is not None:
            return
        if self._executed_lives:
            # The executed process may be its parent; then it knows how it ended, and what to do next.
            self._game.main_pid = self._game.pid
        if self._lives():
            self._search_successor()  # its parent may continue forever

    # Following -------------------------------------------------------------------------------------------------------

    def _search_successor(self) -> None:
        """The main process has ended, and others of the game are running."""
        self._until = self._watcher.time() + _SUCCESSOR_SECONDS
        self._named = False
        if self._follow is not None:
            self._search()
        else:
            # It has named itself: so long another may do so, or a launcher that waited pass its code on.
            self._watcher.call_later(_SUCCESSOR_SECONDS, self._look)

    def _search(self) -> None:
        """Searches periodically for the process of AGENT_MAIN."""
        if self._closed or self.over or self._follow is None or self._named:
            return
        found = self._follow.find(self._pids()) if self._lives() else None
        if found is not None:
            self._until = None
            if found != self._game.main_pid:
                self._become(found, f"AGENT_MAIN={self._follow.setting}")
        elif self._until is None:
            self._watcher.call_later(_LOOK_EVERY, self._search)
        elif self._lives() and self._watcher.time() < self._until:
            self._watcher.call_later(_LOOK_AFTER_END, self._search)
        else:
            self._watcher.call_later(0.0, self._look)


def exit_status(status: int | None) -> ExitStatus:
    """How a process ended, from its wait status; None if only its parent, which waited for it, knows."""
    if status is None:
        return ExitStatus()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return ExitStatus(signal=-code, core_dumped=os.WCOREDUMP(status))
    return ExitStatus(code=code)

"""How servers ended whose own start script waits for them. Standard library only.

A process is waited for by its parent alone, and a script may return 0 whatever became of its server. Since Linux 6.15
the kernel tells the end of a process to whoever has a descriptor of it, after it was waited for (include/uapi/linux/
pidfd.h, PIDFD_INFO_EXIT). On older kernels nothing is known.
"""

from __future__ import annotations

import fcntl
import os
import struct
from functools import partial

from agent.game.stop_signal import is_helper
from agent.game.tree import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.init.loop import Loop

_GET_INFO = 0xC040FF0B  # PIDFD_GET_INFO with the first version of its structure, of 64 bytes
_INFO_EXIT = 1 << 3
_INFO_BYTES, _EXIT_CODE_AT = 64, 60

# A script that starts thousands of programs must not fill the table of descriptors.
_MOST = 8
# Those that are there when the game is ready, and when it is asked to end, count; a game that says neither is looked at
# so often.
_FIRST_SECONDS, _EVERY_SECONDS = 1.0, 30.0
# What ended longer ago than this was not the end of the game.
_RECENT_SECONDS = 60.0


def wait_status(pidfd: int) -> int | None:
    """How a process ended, as `wait` would tell; None where it lives, or its parent has not waited, or nobody tells."""
    info = bytearray(_INFO_BYTES)
    struct.pack_into("Q", info, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    if not struct.unpack_from("Q", info)[0] & _INFO_EXIT:
        return None
    return int(struct.unpack_from("i", info, _EXIT_CODE_AT)[0])


class _Watched:
    """A server: its name, a descriptor of it, when it ended and how."""

    __slots__ = ("at", "fd", "name", "status")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.at: float | None = None
        self.status: int | None = None


class Ends:
    """The servers behind the start script of one start of the game."""

    def __init__(self, loop: Loop, pids: Callable[[], list[int]], main: Callable[[], int]) -> None:
        """Begins to look, where the game is a script.

        Args:
            loop: for timers and descriptors.
            pids: every process of the game.
            main: the game's main process; 0 where there is none.
        """
        self._loop = loop
        self._pids = pids
        self._main = main
        self._watched: dict[int, _Watched] = {}
        self._closed = False
        self._timer = loop.call_later(_FIRST_SECONDS, self._again)

    def look(self) -> None:
        """Takes note of the servers that there are now; what stands between them and the agent must be a script."""
        main = 0 if self._closed else self._main()
        if not main or not any(is_helper(one.program) for one in look([main])):
            return
        for one in look(self._pids()):
            # The init waits for its own children itself.
            if one.pid in self._watched or one.parent == os.getpid() or is_helper(one.program):
                continue
            if len(self._watched) >= _MOST and not self._forget_one():
                return
            try:
                fd = os.pidfd_open(one.pid)
            except OSError:
                continue
            watched = self._watched[one.pid] = _Watched(one.name, fd)
            self._loop.add_reader(fd, partial(self._ended, watched))

    def found(self, end: float) -> list[tuple[float, int, str, int]]:
        """Of each name the latest that did not end with code 0, shortly before the game did; known once it is closed.

        Args:
            end: when that was, in seconds of the monotonic clock.

        Returns:
            Moment, process id, name and wait status.
        """
        latest: dict[str, tuple[float, int, str, int]] = {}
        for pid, one in self._watched.items():
            at, status = one.at if one.at is not None else end, one.status
            if status is not None and (one.name not in latest or latest[one.name][0] <= at):
                latest[one.name] = at, pid, one.name, status
        return [each for each in latest.values() if each[3] and end - each[0] <= _RECENT_SECONDS]

    def close(self) -> None:
        """The game is gone: takes note of how they ended, and looks no more."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        for one in self._watched.values():
            one.status = wait_status(one.fd)
            self._release(one)

    def _again(self) -> None:
        self.look()
        self._timer = self._loop.call_later(_EVERY_SECONDS, self._again)

    def _ended(self, one: _Watched) -> None:
        one.at = self._loop.time()
        self._loop.remove_reader(one.fd)

    def _forget_one(self) -> bool:
        """Makes room, by the one that ended first."""
        ended = [(one.at, pid) for pid, one in self._watched.items() if one.at is not None]
        if ended:
            self._release(self._watched.pop(min(ended)[1]))
        return bool(ended)

    def _release(self, one: _Watched) -> None:
        if one.at is None:
            self._loop.remove_reader(one.fd)
        os.close(one.fd)

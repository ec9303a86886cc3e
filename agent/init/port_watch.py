"""Warns once if nothing listens on the game's ports any more while its main process is still running.

A start script that continues after its server has ended (the vendor's script for Unreal ends in `sleep infinity`) hides
the end of the server: the empty deployment would still be billed. It is only a warning, because a server may close a
port on purpose; AGENT_MAIN=port acts on it. Standard library only.
"""

from __future__ import annotations

from agent import log
from agent.game.ports import is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.init.loop import Loop

# Four small files are read each time.
_EVERY = 10.0
# This many checks in a row must fail before the warning: a server that changes its map may reopen its port.
_LOOKS = 3


class PortWatch:
    """Checks the ports of one start of the game."""

    def __init__(self, loop: Loop, ports: Sequence[int], lives: Callable[[], bool], *, every: float = _EVERY) -> None:
        """Starts checking.

        Args:
            loop: for timers.
            ports: of the game, inside the container.
            lives: whether this start of the game is running and is not being stopped.
            every: seconds between two checks.
        """
        self._loop = loop
        self._ports = ports
        self._lives = lives
        self._every = every
        self._seen = False
        self._missing = 0
        loop.call_later(every, self._look)

    def _look(self) -> None:
        if not self._lives():
            return
        if is_open(self._ports):
            self._seen, self._missing = True, 0
        elif self._seen:
            self._missing += 1
        if self._missing < _LOOKS:
            self._loop.call_later(self._every, self._look)
            return
        named = ", ".join(str(port) for port in self._ports)
        log.warning(
            f"cannot see that the game still serves: nothing has listened on its ports ({named}) for "
            f"{self._missing * self._every:.0f} s, but its main process is running; if the server's end is the game's "
            "end, set AGENT_MAIN=port"
        )

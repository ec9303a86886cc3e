"""Notices that nothing listens on the game's ports any more while its main process lives on, and says so, once.

A start script that goes on behind its server (the vendor's for Unreal ends in `sleep infinity`) hides the server's end:
the deployment would be billed on with nobody on it. Only AGENT_MAIN=port acts on it, for a server may close a port on
purpose. Standard library only.
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
# So many looks in a row find nothing before it is said: a server that changes its map may open its port anew.
_LOOKS = 3


class PortWatch:
    """Looks at the ports of one start of the game."""

    def __init__(self, loop: Loop, ports: Sequence[int], lives: Callable[[], bool], *, every: float = _EVERY) -> None:
        """Begins to look.

        Args:
            loop: for timers.
            ports: of the game, inside the container.
            lives: whether this start of the game lives and is not being stopped.
            every: seconds between two looks.
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
            f"{self._missing * self._every:.0f} s, and its main process goes on; where the server's end is the game's "
            "end, set AGENT_MAIN=port"
        )

"""Finds the process for AGENT_MAIN: the one in a pid file, the owner of the port, or the last process of the game.

Standard library only.
"""

from __future__ import annotations

from agent.game.ports import owners
from agent.game.stop_signal import is_helper
from agent.game.tree import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# A pid file is a number and a line break.
_LONGEST_PID_FILE = 64


class Follow:
    """The parsed AGENT_MAIN.

    Attributes:
        setting: as it was given.
        at_once: whether the process is searched for from the start; else only after the main process has ended.
    """

    def __init__(self, setting: str, ports: Sequence[int]) -> None:
        """Takes the setting, and the game's ports inside the container."""
        self.setting = setting
        self._kind, _, self._argument = setting.partition(":")
        self.at_once = self._kind != "last"
        self._ports = [int(self._argument)] if self._kind == "port" and self._argument else list(ports)

    def find(self, pids: list[int]) -> int | None:
        """The process for the setting; None if there is none now."""
        if self._kind == "pidfile":
            pid = self._read()
            return pid if pid in pids and look([pid]) else None
        if self._kind == "port":
            found = [one.pid for one in sorted(look(owners(self._ports, pids)), key=lambda one: one.started)]
            return found[0] if found else None
        servers = [one for one in look(pids) if not is_helper(one.program)]
        if len(servers) > 1 and (owning := set(owners(self._ports, [one.pid for one in servers]))):
            servers = [one for one in servers if one.pid in owning]
        return max(servers, key=lambda one: (one.started, one.pid)).pid if servers else None

    def _read(self) -> int:
        try:
            with open(self._argument, "rb") as file:
                return int(file.read(_LONGEST_PID_FILE).split()[0])
        except (OSError, ValueError, IndexError):
            return 0

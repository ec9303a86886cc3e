"""What the same game says to Agones' sidecar, and what it hears: REST on `AGONES_SDK_HTTP_PORT`, no SDK.

A game made for Agones is like this one, with an SDK around the calls. arbitrium-agent answers it where AGENT_COMPAT has
`agones`.
"""

from __future__ import annotations

import http.client
import json
import os

from .agent_link import AgentLink, complain


class AgonesLink(AgentLink):
    """The game's line to the sidecar."""

    def __init__(self) -> None:
        """Takes the port from the environment."""
        super().__init__(f"http://localhost:{os.environ.get('AGONES_SDK_HTTP_PORT', '9358')}")

    def ready(self) -> None:
        """`Ready`."""
        self._say("POST", "/ready", {})

    def heartbeat(self) -> None:
        """`Health`."""
        self._say("POST", "/health", {})

    def capacity(self, players: int) -> None:
        """`SetPlayerCapacity`; numbers of 64 bits are text."""
        self._say("PUT", "/alpha/player/capacity", {"count": str(players)})

    def joined(self, player: str) -> None:
        """`PlayerConnect`."""
        self._say("POST", "/alpha/player/connect", {"playerID": player})

    def left(self, player: str) -> None:
        """`PlayerDisconnect`."""
        self._say("POST", "/alpha/player/disconnect", {"playerID": player})

    def figures(self, figures: dict[str, object]) -> None:
        """Agones takes none."""

    def stop(self, reason: str) -> None:
        """`Shutdown`."""
        self._say("PUT", "/metadata/annotation", {"key": "why", "value": reason})
        self._say("POST", "/shutdown", {})

    def _listen(self) -> None:
        """`WatchGameServer`: the state Shutdown announces the end."""
        connection = http.client.HTTPConnection(*self._address, timeout=None)
        try:
            connection.request("GET", "/watch/gameserver")
            for line in connection.getresponse():
                state = json.loads(line)["result"]["status"]["state"]
                if state in ("Shutdown", "Unhealthy"):
                    self.words = f"Agones: {state}"
                    self.stop_announced.set()
                    self.told_to_end = True
        except (OSError, ValueError, KeyError, http.client.HTTPException) as problem:
            complain(f"cannot watch the game server: {problem}; SIGTERM still stops the game")
        finally:
            connection.close()

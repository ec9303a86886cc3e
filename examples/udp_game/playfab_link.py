"""What the same game says to PlayFab's VM agent, and what it hears: a heartbeat a second, no SDK.

`GSDK_CONFIG_FILE` says where. arbitrium-agent writes it and answers where AGENT_COMPAT has `playfab`.
"""

from __future__ import annotations

import http.client
import json
import os
import threading

from .agent_link import AgentLink, complain


class PlayFabLink(AgentLink):
    """The game's heartbeats.

    Attributes:
        state: what they say of the game, in PlayFab's words.
    """

    def __init__(self) -> None:
        """Reads the configuration; the first heartbeat goes out at once."""
        super().__init__(None)
        with open(os.environ["GSDK_CONFIG_FILE"], encoding="utf-8") as file:
            config = json.load(file)
        self.connected = True
        self.stops_the_game = False  # a game ends itself there
        host, _, port = config["heartbeatEndpoint"].partition(":")
        self._address = (host, int(port))
        self._session_host = config["sessionHostId"]
        self.state = "Initializing"
        self._players: set[str] = set()
        self._wake = threading.Event()
        self._over = False
        thread = threading.Thread(target=self._beat, name="gsdk", daemon=True)
        thread.start()
        self._threads = [thread]

    def ready(self) -> None:
        """`ReadyForPlayers`, without blocking: standing by, until a session makes it active."""
        self._set("StandingBy")

    def heartbeat(self) -> None:
        """They go out by themselves."""

    def capacity(self, players: int) -> None:
        """PlayFab knows it from the build."""

    def joined(self, player: str) -> None:
        """One player more."""
        self._players.add(player)

    def left(self, player: str) -> None:
        """One player less."""
        self._players.discard(player)

    def figures(self, figures: dict[str, object]) -> None:
        """PlayFab takes none."""

    def stop(self, reason: str) -> None:
        """There is no such call: the game says that it terminates, and ends."""
        self._set("Terminating")

    def close(self, timeout: float = 1.0) -> None:
        """The last heartbeat says that it has ended."""
        self._over = True
        self._set("Terminated")
        self._threads[0].join(timeout)

    def _set(self, state: str) -> None:
        self.state = state
        self._wake.set()

    def _beat(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=5.0)
        headers = {"Content-Type": "application/json"}
        info = json.dumps({"Flavor": "example", "Version": "1"})
        self._ask(connection, "POST", f"/v1/metrics/{self._session_host}/gsdkinfo", info, headers)
        while True:
            over = self._over
            self._wake.clear()
            body = {
                "CurrentGameState": self.state,
                "CurrentGameHealth": "Healthy",
                "CurrentPlayers": [{"PlayerId": player} for player in sorted(self._players)],
            }
            path = f"/v1/sessionHosts/{self._session_host}"
            answer = self._ask(connection, "PATCH", path, json.dumps(body), headers)
            if over:
                connection.close()
                return
            operation = answer.get("operation")
            if operation == "Active" and self.state == "StandingBy":
                self._set("Active")
            elif operation == "Terminate" and not self.told_to_end:
                self.words = "PlayFab: Terminate"
                self.stop_announced.set()
                self._set("Terminating")
                self.told_to_end = True
            self._wake.wait(float(str(answer.get("nextHeartbeatIntervalMs", 1000))) / 1000)

    @staticmethod
    def _ask(
        connection: http.client.HTTPConnection, method: str, path: str, body: str, headers: dict[str, str]
    ) -> dict[str, object]:
        try:
            connection.request(method, path, body, headers)
            answer: dict[str, object] = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException) as problem:
            connection.close()
            complain(f"cannot send a heartbeat: {problem}")
            return {}
        return answer

"""What this game says to arbitrium-agent, and what it hears: plain HTTP to `AGENT_URL`, no SDK.

A tick never waits for the agent: calls are made one after the other by a thread of its own, and another one reads the
stream of events. Without an agent (`AGENT_URL` is not set) nothing is said and nothing heard, and the game runs the
same.
"""

from __future__ import annotations

import http.client
import json
import queue
import sys
import threading
from urllib.parse import quote, urlsplit

TIMEOUT_SECONDS = 5.0


class AgentLink:
    """The game's line to the agent.

    Attributes:
        connected: whether there is an agent at all.
        stop_announced: set when the agent announces a stop. SIGTERM follows when players had their time.
        words: why, in the words of who asked for it.
        told_to_end: whether the game has to end now, without a signal; other hosts ask so.
        stops_the_game: whether who is told `stop` ends the game, with SIGTERM in the end.
    """

    def __init__(self, url: str | None) -> None:
        """Takes `AGENT_URL`, and begins to listen where it is set."""
        self.connected = bool(url)
        self.stop_announced = threading.Event()
        self.words = ""
        self.told_to_end = False
        self.stops_the_game = True
        self._calls: queue.Queue[tuple[str, str, object] | None] = queue.Queue(maxsize=1000)
        self._threads: list[threading.Thread] = []
        if url:
            parts = urlsplit(url)
            self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
            for work in (self._make_calls, self._listen):
                thread = threading.Thread(target=work, name=f"agent link: {work.__name__}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def ready(self) -> None:
        """Players may come."""
        self._say("POST", "/v1/ready")

    def heartbeat(self) -> None:
        """The game lives."""
        self._say("POST", "/v1/health")

    def capacity(self, players: int) -> None:
        """So many could play."""
        self._say("PUT", "/v1/players", {"count": 0, "capacity": players})

    def joined(self, player: str) -> None:
        """One player more."""
        self._say("PUT", "/v1/players/" + quote(player, safe=""))

    def left(self, player: str) -> None:
        """One player less."""
        self._say("DELETE", "/v1/players/" + quote(player, safe=""))

    def figures(self, figures: dict[str, object]) -> None:
        """Figures of the game's own, for Prometheus."""
        self._say("POST", "/v1/metrics", figures)

    def stop(self, reason: str) -> None:
        """The match is over: stop the deployment."""
        self._say("POST", "/v1/stop", {"reason": reason})

    def close(self, timeout: float = 1.0) -> None:
        """Says what is left to be said, for `timeout` seconds at most."""
        if self.connected:
            self._calls.put(None)
            self._threads[0].join(timeout)

    def _say(self, method: str, path: str, body: object = None) -> None:
        if self.connected:
            try:
                self._calls.put_nowait((method, path, body))
            except queue.Full:
                complain("cannot tell the agent anything: it does not take what was said before")

    def _make_calls(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_SECONDS)
        while True:
            call = self._calls.get()
            if call is None:
                connection.close()
                return
            method, path, body = call
            for last in (False, True):  # a connection that the agent closed in the meantime is worth a second try
                try:
                    data = None if body is None else json.dumps(body)
                    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
                    answer = connection.getresponse()
                    said = answer.read()
                except (OSError, http.client.HTTPException) as problem:
                    connection.close()
                    if last:
                        complain(f"cannot call {method} {path} of the agent: {problem}")
                else:
                    if answer.status >= 400:
                        complain(f"cannot {method} {path}: the agent says {answer.status} {said.decode()[:300]}")
                    break

    def _listen(self) -> None:
        """Reads server-sent events until the agent is gone; only the announcement of a stop matters here."""
        connection = http.client.HTTPConnection(*self._address, timeout=None)
        try:
            connection.request("GET", "/v1/events", headers={"Accept": "text/event-stream"})
            kind = ""
            for raw in connection.getresponse():
                name, _, value = raw.decode().rstrip("\r\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind == "stop":
                    event = json.loads(value)
                    self.words = event.get("message") or event.get("reason") or ""
                    self.stop_announced.set()
        except (OSError, ValueError, http.client.HTTPException) as problem:
            complain(f"cannot listen to the agent: {problem}; SIGTERM still stops the game")
        finally:
            connection.close()


def complain(sentence: str) -> None:
    """One line on stderr."""
    print(f"udp_game: {sentence}", file=sys.stderr, flush=True)

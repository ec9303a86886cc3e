"""Fakes at the edge: what the agent talks to, small enough to be told exactly what to answer."""

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from types import TracebackType
from typing import Literal, Self, cast
from urllib.parse import parse_qs, urlsplit

TOKEN = "c0ffee5ec2e7c0ffee5ec2e7c0ffee11"
"""The delete token that the fake platform injects: 32 hex digits, easy to find wherever it should not be."""


@dataclass(frozen=True)
class Reply:
    """One scripted answer of the platform.

    Attributes:
        status: the HTTP status; ignored when nothing is answered.
        headers: added to the answer, such as `{"Retry-After": "1"}`.
        body: sent as JSON text; None stands for what the platform would say with that status.
        manner: `answer`; `reset` closes the connection without a word; `hang` says nothing until the fake is closed.
    """

    status: int = 202
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    manner: Literal["answer", "reset", "hang"] = "answer"


@dataclass(frozen=True)
class Call:
    """One request that reached the fake platform; `at` is monotonic, in seconds."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    authorization: str | None
    at: float


class _Server(ThreadingHTTPServer):
    """Bound at once, listening only when told: until then every connection is refused, and the port stays ours."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, platform: "FakePlatform", port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler, bind_and_activate=False)
        self.platform = platform
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle of an answer is no news here."""


class _Handler(BaseHTTPRequestHandler):
    def do_DELETE(self) -> None:
        platform = cast("_Server", self.server).platform
        reply = platform.receive(self.command, self.path, self.headers.get("authorization"))
        if reply.manner == "hang":
            platform.closing.wait()
        if reply.manner != "answer":
            self.close_connection = True
            return
        body = reply.body if reply.body is not None else f'{{"message": "{reply.status}"}}'
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Keep the test output quiet: what was called is in `FakePlatform.calls`."""


class FakePlatform:
    """The platform as a container sees it, for self-stop: records every call, answers what it was told to.

    Once the script is used up, a call with the right token gets 202 and one with another 401, as on the platform.

        with FakePlatform([Reply(503), Reply(429, {"Retry-After": "1"})]) as platform:
            run = launch(game("polite"), env=platform.environment())

    Args:
        script: the answers to the first calls, in order.
        listening: False refuses every connection until `listen()` is called; the port is taken already.
        port: where to listen; 0 takes any free one.
    """

    deployment_id = "23c01225b99d"
    stop_key = "463660"

    def __init__(self, script: Sequence[Reply] = (), *, listening: bool = True, port: int = 0) -> None:
        self.calls: list[Call] = []
        self.closing = threading.Event()
        self._script = list(script)
        self._changed = threading.Condition()
        self._server = _Server(self, port)
        self._thread: threading.Thread | None = None
        if listening:
            self.listen()

    @property
    def url(self) -> str:
        """Where the platform is, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def delete_url(self) -> str:
        """What is injected as `ARBITRIUM_DELETE_URL`."""
        return f"{self.url}/v1/self/stop/{self.deployment_id}/{self.stop_key}"

    def environment(self) -> dict[str, str]:
        """What the platform injects to identify and stop a deployment."""
        return {
            "ARBITRIUM_REQUEST_ID": self.deployment_id,
            "ARBITRIUM_DELETE_URL": self.delete_url,
            "ARBITRIUM_DELETE_TOKEN": TOKEN,
        }

    def listen(self) -> None:
        """Begin to answer."""
        self._server.server_activate()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def receive(self, method: str, target: str, authorization: str | None) -> Reply:
        """Record a call and decide what it is answered (called by the server's threads)."""
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True)
        with self._changed:
            self.calls.append(Call(method, parts.path, query, authorization, monotonic()))
            self._changed.notify_all()
            if self._script:
                return self._script.pop(0)
        return Reply(202 if authorization == TOKEN else 401)

    def wait_for_calls(self, count: int, deadline_seconds: float = 20) -> list[Call]:
        """Wait until that many calls came.

        Args:
            count: how many, from the beginning.
            deadline_seconds: how long to wait for them.

        Returns:
            All calls until now.

        Raises:
            AssertionError: fewer came in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self.calls) >= count, deadline_seconds)
            assert len(self.calls) >= count, f"{len(self.calls)} of {count} calls came in {deadline_seconds} s"
            return list(self.calls)

    def close(self) -> None:
        """Stop answering; calls that hang are let go."""
        self.closing.set()
        if self._thread:
            self._server.shutdown()
            self._thread.join()
        with suppress(OSError):
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# What the platform injects without anything secret in it, in its own form.
INJECTED = {
    "ARBITRIUM_REQUEST_ID": "23c01225b99d",
    "ARBITRIUM_PUBLIC_IP": "172.236.117.196",
    "ARBITRIUM_HOST_ID": "chicago-edge-od-1205-e3-30a8e1",
    "ARBITRIUM_DEPLOYMENT_TAGS": "tag1,tag2",
    "ARBITRIUM_DEPLOYMENT_LOCATION": json.dumps(
        {
            "city": "Chicago",
            "country": "United States of America",
            "continent": "North America",
            "administrative_division": "Illinois",
            "timezone": "Central Time",
            "latitude": 41.9981,
            "longitude": -88.0219,
        }
    ),
    "ARBITRIUM_PORTS_MAPPING": json.dumps(
        {"ports": {"gameport": {"name": "gameport", "internal": 7777, "external": 32013, "protocol": "UDP"}}}
    ),
    "ARBITRIUM_PORT_GAMEPORT_INTERNAL": "7777",
    "ARBITRIUM_PORT_GAMEPORT_EXTERNAL": "32013",
    "ARBITRIUM_PORT_GAMEPORT_PROTOCOL": "UDP",
    "ARBITRIUM_DEPLOYMENT_VCPU_UNITS": "1536",
    "ARBITRIUM_DEPLOYMENT_MEMORY_MB": "3072",
    "ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY": "2000",
    "ARBITRIUM_HOST_IN_PRIVATE_FLEET": "false",
    "ARBITRIUM_PRIVATE_FLEET_ID": "PUBLIC_CLOUD",
}

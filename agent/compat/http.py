"""HTTP for the hosts' protocols: aiohttp's server on a socket that was bound before the game was started.

Slow, half-open or too many clients do not affect others; the sender must be on this machine, as for the control port.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from agent import log, web
from agent.api.answer import Answer
from agent.api.http_input import check_sender
from agent.api.problems import Kind, OperationError, internal
from agent.api.routes import Router
from agent.connections import Listener, OpenConnections, connections_limit

if TYPE_CHECKING:
    from agent.api.contracts import OnRequest

CONNECTIONS = 128
"""Open connections at most; see `OpenConnections`."""
DESCRIPTORS_SHARE = 3 / 16
"""What the API and the metrics leave of the descriptors."""
BODY_LIMIT = 64 * 1024
BODY_SECONDS = 10.0
FIRST_SECONDS = 30.0
"""How long a connection may be open before its first request."""
CLOSE_SECONDS = 0.2

Handler = Callable[[web.BaseRequest, dict[str, str]], Awaitable[web.StreamResponse]]
Failure = Callable[[OperationError], web.StreamResponse]
_Route = tuple[str, Handler, bool]
"""What it is called in metrics, what answers, and whether the answer lasts."""


class WrongError(Exception):
    """A request that cannot be answered, in the words of the host's protocol.

    Attributes:
        response: what is answered instead.
    """

    def __init__(self, response: web.StreamResponse) -> None:
        """Takes the answer."""
        super().__init__(response.status)
        self.response = response


def json_response(value: Any, status: int = 200) -> Answer:
    """A value as JSON."""
    return Answer(json.dumps(value).encode(), status)


async def read_body(request: web.BaseRequest, fail: Callable[[str], WrongError]) -> bytes:
    """The body, which must come in time and be of a sensible size.

    Args:
        request: whose.
        fail: makes the host's own error of a sentence.
    """
    connection = _connection(request)
    connection.answering = False  # whoever does not send the rest may lose the connection
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.content.read(BODY_LIMIT + 1)
            while body and len(body) <= BODY_LIMIT and not request.content.at_eof():
                body += await request.content.read(BODY_LIMIT + 1)
    except TimeoutError:
        raise fail(f"cannot read the request: its body did not come within {BODY_SECONDS:g} s") from None
    except web.RequestPayloadError as wrong:
        raise fail(f"cannot read the request: its body is broken ({wrong})") from None
    finally:
        connection.answering = True
    if len(body) > BODY_LIMIT:
        raise fail(f"cannot read the request: its body has more than {BODY_LIMIT} bytes")
    return body.removeprefix(b"\xef\xbb\xbf")


async def read_object(request: web.BaseRequest, fail: Callable[[str], WrongError]) -> dict[str, Any]:
    """The body as a JSON object; an empty one is an empty object."""
    body = await read_body(request, fail)
    if not body.strip():
        return {}
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as wrong:
        raise fail(f"cannot read the request: its body is not JSON ({wrong})") from None
    if not isinstance(given, dict):
        raise fail("cannot read the request: its body is not a JSON object")
    return given


class Server:
    """One host's HTTP listener."""

    def __init__(self, transport: str, fail: Failure, on_request: OnRequest | None) -> None:
        """Takes what it is called in metrics, and what renders a problem as the host does."""
        self._transport = transport
        self._fail = fail
        self._on_request = on_request
        self._router: Router[_Route] = Router()
        self._web = web.Server(self._answer)
        self._open: OpenConnections[_Connection] = OpenConnections(
            lambda: connections_limit(CONNECTIONS, DESCRIPTORS_SHARE), lambda connection: connection.idle
        )
        self._listener: Listener[_Connection] | None = None
        self._said: set[str] = set()

    def route(self, method: str, path: str, handler: Handler, *, lasts: bool = False) -> None:
        """Answers a method and path with a handler.

        Args:
            method: of HTTP.
            path: `{name}` stands for one segment.
            handler: answers.
            lasts: whether an answer lasts as long as the client listens.
        """
        self._router.add(method, path, (f"{method} {path}", handler, lasts))

    async def start(self, sock: socket.socket) -> Server:
        """Begins to accept connections on a socket that is bound and listening."""
        loop = asyncio.get_running_loop()

        def connection() -> _Connection:
            options: dict[str, Any] = {"access_log": None, "lingering_time": 1.0, "auto_decompress": False}
            return _Connection(self._open, self._web, loop=loop, **options)

        self._listener = Listener(sock, connection, self._open, begun=web.has_asked, silent_seconds=FIRST_SECONDS)
        return self

    async def close(self) -> None:
        """Stops accepting and ends all connections."""
        if self._listener is None:
            return
        self._listener.close()
        self._web.pre_shutdown()
        await self._web.shutdown(CLOSE_SECONDS)
        self._listener = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        began, name = time.perf_counter(), "unknown"
        response: web.StreamResponse
        connection = _connection(request)
        connection.answering = True
        try:
            check_sender(request)
            (name, handler, lasts), fields = self._find(request)
            if lasts and not self._open.hold(connection):
                raise OperationError(
                    Kind.UNAVAILABLE, f"cannot watch: {self._open.held_limit} connections do; close some"
                )
            response = await handler(request, fields)
        except WrongError as wrong:
            response = wrong.response
            if request.can_read_body and not request.content.is_eof():
                response.force_close()  # the rest of the body may still come, and is no request
        except OperationError as problem:
            response = self._fail(problem)
        except ConnectionError:
            raise  # the client is gone; aiohttp knows what to do
        except Exception as fault:
            response = self._fail(internal(f"{self._transport} {name}", fault))
        finally:
            connection.answering = False
            self._open.asked(connection)
            self._open.release(connection)
        if self._on_request is not None:
            self._on_request(self._transport, name, str(response.status), time.perf_counter() - began)
        return response

    def _find(self, request: web.BaseRequest) -> tuple[_Route, dict[str, str]]:
        path = request.rel_url.raw_path
        try:
            return self._router.find(request.method, path)
        except OperationError as unknown:
            # Said once: a call that this host would answer is one that a game may depend on.
            what = f"{request.method} {path}"[:200]
            if what not in self._said and len(self._said) < 50:
                self._said.add(what)
                log.warning(f"cannot answer {what} as {self._transport} does: there is no such call here")
            raise OperationError(
                unknown.kind, f"cannot {what}: {self._transport} has no such call here; see docs/migrate.md"
            ) from None


class _Connection(web.Connection):
    """A connection that is closed where nothing is asked, or where another one needs its place."""

    __slots__ = ("_open", "_waiting")

    def __init__(self, open_connections: OpenConnections[_Connection], server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._open = open_connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport), "HTTP is served on stream sockets"
        self._waiting: asyncio.TimerHandle | None = None
        if not self._open.came(self, transport):
            transport.abort()
            return
        self._waiting = asyncio.get_running_loop().call_later(FIRST_SECONDS, self._too_late, transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.has_requests_waiting and self._waiting is not None:
            self._waiting.cancel()  # a whole head of a request has come

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._open.left(self)
        super().connection_lost(exc)

    def _too_late(self, transport: asyncio.Transport) -> None:
        transport.abort()


def _connection(request: web.BaseRequest) -> _Connection:
    connection = request.protocol
    assert isinstance(connection, _Connection), "all connections are made in start()"
    return connection

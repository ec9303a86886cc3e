"""The operations over HTTP, on a socket that was bound before the game was started.

It uses aiohttp's low-level server with its own handler: the table of operations is the routing table, and the overhead
of a framework for each request would cost more than the operations themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from pydantic import BaseModel

from agent import web
from agent.api.answer import Answer
from agent.api.contracts import Caller, OnRequest
from agent.api.events import Subscription
from agent.api.feed import Feed
from agent.api.http_input import check_sender, gather, read_body
from agent.api.operations import Operations
from agent.api.page import StatusPage, Stream
from agent.api.problems import FieldProblem, Kind, OperationError, internal
from agent.api.routes import Router
from agent.api.table import OPERATIONS, Operation
from agent.connections import Lasting, Listener, OpenConnections, connections_limit
from agent.lifecycle.states import Source

CONNECTIONS = 512
"""The most open connections, since file descriptors are also needed for logs and the stop; see `OpenConnections`."""
DESCRIPTORS_SHARE = 0.5
KEEPALIVE_SECONDS = 75.0
CLOSE_SECONDS = 0.2
"""How long requests under way may take during the agent's shutdown, when everything important is done."""
LONGEST_WAIT_SECONDS = 300.0
HEARTBEAT_SECONDS = 15.0
"""How long a stream of events may be silent; then a comment is sent, so that proxies do not close it."""

_PROBLEM = {"Content-Type": "application/problem+json"}
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
_CALLER = Caller("http", Source.GAME)

_REQUEST_LINE = re.compile(r"^\s*b['\"](?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) (?P<path>/[^\s?]*)\S* HTTP/1\.[01]")

_Target: TypeAlias = "Operation | _Page"
_Page: TypeAlias = tuple[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]]


async def serve(
    sock: socket.socket,
    operations: Operations,
    feed: Feed,
    *,
    on_request: OnRequest | None = None,
    page: StatusPage | None = None,
) -> HttpServer:
    """Serves the operations.

    Args:
        sock: bound and listening; it belongs to the server from now on.
        operations: what is served.
        feed: the source of events.
        on_request: called for each request when it is answered, and for a stream of events when it begins.
        page: the status page at `/`, or None for none.

    Returns:
        The running server; `close` it.
    """
    server = HttpServer(operations, feed, on_request, page)
    await server.start(sock)
    return server


class HttpServer:
    """The HTTP transport; made by `serve`."""

    def __init__(
        self, operations: Operations, feed: Feed, on_request: OnRequest | None, page: StatusPage | None = None
    ) -> None:
        """Builds the routes; nothing is served yet."""
        self._operations = operations
        self._feed = feed
        self._on_request = on_request
        self._document: bytes | None = None
        self._router: Router[_Target] = Router()
        for operation in OPERATIONS:
            self._router.add(*operation.http, operation)
        self._router.add("GET", "/v1/events", ("events", self._events))
        self._router.add("GET", "/v1/events/stop", ("events.stop", self._stop_event))
        self._router.add("GET", "/openapi.json", ("openapi", self._openapi))
        for method, path, name, handler in page.routes if page is not None else ():
            self._router.add(method, path, (name, handler))
        self._web = web.Server(self._answer)
        self._open: OpenConnections[_Connection] = OpenConnections(
            lambda: connections_limit(CONNECTIONS, DESCRIPTORS_SHARE), lambda connection: connection.idle
        )
        self._listener: Listener[_Connection] | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begins to accept connections on a socket that is bound and listening."""
        loop = asyncio.get_running_loop()

        def connection() -> _Connection:
            return _Connection(
                self._router,
                self._open,
                self._web,
                loop=loop,
                access_log=None,
                keepalive_timeout=KEEPALIVE_SECONDS,
                lingering_time=1.0,
                # Compressed bodies are refused, because they could expand to an enormous size.
                auto_decompress=False,
            )

        self._listener = Listener(
            sock,
            connection,
            self._open,
            begun=web.has_asked,
            silent_seconds=KEEPALIVE_SECONDS,
            lasting=Lasting(
                lambda data: data.startswith(b"GET /v1/events"), lambda: _refused_stream(self._open.held_limit)
            ),
        )

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Stops accepting, lets requests under way finish for `seconds` at most, and closes all connections.

        Close the event bus first: streams of events end by that.
        """
        if self._listener is None:
            return
        self._listener.close()
        self._web.pre_shutdown()
        await self._web.shutdown(seconds)
        self._listener = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.perf_counter()
        name = "unknown"
        response: web.StreamResponse
        connection = _connection(request)
        connection.answering = True
        try:
            if connection.checked != request.raw_headers or not request.raw_path.startswith("/"):
                check_sender(request)
                connection.checked = request.raw_headers
            fields: dict[str, str] = {}
            target = self._router.exact(request.method, request.raw_path)
            if target is None:
                target, fields = self._router.find(request.method, request.rel_url.raw_path)
            if isinstance(target, Operation):
                name = target.name
                response = await self._carry_out(target, fields, request)
            else:
                name, page = target
                response = await page(request)
        except OperationError as wrong:
            response = _problem(wrong, with_message=name == "self_stop")
        except ConnectionError:
            raise  # the client is gone; aiohttp knows what to do
        except Exception as fault:
            response = _problem(internal(name, fault))
        finally:
            connection.answering = False
            self._open.asked(connection)
        if connection.has_nothing_more:
            response.force_close()
        if self._on_request is not None and not isinstance(response, Stream):
            self._on_request("http", name, str(response.status), time.perf_counter() - began)
        return response

    async def _carry_out(self, operation: Operation, fields: dict[str, str], request: web.BaseRequest) -> Answer:
        body = b""
        if request.can_read_body:
            connection = _connection(request)
            if connection.ended and not request.content.is_eof():
                raise OperationError(Kind.BAD_REQUEST, f"cannot {operation.doing}: the body breaks off")
            connection.reading, connection.answering = True, False
            try:
                body = await read_body(operation, request)
            finally:
                connection.reading, connection.answering = False, True
        given = operation.parse(body) if not fields else operation.take(gather(operation, fields, request, body))
        outcome = operation.call(self._operations, given, _CALLER)
        result = outcome if isinstance(outcome, BaseModel) else await outcome
        return Answer(result.__pydantic_serializer__.to_json(result), operation.status)

    async def _openapi(self, _request: web.BaseRequest) -> web.StreamResponse:
        if self._document is None:
            from agent.api.openapi import document  # noqa: PLC0415 - only when it is asked for

            self._document = json.dumps(document()).encode()
        return Answer(self._document)

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        """Server-sent events: the current state, then new events, until the client or the agent ends."""
        began = time.perf_counter()
        stream = Stream(headers=_STREAM)
        with self._lasting(request) as subscription:
            await stream.prepare(request)
            if self._on_request is not None:
                self._on_request("http", "events", "200", time.perf_counter() - began)
            while request.method != "HEAD":
                events = await subscription.batch(HEARTBEAT_SECONDS)
                if events:
                    await stream.write(b"".join([event.sse for event in events]))
                elif subscription.closed:
                    break
                else:
                    await stream.write(b": nothing new\n\n")
        return stream

    async def _stop_event(self, request: web.BaseRequest) -> web.StreamResponse:
        """Long poll: the stop under way, as soon as there is one; 204 if there is none after `wait` seconds."""
        wait = _wait_seconds(request)
        until = asyncio.get_running_loop().time() + wait
        with self._lasting(request) as subscription:
            while True:
                event = await subscription.next(max(0.0, until - asyncio.get_running_loop().time()))
                if event is None:
                    return web.Response(status=204)
                if event.type == "stop":
                    return Answer(event.json)

    @contextlib.contextmanager
    def _lasting(self, request: web.BaseRequest) -> Iterator[Subscription]:
        """Subscribes to events for an answer that lasts, until it or its client ends.

        Raises:
            OperationError: too many connections are held by such answers.
        """
        connection = _connection(request)
        if not self._open.hold(connection):
            raise _too_many_streams(self._open.held_limit)
        subscription = self._feed.subscribe()
        connection.gone = subscription.close
        try:
            yield subscription
        finally:
            connection.gone = None
            subscription.close()
            self._open.release(connection)


def _wait_seconds(request: web.BaseRequest) -> float:
    given = request.rel_url.query.get("wait", "0")
    try:
        wait = float(given)
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= LONGEST_WAIT_SECONDS:
        takes = f"takes seconds from 0 to {LONGEST_WAIT_SECONDS:g}"
        raise OperationError(
            Kind.BAD_INPUT, f"cannot wait for a stop: wait {takes}", [FieldProblem("wait", given[:100], takes)]
        )
    return wait


class _Connection(web.Connection):
    """A connection that answers invalid HTTP with a problem document, and detects when its client is gone."""

    def __init__(
        self,
        router: Router[_Target],
        open_connections: OpenConnections[_Connection],
        server: web.Server,
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._open = open_connections
        self.gone: Callable[[], None] | None = None
        self.reading = False  # a body is still expected
        self.ended = False  # the client will send nothing more
        self.checked: object = None  # the headers that passed the check: a client usually repeats them
        self._router = router

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuses one connection too many, if no other one can be closed for it."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport), "HTTP is served on stream sockets"
        if not self._open.came(self, transport):
            limit = self._open.limit
            transport.write(
                _whole_answer(
                    OperationError(Kind.UNAVAILABLE, f"cannot answer: {limit} connections are open; close some")
                )
            )
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes a bool, aiohttp just returns none
        """A client that half-closes the connection after its request (`nc -N`) still gets the answer.

        aiohttp would close the connection, which is right only if no answer is pending, or more input was expected.
        """
        self.ended = not (self.waits_for_request or self.reading or self.gone is not None)
        return self.ended

    @property
    def has_nothing_more(self) -> bool:
        """Whether the request that is being answered is the last one."""
        return self.ended and not self.has_requests_waiting

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the stream of events on this connection, if there is one."""
        super().connection_lost(exc)
        self._open.left(self)
        if self.gone is not None:
            self.gone()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Called for input that cannot be parsed as HTTP; the connection is closed after it."""
        # The first line of the message says what is wrong; the rest quotes the request, including headers with secrets.
        reason, _, quoted = (message or "it is not HTTP").partition("\n")
        wrong = OperationError(Kind.BAD_REQUEST, f"cannot read the request: {reason.rstrip(':')[:200]}")
        # The parser has a list of methods; an unknown one is answered as a method that the path does not take.
        line = _REQUEST_LINE.search(quoted) if isinstance(exc, web.BadHttpMethod) else None
        if line is not None:
            try:
                self._router.find(line["method"], line["path"])
            except OperationError as why:
                wrong = why
        response = _problem(wrong)
        response.force_close()
        return response


def _connection(request: web.BaseRequest) -> _Connection:
    connection = request.protocol
    assert isinstance(connection, _Connection), "all connections are made in start()"
    return connection


def _problem(wrong: OperationError, *, with_message: bool = False) -> web.Response:
    document_ = wrong.document()
    if with_message:
        # The platform's own errors have this member, and callers of this route were written for the platform.
        document_["message"] = str(wrong)
    response = web.Response(
        status=wrong.kind.status, body=json.dumps(document_).encode(), headers=_PROBLEM | wrong.headers
    )
    if wrong.kind in (Kind.TOO_LARGE, Kind.TIMEOUT):
        response.force_close()  # the rest of the body may still arrive, and is not a request
    return response


def _too_many_streams(limit: int) -> OperationError:
    return OperationError(Kind.UNAVAILABLE, f"cannot wait for events: {limit} connections do; close some")


@functools.lru_cache(maxsize=1)
def _refused_stream(limit: int) -> bytes:
    """Rendered once: they come by the thousand."""
    return _whole_answer(_too_many_streams(limit))


def _whole_answer(wrong: OperationError) -> bytes:
    """The whole answer to one connection too many."""
    assert wrong.kind is Kind.UNAVAILABLE, "the status line says so"
    body = json.dumps(wrong.document()).encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )

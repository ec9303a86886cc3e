"""The operations over a Unix socket: JSON-RPC 2.0, one message on each line.

Any language that can open a socket and write a line can use it, even a shell with `nc -NU`. Each connection has bounded
buffers in both directions: a client that floods, stalls or never reads is slowed down or disconnected, and does not
delay others.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from agent.api.access import Peer, allowed_users, peer_of
from agent.api.contracts import Caller, OnRequest
from agent.api.events import Subscription
from agent.api.feed import Feed
from agent.api.jsonrpc import Answer, Batch, Dispatcher, failure
from agent.api.operations import Operations
from agent.api.problems import FieldProblem, Kind, OperationError
from agent.api.table import BODY_LIMIT
from agent.connections import Listener, OpenConnections, connections_limit
from agent.lifecycle.states import Source

CONNECTIONS = 256
"""The most open connections; a further one is answered with an error and closed."""
DESCRIPTORS_SHARE = 0.25
REFUSED_AT_ONCE = 8
"""The most refused connections that get time to read the refusal; further ones are closed at once."""
CALLS_AT_ONCE = 16
"""The most calls of one connection that wait for the platform or a store; then its next line waits."""
SHARE_SECONDS = 0.002
"""How long one connection is served before the next one; a call that takes longer is finished first."""
TURN_SECONDS = 0.01
"""How long all connections together are served before the rest of the agent runs."""
CLOSE_SECONDS = 0.2
"""How long calls under way may take during the agent's shutdown, when everything important is done."""
REFUSED_SECONDS = 1.0
"""How long a refused client has to read the refusal."""
LOOK_SECONDS = 5.0
"""How often to check whether a subscriber that has half-closed the connection is still there."""


async def serve(
    sock: socket.socket,
    operations: Operations,
    feed: Feed,
    *,
    is_game: Callable[[Peer], bool],
    users: frozenset[int] | None = None,
    on_request: OnRequest | None = None,
) -> RpcServer:
    """Serves the operations.

    Args:
        sock: a Unix stream socket, bound and listening; it belongs to the server from now on, its file does not.
        operations: what is served.
        feed: the source of events.
        is_game: whether a process is part of the game; a stop request from such a process has the source "game", any
            other the source "operator".
        users: user ids that may connect; by default root and the agent's own.
        on_request: called for each call when it is answered.

    Returns:
        The running server; `close` it.
    """
    server = RpcServer(operations, feed, is_game, users or allowed_users(), on_request)
    await server.start(sock)
    return server


class RpcServer:
    """The socket transport; made by `serve`."""

    def __init__(
        self,
        operations: Operations,
        feed: Feed,
        is_game: Callable[[Peer], bool],
        users: frozenset[int],
        on_request: OnRequest | None,
    ) -> None:
        """Stores the arguments; serves nothing yet."""
        self._feed = feed
        self._operations = operations
        self._is_game = is_game
        self._users = users
        self._on_request = on_request
        self._connections: set[_Connection] = set()  # also refused ones
        self._open: OpenConnections[_Connection] = OpenConnections(
            lambda: connections_limit(CONNECTIONS, DESCRIPTORS_SHARE), lambda connection: connection.idle
        )
        self._empty = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Connection] = deque()  # connections with unanswered lines, in order
        self._turn_is_planned = False
        self._listener: Listener[_Connection] | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begins to accept connections on a socket that is bound and listening."""
        # Nothing is waited for: whoever may not connect is told so before it has said anything.
        self._listener = Listener(sock, lambda: _Connection(self), self._open)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Stops accepting, lets calls under way finish for `seconds` at most, and closes all.

        Close the event bus first: this ends subscriptions after their queued events were sent.
        """
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for connection in tuple(self._connections):
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # aborted connections are notified in the next round

    # For its connections ----------------------------------------------------------------------------------------------

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task of a connection; `close` waits for it even if the connection is gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wants_turn(self, connection: _Connection) -> None:
        """Queues a connection, once, to be served."""
        self._waiting.append(connection)
        self._plan_turn()

    def _plan_turn(self) -> None:
        if self._waiting and not self._turn_is_planned:
            self._turn_is_planned = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Serves the queued connections in order, for a bounded time; one with more input goes to the end."""
        self._turn_is_planned = False
        now = asyncio.get_running_loop().time
        until = now() + TURN_SECONDS
        try:
            for _ in range(len(self._waiting)):
                connection = self._waiting.popleft()
                if connection.work(min(until, now() + SHARE_SECONDS)):
                    self._waiting.append(connection)
                if now() >= until:
                    break
        finally:
            self._plan_turn()

    def came(self, connection: _Connection, transport: asyncio.Transport) -> Source:
        """Counts a connection and identifies its client.

        Raises:
            OperationError: they may not connect.
        """
        self._connections.add(connection)
        if not self._open.came(connection, transport):
            raise OperationError(Kind.UNAVAILABLE, f"cannot answer: {self._open.limit} connections wait; close some")
        try:
            peer = peer_of(transport.get_extra_info("socket"))
        except OSError:
            raise OperationError(Kind.FORBIDDEN, "cannot answer: the kernel does not say who connected") from None
        if peer.uid not in self._users:
            allowed = ", ".join(str(user) for user in sorted(self._users))
            raise OperationError(Kind.FORBIDDEN, f"cannot answer user {peer.uid}: the socket is for users {allowed}")
        # Checked now, because a process that only writes its line may be gone when the stop is requested.
        return Source.GAME if self._is_game(peer) else Source.OPERATOR

    def may_linger(self) -> bool:
        """Whether a refused client can get time to read the refusal."""
        return len(self._connections) <= self._open.limit + REFUSED_AT_ONCE

    def asked(self, connection: _Connection) -> None:
        """A connection has sent a whole line."""
        self._open.asked(connection)

    def subscribe(self, connection: _Connection) -> Subscription:
        """Begins to pass events to a connection, until it is closed or `unsubscribe` is called.

        Raises:
            OperationError: too many connections do.
        """
        if not self._open.hold(connection):
            raise OperationError(
                Kind.UNAVAILABLE, f"cannot subscribe: {self._open.held_limit} connections do; close some"
            )
        return self._feed.subscribe()

    def unsubscribe(self, connection: _Connection) -> None:
        """The subscription has ended."""
        self._open.release(connection)

    def left(self, connection: _Connection) -> None:
        """Removes a connection from the count."""
        self._connections.discard(connection)
        self._open.left(connection)
        if not self._connections:
            self._empty.set()

    def dispatcher(self, source: Source, subscribe: Callable[[], None]) -> Dispatcher:
        """Creates the executor for the messages of a connection."""
        return Dispatcher(self._operations, Caller("socket", source), subscribe, self._on_request)


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: RpcServer) -> None:
        self._server = server
        self._dispatcher: Dispatcher | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that contain no line break
        self._skipping = False  # the rest of a line that is too long is still arriving
        self._ended = False  # the client will not write any more
        self.continuing = False  # it is queued to be served
        self._batch: Batch | None = None  # under way
        self._writable: asyncio.Future[None] | None = None  # the client does not read now
        self._calls = 0
        self._subscription: Subscription | None = None

    # What the transport calls -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a stream socket has a stream transport"
        self._transport = transport
        try:
            source = self._server.came(self, transport)
        except OperationError as wrong:
            # The client closes it, or we do soon: closing with unread input would lose the last output on the other
            # side.
            self._write(failure(None, wrong))
            transport.write_eof()
            seconds = REFUSED_SECONDS if self._server.may_linger() else 0.0
            asyncio.get_running_loop().call_later(seconds, transport.close)
        else:
            self._dispatcher = self._server.dispatcher(source, self._subscribe)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended = True
        self._buffer.clear()
        self._end_batch()
        self._server.left(self)
        if self._subscription is not None:
            self._subscription.close()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._dispatcher is not None:
            self._buffer += data
        self._begin()

    def eof_received(self) -> bool:
        """The client may still read, so the connection is closed only when everything is answered."""
        self._ended = True
        if self._subscription is not None and self._hung_up():
            self._subscription.close()
        self._begin()
        return True

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiting, self._writable = self._writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        self._continue()

    # What the server calls --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Accepts no more lines, and closes when all calls are answered."""
        self._buffer.clear()
        self._end_batch()
        self.eof_received()

    def abort(self) -> None:
        """Closes without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer or an event here; who does not read its answers does not wait."""
        if self._subscription is not None:
            return False
        return self._writable is not None or not (self._calls or self._batch is not None or self.continuing)

    # Lines ------------------------------------------------------------------------------------------------------------

    def _continue(self) -> None:
        if not self.continuing and self._transport is not None:
            self.continuing = True
            self._server.wants_turn(self)

    def _begin(self) -> None:
        """Answers the first call at once, so that a client with single calls does not wait for those with many."""
        if not self.continuing and self.work(0.0):
            self._server.wants_turn(self)

    def work(self, until: float) -> bool:
        """Executes the calls that have arrived, at least one.

        Args:
            until: time of the loop's clock after which no further call is begun.

        Returns:
            Whether there may be more: then `continuing` is set, and it must be called again.
        """
        now = asyncio.get_running_loop().time
        self.continuing = False
        while not self._must_wait():
            if not self._step():
                break
            if now() >= until:
                self.continuing = self._transport is not None and not self._must_wait()
                break
        transport = self._transport
        if transport is None or transport.is_closing():
            self.continuing = False
            return False
        if self.continuing or self._must_wait():
            transport.pause_reading()
        elif not self._ended:
            transport.resume_reading()
        elif not self._buffer and not self._calls and self._subscription is None and self._batch is None:
            transport.close()
        return self.continuing

    def _step(self) -> bool:
        """Executes the next call; False if no complete line has arrived."""
        if self._batch is not None:
            if not self._batch.step():
                self._end_batch()
            return True
        line = self._next_line()
        if line is None:
            return False
        if line.strip():
            self._server.asked(self)
            assert self._dispatcher is not None, "without one no line is kept"
            answer = self._dispatcher.message(line)
            if isinstance(answer, Batch):
                self._batch = answer
            else:
                self._send(answer)
        return True

    def _end_batch(self) -> None:
        """Begins no more calls of a batch; those under way are finished and answered."""
        batch, self._batch = self._batch, None
        if batch is not None:
            self._send(batch.answer())

    def _must_wait(self) -> bool:
        return self._writable is not None or self._calls >= CALLS_AT_ONCE or self._transport is None

    def _next_line(self) -> bytes | None:
        """Takes a complete line out of the buffer. If the client has half-closed, the rest counts as a line."""
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", self._searched)
            if end < 0 and self._ended and buffer:
                end = len(buffer)
            if end < 0:
                self._searched = len(buffer)
                if len(buffer) > BODY_LIMIT:
                    self._skip()
                    buffer.clear()
                    self._searched = 0
                return None
            line = bytes(buffer[:end]) if end <= BODY_LIMIT else None
            del buffer[: end + 1]
            self._searched = 0
            if line is None:
                self._skip()
            skipped, self._skipping = self._skipping, False
            if not skipped:
                return line

    def _skip(self) -> None:
        """A line is too long: reports it once, and discards it up to its end."""
        if not self._skipping:
            self._skipping = True
            wrong = FieldProblem("", "a longer line", f"at most {BODY_LIMIT} bytes")
            detail = f"cannot read a line of more than {BODY_LIMIT} bytes"
            self._write(failure(None, OperationError(Kind.TOO_LARGE, detail, [wrong])))

    def _send(self, answer: Answer | Awaitable[Answer]) -> None:
        if isinstance(answer, bytes):
            self._write(answer)
        elif answer is not None:
            self._calls += 1
            self._server.own(self._answer_later(answer))

    async def _answer_later(self, awaited: Awaitable[Answer]) -> None:
        try:
            answer = await awaited
            if answer is not None:
                self._write(answer)
        finally:
            self._calls -= 1
            self._continue()

    def _write(self, line: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(line + b"\n")

    # Events -----------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        if self._subscription is None:
            self._subscription = self._server.subscribe(self)
            self._server.own(self._notify(self._subscription))

    async def _notify(self, subscription: Subscription) -> None:
        """Sends events until either side has ended."""
        try:
            while not (self._ended and self._hung_up()):
                events = await subscription.batch(LOOK_SECONDS)
                if events:
                    self._write(b"\n".join([event.notification for event in events]))
                elif subscription.closed:
                    break
                if self._writable is not None:
                    await self._writable
        finally:
            subscription.close()
            self._subscription = None
            self._server.unsubscribe(self)
            self._continue()

    def _hung_up(self) -> bool:
        """Whether a half-closed client is gone completely, which reading cannot detect (man 2 poll)."""
        if self._transport is None:
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), 0)
        return bool(poll.poll(0))

"""Accepts connections and limits how many are open, so that a crowd of them does not keep others waiting.

asyncio's server creates a protocol, a transport and a task for each connection as soon as it is accepted, and its
protocols a task and a timer more: with a thousand connections in the backlog, the next client waits for a quarter of a
second. Here a connection costs a few system calls until its client has sent a whole request (`Listener`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from agent.descriptors import guarded

if TYPE_CHECKING:
    from ssl import SSLContext

ACCEPTED_AT_ONCE = 16
"""Connections accepted, or looked at, in one round of the event loop, which takes a millisecond or two."""
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)  # made once: to combine them takes longer than to peek
_SOMETHING = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_PEEKED_BYTES = 16 * 1024
"""As much of a request is looked at; more than aiohttp takes of a line of it."""
_RESERVED_DESCRIPTORS = 48
"""Descriptors reserved for logs, shipping, the self-stop and late imports."""
_HELD_SHARE = 4
"""One connection in so many may be held by an answer that lasts: a stream of events, a long poll."""
_RETRY_SECONDS = 1.0
"""How long accepting pauses when there is no descriptor or memory for a connection (as in asyncio)."""
_NO_RESOURCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

C = TypeVar("C")


def connections_limit(most: int, share: float) -> int:
    """The most simultaneous connections, given this process's limit of descriptors (RLIMIT_NOFILE).

    Args:
        most: the maximum, if there are enough descriptors.
        share: the share of the descriptors that may be used, after some are reserved.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    return max(2, min(most, int((soft - _RESERVED_DESCRIPTORS) * share)))


class OpenConnections(Generic[C]):
    """The open connections of a listener: a new one closes another, where there are too many and nobody waits at it.

    So neither forgotten connections nor a flood of silent ones shuts out those that ask. Those that have not sent a
    whole request are closed first, then those that have been silent for longest.
    """

    def __init__(self, limit: Callable[[], int], idle: Callable[[C], bool]) -> None:
        """Knows none yet.

        Args:
            limit: the most at a time; asked again for each connection.
            idle: whether nobody waits for an answer on a connection, so that it can be closed.
        """
        self._limit = limit
        self._idle = idle
        # The longest silent one is first in each. Accepted connections have no protocol yet, and are known by their
        # descriptor.
        self._accepted: dict[int, _Accepted] = {}
        self._new: dict[C, asyncio.Transport] = {}
        self._known: dict[C, asyncio.Transport] = {}
        self._held: set[C] = set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._accepted) + len(self._new) + len(self._known)

    @property
    def limit(self) -> int:
        """The most at a time."""
        return self._limit()

    @property
    def held_limit(self) -> int:
        """The most that may be held by an answer that lasts."""
        return max(1, self.limit // _HELD_SHARE)

    @property
    def held(self) -> int:
        """How many are held by an answer that lasts."""
        return len(self._held)

    def accepted(self, accepted: _Accepted) -> bool:
        """Takes a connection that has no protocol yet, for which another one may be closed; as `came`."""
        if not self._make_room():
            return False
        self._accepted[accepted.descriptor] = accepted
        return True

    def came(self, connection: C, transport: asyncio.Transport) -> bool:
        """Takes a new connection, which may be one that was accepted before, and for which another one may be closed.

        Returns:
            Whether there is room: if not, the connection is not counted, and has to be closed.
        """
        self._accepted.pop(transport.get_extra_info("socket").fileno(), None)
        if not self._make_room():
            return False
        self._new[connection] = transport
        return True

    def asked(self, connection: C) -> None:
        """This connection has sent a whole request."""
        if (transport := self._remove(connection)) is not None:
            self._known[connection] = transport

    def hold(self, connection: C) -> bool:
        """Marks a connection whose answer will last, until `release`; false if there are too many of them."""
        if len(self._held) >= self.held_limit:
            return False
        self._held.add(connection)
        return True

    def release(self, connection: C) -> None:
        """The answer that lasted is over."""
        self._held.discard(connection)

    def left(self, connection: C) -> None:
        """This connection is closed."""
        self._remove(connection)
        self._held.discard(connection)

    def dropped(self, accepted: _Accepted) -> None:
        """This one was closed before it had a protocol."""
        if self._accepted.get(accepted.descriptor) is accepted:
            del self._accepted[accepted.descriptor]

    def _make_room(self) -> bool:
        for _ in range(len(self) + 1 - self._limit()):
            given_up = next(self._idle_ones(), None)
            if given_up is None:
                return False
            given_up.abort()
        return True

    def _idle_ones(self) -> Iterator[_Accepted | asyncio.Transport]:
        yield from (accepted for accepted in self._accepted.values() if accepted.idle)
        for connection in chain(self._new, self._known):
            if self._idle(connection) and (transport := self._remove(connection)) is not None:
                yield transport

    def _remove(self, connection: C) -> asyncio.Transport | None:
        return self._new.pop(connection, None) or self._known.pop(connection, None)


class _Accepted:
    """A connection that was accepted and has no protocol yet.

    Attributes:
        sock: its socket.
        descriptor: of the socket, also when it is closed.
        since: when it was accepted, in seconds of the loop's clock.
        idle: whether it can be closed for another one.
        task: makes its protocol, once it is time.
    """

    __slots__ = ("_dropped", "descriptor", "idle", "since", "sock", "task")

    def __init__(self, sock: socket.socket, since: float, dropped: Callable[[_Accepted], None]) -> None:
        self.sock = sock
        self.descriptor = sock.fileno()
        self.since = since
        self.idle = True
        self.task: asyncio.Task[None] | None = None
        self._dropped = dropped

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    def abort(self) -> None:
        """Closes it without waiting for anything."""
        self._dropped(self)
        if self.task is None:
            self.sock.close()
        else:
            self.task.cancel()


class Pace(NamedTuple):
    """How fast connections get their protocols.

    Attributes:
        at_once: so many in one round of the loop.
        seconds: how long until the next ones.
    """

    at_once: int
    seconds: float


class Lasting(NamedTuple):
    """Requests whose answers last, which are kept from holding up others.

    Attributes:
        asked: whether these first bytes of a connection ask for such an answer.
        refusal: what is answered where too many connections are held by such answers.
    """

    asked: Callable[[bytes], bool]
    refusal: Callable[[], bytes]


AT_ONCE = Pace(8, 0.0)
"""Requests on new connections whose work is begun in one round of the loop."""
_LASTING_PACE = Pace(2, 0.004)
"""A stream of events costs a millisecond to set up: half of the time is left for others."""


class Listener(Generic[C]):
    """Accepts connections, and makes a protocol for each as soon as its client has asked for something.

    Where there is no room for one more, it gets its protocol at once, which says so to the client.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        open_connections: OpenConnections[C],
        *,
        begun: Callable[[bytes], bool] | None = None,
        silent_seconds: float = 0.0,
        lasting: Lasting | None = None,
        pace: Pace = AT_ONCE,
        tls: SSLContext | None = None,
        handshake_seconds: float | None = None,
    ) -> None:
        """Begins to accept.

        Args:
            sock: a stream socket, bound and listening; it belongs to the listener from now on.
            protocol: creates the protocol of each connection, which tells `open_connections` of it.
            open_connections: counts them.
            begun: whether these first bytes of a client are enough to begin with; None: nothing is waited for.
            silent_seconds: how long a connection may be open before that.
            lasting: requests that wait for all others.
            pace: how fast they are passed on.
            tls: encrypts connections, if given.
            handshake_seconds: how long a handshake may take.
        """
        self._loop = asyncio.get_running_loop()
        self._sock = guarded(sock)
        self._protocol = protocol
        self._open = open_connections
        self._begun = begun
        self._silent_seconds = silent_seconds
        self._lasting = lasting
        self._tls: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": handshake_seconds}
        self._queue = _Queue(self._pass_on, pace)
        self._lasting_queue = _Queue(self._pass_on, _LASTING_PACE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: dict[int, _Accepted] = {}  # the first one was accepted first
        self._sweeping: asyncio.TimerHandle | None = None
        # One descriptor for all of them: to register a connection costs a third of what the loop takes for it.
        self._epoll = select.epoll()
        self._retrying: asyncio.TimerHandle | None = None
        self._sock.setblocking(False)
        self._loop.add_reader(self._epoll.fileno(), self._look)
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Accepts no more, and closes what has no protocol yet."""
        if self._epoll.closed:
            return
        for handle in (self._retrying, self._sweeping):
            if handle is not None:
                handle.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_reader(self._epoll.fileno())
        self._sock.close()
        for task in tuple(self._tasks):
            task.cancel()
        for accepted in (*self._silent.values(), *self._queue.close(), *self._lasting_queue.close()):
            accepted.abort()
        self._epoll.close()

    # Accepting --------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._queue.full:
                self._pause(self._queue.pace.seconds)
                return
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                if problem.errno not in _NO_RESOURCE:
                    raise  # the loop logs it
                self._loop.call_exception_handler(
                    {"message": "cannot accept a connection now; trying again", "exception": problem}
                )
                self._pause(_RETRY_SECONDS)
                return
            accepted = _Accepted(sock, self._loop.time(), self._dropped)
            if not self._open.accepted(accepted) or self._begun is None:
                self._ready(accepted)
            elif not self._has_begun(accepted):
                self._silent[accepted.descriptor] = accepted
                self._epoll.register(accepted.descriptor, _SOMETHING)
                if self._sweeping is None:
                    self._sweeping = self._loop.call_later(self._silent_seconds, self._sweep)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._retrying = self._loop.call_later(seconds, self._loop.add_reader, self._sock.fileno(), self._accept)

    def _dropped(self, accepted: _Accepted) -> None:
        self._silent.pop(accepted.descriptor, None)
        self._open.dropped(accepted)

    # Silent ones ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Looks at the connections on which something has come."""
        for descriptor, events in self._epoll.poll(0, ACCEPTED_AT_ONCE):
            accepted = self._silent.get(descriptor)
            if accepted is None:
                continue  # closed for one that came before it in this list
            if self._has_begun(accepted, ended=bool(events & (select.EPOLLRDHUP | select.EPOLLHUP))):
                self._silent.pop(descriptor, None)
                if not accepted.closed:
                    self._epoll.unregister(descriptor)

    def _has_begun(self, accepted: _Accepted, *, ended: bool = False) -> bool:
        """Whether there is nothing more to wait for: then it is passed on, or closed."""
        try:
            data = accepted.sock.recv(_PEEKED_BYTES, _PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        assert self._begun is not None, "else nothing is waited for"
        if not (data and (len(data) >= _PEEKED_BYTES or self._begun(data))):
            if not data or ended:  # it left without having asked
                accepted.abort()
            return not data or ended
        if self._lasting is None or not self._lasting.asked(data):
            self._ready(accepted)
        elif self._open.held + len(self._lasting_queue) < self._open.held_limit:
            accepted.idle = False
            self._lasting_queue.put(accepted)
        else:
            with contextlib.suppress(OSError):
                accepted.sock.recv(len(data))  # the kernel would drop the answer for what is unread at the close
                accepted.sock.send(self._lasting.refusal(), socket.MSG_DONTWAIT)
            accepted.abort()
        return True

    def _sweep(self) -> None:
        """Closes those that have sent nothing whole for too long."""
        self._sweeping = None
        for accepted in tuple(self._silent.values()):
            left = accepted.since + self._silent_seconds - self._loop.time()
            if left > 0:
                self._sweeping = self._loop.call_later(left, self._sweep)
                return
            accepted.abort()

    # Passing on -------------------------------------------------------------------------------------------------------

    def _ready(self, accepted: _Accepted) -> None:
        accepted.idle = False
        self._queue.put(accepted)

    def _pass_on(self, accepted: _Accepted) -> None:
        accepted.idle = bool(self._tls)  # nobody waits for long for a handshake to end
        accepted.task = task = self._loop.create_task(self._connect(accepted.sock))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._open.dropped(accepted)
            if task.cancelled():
                accepted.sock.close()  # it may not have begun

        task.add_done_callback(done)

    async def _connect(self, sock: socket.socket) -> None:
        # Plain HTTP where TLS is expected, a client that does not trust the certificate or is gone: it knows why.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._protocol, sock, **self._tls)


class _Queue:
    """Connections that wait for their protocols."""

    def __init__(self, pass_on: Callable[[_Accepted], None], pace: Pace) -> None:
        self.pace = pace
        self._pass_on = pass_on
        self._waiting: deque[_Accepted] = deque()
        self._next: asyncio.Handle | None = None  # there, as long as the next one may not be passed on at once

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether further ones can wait in the backlog as well."""
        return len(self._waiting) >= 8 * self.pace.at_once

    def put(self, accepted: _Accepted) -> None:
        self._waiting.append(accepted)
        if self._next is None:
            self._turn()

    def close(self) -> list[_Accepted]:
        """Passes nothing on any more, and returns what is left."""
        if self._next is not None:
            self._next.cancel()
        left = list(self._waiting)
        self._waiting.clear()
        return left

    def _turn(self) -> None:
        self._next = None
        loop = asyncio.get_running_loop()
        for _ in range(min(self.pace.at_once, len(self._waiting))):
            self._pass_on(self._waiting.popleft())
            if self._next is None:
                later = self.pace.seconds
                self._next = loop.call_later(later, self._turn) if later else loop.call_soon(self._turn)

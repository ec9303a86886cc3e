"""Limits the number of connections, and keeps received descriptors from blocking the event loop.

A client can send descriptors over a Unix socket (SCM_RIGHTS, man 7 unix), which the agent never uses. But the reader of
a message has to close its descriptors, or the kernel does so, and closing a socket with SO_LINGER and unsent data can
block as long as the sender wants (man 7 socket). Since Linux 6.16 a socket can refuse descriptors, which
`agent.init.sockets` requests when it binds. On older kernels, this module receives them and closes them in a thread,
including those of unread messages.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import queue
import resource
import socket
import struct
import termios
import threading
from collections.abc import Callable
from itertools import chain
from typing import Any, Generic, TypeVar

from agent.init.sockets import BACKLOG, SO_PASSRIGHTS

ACCEPTED_AT_ONCE = 4
"""Connections accepted in one round of the loop. asyncio tries this many times even without a free descriptor, and logs
an error each time."""
_RESERVED_DESCRIPTORS = 48
"""Descriptors reserved for logs, shipping, the self-stop and late imports."""
_MOST = 253
"""Descriptors in one message (SCM_MAX_FD of the kernel)."""
_HELD_SHARE = 4
"""One connection in so many may be held by an answer that lasts: a stream of events, a long poll."""

C = TypeVar("C")


async def accept(protocol: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> asyncio.Server:
    """Starts accepting connections, a few in each round of the loop.

    Args:
        protocol: creates the protocol of each connection.
        sock: a stream socket, bound and listening; it belongs to the server from now on.
    """
    sock = guarded(sock)
    server = await asyncio.get_running_loop().create_server(protocol, sock=sock, backlog=ACCEPTED_AT_ONCE)
    sock.listen(BACKLOG)  # asyncio has set the backlog to the number of accepts in one round; restore it
    return server


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
        # The longest silent one is first in each.
        self._new: dict[C, asyncio.Transport] = {}
        self._known: dict[C, asyncio.Transport] = {}
        self._held: set[C] = set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._new) + len(self._known)

    @property
    def limit(self) -> int:
        """The most at a time."""
        return self._limit()

    @property
    def held_limit(self) -> int:
        """The most that may be held by an answer that lasts."""
        return max(1, self.limit // _HELD_SHARE)

    def came(self, connection: C, transport: asyncio.Transport) -> bool:
        """Takes a new connection, for which another one may be closed.

        Returns:
            Whether there is room: if not, the connection is not counted, and has to be closed.
        """
        for _ in range(len(self) + 1 - self._limit()):
            given_up = next((one for one in chain(self._new, self._known) if self._idle(one)), None)
            if given_up is None:
                return False
            if (given_up_transport := self._remove(given_up)) is not None:
                given_up_transport.abort()
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

    def _remove(self, connection: C) -> asyncio.Transport | None:
        return self._new.pop(connection, None) or self._known.pop(connection, None)


def guarded(sock: socket.socket) -> socket.socket:
    """The same socket if it cannot receive descriptors; else a wrapper that handles them."""
    if sock.family != socket.AF_UNIX:
        return sock
    with contextlib.suppress(OSError):
        if sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0:
            return sock
    return GuardedSocket(fileno=sock.detach())


class GuardedSocket(socket.socket):
    """A Unix socket that never closes received descriptors in the thread that reads.

    A stream that sends descriptors is disconnected; of a datagram, only the text is used.
    """

    def accept(self) -> tuple[socket.socket, Any]:
        """As for any socket; accepted connections are guarded too."""
        accepted, address = super().accept()
        return GuardedSocket(fileno=accepted.detach()), address

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As for any socket.

        Raises:
            ConnectionResetError: descriptors came over a stream.
        """
        data, ancillary, _, _ = self.recvmsg(size, socket.CMSG_SPACE(_MOST * 4), flags | socket.MSG_CMSG_CLOEXEC)
        if ancillary:
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    _close_elsewhere(array.array("i", content[: len(content) // 4 * 4]).tolist())
            if self.type == socket.SOCK_STREAM:
                raise ConnectionResetError("descriptors came over a connection that takes none")
        return data

    def close(self) -> None:
        """As for any socket; if there is unread data, which may contain descriptors, the thread closes it."""
        unread = b"\0\0\0\0"
        with contextlib.suppress(OSError, ValueError):
            unread = fcntl.ioctl(self.fileno(), termios.FIONREAD, unread)
        if struct.unpack("i", unread)[0]:
            # The client sees the end of the connection without waiting for this.
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_RDWR)
            _close_elsewhere([self.detach()])
        super().close()


_waiting: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
_thread: threading.Thread | None = None


def _close_elsewhere(descriptors: list[int]) -> None:
    global _thread  # noqa: PLW0603 - one thread is enough, and most agents need none
    _waiting.put(descriptors)
    if _thread is None:
        _thread = threading.Thread(target=_close, name="closing", daemon=True)
        _thread.start()


def _close() -> None:
    while True:
        for descriptor in _waiting.get():
            with contextlib.suppress(OSError):
                os.close(descriptor)

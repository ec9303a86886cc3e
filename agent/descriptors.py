"""How many connections are taken, and why descriptors that somebody sends do not stop the event loop.

They come over a Unix socket (SCM_RIGHTS, man 7 unix), and nobody here wants any. But whoever reads a message closes
what came with it, or the kernel does where he did not ask for it, and closing a socket with SO_LINGER and unsent data
can take as long as its sender likes (man 7 socket). Since Linux 6.16 a socket can refuse them, which
`agent.init.sockets` asks for where it binds. Before, they are taken in here and closed by a thread, and so is what
nobody has read.
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
from typing import Any

from agent.init.sockets import BACKLOG, SO_PASSRIGHTS

ACCEPTED_AT_ONCE = 4
"""In one round of the loop. asyncio tries as often as that also when no descriptor is left, and says so each time."""
_RESERVED_DESCRIPTORS = 48
"""For logs, shipping, the self-stop and what is imported late."""
_MOST = 253
"""Descriptors in one message (SCM_MAX_FD of the kernel)."""


async def accept(protocol: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> asyncio.Server:
    """Begins to accept connections, a few in each round of the loop.

    Args:
        protocol: made for each connection.
        sock: a stream socket, bound and listening; it belongs to the server from now on.
    """
    sock = guarded(sock)
    server = await asyncio.get_running_loop().create_server(protocol, sock=sock, backlog=ACCEPTED_AT_ONCE)
    sock.listen(BACKLOG)  # the loop has made the backlog as short as its rounds
    return server


def connections_limit(most: int, share: float) -> int:
    """How many connections are held at once, where this process may open few descriptors (RLIMIT_NOFILE).

    Args:
        most: where there are enough.
        share: the part of the descriptors that may be used, once some are kept for other things.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    return max(2, min(most, int((soft - _RESERVED_DESCRIPTORS) * share)))


def guarded(sock: socket.socket) -> socket.socket:
    """The same socket where descriptors cannot come over it; else one in its place that deals with them."""
    if sock.family != socket.AF_UNIX:
        return sock
    with contextlib.suppress(OSError):
        if sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0:
            return sock
    return GuardedSocket(fileno=sock.detach())


class GuardedSocket(socket.socket):
    """A Unix socket that never closes descriptors of somebody else in the thread that reads.

    A stream that brings some is broken off; of a datagram, the text counts.
    """

    def accept(self) -> tuple[socket.socket, Any]:
        """As of any socket; what is accepted is guarded too."""
        accepted, address = super().accept()
        return GuardedSocket(fileno=accepted.detach()), address

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As of any socket.

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
        """As of any socket; with something unread, which may hold descriptors, it is closed by the thread."""
        unread = b"\0\0\0\0"
        with contextlib.suppress(OSError, ValueError):
            unread = fcntl.ioctl(self.fileno(), termios.FIONREAD, unread)
        if struct.unpack("i", unread)[0]:
            # Whoever is at the other end does not have to wait for that to see that it is over.
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

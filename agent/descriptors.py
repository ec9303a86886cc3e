"""Keeps received descriptors from blocking the event loop.

A client can send descriptors over a Unix socket (SCM_RIGHTS, man 7 unix), which the agent never uses. But the reader of
a message has to close its descriptors, or the kernel does so, and closing a socket with SO_LINGER and unsent data can
block as long as the sender wants (man 7 socket). Since Linux 6.16 a socket can refuse descriptors, which
`agent.init.sockets` requests when it binds. On older kernels, this module receives them and closes them in a thread,
including those of unread messages.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import queue
import socket
import struct
import termios
import threading
from typing import Any

from agent.init.sockets import SO_PASSRIGHTS

_MOST = 253
"""Descriptors in one message (SCM_MAX_FD of the kernel)."""


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

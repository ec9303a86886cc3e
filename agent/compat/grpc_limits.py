"""Limits that grpclib does not have: connections, idle time before the first byte, and the size of messages.

A message begins with its length (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), and grpclib buffers
it until it is complete, so this module checks the length first. Unread data is limited by HTTP/2's flow control: a
connection may not send more than its window before the data was read.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from agent.compat import http
from agent.connections import OpenConnections, connections_limit

if TYPE_CHECKING:
    from collections.abc import Collection

    from grpclib.protocol import H2Protocol

MESSAGE_LIMIT = 4 * 1024 * 1024
"""Bytes of one message, as in other servers of gRPC (its `max_receive_message_length`)."""
UNFINISHED_LIMIT = 2 * MESSAGE_LIMIT
"""Bytes of all messages that are being received, of all connections together."""
WINDOW = 65_535
"""Bytes that a connection may have sent and nobody has read; the least that HTTP/2 has."""
_PREFACE_BYTES = 24
"""What a client of HTTP/2 sends first (RFC 9113, section 3.4)."""
_PREFIX = struct.Struct(">?I")


class Receiver:
    """Receives messages of a bounded size, and few large ones at once."""

    def __init__(self) -> None:
        """Nothing is being received yet."""
        self._unfinished = 0

    async def receive(self, stream: Stream[Any, Any]) -> Any:
        """The next message of a call, or None after the last.

        Raises:
            GRPCError: `RESOURCE_EXHAUSTED` for one that is too long, now or in general; `UNIMPLEMENTED` for one that is
                compressed, which is never offered; `DEADLINE_EXCEEDED` for one that does not come to its end;
                `INTERNAL` for what is no message (the codes are those of gRPC's own servers).
        """
        read = stream._stream.recv_data  # not public; test_what_grpc_cannot_take_... fails without it
        prefix = await _read(read(_PREFIX.size))
        if not prefix:
            return None
        compressed, length = _PREFIX.unpack(prefix)
        if compressed:
            raise GRPCError(
                Status.UNIMPLEMENTED, "cannot read a compressed message: send it without compression (grpc-encoding)"
            )
        if length > MESSAGE_LIMIT:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"cannot take a message of {length} bytes: it may have {MESSAGE_LIMIT} at most",
            )
        if self._unfinished + length > UNFINISHED_LIMIT:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"cannot take a message of {length} bytes now: others are being sent; try again",
            )
        self._unfinished += length
        try:
            async with asyncio.timeout(http.BODY_SECONDS):
                content = await _read(read(length))
        except TimeoutError:
            raise GRPCError(
                Status.DEADLINE_EXCEEDED,
                f"cannot read the message: its {length} bytes did not come within {http.BODY_SECONDS:g} s",
            ) from None
        finally:
            self._unfinished -= length
        if len(content) != length:
            raise _broken(f"it has {len(content)} bytes of the {length} that were announced")
        try:
            return stream._recv_type.FromString(content)
        except DecodeError as wrong:
            raise _broken(str(wrong)) from None


async def _read(reading: Any) -> bytes:
    try:
        return bytes(await reading)
    except AssertionError:  # how grpclib says that a call has ended within what was read
        raise _broken("the call has ended in the middle of it") from None


def _broken(what: str) -> GRPCError:
    return GRPCError(Status.INTERNAL, f"cannot read the message: {what}")


class LimitedServer(Server):
    """grpclib's server with limits."""

    def __init__(self, services: Collection[Any]) -> None:
        """Takes the services; see `grpclib.server.Server`."""
        config = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)
        super().__init__(services, config=config)
        self._open: OpenConnections[_Connection] = OpenConnections(
            lambda: connections_limit(http.CONNECTIONS, http.DESCRIPTORS_SHARE), lambda connection: connection.silent
        )

    def _protocol_factory(self) -> Any:  # not public; test_one_connection_too_many_... fails without it
        return _Connection(super()._protocol_factory(), self._open)


class _Connection(asyncio.Protocol):
    """A connection as grpclib has it, closed where nothing comes, or where another one needs its place.

    A client that has connected may say nothing for as long as it likes: games connect at their start.
    """

    def __init__(self, inner: H2Protocol, open_connections: OpenConnections[_Connection]) -> None:
        self._inner: H2Protocol | None = inner
        self._open = open_connections
        self._missing = _PREFACE_BYTES
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "gRPC is served on stream sockets"
        if not self._open.came(self, transport):
            self._inner = None
            transport.abort()
            return
        self._waiting = asyncio.get_running_loop().call_later(http.FIRST_SECONDS, transport.abort)
        if self._inner is not None:
            self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing <= 0 and self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            self._open.asked(self)
        if self._inner is not None:
            self._inner.data_received(data)

    @property
    def silent(self) -> bool:
        """Whether it has not even begun to speak HTTP/2; of the calls on it, only grpclib knows."""
        return self._missing > 0

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open.left(self)
        if self._waiting is not None:
            self._waiting.cancel()
        if self._inner is not None:
            self._inner.connection_lost(exc)

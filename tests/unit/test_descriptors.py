"""Descriptors that somebody sends never stop who reads: neither those taken in nor those that nobody has read."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
import time
from pathlib import Path

import pytest

from agent.descriptors import GuardedSocket, guarded
from agent.init.sockets import listen_statsd, listen_unix

LINGER = 20
"""Seconds that closing one of the sockets takes."""


def lingering() -> tuple[socket.socket, socket.socket, socket.socket]:
    """A connection whose closing blocks (unsent data that nobody reads, SO_LINGER), its other end, and the listener."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    reader, _ = listener.accept()
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(b"x" * 65536)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
    sender.setblocking(True)
    return sender, reader, listener


def send_away(sock: socket.socket, text: bytes) -> tuple[socket.socket, socket.socket]:
    """Sends a lingering connection, whose last owner is then whoever takes it in; returns what keeps it unread."""
    sender, reader, listener = lingering()
    sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sender.fileno()]))])
    os.close(sender.detach())
    return reader, listener


class Echo(asyncio.Protocol):
    """Answers with what comes; reads nothing while it is told to."""

    reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self.reading:
            transport.pause_reading()
            asyncio.get_running_loop().call_later(0.1, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answers."""
        self.transport.write(data)


@pytest.mark.parametrize("reading", [True, False])
async def test_a_stream_with_descriptors_is_broken_off_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: bool
) -> None:
    """As on a kernel that cannot refuse them; without the guard the loop stands still for as long as they linger."""
    monkeypatch.setattr(Echo, "reading", reading)
    listener = GuardedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(Echo, sock=listener)
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as bad:
        bad.setblocking(False)
        await loop.sock_connect(bad, str(tmp_path / "s"))
        kept = send_away(bad, b"hello\n")
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(loop.sock_recv(bad, 100), LINGER / 2) == b""
    if reading:
        with socket.socket(socket.AF_UNIX) as good:
            good.setblocking(False)
            await loop.sock_connect(good, str(tmp_path / "s"))
            await loop.sock_sendall(good, b"hello\n")
            assert await loop.sock_recv(good, 100) == b"hello\n"
    assert time.monotonic() - began < LINGER / 2
    server.close()
    for sock in kept:
        sock.close()


def test_of_a_datagram_with_descriptors_the_text_counts() -> None:
    """StatsD over a Unix socket."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    reads = GuardedSocket(fileno=here.detach())
    began = time.monotonic()
    kept = send_away(there, b"a:1|c")
    assert reads.recv(100) == b"a:1|c"
    assert time.monotonic() - began < LINGER / 2
    for sock in (*kept, there, reads):
        sock.close()


@pytest.mark.parametrize("kind", ["control", "statsd"])
def test_the_kernel_refuses_them_where_it_can(tmp_path: Path, kind: str) -> None:
    """Since Linux 6.16: then nothing has to be done here, and the sender is told."""
    if kind == "control":
        unix, _ = listen_unix(str(tmp_path / "s"))
        assert unix is not None
        sock = unix.sock
    else:
        sock, unix = listen_statsd(str(tmp_path / "s"))
        assert unix is not None
    if guarded(sock) is not sock:
        pytest.skip("this kernel cannot refuse descriptors")
    with socket.socket(socket.AF_UNIX, sock.type) as sender, open(os.devnull) as file:
        sender.connect(str(tmp_path / "s"))
        with pytest.raises(PermissionError):
            sender.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))])
    unix.close()

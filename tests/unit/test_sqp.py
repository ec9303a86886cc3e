"""SQP as a query protocol: the bytes of Unity's SDKs, and what is none of them."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.compat.sqp import SqpError, query, read_challenge, read_info

CHALLENGE = 0x01020304


def info(players: int, capacity: int, challenge: int = CHALLENGE, name: bytes = b"arena") -> bytes:
    """The answer of a server, as Unity's Go SDK writes it."""
    text = b"".join(bytes([len(part)]) + part for part in (name, b"duel", b"7", b"map"))
    body = struct.pack(">HH", players, capacity) + text + struct.pack(">H", 7777)
    return struct.pack(">BIHBBHI", 1, challenge, 1, 0, 0, len(body) + 4, len(body)) + body


class Server(asyncio.DatagramProtocol):
    """A game that answers queries, but not one without its challenge."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps it."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answers."""
        if data == bytes(5):
            self.transport.sendto(struct.pack(">BI", 0, CHALLENGE), addr)
        elif data == struct.pack(">BIHB", 1, CHALLENGE, 1, 1):
            self.transport.sendto(info(3, 16), addr)


async def test_a_game_is_asked_how_many_play() -> None:
    """Challenge, then query, over UDP."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    try:
        assert await query("127.0.0.1", transport.get_extra_info("sockname")[1]) == (3, 16)
    finally:
        transport.close()


async def test_a_game_that_is_silent_costs_the_timeout_only() -> None:
    """Nothing is answered: TimeoutError, which counts as not known."""
    silent = asyncio.DatagramProtocol
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(silent, local_addr=("127.0.0.1", 0))
    try:
        with pytest.raises(TimeoutError):
            await query("127.0.0.1", transport.get_extra_info("sockname")[1], 0.05)
    finally:
        transport.close()


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 2**32 - 1), st.binary(max_size=255))
def test_whatever_the_numbers_they_are_read(players: int, capacity: int, challenge: int, name: bytes) -> None:
    """Players and capacity come first, whatever follows."""
    assert read_info(info(players, capacity, challenge, name), challenge) == (players, capacity)


@given(st.binary(max_size=64))
def test_other_bytes_are_refused_and_nothing_else_is_raised(data: bytes) -> None:
    """A game that speaks another protocol must not look like an empty one."""
    with pytest.raises(SqpError, match=r"^cannot"):
        read_info(b"\x02" + data, CHALLENGE)
    with pytest.raises(SqpError, match=r"^cannot"):
        read_challenge(b"\x01" + data)

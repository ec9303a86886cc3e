"""Asks a Teeworlds or DDNet server for its number of players; opengsq does not support the protocol.

Source: `src/engine/shared/network.cpp` of https://github.com/teeworlds/teeworlds. 0.7 has a handshake for what is sent
without a connection, 0.6 (and DDNet, which speaks both) has none.
"""

from __future__ import annotations

import asyncio
import os

# Control packet without an acknowledgement and chunks, and no token yet; then "token" (5), ours, and padding, because a
# server does not answer with more than it was sent (NET_TOKENREQUEST_DATASIZE).
_TOKEN_REQUEST = b"\x04\x00\x00\xff\xff\xff\xff\x05"
_TOKEN_SIZE = 512
_TOKEN_ANSWER = b"\x04\x00\x00"
_CONNLESS_7 = b"\x21"  # NET_PACKETFLAG_CONNLESS and the version, 1
_CONNLESS_6 = b"\xff" * 6
_ASK, _INFO = b"\xff\xff\xff\xffgie3", b"\xff\xff\xff\xffinf3"


class TeeworldsError(Exception):
    """The game sent an invalid answer; `str()` is a sentence that begins with "cannot"."""


async def query(host: str, port: int, timeout: float = 3.0) -> tuple[int, int]:
    """The number of clients on the server, spectators included, and its capacity.

    Args:
        host: where it answers.
        port: its port (UDP).
        timeout: seconds for all answers together.

    Raises:
        TeeworldsError: the answer cannot be parsed.
        TimeoutError: it does not answer.
        OSError: nothing listens there.
    """
    transport, answers = await asyncio.get_running_loop().create_datagram_endpoint(_Answers, remote_addr=(host, port))
    token = os.urandom(4)
    try:
        async with asyncio.timeout(timeout):
            transport.sendto(_CONNLESS_6 + _ASK + token[:1])
            transport.sendto((_TOKEN_REQUEST + token).ljust(_TOKEN_SIZE + 7, b"\0"))
            while True:
                answer = await answers.take()
                if answer.startswith(_CONNLESS_6 + _INFO):
                    return read_info_6(answer[len(_CONNLESS_6 + _INFO) :])
                if answer.startswith(_TOKEN_ANSWER + token + b"\x05") and len(answer) >= 12:
                    transport.sendto(_CONNLESS_7 + answer[8:12] + token + _ASK + b"\x00")
                if answer.startswith(_CONNLESS_7 + token) and answer[9:].startswith(_INFO):
                    return read_info_7(answer[9 + len(_INFO) :])
    finally:
        transport.close()


def read_info_6(data: bytes) -> tuple[int, int]:
    """Clients and capacity from the strings after `inf3`, all of them text.

    Raises:
        TeeworldsError: they are not there.
    """
    # token, version, name, map, game type, flags, players, players at most, clients, clients at most
    parts = data.split(b"\0")
    try:
        return _counts(int(parts[8]), int(parts[9]))
    except (IndexError, ValueError):
        raise TeeworldsError(f"cannot read what the game answered ({data[:40]!r})") from None


def read_info_7(data: bytes) -> tuple[int, int]:
    """Clients and capacity from the token, the strings and the packed integers after `inf3`.

    Raises:
        TeeworldsError: they are not there.
    """
    try:
        _, at = _unpack(data, 0)
        for _ in range(5):  # version, name, host name, map, game type
            at = data.index(b"\0", at) + 1
        numbers = []
        for _ in range(6):  # flags, skill level, players, players at most, clients, clients at most
            number, at = _unpack(data, at)
            numbers.append(number)
        return _counts(numbers[4], numbers[5])
    except (IndexError, ValueError):
        raise TeeworldsError(f"cannot read what the game answered ({data[:40]!r})") from None


def _counts(clients: int, capacity: int) -> tuple[int, int]:
    """Both numbers; `ValueError` if one is negative or does not fit in the protocol's 32 bits."""
    if not (0 <= clients < 2**31 and 0 <= capacity < 2**31):
        raise ValueError("takes numbers from 0")
    return clients, capacity


def _unpack(data: bytes, at: int) -> tuple[int, int]:
    """A packed integer and where it ends: more, sign and 6 bits; then more and 7 bits each."""
    byte = data[at]
    negative, number, shift = byte & 0x40, byte & 0x3F, 6
    while byte & 0x80:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        shift += 7
    return ~number if negative else number, at + 1


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | OSError] = asyncio.Queue(maxsize=16)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._queue.full():
            self._queue.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError) and not self._queue.full():
            self._queue.put_nowait(exc)

    async def take(self) -> bytes:
        answer = await self._queue.get()
        if isinstance(answer, OSError):
            raise answer
        return answer

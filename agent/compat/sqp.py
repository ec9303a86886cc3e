"""SQP, the server query protocol of Unity's Multiplay: asks a game for its number of players. Source: Unity's Go SDK.

A query is two datagrams in each direction, big-endian: first a challenge is requested (type 0), then with it the
server's info (type 1, version 1, chunk 1). The info begins with the number of players and the capacity.
"""

from __future__ import annotations

import asyncio
import struct

_CHALLENGE, _QUERY = 0, 1
_VERSION = 1
_SERVER_INFO = 1
# Type and challenge; then version, this packet, last packet, bytes of payload; then bytes of info, players, capacity.
_HEAD = struct.Struct(">BI")
_ANSWER = struct.Struct(">BIHBBHIHH")


class SqpError(Exception):
    """What the game answered is no SQP; `str()` is a sentence that begins with "cannot"."""


def read_challenge(datagram: bytes) -> int:
    """The challenge in the answer to the first datagram.

    Raises:
        SqpError: it is none.
    """
    if len(datagram) < _HEAD.size or datagram[0] != _CHALLENGE:
        raise SqpError(f"cannot query the game: its first answer is no SQP challenge ({datagram[:16].hex()})")
    return int(_HEAD.unpack_from(datagram)[1])


def read_info(datagram: bytes, challenge: int) -> tuple[int, int]:
    """Players and capacity in the answer to the second datagram.

    Raises:
        SqpError: it is not the server's info, or not for this challenge.
    """
    if len(datagram) < _ANSWER.size:
        raise SqpError(f"cannot query the game: its answer is too short for SQP ({datagram[:32].hex()})")
    kind, echoed, version, _packet, _last, _payload, _info, players, capacity = _ANSWER.unpack_from(datagram)
    if (kind, echoed, version) != (_QUERY, challenge, _VERSION):
        raise SqpError(f"cannot query the game: its answer is not the SQP info asked for ({datagram[:16].hex()})")
    return players, capacity


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | OSError] = asyncio.Queue(maxsize=16)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.queue.full():
            self.queue.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError) and not self.queue.full():
            self.queue.put_nowait(exc)

    async def take(self) -> bytes:
        answer = await self.queue.get()
        if isinstance(answer, OSError):
            raise answer
        return answer


async def query(host: str, port: int, timeout: float = 3.0) -> tuple[int, int]:
    """Asks a game how many play, and how many could.

    Args:
        host: where it answers.
        port: its query port (UDP).
        timeout: seconds for both answers together.

    Raises:
        SqpError: what it answers is no SQP.
        TimeoutError: it does not answer.
        OSError: nothing listens there.
    """
    transport, answers = await asyncio.get_running_loop().create_datagram_endpoint(_Answers, remote_addr=(host, port))
    try:
        async with asyncio.timeout(timeout):
            transport.sendto(_HEAD.pack(_CHALLENGE, 0))
            challenge = read_challenge(await answers.take())
            transport.sendto(_HEAD.pack(_QUERY, challenge) + struct.pack(">HB", _VERSION, _SERVER_INFO))
            return read_info(await answers.take(), challenge)
    finally:
        transport.close()

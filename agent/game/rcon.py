"""Source RCON, which Minecraft, Source engine and many other servers speak: one command, over TCP.

Source of the protocol: https://developer.valvesoftware.com/wiki/Source_RCON_Protocol
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable

_AUTH, _AUTH_RESPONSE, _EXECUTE = 3, 2, 2
_HEAD = struct.Struct("<iii")
_LONGEST = 64 * 1024


class RconError(Exception):
    """The command did not get through; `str()` says why, without the password."""


async def execute(host: str, port: int, password: str, command: str, *, sent: Callable[[], None] = lambda: None) -> str:
    """Sends one command.

    Args:
        host: where the server listens.
        port: likewise.
        password: of the server's rcon.
        command: what it should do.
        sent: called when the command was sent; only the answer can be missing after that.

    Returns:
        The beginning of its answer; "" if it closes the connection instead, as a stopping server may do.

    Raises:
        RconError: no connection, or the wrong password.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as problem:
        raise RconError(f"cannot connect to {host}:{port} ({problem.strerror or problem})") from None
    try:
        writer.write(_packet(1, _AUTH, password))
        await writer.drain()
        while True:
            number, kind, _ = await _receive(reader)
            if kind == _AUTH_RESPONSE:
                break
        if number == -1:
            raise RconError("the password is wrong; set AGENT_RCON_PASSWORD")
        writer.write(_packet(2, _EXECUTE, command))
        sent()
        try:
            await writer.drain()
            return (await _receive(reader))[2]
        except (OSError, asyncio.IncompleteReadError):
            return ""
    except (OSError, asyncio.IncompleteReadError, struct.error) as problem:
        raise RconError(f"the connection broke ({type(problem).__name__})") from None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _packet(number: int, kind: int, body: str) -> bytes:
    return _HEAD.pack(len(body.encode()) + 10, number, kind) + body.encode() + b"\0\0"


async def _receive(reader: asyncio.StreamReader) -> tuple[int, int, str]:
    (size,) = struct.unpack("<i", await reader.readexactly(4))
    if not 10 <= size <= _LONGEST:
        raise RconError("the server there is not an rcon server")
    data = await reader.readexactly(size)
    number, kind = struct.unpack("<ii", data[:8])
    return number, kind, data[8:-2].decode("utf-8", "replace")

"""Forwarding UDP, so that the game can tell its players apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

IDLE_SECONDS = 60.0
"""A player who has been silent for so long is forgotten."""
PLAYERS = 1024
"""Most players of one port that are told apart; the one idle longest makes room."""


@dataclass
class Traffic:
    """Bytes through a deployment's external ports since it was placed."""

    received: int = 0
    """From players to the game."""
    transmitted: int = 0
    """From the game to players."""


class UdpRelay(asyncio.DatagramProtocol):
    """One external UDP port; each player gets a socket of its own towards the game, which so can tell them apart."""

    def __init__(self, internal: int, traffic: Traffic) -> None:
        """`internal` is the game's port on loopback."""
        self._internal = internal
        self._traffic = traffic
        self._transport: asyncio.DatagramTransport | None = None
        self._players: dict[Any, _Player] = {}
        self._opening: dict[Any, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The external port is open."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # 3.11's own is no subclass of it

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A player's datagram."""
        self._traffic.received += len(data)
        player = self._players.get(addr)
        if player is not None:
            player.send(data)
        elif addr in self._opening:
            self._opening[addr].append(data)
        else:
            self._opening[addr] = [data]
            task = asyncio.create_task(self._open(addr), name=f"udp player to {self._internal}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, addr: Any) -> None:
        loop = asyncio.get_running_loop()
        player = _Player(lambda data: self._answer(addr, data))
        try:
            await loop.create_datagram_endpoint(lambda: player, remote_addr=("127.0.0.1", self._internal))
        except OSError:
            self._opening.pop(addr, None)  # lost, as a datagram may be
            return
        self._players[addr] = player
        for data in self._opening.pop(addr, []):
            player.send(data)
        await self._forget_idle(loop.time())

    async def _forget_idle(self, now: float) -> None:
        by_age = sorted(self._players, key=lambda addr: self._players[addr].last)
        surplus = len(by_age) - PLAYERS
        for position, addr in enumerate(by_age):
            if position < surplus or now - self._players[addr].last > IDLE_SECONDS:
                await self._players.pop(addr).close()

    def _answer(self, addr: Any, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._traffic.transmitted += len(data)
            self._transport.sendto(data, addr)

    def error_received(self, exc: Exception) -> None:
        """A player is gone (ICMP); its socket is forgotten when idle."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The external port is closed."""
        if not self._closed.done():
            self._closed.set_result(None)

    async def close(self) -> None:
        """Close the external port and every player's socket."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()
            await self._closed
        for player in self._players.values():
            await player.close()
        self._players.clear()


class _Player(asyncio.DatagramProtocol):
    """The socket that stands for one player towards the game."""

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = self._loop.create_future()
        self.last = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # 3.11's own is no subclass of it

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.last = self._loop.time()
        self._answer(data)

    def send(self, data: bytes) -> None:
        self.last = self._loop.time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data)

    def error_received(self, exc: Exception) -> None:
        """The game does not listen yet: the datagram is lost, as on any network."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self._closed

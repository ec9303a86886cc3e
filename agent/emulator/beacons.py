"""Ping beacons, with which players measure their latency to a location."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from typing import Any, cast

from agent.emulator.places import PLACES, Place
from agent.emulator.ports import PortBook
from agent.emulator.settings import EmulatorSettings

CITIES = ("Montreal", "Los Angeles", "São Paulo", "Paris", "Singapore", "Tokyo", "Sydney")
"""Where there is a beacon: of every continent that players are on."""
READ_BYTES = 2048


@dataclass(frozen=True)
class Beacon:
    """One beacon; UDP and TCP have the same port."""

    host: str
    fqdn: str
    port: int
    place: Place

    def as_json(self) -> dict[str, Any]:
        """The contract's `Beacon`."""
        return {
            "host": self.host,
            "fqdn": self.fqdn,
            "udp_port": self.port,
            "tcp_port": self.port,
            "location": self.place.as_json(),
        }


class Beacons:
    """The beacons; they begin to answer when they are first asked for.

    Args:
        port_book: where their ports come from.
        settings: their address and domain.
    """

    def __init__(self, port_book: PortBook, settings: EmulatorSettings) -> None:
        """See the class."""
        self._port_book = port_book
        self._settings = settings
        self._opening = asyncio.Lock()
        self._all: list[Beacon] = []
        self._servers: list[asyncio.Server] = []
        self._transports: list[asyncio.BaseTransport] = []
        self._clients: set[asyncio.Task[None]] = set()

    async def all(self) -> list[Beacon]:
        """Every beacon, answering.

        Raises:
            CannotPlace: there is no port left.
        """
        async with self._opening:
            if not self._all:
                places = [place for place in PLACES if place.city in CITIES]
                self._all = [await self._open(place) for place in places]
        return self._all

    async def _open(self, place: Place) -> Beacon:
        port = await self._port_book.open_free(self._listen)
        name = f"b-{secrets.token_hex(6)}"
        host, domain = self._settings.public_ip, self._settings.domain
        return Beacon(host, f"{name}.{domain}" if domain else host, port, place)

    async def _listen(self, port: int) -> None:
        """Echo on a port.

        Raises:
            OSError: it is taken.
        """
        host = self._settings.public_ip
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Echo, local_addr=(host, port))
        try:
            self._servers.append(await asyncio.start_server(self._answer, host, port))
        except OSError:
            transport.close()
            raise
        self._transports.append(transport)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send back whatever comes; a client that only connects has its answer already."""
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(READ_BYTES):
                    writer.write(data)
                    await writer.drain()
        finally:
            self._clients.discard(task)
            writer.close()

    async def close(self) -> None:
        """Answer no more."""
        for server in self._servers:
            server.close()
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        for transport in self._transports:
            transport.close()
        self._port_book.give_back(beacon.port for beacon in self._all)
        self._all, self._servers, self._transports = [], [], []


class _Echo(asyncio.DatagramProtocol):
    """Sends back every datagram as it came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data, addr)

    def error_received(self, exc: Exception) -> None:
        """A client is gone (ICMP)."""

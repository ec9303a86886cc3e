"""External ports: chosen at random, opened, and forwarded to the game's own ports."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agent.emulator.errors import CannotPlace
from agent.emulator.models import VersionPort
from agent.emulator.udp import Traffic, UdpRelay

PUMP_BYTES = 65536
SCHEMES = {"HTTP": "http", "HTTPS": "https", "WS": "ws", "WSS": "wss"}
UPGRADED = {"http": "https", "ws": "wss"}
OTHER_INTERNAL = (20000, 29999)
"""Where an internal port is taken from when the declared one is not free on this machine."""


@dataclass(frozen=True)
class Mapping:
    """One port of a deployment, as the contract's `Port` has it."""

    name: str
    internal: int
    external: int
    protocol: str
    tls_upgrade: bool
    to_check: bool

    def link(self, fqdn: str) -> str:
        """Where players go: `fqdn:external`, with a scheme where the protocol has one."""
        scheme = SCHEMES.get(self.protocol, "")
        if self.tls_upgrade:
            scheme = UPGRADED.get(scheme, scheme)
        return f"{scheme}://{fqdn}:{self.external}" if scheme else f"{fqdn}:{self.external}"

    def as_json(self, fqdn: str) -> dict[str, Any]:
        """The contract's `Port`."""
        return {
            "name": self.name,
            "link": self.link(fqdn),
            "internal": self.internal,
            "external": self.external,
            "protocol": self.protocol,
            "tls_upgrade": self.tls_upgrade,
        }


def transports(protocol: str) -> tuple[bool, bool]:
    """Whether a protocol goes over UDP, and whether over TCP."""
    return protocol in {"UDP", "TCP/UDP"}, protocol != "UDP"


def _free(port: int, protocol: str) -> bool:
    """Whether a game could bind the port on this machine now."""
    udp, tcp = transports(protocol)
    for wanted, kind in ((udp, socket.SOCK_DGRAM), (tcp, socket.SOCK_STREAM)):
        if wanted:
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("0.0.0.0", port))  # noqa: S104 - a probe, closed at once
                except OSError:
                    return False
    return True


class PortBook:
    """Which ports the emulator's deployments hold, so that no two get the same.

    Args:
        host: the address on which external ports listen.
        external: the range, both ends included.
    """

    def __init__(self, host: str, external: tuple[int, int]) -> None:
        """See the class."""
        self._host = host
        self._external = external
        self._held: set[int] = set()

    @property
    def held(self) -> frozenset[int]:
        """Every port in use."""
        return frozenset(self._held)

    async def take(self, ports: Iterable[VersionPort]) -> Forwarding:
        """Allocate and open the ports of one deployment.

        Raises:
            CannotPlace: no port is free.
        """
        forwarding = Forwarding(self)
        try:
            for port in ports:
                await self._take_one(port, forwarding)
        except BaseException:
            await forwarding.close()
            raise
        return forwarding

    def give_back(self, ports: Iterable[int]) -> None:
        """These are free again."""
        self._held.difference_update(ports)

    async def _take_one(self, port: VersionPort, forwarding: Forwarding) -> None:
        internal = self._internal(port)
        self._held.add(internal)
        forwarding.held.add(internal)
        external = await self.open_free(
            lambda number: forwarding.open(self._host, number, internal, port.protocol),
        )
        forwarding.held.add(external)
        forwarding.mappings.append(
            Mapping(port.key, internal, external, port.protocol, port.tls_upgrade, port.to_check)
        )

    async def open_free(self, opened: Callable[[int], Awaitable[None]]) -> int:
        """Draw an external port at random and open it; it is held until it is given back.

        Args:
            opened: opens a port, or raises OSError where that one is taken.

        Raises:
            CannotPlace: no port is free, or the public address is none of this machine.
        """
        low, high = self._external
        for external in random.sample(range(low, high + 1), k=min(200, high + 1 - low)):
            if external in self._held:
                continue
            self._held.add(external)
            try:
                await opened(external)
            except OSError as error:
                self._held.discard(external)
                if error.errno == errno.EADDRNOTAVAIL:
                    raise CannotPlace(
                        f"cannot listen on {self._host}: it is no address of this machine; choose another public IP"
                    ) from None
                continue
            except BaseException:
                self._held.discard(external)
                raise
            return external
        raise CannotPlace(
            f"cannot find a free external port between {low} and {high}; widen the range or stop something"
        )

    def _internal(self, port: VersionPort) -> int:
        """The declared port where a game can have it; games of one machine share its ports, containers do not."""
        if port.port and port.port not in self._held and _free(port.port, port.protocol):
            return port.port
        low, high = OTHER_INTERNAL
        for number in random.sample(range(low, high + 1), k=200):
            if number not in self._held and _free(number, port.protocol):
                return number
        raise CannotPlace(f"cannot find a free port for {port.key}; stop something on this machine")


class Forwarding:
    """The open ports of one deployment; owns their sockets and tasks."""

    def __init__(self, book: PortBook) -> None:
        """Use `PortBook.take`."""
        self._book = book
        self._servers: list[asyncio.Server] = []
        self._relays: list[UdpRelay] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.held: set[int] = set()
        self.mappings: list[Mapping] = []
        self.traffic = Traffic()

    async def open(self, host: str, external: int, internal: int, protocol: str) -> None:
        """Listen on `external` and forward to `internal` on loopback.

        Raises:
            OSError: the port is taken; nothing stays open then.
        """
        udp, tcp = transports(protocol)
        relay = None
        if udp:
            relay = UdpRelay(internal, self.traffic)
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: relay, local_addr=(host, external))
        if tcp:
            try:
                server = await asyncio.start_server(
                    lambda reader, writer: self._accept(reader, writer, internal), host, external
                )
            except OSError:
                if relay:
                    await relay.close()
                raise
            self._servers.append(server)
        if relay:
            self._relays.append(relay)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, internal: int) -> None:
        task = asyncio.create_task(self._forward(reader, writer, internal), name=f"forward to {internal}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, internal: int) -> None:
        """One player's connection, both ways, until both are done."""
        game: asyncio.StreamWriter | None = None
        try:
            game_reader, game = await asyncio.open_connection("127.0.0.1", internal)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, game, inward=True))
                group.create_task(self._pump(game_reader, writer, inward=False))
        except* OSError:
            pass  # the game does not listen, or one of the two hung up: the other is told by the close below
        finally:
            for end in (writer, game):
                if end is not None:
                    end.close()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, inward: bool) -> None:
        while data := await reader.read(PUMP_BYTES):
            if inward:
                self.traffic.received += len(data)
            else:
                self.traffic.transmitted += len(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def close(self) -> None:
        """Close every socket and give the ports back."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        for relay in self._relays:
            await relay.close()
        self._servers.clear()
        self._relays.clear()
        self._book.give_back(self.held)
        self.held.clear()

"""External ports: players connect to them, and reach the game."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.emulator.errors import CannotPlace
from agent.emulator.models import VersionPort
from agent.emulator.ports import PortBook
from tests.contract.backend import SECONDS, backend, eventually, python, quick
from tests.free_ports import free_port

ECHO = """
import os, socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", int(os.environ["ARBITRIUM_PORT_GAME_INTERNAL"])))
tcp = socket.create_server(("127.0.0.1", int(os.environ["ARBITRIUM_PORT_WEB_INTERNAL"])))
def serve(connection):
    while data := connection.recv(65536):
        connection.sendall(data.upper())
    connection.shutdown(socket.SHUT_WR)
def accept():
    while True:
        connection, _ = tcp.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
print("listens", flush=True)
while True:
    data, player = udp.recvfrom(65536)
    udp.sendto(b"%d:" % player[1] + data.upper(), player)
"""
PORTS = [{"port": 0, "protocol": "UDP", "name": "game"}, {"port": 0, "protocol": "TCP", "name": "web"}]


class Player(asyncio.DatagramProtocol):
    """One UDP player."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Something came back."""
        self.heard.put_nowait(data)


@contextlib.asynccontextmanager
async def player(port: int) -> AsyncIterator[tuple[asyncio.DatagramTransport, Player]]:
    """A player with a socket of its own."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Player, remote_addr=("127.0.0.1", port))
    try:
        yield transport, protocol
    finally:
        transport.close()


async def ask(port: int, data: bytes) -> bytes:
    """Say something over TCP, end, and read the answer to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), SECONDS)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_players_reach_the_game_through_its_external_ports() -> None:
    """UDP players are told apart; TCP connections pass both ways and end as they are ended; all bytes are counted."""
    async with backend() as caller:
        deployment_id = await caller.running(**python(ECHO), ports=PORTS)
        await caller.until_logged(deployment_id, "listens")
        ports = (await caller.status(deployment_id))["ports"]
        for port in ports.values():
            assert port["external"] != port["internal"]
            assert 30000 <= port["external"] <= 32767
            assert port["link"] == f"{deployment_id}.pr.edgegap.net:{port['external']}"
        external = ports["game"]["external"]
        async with player(external) as (one, heard_by_one), player(external) as (other, heard_by_other):
            one.sendto(b"ann")
            other.sendto(b"bob")
            first = await asyncio.wait_for(heard_by_one.heard.get(), SECONDS)
            second = await asyncio.wait_for(heard_by_other.heard.get(), SECONDS)
        assert (first.split(b":")[1], second.split(b":")[1]) == (b"ANN", b"BOB")
        assert first.split(b":")[0] != second.split(b":")[0]
        blob = b"x" * 300_000
        answers = await asyncio.gather(*(ask(ports["web"]["external"], blob) for _ in range(3)))
        assert answers == [blob.upper()] * 3
        forwarding = caller.inner(deployment_id).forwarding
        assert forwarding is not None
        assert forwarding.traffic.received == 900_006
        assert forwarding.traffic.transmitted > 900_006


async def test_a_stopped_deployment_gives_its_ports_back() -> None:
    """Nothing listens on them any more, a connection that was open is closed, and another deployment may have them."""
    async with backend() as caller:
        deployment_id = await caller.running(**python(ECHO), ports=PORTS)
        await caller.until_logged(deployment_id, "listens")
        ports = (await caller.status(deployment_id))["ports"]
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["web"]["external"])
        await caller.stop(deployment_id)
        with contextlib.suppress(OSError):
            assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        with pytest.raises(OSError):  # noqa: PT011 - refused; which errno is the kernel's affair
            await ask(ports["web"]["external"], b"x")
        assert caller.emulator.platform.port_book.held == frozenset()


async def test_a_connection_to_a_game_that_does_not_listen_is_closed() -> None:
    """As a host would do it, and the emulator goes on."""
    async with backend() as caller:
        deployment_id = await caller.running(ports=PORTS)
        port = (await caller.status(deployment_id))["ports"]["web"]["external"]
        with contextlib.suppress(ConnectionError):
            assert await ask(port, b"anybody?") == b""
        assert (await caller.status(deployment_id))["running"] is True


async def test_two_games_with_the_same_port_do_not_meet() -> None:
    """The second gets another internal port, in its environment and in its status alike."""
    wanted = free_port()
    source = """
import os, socket, time
game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
game.bind(("0.0.0.0", int(os.environ["ARBITRIUM_PORT_GAMEPORT_INTERNAL"])))
print("bound", game.getsockname()[1], flush=True)
time.sleep(600)
"""
    async with backend() as caller:
        version = await caller.version(
            **python(source), ports=[{"port": wanted, "protocol": "UDP", "name": "gameport"}]
        )
        found = []
        for _ in range(3):
            deployment_id = await caller.deploy(version)
            log = await caller.until_logged(deployment_id, "bound")
            port = (await caller.status(deployment_id))["ports"]["gameport"]
            assert log.split() == ["bound", str(port["internal"])]
            found += [port["internal"], port["external"]]
        assert found[0] == wanted
        assert len(set(found)) == 6


async def test_a_port_without_a_name_goes_by_its_number() -> None:
    """As in the platform's older versions."""
    async with backend() as caller:
        deployment_id = await caller.running(ports=[{"port": 0, "protocol": "TCP/UDP"}])
        assert list((await caller.status(deployment_id))["ports"]) == ["0"]


async def test_a_range_without_a_free_port_is_an_error_that_leaves_nothing_open() -> None:
    """The first port is closed again when the second cannot be had."""
    only = free_port()
    book = PortBook("127.0.0.1", (only, only))
    port = VersionPort(port=0, protocol="TCP/UDP", name="a")
    forwarding = await book.take([port])
    with pytest.raises(CannotPlace, match="cannot find a free external port"):
        await book.take([port])
    await forwarding.close()
    assert book.held == frozenset()
    await (await book.take([port])).close()


async def test_a_deployment_for_which_no_port_is_free_is_in_error() -> None:
    """ERROR with the reason, rather than a game that nobody can reach."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with backend(quick(external_ports=(port, port))) as caller:
            deployment_id = await caller.deploy(await caller.version(ports=[{"port": 0, "protocol": "TCP"}]))
            status = await caller.until(deployment_id, "ERROR")
            assert "cannot find a free external port" in status["error_detail"]


async def test_an_address_of_another_machine_is_said_to_be_one() -> None:
    """192.0.2.1 is nobody's, by RFC 5737."""
    async with backend(quick(public_ip="192.0.2.1")) as caller:
        deployment_id = await caller.deploy(await caller.version(ports=[{"port": 0, "protocol": "UDP"}]))
        status = await caller.until(deployment_id, "ERROR")
        assert status["error_detail"].startswith("cannot listen on 192.0.2.1: it is no address of this machine")


async def test_datagrams_to_a_game_that_does_not_listen_yet_are_lost_and_later_ones_arrive(tmp_path: Path) -> None:
    """An ICMP refusal for the first does not close the way for the next."""
    source = """
import os, socket, time
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
game.bind(("127.0.0.1", int(os.environ["ARBITRIUM_PORT_GAME_INTERNAL"])))
print("listens", flush=True)
while True:
    data, player = game.recvfrom(65536)
    game.sendto(data, player)
"""
    go = tmp_path / "go"
    async with backend() as caller:
        envs = [{"key": "GO", "value": str(go)}]
        deployment_id = await caller.running(**python(source), ports=PORTS[:1], envs=envs)
        forwarding = caller.inner(deployment_id).forwarding
        assert forwarding is not None
        external = (await caller.status(deployment_id))["ports"]["game"]["external"]
        async with player(external) as (transport, heard):
            transport.sendto(b"too early")
            await eventually(lambda: forwarding.traffic.received == 9)
            go.touch()
            await caller.until_logged(deployment_id, "listens")
            transport.sendto(b"in time")
            assert await asyncio.wait_for(heard.heard.get(), SECONDS) == b"in time"

"""Multiplay's local daemon, as its SDKs see it: server.json, REST, and events over Centrifuge's WebSocket."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.compat import prepare
from agent.compat.centrifuge import ProtocolError, Session
from agent.lifecycle.states import Phase
from tests.api_fakes import DEADLINE, eventually
from tests.compat_fakes import Served, serving

LISTENER = "multiplay"
SERVER = str(int("23c01225b99d", 16))
CHANNEL = f"server#{SERVER}"


def server_json(directory: Path) -> dict[str, Any]:
    """What the game reads."""
    found: dict[str, Any] = json.loads((directory / "server.json").read_text())
    return found


class Client:
    """A Centrifuge client of either version."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, version: int) -> None:
        self.socket = socket
        self.version = version
        self.waiting: list[Any] = []

    async def connect(self) -> None:
        """Connects and subscribes, in one message, as some do."""
        if self.version == 1:
            commands = [{"id": 1, "params": {}}, {"id": 2, "method": 1, "params": {"channel": CHANNEL}}]
        else:
            commands = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": CHANNEL}}]
        await self.socket.send_str("\n".join(map(json.dumps, commands)))
        first, second = await self.next(), await self.next()
        answer = first["result" if self.version == 1 else "connect"]
        assert answer["client"]
        assert answer["version"]
        assert second["id"] == 2
        assert "error" not in second

    async def next(self) -> Any:
        """The next answer or push; several may come in one message."""
        while not self.waiting:
            async with asyncio.timeout(DEADLINE):
                message = await self.socket.receive()
            assert message.type is aiohttp.WSMsgType.TEXT, message
            self.waiting = [json.loads(line) for line in message.data.split("\n") if line != "{}"]
        return self.waiting.pop(0)

    async def event(self) -> Any:
        """The next event."""
        push = await self.next()
        if self.version == 1:
            assert push["result"]["channel"] == CHANNEL
            return push["result"]["data"]["data"]
        assert push["push"]["channel"] == CHANNEL
        return push["push"]["pub"]["data"]


async def opened(served: Served, version: int) -> Client:
    """A client whose connection is open."""
    url = f"ws://localhost:{served.port(LISTENER)}/v1/connection/websocket"
    return Client(await served.session.ws_connect(url), version)


async def test_server_json_is_there_before_the_game(tmp_path: Path) -> None:
    """Ports, address and ids of the deployment, and the build configuration's keys; not allocated yet."""
    async with serving(tmp_path, "multiplay", multiplay_config="map=arena,mode=duel") as served:
        found = server_json(tmp_path)
        assert found["serverID"] == SERVER
        assert found["allocatedUUID"] == ""
        assert (found["ip"], found["port"], found["queryPort"]) == ("172.236.117.196", "7777", "7778")
        assert (found["queryType"], found["regionName"]) == ("sqp", "Chicago")
        assert found["localProxyUrl"] == f"http://localhost:{served.port(LISTENER)}"
        assert (found["map"], found["mode"]) == ("arena", "duel")
        assert (tmp_path / found["serverLogDir"]).is_dir()


def test_ports_are_found_where_there_is_no_mapping() -> None:
    """The variables of each port say as much; without any, the query port is still another one than the game's."""
    environ = {"ARBITRIUM_PORT_QUERY_INTERNAL": "27016", "ARBITRIUM_PORT_GAMEPORT_INTERNAL": "27015"}
    content = prepare.server_json(environ, lambda _: None, "1", 8086)
    assert (content["port"], content["queryPort"]) == ("27015", "27016")
    content = prepare.server_json({}, lambda _: None, "1", 8086)
    assert (content["port"], content["queryPort"]) == ("9000", "9010")


@pytest.mark.parametrize("version", [1, 2])
async def test_who_subscribes_is_allocated(tmp_path: Path, version: int) -> None:
    """The file says it first, then the event; a late subscriber is told again, until the game has acted on it."""
    async with serving(tmp_path, "multiplay") as served:
        client = await opened(served, version)
        await client.connect()
        event = await client.event()
        allocation = served.prepared.ids["allocation"]
        assert event == {
            "EventType": "AllocateEventType",
            "EventID": served.prepared.ids["allocation_event"],
            "ServerID": int(SERVER),
            "AllocationID": allocation,
        }
        assert server_json(tmp_path)["allocatedUUID"] == allocation
        await client.socket.close()
        again = await opened(served, version)
        await again.connect()
        assert await again.event() == event
        path = f"/v1/server/{SERVER}/allocation/{allocation}/ready-for-players"
        assert (await served.call(LISTENER, "POST", path)).status == 200
        assert served.phase() is Phase.READY
        third = await opened(served, version)
        await third.connect()
        served.stop()
        for client in (again, third):
            assert (await client.event())["EventType"] == "DeallocateEventType"
        assert server_json(tmp_path)["allocatedUUID"] == ""


async def test_a_game_that_starts_allocated_finds_it_in_the_file(tmp_path: Path) -> None:
    """AGENT_MULTIPLAY_ALLOCATE=start."""
    async with serving(tmp_path, "multiplay", multiplay_allocate="start") as served:
        assert server_json(tmp_path)["allocatedUUID"] == served.prepared.ids["allocation"]


async def test_without_a_match_nothing_is_allocated_where_one_is_wanted(tmp_path: Path) -> None:
    """AGENT_MULTIPLAY_ALLOCATE=match."""
    async with serving(tmp_path, "multiplay", multiplay_allocate="match") as served:
        client = await opened(served, 2)
        await client.connect()
        await client.socket.send_str('{"id":3,"ping":{}}')
        assert await client.next() == {"id": 3, "ping": {}}
        assert server_json(tmp_path)["allocatedUUID"] == ""
    async with serving(tmp_path, "multiplay", multiplay_allocate="match", match=True) as served:
        client = await opened(served, 2)
        await client.connect()
        assert (await client.event())["EventType"] == "AllocateEventType"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/v1/servers/{s}/allocations/{a}", {"ready": True}, 204),
        ("POST", "/v1/server/{s}/ready", None, 200),
        ("POST", "/v1/server/{s}/allocation/{a}/ready-for-players", {}, 200),
    ],
)
async def test_each_sdks_way_to_say_ready(tmp_path: Path, method: str, path: str, body: Any, status: int) -> None:
    """Unity's and Unreal's, Go's, and the old one."""
    async with serving(tmp_path, "multiplay") as served:
        where = path.format(s=SERVER, a=served.prepared.ids["allocation"])
        assert (await served.call(LISTENER, method, where, body)).status == status
        assert served.phase() is Phase.READY
        other = await served.call(LISTENER, "POST", f"/v1/server/{SERVER}1/ready")
        assert other.status == 404
        assert set(other.body) == {"status", "title", "detail", "requestId"}


async def test_the_payload_is_the_matchmakers_or_the_settings(tmp_path: Path) -> None:
    """As Unity's matchmaker had it, or byte for byte what the setting says, or 404."""
    async with serving(tmp_path, "multiplay", match=True) as served:
        path = f"/payload/{served.prepared.ids['allocation']}"
        found = (await served.call(LISTENER, "GET", path)).body
        assert found["MatchId"].startswith("3d3bd9bd")
        assert found["MatchProperties"]["Players"] == [
            {"Id": "ada", "CustomData": {"skill": 7}},
            {"Id": "grace", "CustomData": {}},
        ]
        for token_path in ("/token", "/payload/token"):
            token = (await served.call(LISTENER, "GET", token_path)).body
            assert token["error"] == ""
            assert token["token"].count(".") == 2
    async with serving(tmp_path, "multiplay", multiplay_payload="not json") as served:
        assert (await served.call(LISTENER, "GET", f"/payload/{served.prepared.ids['allocation']}")).body == b"not json"
    async with serving(tmp_path, "multiplay") as served:
        assert (await served.call(LISTENER, "GET", f"/payload/{served.prepared.ids['allocation']}")).status == 404


async def test_a_hold_is_a_veto_until_it_expires_or_is_released(tmp_path: Path) -> None:
    """The policies are told for how long."""
    path = f"/v1/servers/{SERVER}/hold"
    async with serving(tmp_path, "multiplay") as served:
        assert (await served.call(LISTENER, "GET", path)).body == {"expiresAt": 0, "held": False}
        held = (await served.call(LISTENER, "POST", path, {"timeout": "1h30m"})).body
        assert held["held"]
        assert held["expiresAt"] > 1_700_000_000
        assert (await served.call(LISTENER, "GET", path)).body == held
        assert (await served.call(LISTENER, "DELETE", path)).status == 204
        assert served.holds == [5400.0, None]
        for wrong in ("", "soon", "10", "-1m", "0s", 7, None):
            assert (await served.call(LISTENER, "POST", path, {"timeout": wrong})).status == 400


async def test_reservations_are_answered(tmp_path: Path) -> None:
    """A deployment is reserved by being there."""
    path = f"/v1/servers/{SERVER}/reservations"
    async with serving(tmp_path, "multiplay") as served:
        answer = await served.call(LISTENER, "POST", path, {})
        assert (answer.status, answer.body["gamePort"]) == (200, 32013)
        assert (await served.call(LISTENER, "DELETE", path)).status == 204


async def test_a_stop_that_nobody_can_hear_says_so(tmp_path: Path) -> None:
    """Then the next stop method has its turn at once."""
    async with serving(tmp_path, "multiplay") as served:
        await served.call(LISTENER, "GET", "/token")
        assert "was not allocated" in served.compat.ask_to_stop("multiplay", 2.0)
        client = await opened(served, 1)
        await client.connect()
        await client.event()
        assert served.compat.ask_to_stop("multiplay", 2.0) == ""
        assert (await client.event())["EventType"] == "DeallocateEventType"
        await client.socket.close()
        await eventually(lambda: "nobody is subscribed" in served.compat.ask_to_stop("multiplay", 2.0), "it has left")


async def test_an_allocation_survives_a_restart_of_the_agent(tmp_path: Path) -> None:
    """The id stays, a game that has acted on it is not allocated a second time, and a hold goes on."""
    async with serving(tmp_path, "multiplay") as served:
        await served.call(LISTENER, "POST", f"/v1/server/{SERVER}/ready")
        await served.call(LISTENER, "POST", f"/v1/servers/{SERVER}/hold", {"timeout": "10m"})
        saved = json.loads(json.dumps(served.compat.snapshot()))
        await served.compat.close()
        async with serving(tmp_path, "multiplay", saved=saved, prepared=served.prepared) as again:
            assert again.holds
            assert 590 < (again.holds[0] or 0) <= 600
            client = await opened(again, 2)
            await client.connect()
            again.stop()
            event = await client.event()
            assert event["EventType"] == "DeallocateEventType"
            assert event["AllocationID"] == served.prepared.ids["allocation"]


async def test_a_message_in_fragments_and_masked_bytes_is_one(tmp_path: Path) -> None:
    """Plain sockets: a handshake, then a text frame in three fragments with a ping between them (RFC 6455, 5.4)."""

    def frame(payload: bytes, opcode: int, *, final: bool) -> bytes:
        mask = b"\x01\x02\x03\x04"
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        return bytes([(0x80 if final else 0) | opcode, 0x80 | len(payload)]) + mask + masked

    async with serving(tmp_path, "multiplay") as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port(LISTENER))
        writer.write(
            b"GET /v1/connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with asyncio.timeout(DEADLINE):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"101" in head.splitlines()[0]
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # of RFC 6455, 1.3
            writer.write(frame(b'{"id":1,', 1, final=False) + frame(b"hello", 9, final=True))
            writer.write(frame(b'"connect"', 0, final=False) + frame(b":{}}", 0, final=True))
            answers = await reader.readuntil(b'"pong":true}}')
            assert b"\x8a\x05hello" in answers
            assert b'"id":1' in answers
        writer.close()


@pytest.mark.parametrize("message", ["nix", "[]", '{"id":-1}', '{"id":1,"params":7}', "\n".join(['{"id":1}'] * 65)])
async def test_what_is_no_centrifuge_is_closed(tmp_path: Path, message: str) -> None:
    """With a code that says not to try again with the same."""
    async with serving(tmp_path, "multiplay") as served:
        client = await opened(served, 2)
        await client.socket.send_str(message)
        async with asyncio.timeout(DEADLINE):
            closed = await client.socket.receive()
        assert closed.type is aiohttp.WSMsgType.CLOSE
        assert closed.data == 3501


async def test_a_client_that_never_reads_holds_up_nobody(tmp_path: Path) -> None:
    """It has a small buffer and is silent; another is told of its allocation all the same."""
    async with serving(tmp_path, "multiplay") as served:
        silent = socket.socket()
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        silent.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(silent, ("127.0.0.1", served.port(LISTENER)))
        await loop.sock_sendall(silent, b"GET /v1/connection/websocket HTTP/1.1\r\n")  # and no more
        client = await opened(served, 2)
        await client.connect()
        assert (await client.event())["EventType"] == "AllocateEventType"
        silent.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COMMAND = st.dictionaries(
    st.sampled_from(["id", "method", "params", "connect", "subscribe", "unsubscribe", "ping", "rpc", "send"]),
    JSON | st.integers(0, 9) | st.fixed_dictionaries({"channel": st.sampled_from([CHANNEL, "other", ""])}),
    max_size=3,
)


@given(st.lists(st.lists(COMMAND, max_size=4), max_size=4))
def test_whatever_is_sent_the_protocol_is_kept(messages: list[list[dict[str, Any]]]) -> None:
    """Each command with an id is answered once, with it; nobody is subscribed to what is not there."""
    session = Session(lambda channel: channel == CHANNEL)
    for commands in messages:
        text = "\n".join(map(json.dumps, commands))
        try:
            answers, subscribed = session.take(text)
        except ProtocolError:
            continue
        assert set(subscribed) <= session.channels <= {CHANNEL}
        ids = [command["id"] for command in commands if command.get("id") and not _is_send(command)]
        assert [json.loads(answer)["id"] for answer in answers] == ids
        for answer in answers:
            assert len(set(json.loads(answer)) - {"id"}) <= 1


def _is_send(command: dict[str, Any]) -> bool:
    names = ("connect", "subscribe", "unsubscribe", "publish", "presence", "ping", "send", "rpc")
    first = next((name for name in names if name in command), None)
    return first == "send" or (first is None and command.get("method") in (8, "send"))


@given(st.text(max_size=64))
def test_text_that_is_not_json_is_a_protocol_error_and_nothing_else(text: str) -> None:
    """Whatever the bytes."""
    session = Session(lambda _: True)
    try:
        answers, _ = session.take(text)
    except ProtocolError:
        return
    assert all(json.loads(answer) for answer in answers)

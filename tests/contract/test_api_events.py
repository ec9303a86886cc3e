"""Events: the same ones over server-sent events and the socket, the current state first, a stop before it happens."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest

from agent.api import http, rpc
from agent.api.events import EventBus
from agent.lifecycle.states import ExitStatus as Ended
from agent.lifecycle.states import GameExited, GameGone, Phase, StopSignal
from tests.api_fakes import DEADLINE, Agent, FakeTags, SocketCaller, eventually, running
from tests.rules import default_rules

Next: TypeAlias = "Callable[[], Any]"


@asynccontextmanager
async def sse(agent: Agent) -> AsyncIterator[Next]:
    """Listens over HTTP; gives what awaits the next event."""
    async with aiohttp.ClientSession(agent.url) as session, session.get("/v1/events") as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"

        async def following() -> Any:
            fields: dict[str, str] = {}
            async with asyncio.timeout(DEADLINE):
                while line := (await response.content.readline()).decode():
                    name, _, value = line.rstrip("\n").partition(": ")
                    if not name and not value:
                        return {"id": int(fields["id"]), "type": fields["event"], "data": json.loads(fields["data"])}
                    fields[name] = value
            return None

        yield following


@asynccontextmanager
async def notifications(agent: Agent) -> AsyncIterator[Next]:
    """Listens over the socket; gives what awaits the next event."""
    async with SocketCaller(agent) as caller:
        assert (await caller.call("subscribe")).result == {"subscribed": True}

        async def following() -> Any:
            message = await caller.receive()
            if message is None:
                return None
            assert message["jsonrpc"] == "2.0"
            assert message["method"] == "event"
            assert "id" not in message
            return message["params"]

        yield following


EITHER = pytest.mark.parametrize("listen", [sse, notifications])


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent whose game was started and has said nothing yet."""
    async with running(tmp_path, tags=FakeTags()) as one:
        yield one


@EITHER
async def test_a_whole_life(tmp_path: Path, listen: Any) -> None:
    """Each thing that happens is told once, in order, with its data."""
    async with running(tmp_path, tags=FakeTags()) as agent, SocketCaller(agent) as caller:
        async with listen(agent) as following:
            first = await following()
            assert (first["type"], first["id"]) == ("state", 0)
            assert first["data"].items() >= {"phase": "starting", "previous": None, "attempt": 1}.items()
            await caller.call("ready")
            await caller.call("ready")
            await caller.call("players.set", {"count": 1, "capacity": 4})
            await caller.call("players.set", {"count": 1, "capacity": 4})
            await caller.call("players.join", {"id": "alice"})
            await caller.call("players.leave", {"id": "alice"})
            await caller.call("players.leave", {"id": "alice"})
            agent.report.set_text("map de_dust", agent.driver.now())
            await caller.call("tags.add", {"name": "blue"})
            await caller.call("tags.remove", {"name": "blue"})
            answer = (await caller.call("stop", {"reason": "match over"})).result
            agent.driver.post(GameExited(agent.driver.now(), Ended(signal=15)))
            agent.driver.post(GameGone(agent.driver.now()))
            agent.events.close()
            await asyncio.gather(agent.http.close(), agent.rpc.close())
            events = []
            while (event := await following()) is not None:
                events.append(event)
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        told = [(event["type"], event["data"]) for event in events]
        assert [kind for kind, _ in told] == [
            "state", "players", "players", "players", "text", "tags", "tags", "stop", "state", "state",
        ]  # fmt: skip
        data = [data for _, data in told]
        assert (data[0]["phase"], data[0]["previous"]) == ("ready", "starting")
        assert [(d["count"], d["capacity"], d["joined"], d["left"]) for d in data[1:4]] == [
            (1, 4, None, None),
            (2, 4, "alice", None),
            (1, 4, None, "alice"),
        ]
        assert data[4]["text"] == "map de_dust"
        assert [(d["added"], d["removed"]) for d in data[5:7]] == [("blue", None), (None, "blue")]
        assert {**answer, "at": data[7]["at"]} == data[7]
        assert (data[8]["phase"], data[8]["previous"], data[8]["reason"]) == ("stopping", "ready", "requested")
        assert data[9]["phase"] == "flushing"
        assert data[9]["exit"] == {"code": None, "signal": 15, "core_dumped": False, "exit_code": 143}


@EITHER
async def test_who_comes_late_is_told_of_the_stop(agent: Agent, listen: Any) -> None:
    """A subscriber that comes during a stop gets the phase, then the stop with its plan and deadline."""
    agent.driver.post(StopSignal(agent.driver.now()))
    async with listen(agent) as following:
        state, stop = await following(), await following()
        assert (state["type"], state["data"]["phase"]) == ("state", "stopping")
        assert (stop["type"], stop["data"]["source"]) == ("stop", "platform")
        assert stop["data"]["deadline"]
        assert stop["data"]["plan"]


@EITHER
async def test_a_deadline_that_moves_is_told_again(tmp_path: Path, listen: Any) -> None:
    """When the platform's SIGTERM shortens a stop that the game asked for, there is a second announcement."""
    async with (
        running(tmp_path, rules=default_rules(grace=5)) as agent,
        SocketCaller(agent) as caller,
        listen(agent) as following,
    ):
        await following()
        await caller.call("stop", {"grace_seconds": 3600})
        first = await following()
        assert first["type"] == "stop"
        assert (await following())["data"]["phase"] == "stopping"
        agent.driver.post(StopSignal(agent.driver.now()))
        second = await following()
        assert second["type"] == "stop"
        assert second["data"]["deadline"] < first["data"]["deadline"]
        assert second["data"]["source"] == "operator", "the request that counts is still the first one"


@EITHER
async def test_a_listener_that_leaves_is_forgotten(agent: Agent, listen: Any) -> None:
    """No subscription is left behind by those who hang up."""
    for _ in range(5):
        async with listen(agent) as following:
            assert (await following())["type"] == "state"
            assert agent.events.subscribers == 1
        await eventually(lambda: agent.events.subscribers == 0, "the subscription has ended")


async def test_many_who_vanish(agent: Agent) -> None:
    """A hundred listeners that vanish in the middle leave nothing behind."""
    for _ in range(50):
        with closing(socket.create_connection(("127.0.0.1", agent.port))) as connection:
            connection.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(agent.socket_path)
            connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"subscribe"}\n')
    async with SocketCaller(agent) as caller:
        await caller.call("ready")
    await eventually(lambda: agent.http.connections == 0, "connections are closed")
    agent.events.publish("text", agent.operations.view.state_event(agent.driver.state, 0, None, Phase.READY))
    await eventually(lambda: agent.events.subscribers == 0, "subscriptions have ended")


async def test_a_listener_that_says_nothing_more(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket client may close its side and go on listening; when it goes, that is noticed without an event."""
    monkeypatch.setattr(rpc, "LOOK_SECONDS", 0.02)
    async with SocketCaller(agent) as caller:
        await caller.call("subscribe")
        caller.writer.write_eof()
        assert (await caller.receive())["params"]["type"] == "state"
        async with SocketCaller(agent) as other:
            await other.call("ready")
        assert (await caller.receive())["params"]["data"]["phase"] == "ready"
        assert agent.events.subscribers == 1
    await eventually(lambda: agent.events.subscribers == 0, "the subscription has ended")


async def test_subscribing_twice(agent: Agent) -> None:
    """On one connection is one subscription."""
    async with SocketCaller(agent) as caller:
        await caller.call("subscribe")
        await caller.receive()
        await caller.call("subscribe")
        assert agent.events.subscribers == 1
        assert (await caller.call("ready")).problem is None
        assert (await caller.receive())["params"]["data"]["phase"] == "ready"
        assert (await caller.call("health")).problem is None, "and no second event is in between"


async def test_a_silent_stream_says_that_it_lives(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment comes when nothing happens for a while."""
    monkeypatch.setattr(http, "HEARTBEAT_SECONDS", 0.02)
    async with aiohttp.ClientSession(agent.url) as session, session.get("/v1/events") as response:
        async with asyncio.timeout(DEADLINE):
            assert b": " in await response.content.readuntil(b": nothing new\n\n")
            assert await response.content.readuntil(b"\n\n") == b": nothing new\n\n"


async def test_who_does_not_read_is_told_of_the_gap(tmp_path: Path) -> None:
    """Slow listeners lose their oldest events, hear how many, and never keep the agent or others waiting."""
    async with running(tmp_path, events=EventBus(limit=16)) as agent, SocketCaller(agent) as caller:
        deaf = [await asyncio.open_unix_connection(agent.socket_path, limit=2**10) for _ in range(20)]
        streams = [await asyncio.open_connection("127.0.0.1", agent.port, limit=2**10) for _ in range(20)]
        for _, writer in deaf:
            writer.write(b'{"jsonrpc":"2.0","id":1,"method":"subscribe"}\n')
        for _, writer in streams:
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: agent.events.subscribers == 40, "all forty listen")
        long_text = "x" * 400
        for number in range(6_000):
            agent.report.set_text(f"{number} {long_text}", agent.driver.now())
            if number % 500 == 0:
                assert (await caller.call("health")).problem is None
        agent.events.close()
        newest = f"5999 {long_text}".encode()
        for reader, _ in (deaf[0], streams[0]):
            async with asyncio.timeout(DEADLINE):
                said = await _until(newest, reader)
            assert b"gap" in said
            assert b'"missed":' in said
            assert newest in said, "the newest is not what was lost"
        for _, writer in (*deaf, *streams):
            writer.close()


async def _until(wanted: bytes, reader: asyncio.StreamReader) -> bytes:
    """What comes until all of `wanted` is there, or the stream ends."""
    said = b""
    while wanted not in said and (piece := await reader.read(2**16)):
        said += piece
    return said

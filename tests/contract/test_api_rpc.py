"""What is the socket's own about the local API: lines, batches, who may connect, clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from agent.api import rpc
from agent.api.jsonrpc import METHODS, Batch
from tests.api_fakes import DEADLINE, Agent, FakeTags, SocketCaller, eventually, running


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent whose game was started and has said nothing yet."""
    async with running(tmp_path, tags=FakeTags(["red"])) as one:
        yield one


@pytest.fixture
async def caller(agent: Agent) -> AsyncIterator[SocketCaller]:
    """A connection to it."""
    async with SocketCaller(agent) as one:
        yield one


def call(method: str, identity: object = 1, **params: object) -> dict[str, Any]:
    """A request object."""
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}


class TestMessages:
    """The standard, line by line."""

    @pytest.mark.parametrize(
        ("line", "code", "identity"),
        [
            (b"{not json", -32700, None),
            (b"\xff\xfe", -32700, None),
            (b'{"jsonrpc": "2.0", "method": "health"', -32700, None),
            (b'{"jsonrpc": "2.0", "id": NaN, "method": "health"}', -32700, None),
            (b"[" * 60_000, -32700, None),
            (b"[]", -32600, None),
            (b"7", -32600, None),
            (b'"health"', -32600, None),
            (b"null", -32600, None),
            (b'{"id": 1, "method": "health"}', -32600, 1),
            (b'{"jsonrpc": "1.0", "id": 1, "method": "health"}', -32600, 1),
            (b'{"jsonrpc": 2.0, "id": 1, "method": "health"}', -32600, 1),
            (b'{"jsonrpc": "2.0", "id": "a"}', -32600, "a"),
            (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "health", "params": "x"}', -32600, 1),
            (b'{"jsonrpc": "2.0", "id": {}, "method": "health"}', -32600, None),
            (b'{"jsonrpc": "2.0", "id": true, "method": "health"}', -32600, None),
            (b'{"jsonrpc": "2.0", "method": 5}', -32600, None),
            (b"{}", -32600, None),
            (b'{"jsonrpc": "2.0", "id": 1e999, "method": "health"}', -32600, None),
            (b'{"jsonrpc": "2.0", "id": -1e999, "method": "health"}', -32600, None),
            (b"[" + b"7," * 31_999 + b"7]", -32600, None),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "explode"}', -32601, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "self_stop"}', -32601, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "HEALTH"}', -32601, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "stop", "params": {"grace_seconds": "x"}}', -32602, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "players.set", "params": [1, 2, 3]}', -32602, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "players.join"}', -32602, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "metrics", "params": [1]}', -32602, 1),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"x": 1}}', -32602, 1),
        ],
    )  # fmt: skip
    async def test_errors(self, agent: Agent, caller: SocketCaller, line: bytes, code: int, identity: object) -> None:
        """Each has its code, the request's id where one was to be had, and data; the connection goes on."""
        before = agent.facts
        await caller.send(line + b"\n")
        answer = await caller.receive()
        assert answer["jsonrpc"] == "2.0"
        assert "result" not in answer
        assert answer["id"] == identity
        assert answer["error"]["code"] == code
        assert answer["error"]["message"].startswith("cannot ")
        assert answer["error"]["data"]["status"] >= 400
        assert agent.facts == before
        assert (await caller.call("status")).problem is None

    @pytest.mark.parametrize("identity", [1, 0, -1, 1.5, "", "text", "ä\n", None, 2**70])
    async def test_ids(self, caller: SocketCaller, identity: object) -> None:
        """Comes back as it was, null too."""
        answer = await caller.ask({"jsonrpc": "2.0", "id": identity, "method": "health"})
        assert answer["id"] == identity
        assert "result" in answer

    async def test_notifications(self, agent: Agent, caller: SocketCaller) -> None:
        """Without an id it is carried out and never answered, not even when it is wrong."""
        for method, given in (
            ("health", "{}"),
            ("players.set", '{"count": -1}'),
            ("no.such", "{}"),
            ("tags.list", "{}"),
        ):
            await caller.send(b'{"jsonrpc": "2.0", "method": "%s", "params": %s}\n' % (method.encode(), given.encode()))
        assert (await caller.ask(call("status", "last")))["id"] == "last"
        assert agent.report.heartbeats == 1

    async def test_params_by_position(self, agent: Agent, caller: SocketCaller) -> None:
        """An array is taken in the order of the fields; an empty one, null and none are the same."""
        answer = await caller.ask({"jsonrpc": "2.0", "id": 1, "method": "players.set", "params": [3, 16]})
        assert answer["result"] == {"count": 3, "capacity": 16}
        answer = await caller.ask({"jsonrpc": "2.0", "id": 1, "method": "players.join", "params": ["alice"]})
        assert answer["result"]["count"] == 4
        nothings: tuple[object, ...] = ([], None, {})
        for params in nothings:
            answer = await caller.ask({"jsonrpc": "2.0", "id": 1, "method": "health", "params": params})
            assert "result" in answer
        answer = await caller.ask({"jsonrpc": "2.0", "id": 1, "method": "players.set", "params": ["x"]})
        assert answer["error"]["data"]["errors"][0]["field"] == "count"

    async def test_batch(self, agent: Agent, caller: SocketCaller) -> None:
        """A batch is answered with a batch: an entry for each call, none for notifications, errors among them."""
        answers = await caller.ask(
            [
                call("health", 1),
                {"jsonrpc": "2.0", "method": "health"},
                call("no.such", 2),
                7,
                call("tags.list", 3),
                call("players.set", 4, count=-1),
            ]
        )
        by_id = {answer["id"]: answer for answer in answers}
        assert len(answers) == 5
        assert "result" in by_id[1]
        assert by_id[2]["error"]["code"] == -32601
        assert by_id[None]["error"]["code"] == -32600
        assert by_id[3]["result"] == {"tags": ["red"]}
        assert by_id[4]["error"]["code"] == -32602
        assert agent.report.heartbeats == 2

    async def test_a_batch_of_notifications(self, agent: Agent, caller: SocketCaller) -> None:
        """Is not answered at all."""
        await caller.send(json.dumps([{"jsonrpc": "2.0", "method": "health"}] * 3).encode() + b"\n")
        assert (await caller.ask(call("health", "next")))["id"] == "next"
        assert agent.report.heartbeats == 4

    async def test_every_method(self, caller: SocketCaller) -> None:
        """An unknown method is told which there are, and they are those of the design."""
        answer = await caller.call("no.such")
        assert answer.problem["errors"][0]["takes"].split(", ") == sorted(METHODS)
        assert {"ready", "health", "stop", "status", "deployment", "metrics", "subscribe", "upload"} < set(METHODS)
        assert {"players.set", "players.join", "players.leave", "tags.list", "tags.add", "tags.remove"} < set(METHODS)


class TestLines:
    """How lines arrive."""

    async def test_in_pieces(self, caller: SocketCaller) -> None:
        """A line may come byte by byte, several may come at once, blank ones and CRLF are no harm."""
        for byte in json.dumps(call("health", 1)).encode() + b"\n":
            await caller.send(bytes([byte]))
        assert (await caller.receive())["id"] == 1
        lines = [json.dumps(call("health", number)).encode() for number in range(2, 300)]
        await caller.send(b"\r\n".join([b"", b"\n  ", *lines, b""]))
        assert [(await caller.receive())["id"] for _ in range(2, 300)] == list(range(2, 300))

    async def test_the_longest(self, agent: Agent, caller: SocketCaller) -> None:
        """64 KiB are a line; one byte more is an error, said once; the line behind it is served."""
        empty = len(json.dumps(call("stop", 1, reason="")))
        exact = json.dumps(call("stop", 1, reason="x" * (65536 - empty))).encode()
        assert len(exact) == 65536
        await caller.send(exact.replace(b"x", b"xx", 1) + b"\n" + json.dumps(call("status", 2)).encode() + b"\n")
        too_long, status = await caller.receive(), await caller.receive()
        assert (too_long["id"], too_long["error"]["code"]) == (None, -32600)
        assert status["result"]["phase"] == "starting"
        await caller.send(exact + b"\n")
        assert (await caller.receive())["result"]["reason"] == "requested"

    async def test_without_end(self, agent: Agent, caller: SocketCaller) -> None:
        """Ten megabytes without a newline are not kept: one error, and after the newline all is well again."""
        for _ in range(10):
            await caller.send(b"x" * 1_000_000)
        assert (await caller.receive())["error"]["code"] == -32600
        await caller.send(b"\n" + json.dumps(call("health", 2)).encode() + b"\n")
        assert (await caller.receive())["id"] == 2

    async def test_the_last_word(self, agent: Agent, caller: SocketCaller) -> None:
        """A client that closes its side after its line, without a newline, still gets its answer, then the end."""
        await caller.send(json.dumps(call("tags.list", 1)).encode() + b"\n" + json.dumps(call("health", 2)).encode())
        caller.writer.write_eof()
        assert sorted([(await caller.receive())["id"], (await caller.receive())["id"]]) == [1, 2]
        assert await caller.receive() is None

    async def test_who_leaves_at_once(self, agent: Agent) -> None:
        """A client that writes its line and is gone has been heard."""
        for number in range(20):
            with closing(socket.socket(socket.AF_UNIX)) as connection:
                connection.connect(agent.socket_path)
                connection.sendall(json.dumps(call("players.join", id=f"p{number}")).encode() + b"\n")
        await eventually(lambda: agent.report.count == 20, "all twenty were heard")


class TestNeighbours:
    """One client never harms another."""

    async def test_a_slow_operation_holds_nobody_up(self, tmp_path: Path) -> None:
        """While the platform does not answer a client's tags, the same client is served, and so is every other."""
        hold = asyncio.Event()
        async with running(tmp_path, tags=FakeTags(["red"], hold=hold)) as agent, SocketCaller(agent) as caller:
            await caller.send(json.dumps(call("tags.list", "slow")).encode() + b"\n")
            assert (await caller.ask(call("health", "quick")))["id"] == "quick"
            async with SocketCaller(agent) as other:
                assert (await other.call("status")).problem is None
            hold.set()
            assert (await caller.receive())["id"] == "slow"

    async def test_many_slow_operations(self, tmp_path: Path) -> None:
        """More calls than may wait at once: the rest waits its turn, and all are answered."""
        hold = asyncio.Event()
        async with running(tmp_path, tags=FakeTags(["red"], hold=hold)) as agent, SocketCaller(agent) as caller:
            for number in range(50):
                await caller.send(json.dumps(call("tags.list", number)).encode() + b"\n")
            async with SocketCaller(agent) as other:
                assert (await other.call("status")).problem is None
            hold.set()
            assert sorted([(await caller.receive())["id"] for _ in range(50)]) == list(range(50))

    async def test_who_never_reads(self, agent: Agent) -> None:
        """A client that asks and asks and never reads is not served any more than fits, and nobody else notices."""
        with closing(socket.socket(socket.AF_UNIX)) as deaf:
            deaf.connect(agent.socket_path)
            deaf.setblocking(False)
            line = json.dumps(call("status")).encode() + b"\n"
            sent = 0
            async with SocketCaller(agent) as other:
                for _ in range(2000):
                    try:
                        sent += deaf.send(line * 50)
                    except BlockingIOError:
                        await asyncio.sleep(0)
                    if not sent % 10:
                        assert (await other.call("health")).problem is None
                served = len([request for request in agent.requests if request[1] == "status"])
                assert served * len(line) < sent, "what is not read is not worked on"
                assert (await other.call("health")).problem is None

    async def test_one_line_of_calls(self, agent: Agent) -> None:
        """Lines and batches of as many calls as fit, on ten connections, with 1,000 ids: another client hardly waits.

        What is not read is not computed, and a batch whose answers take too much is not carried out to its end. Calls
        are counted instead of seconds: a test machine may be slow.
        """
        for number in range(1000):
            agent.report.join(f"player-{number:04}", 0.0)
        status = b'{"jsonrpc":"2.0","method":"status","id":1}'
        async with AsyncExitStack() as stack:
            greedy = [await stack.enter_async_context(SocketCaller(agent)) for _ in range(10)]
            other = await stack.enter_async_context(SocketCaller(agent))
            for number, one in enumerate(greedy):
                one.writer.write((status + b"\n") * 1500 if number % 2 else b"[%s]\n" % b",".join([status] * 64))
            for _ in range(5):
                before = len(agent.requests)
                assert (await other.call("health")).problem is None
                assert len(agent.requests) - before < 100, "its turn came between a few calls of the others"
            answers = await greedy[0].receive()
        assert len(answers) == 64
        assert "result" in answers[0]
        assert "more than" in answers[-1]["error"]["message"]
        assert len(agent.requests) < 1000, "what is not read is not computed"

    async def test_a_flood(self, agent: Agent) -> None:
        """While one client sends without a pause, another is answered between its lines."""
        reader, writer = await asyncio.open_unix_connection(agent.socket_path)
        line = json.dumps(call("health")).encode() + b"\n"
        async with SocketCaller(agent) as other:
            writer.write(line * 20_000)
            assert (await other.call("status")).problem is None
            done = len([request for request in agent.requests if request[1] == "health"])
            assert done < 20_000
        received = 0
        async with asyncio.timeout(DEADLINE * 3):
            while received < 20_000:
                received += (await reader.read(1 << 20)).count(b"\n")
        writer.close()
        await writer.wait_closed()

    async def test_forgotten_connections_shut_nobody_out(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        """One too many closes the one that has said nothing for longest, not one that has asked or listens."""
        monkeypatch.setattr(rpc, "CONNECTIONS", 4)
        async with AsyncExitStack() as stack:
            asked, listening, silent, half = [await stack.enter_async_context(SocketCaller(agent)) for _ in range(4)]
            await asked.call("health")
            await listening.call("subscribe")
            assert (await listening.receive())["method"] == "event"
            await half.send(b'{"jsonrpc": "2.0"')
            for given_up in (silent, half):
                newer = await stack.enter_async_context(SocketCaller(agent))
                assert (await newer.call("health")).problem is None
                assert await given_up.receive() is None
            await asked.call("health")
            problem = (await asked.call("subscribe")).problem
            assert problem is not None
            assert problem["detail"] == "cannot subscribe: 1 connections do; close some"
            listening.writer.close()
            async with asyncio.timeout(DEADLINE):
                while (await asked.call("subscribe")).problem is not None:
                    pass  # the agent has not noticed yet that the other one is gone

    async def test_one_too_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is told so and closed where all others wait for answers; when another one has gone there is room."""
        monkeypatch.setattr(rpc, "CONNECTIONS", 2)
        tags = FakeTags(["red"], hold=asyncio.Event())
        async with running(tmp_path, tags=tags) as agent, AsyncExitStack() as stack:
            both = [await stack.enter_async_context(SocketCaller(agent)) for _ in range(2)]
            for waiting in both:
                await waiting.send(json.dumps(call("tags.list")).encode() + b"\n")
            await eventually(lambda: tags.asked == 2, "both wait")
            async with SocketCaller(agent) as one_more:
                assert "connections" in (await one_more.receive())["error"]["message"]
                assert await one_more.receive() is None
            assert tags.hold
            tags.hold.set()
            assert (await both[0].receive())["result"]
            async with SocketCaller(agent) as again:
                assert (await again.call("health")).problem is None


class TestAccess:
    """Who may connect."""

    async def test_another_user(self, tmp_path: Path) -> None:
        """Is told who may, and hung up on; nothing it said was carried out."""
        async with running(tmp_path, users=frozenset({54321})) as agent:
            before = agent.facts
            async with SocketCaller(agent) as caller:
                await caller.send(json.dumps(call("stop")).encode() + b"\n")
                answer = await caller.receive()
                assert answer["id"] is None
                assert f"user {os.geteuid()}" in answer["error"]["message"]
                assert await caller.receive() is None
            assert agent.facts == before

    async def test_the_agents_own_user(self, agent: Agent, caller: SocketCaller) -> None:
        """May."""
        assert (await caller.call("health")).problem is None


class TestEnd:
    """When the agent ends."""

    async def test_calls_under_way(self, tmp_path: Path) -> None:
        """Those that are quick are answered, those that are not are given up, and every connection is closed."""
        async with running(tmp_path, tags=FakeTags(hold=asyncio.Event())) as agent:
            async with SocketCaller(agent) as idle, SocketCaller(agent) as waiting, SocketCaller(agent) as listening:
                await idle.call("health")
                await listening.call("subscribe")
                assert (await listening.receive())["params"]["type"] == "state"
                await waiting.send(json.dumps(call("tags.list")).encode() + b"\n")
                assert (await waiting.call("health")).problem is None, "the line before this one was taken"
                agent.events.close()
                await agent.rpc.close(0.1)
                for caller in (idle, listening, waiting):
                    assert await caller.receive() is None
            with pytest.raises(OSError, match=r"refused|No such file"):
                await asyncio.open_unix_connection(agent.socket_path)

    @pytest.mark.parametrize("lost", [False, True])
    async def test_a_batch_under_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
        """What was begun of it is carried out, also where its client is gone: no other is begun."""
        tags, begun, step = FakeTags(), asyncio.Event(), Batch.step

        def only_the_first(batch: Batch) -> bool:
            if not begun.is_set():
                step(batch)
                begun.set()
            return True

        monkeypatch.setattr(Batch, "step", only_the_first)
        async with running(tmp_path, tags=tags) as agent, SocketCaller(agent) as caller:
            batch = [call("tags.add", 1, name="first"), call("tags.add", 2, name="second")]
            await caller.send(json.dumps(batch).encode() + b"\n")
            await begun.wait()
            if lost:
                for connection in agent.rpc._connections:
                    connection.abort()
                await eventually(lambda: tags.names, "the call was carried out")
            await agent.rpc.close()
            answer = await caller.receive()
        assert tags.names == ["first"]
        assert answer is None if lost else [one["result"]["tags"] for one in answer] == [["first"]]

    async def test_closing_twice(self, agent: Agent) -> None:
        """Does no harm."""
        await agent.rpc.close()
        await agent.rpc.close()

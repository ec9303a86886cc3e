"""What is HTTP's own about the local API: hosts, bodies, methods, the drop-in self-stop, the document of it all."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from email import message_from_string
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, get_args

import aiohttp
import jsonschema
import pytest

from agent.api import http, http_input
from agent.api.models import EventName
from agent.api.openapi import EVENTS
from agent.api.problems import Kind
from agent.api.table import OPERATIONS
from agent.lifecycle.states import ApplyStop, GameExited, GameGone, Phase
from agent.lifecycle.states import ExitStatus as Ended
from tests.api_fakes import DEADLINE, DROP_IN, Agent, FakeTags, HttpCaller, eventually, running


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent whose game was started and has said nothing yet."""
    async with running(tmp_path, tags=FakeTags()) as one:
        yield one


@pytest.fixture
async def session(agent: Agent) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of it."""
    async with aiohttp.ClientSession(agent.url) as one:
        yield one


async def is_problem(response: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    """Checks that a response is a problem document with this status; returns it."""
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = json.loads(text)
    assert {"type", "title", "status", "detail"} <= problem.keys()
    assert problem["status"] == status
    assert problem["detail"].startswith("cannot ")
    return problem


async def exchange(agent: Agent, *sent: bytes, end: bool = False) -> bytes:
    """Sends bytes as they are on a connection of their own and reads until the agent closes it, or has answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    try:
        for part in sent:
            writer.write(part)
            await writer.drain()
        if end:
            writer.write_eof()
        async with asyncio.timeout(DEADLINE):
            return await reader.read() if end else await reader.read(65536)
    finally:
        writer.close()
        await writer.wait_closed()


class TestRoutes:
    """What is not there."""

    @pytest.mark.parametrize(
        "path",
        ["/", "/v1", "/v1/ready//", "/v1//ready", "/v1/players/a/b", "/V1/ready", "/v1/READY"],
    )
    async def test_an_unknown_path(self, agent: Agent, path: str) -> None:
        """404 that says where to look."""
        answer = await exchange(agent, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")
        assert "/openapi.json" in json.loads(body)["detail"]

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "/v1/ready", "POST"),
            ("POST", "/v1/status", "GET, HEAD"),
            ("PATCH", "/v1/players", "GET, HEAD, PUT"),
            ("GET", "/v1/players/alice", "DELETE, PUT"),
            ("OPTIONS", "/v1/stop", "POST"),
            ("DELETE", "/v1/events", "GET, HEAD"),
            ("BREW", "/v1/ready", "POST"),
            ("brew", "/v1/tags/a?x=y", "DELETE, PUT"),
        ],
    )
    async def test_a_method_that_a_path_does_not_take(self, agent: Agent, method: str, path: str, allowed: str) -> None:
        """405 with the methods that it takes, also where the method is nobody's."""
        answer = await exchange(agent, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 405 " in head.partition(b"\r\n")[0]
        assert f"\r\nAllow: {allowed}\r\n".encode() in head + b"\r\n"
        assert json.loads(body)["status"] == 405

    async def test_head(self, agent: Agent) -> None:
        """HEAD is GET without the body."""
        answer = await exchange(
            agent, b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", end=True
        )
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n")
        for path in (b"/v1/events", b"/v1/status"):
            answer = await exchange(agent, b"HEAD %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path)
            assert answer.startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize(
        ("version", "asked", "told"),
        [("1.1", "", None), ("1.1", "close", "close"), ("1.0", "", None), ("1.0", "keep-alive", "keep-alive")],
    )
    async def test_connection(self, agent: Agent, version: str, asked: str, told: str | None) -> None:
        """The connection stays open as its version and the client say; what is not the default is told (RFC 9112)."""
        request = f"GET /healthz HTTP/{version}\r\nHost: localhost\r\n"
        request += f"Connection: {asked}\r\n\r\n" if asked else "\r\n"
        stays = (version, asked) in {("1.1", ""), ("1.0", "keep-alive")}
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        async with asyncio.timeout(DEADLINE):
            heads = []
            for _ in range(2 if stays else 1):
                writer.write(request.encode())
                heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                assert await reader.readexactly(14) == b'{"alive":true}'
            if not stays:
                assert await reader.read() == b""
        writer.close()
        assert heads[-1].startswith(f"HTTP/{version} 200 OK\r\n")
        headers = message_from_string(heads[-1].partition("\r\n")[2])
        assert headers["Connection"] == told
        assert (headers["Content-Type"], headers["Content-Length"]) == ("application/json", "14")
        assert abs(parsedate_to_datetime(headers["Date"]).timestamp() - time.time()) < 60

    async def test_probes(self, agent: Agent, session: aiohttp.ClientSession) -> None:
        """`/healthz` is 200 while the agent lives; `/readyz` only while the game takes players."""
        async with session.get("/readyz") as response:
            await is_problem(response, 503)
        agent_is_alive = await session.get("/healthz")
        assert (agent_is_alive.status, await agent_is_alive.json()) == (200, {"alive": True})
        await session.post("/v1/ready")
        async with session.get("/readyz") as response:
            assert (response.status, await response.json()) == (200, {"ready": True})
        await session.post("/v1/stop")
        async with session.get("/readyz") as response:
            assert "stopping" in (await is_problem(response, 503))["detail"]


class TestHosts:
    """Only this machine is served."""

    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:9370",
            "127.1.2.3",
            "127.255.255.254:80",
            "[::1]",
            "[::1]:9370",
        ],
    )
    async def test_loopback(self, session: aiohttp.ClientSession, host: str) -> None:
        """Every name of loopback is taken, with any port."""
        async with session.get("/v1/status", headers={"Host": host}) as response:
            assert response.status == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:9370",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example#127.0.0.1",
            "127.0.0.1@evil.example",
            "user@127.0.0.1",
            "127.0.0.1/x",
            "0.0.0.0",
            "169.254.169.254",
            "[::]",
            "[::ffff:10.0.0.1]",
            "2130706433",
            "0x7f.1",
            "127.0.0.1:port",
            "127.0.0.1:99999",
            "[::1",
            "127.0.0.1, evil.example",
        ],
    )
    async def test_anybody_else(self, agent: Agent, session: aiohttp.ClientSession, host: str) -> None:
        """A rebound name or another address is refused, and nothing is carried out."""
        before = agent.facts
        async with session.post("/v1/stop", headers={"Host": host}) as response:
            problem = await is_problem(response, 403)
        assert problem["errors"][0]["field"] == "Host"
        assert agent.facts == before

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    async def test_no_host(self, agent: Agent, version: str) -> None:
        """Neither is a request without one, in either version of HTTP."""
        before = agent.facts
        answer = await exchange(agent, f"POST /v1/stop HTTP/{version}\r\nContent-Length: 0\r\n\r\n".encode())
        assert answer.split()[1] == b"400"
        assert agent.facts == before

    async def test_two_hosts(self, agent: Agent) -> None:
        """Of two hosts both have to be loopback, if two are taken at all."""
        answer = await exchange(agent, b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert answer.split()[1] in (b"400", b"403")
        assert agent.driver.state.phase is Phase.STARTING

    @pytest.mark.parametrize(
        ("host", "status", "phase"),
        [("evil.example", b"403", Phase.STARTING), ("127.0.0.1:9370", b"200", Phase.READY)],
    )
    async def test_a_target_with_a_host(self, agent: Agent, host: str, status: bytes, phase: Phase) -> None:
        """The absolute form of a target names a host too, and that one counts (RFC 9112, 3.2.2)."""
        line = f"POST http://{host}/v1/ready HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        assert (await exchange(agent, line.encode())).split()[1] == status
        assert agent.driver.state.phase is phase

    @pytest.mark.parametrize(
        "origins",
        [
            ["http://evil.example"],
            ["https://localhost.evil.example"],
            ["null"],
            ["file://"],
            ["http://localhost", "http://evil.example"],
            ["http://evil.example", "http://localhost"],
        ],
    )
    async def test_a_page_from_elsewhere(
        self, agent: Agent, session: aiohttp.ClientSession, origins: list[str]
    ) -> None:
        """A browser's page from another machine may not even send what needs no preflight; every Origin counts."""
        headers = [("Origin", origin) for origin in origins]
        async with session.post("/v1/stop", data="{}", headers=headers) as response:
            await is_problem(response, 403)
        assert agent.driver.state.phase is Phase.STARTING

    async def test_a_page_of_this_machine(self, session: aiohttp.ClientSession) -> None:
        """A page that this machine served may."""
        async with session.post("/v1/health", headers={"Origin": "http://localhost:8080"}) as response:
            assert response.status == 200


class TestBodies:
    """Liberal in what a body is called, strict in what it is."""

    @pytest.mark.parametrize(
        "kind",
        [
            None,
            "application/json",
            "application/json; charset=utf-8",
            "application/x-www-form-urlencoded",
            "application/octet-stream",
            "text/plain",
            "application/merge-patch+json",
        ],
    )
    async def test_what_clients_call_json(self, agent: Agent, kind: str | None) -> None:
        """A form says curl, bytes says Unity, some say nothing."""
        header = f"Content-Type: {kind}\r\n" if kind else ""
        body = '{"count":3}'
        answer = await exchange(
            agent, f"PUT /v1/players HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 11\r\n\r\n{body}".encode()
        )
        assert answer.split()[1] == b"200"
        assert agent.report.count == 3

    @pytest.mark.parametrize(
        "kind", ["multipart/form-data; boundary=x", "application/xml", "text/html", "image/png", "application/yaml"]
    )
    async def test_what_is_something_else(self, agent: Agent, session: aiohttp.ClientSession, kind: str) -> None:
        """415 that says what is taken."""
        before = agent.facts
        async with session.put("/v1/players", data='{"count":3}', headers={"Content-Type": kind}) as response:
            problem = await is_problem(response, 415)
        assert problem["errors"][0]["field"] == "Content-Type"
        assert agent.facts == before

    async def test_a_compressed_body(self, agent: Agent, session: aiohttp.ClientSession) -> None:
        """Is not taken, so none can unpack to gigabytes."""
        body = gzip.compress(b'{"count":3}')
        async with session.put("/v1/players", data=body, headers={"Content-Encoding": "gzip"}) as response:
            await is_problem(response, 415)
        assert agent.report.count == 0

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"nothing",
            b"{'count': 3}",
            b'{"count": 3,}',
            b'{"count": 3} x',
            b"count=3",
            b"\xff\xfe",
            b'{"a": "\xe4"}',
            b"\0",
        ],
    )
    async def test_what_is_not_json(self, agent: Agent, session: aiohttp.ClientSession, body: bytes) -> None:
        """400 that says so."""
        before = agent.facts
        for method, path in (("PUT", "/v1/players"), ("POST", "/v1/ready"), ("PUT", "/v1/players/alice")):
            async with session.request(method, path, data=body) as response:
                assert "JSON" in (await is_problem(response, 400))["detail"]
        assert agent.facts == before

    @pytest.mark.parametrize("body", ["[]", "3", '"text"', "true"])
    async def test_json_that_is_no_object(self, agent: Agent, session: aiohttp.ClientSession, body: str) -> None:
        """400, for operations with and without fields."""
        before = agent.facts
        for method, path in (
            ("PUT", "/v1/players"),
            ("POST", "/v1/ready"),
            ("POST", "/v1/metrics"),
            ("PUT", "/v1/players/a"),
        ):
            async with session.request(method, path, data=body) as response:
                await is_problem(response, 400)
        assert agent.facts == before

    async def test_nested_without_end(self, session: aiohttp.ClientSession) -> None:
        """A body of sixty thousand brackets is refused like any other."""
        for body in ("[" * 60_000, '{"a":' * 10_000):
            async with session.put("/v1/players", data=body) as response:
                await is_problem(response, 400)
            async with session.put("/v1/players/a", data=body) as response:
                await is_problem(response, 400)

    async def test_an_empty_body_where_nothing_is_required(self, session: aiohttp.ClientSession) -> None:
        """No body, an empty one, `null` and `{}` are the same; a slash at the end of the path means nothing."""
        for body in (None, b"", b"{}", b" {}\n", b"\xef\xbb\xbf{}", b"null"):
            async with session.post("/v1/health/", data=body) as response:
                assert response.status == 200
        async with session.put("/v1/players/alice/", data=b"null") as response:
            assert response.status == 200

    async def test_a_body_where_the_url_says_it_all(self, agent: Agent, session: aiohttp.ClientSession) -> None:
        """`{}` is taken, anything in it is not: it would be ignored."""
        async with session.put("/v1/players/alice", data="{}") as response:
            assert response.status == 200
        async with session.put("/v1/players/bob", data='{"id": "carol"}') as response:
            assert (await is_problem(response, 400))["errors"][0]["field"] == "id"
        assert list(agent.report.ids) == ["alice"]

    async def test_a_path_that_is_not_utf8(self, agent: Agent, session: aiohttp.ClientSession) -> None:
        """Is refused."""
        answer = await exchange(agent, b"PUT /v1/players/%FF HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert answer.split()[1] == b"400"
        assert not agent.report.ids

    async def test_too_large(self, agent: Agent, session: aiohttp.ClientSession) -> None:
        """Over 64 KiB is 413, announced or not; 64 KiB is not; and the next client is served."""
        exact = json.dumps({"reason": ""})
        exact = json.dumps({"reason": "x" * (65536 - len(exact))})
        assert len(exact) == 65536
        too_large = exact.replace("x", "xx", 1)

        async def in_chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(too_large), 1000):
                yield too_large[start : start + 1000].encode()

        for body in (too_large, in_chunks()):
            async with session.post("/v1/stop", data=body) as response:
                await is_problem(response, 413)
        assert agent.driver.state.phase is Phase.STARTING
        async with session.post("/v1/stop", data=exact) as response:
            assert response.status == 202
            assert len((await response.json())["message"]) == 500

    async def test_expect_continue(self, agent: Agent) -> None:
        """A client that asks before it sends (.NET, curl) is told to go on, and told at once when it is too much."""
        head = b"PUT /v1/players HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        async with asyncio.timeout(DEADLINE):
            writer.write(head % 11)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b'{"count":3}')
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        assert agent.report.count == 3
        assert (await exchange(agent, head % 1_000_000)).startswith(b"HTTP/1.1 413 ")

    async def test_a_body_that_never_comes(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        """408 after a while, not a connection for ever."""
        monkeypatch.setattr(http_input, "BODY_SECONDS", 0.05)
        head = b"PUT /v1/players HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n"
        answer = await exchange(agent, head, b'{"count"')
        assert answer.startswith(b"HTTP/1.1 408 ")

    @pytest.mark.parametrize(
        "rest",
        [b'5\r\n{"cou\r\nzzz\r\n', b"fffffffffffffffffffff\r\n", b"-1\r\n"],
        ids=["length", "overflow", "negative"],
    )
    async def test_a_broken_body(self, agent: Agent, rest: bytes) -> None:
        """Chunks that are none are refused, without a fault in the log."""
        head = b"PUT /v1/players HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await exchange(agent, head, rest)
        assert answer.split()[1] == b"400"

    async def test_a_client_that_leaves_in_the_middle(self, agent: Agent, capfd: pytest.CaptureFixture[str]) -> None:
        """Is forgotten, without a fault in the log."""
        for _ in range(5):
            with closing(socket.create_connection(("127.0.0.1", agent.port))) as connection:
                connection.sendall(b"PUT /v1/players HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n{")
        with closing(socket.create_connection(("127.0.0.1", agent.port))) as connection:
            connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        async with HttpCaller(agent) as caller:
            await eventually(
                lambda: ("http", "status", "200") in agent.requests, "what came before it left is answered"
            )
            assert (await caller.call("health")).problem is None
        assert capfd.readouterr().err == ""


class TestConnections:
    """Connections as such."""

    @pytest.mark.parametrize(
        "sent",
        [b"HELLO\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\x00 HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
         b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nauthorization : c0ffee\r\n\r\n",
         b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    )  # fmt: skip
    async def test_what_is_not_http(self, agent: Agent, sent: bytes) -> None:
        """400 as a problem that does not repeat the request, and the connection is closed."""
        answer = await exchange(agent, sent, end=True)
        assert answer.split()[1] == b"400"
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        assert json.loads(body)["detail"].startswith("cannot ")
        assert b"c0ffee" not in answer

    async def test_many_requests_on_one_connection(self, agent: Agent) -> None:
        """Requests sent in one go are all answered, in order."""
        requests = [b"PUT /v1/players/p%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(50)]
        requests.append(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        writer.write(b"".join(requests))
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.count(b"HTTP/1.1 200 OK") == 51
        assert [f'"count":{number},' in answer.decode() for number in range(1, 51)] == [True] * 50

    async def test_a_last_word(self, agent: Agent) -> None:
        """A client that closes its side with its last request (`nc -N`) gets all answers, then the connection ends."""
        request = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await exchange(agent, request * 3, end=True)
        assert answer.count(b'{"phase":"starting","stopping":false}') == 3
        assert agent.report.heartbeats == 3
        head = b"PUT /v1/players HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n"
        assert b'{"count":3,' in await exchange(agent, head, b'{"count":3}', end=True)
        for parts in ([head + b'{"count'], [head, b'{"count']):
            answer = await exchange(agent, *parts, end=True)
            assert not answer or answer.split()[1] == b"400", "the rest cannot come any more"
        assert await exchange(agent, end=True) == b""

    async def test_forgotten_connections_shut_nobody_out(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        """One too many closes the one that has said nothing for longest, not one that has asked or is listening."""
        monkeypatch.setattr(http, "CONNECTIONS", 4)
        request = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        asked, listening, silent, half = [await asyncio.open_connection("127.0.0.1", agent.port) for _ in range(4)]
        async with asyncio.timeout(DEADLINE):
            asked[1].write(request)
            await asked[0].readuntil(b"}")
            listening[1].write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await listening[0].readuntil(b"event: state")
            half[1].write(b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            newer = []
            for given_up in (silent, half):
                newer.append(await asyncio.open_connection("127.0.0.1", agent.port))
                newer[-1][1].write(request)
                await newer[-1][0].readuntil(b"}")
                assert await given_up[0].read() == b""
            asked[1].write(request)
            await asked[0].readuntil(b"}")
            # A second one that lasts would be more than its share, and is told so.
            newer[0][1].write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await newer[0][0].readuntil(b"}")).endswith(
                b'"detail": "cannot wait for events: 1 connections do; close some"}'
            )
            await listening[0].readuntil(b"\n\n")
        for _, writer in (asked, listening, silent, half, *newer):
            writer.close()

    async def test_one_connection_too_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is told so where all others wait for their answers; when one of them has it, it is served."""
        monkeypatch.setattr(http, "CONNECTIONS", 2)
        tags = FakeTags(["red"], hold=asyncio.Event())
        async with running(tmp_path, tags=tags) as agent:
            waiting = [await asyncio.open_connection("127.0.0.1", agent.port) for _ in range(2)]
            for _, writer in waiting:
                writer.write(b"GET /v1/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await eventually(lambda: tags.asked == 2, "both wait")
            # Nothing is sent: what the agent had not read would make the kernel throw its answer away.
            answer = await exchange(agent, end=True)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 503
            assert tags.hold
            tags.hold.set()
            request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            assert (await exchange(agent, request)).startswith(b"HTTP/1.1 200 ")
            for _, writer in waiting:
                writer.close()

    async def test_close(self, tmp_path: Path) -> None:
        """When the agent ends, idle, half-sent and listening connections are closed, without waiting for them."""
        async with running(tmp_path) as agent:
            idle, half, listening = [await asyncio.open_connection("127.0.0.1", agent.port) for _ in range(3)]
            half[1].write(b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            listening[1].write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await listening[0].readuntil(b"event: state")
            agent.events.close()
            await agent.http.close(0.2)
            async with asyncio.timeout(DEADLINE):
                assert await idle[0].read() == b""
                assert (await listening[0].read()).endswith(b"0\r\n\r\n")
                await half[0].read()
            for _, writer in (idle, half, listening):
                writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", agent.port)


PATH = f"/v1/self/stop/{DROP_IN.deployment_id}/{DROP_IN.stop_key}"
RIGHT = {"authorization": DROP_IN.tokens[0]}


class TestSelfStop:
    """The platform's own call, made to the agent."""

    @pytest.mark.parametrize("token", DROP_IN.tokens)
    async def test_it_stops_the_game(self, agent: Agent, session: aiohttp.ClientSession, token: str) -> None:
        """With the real token or its substitute: 202 and the platform's words; the game is stopped, as its own wish."""
        async with session.delete(PATH, headers={"Authorization": token}) as response:
            assert response.status == 202
            assert response.content_type == "application/json"
            assert await response.json() == {"message": "23c01225b99d - Delete request will be processed soon"}
        assert [type(effect) for effect in agent.effects].count(ApplyStop) == 1
        stop = agent.driver.state.stop
        assert stop is not None
        assert stop.source == "game"
        assert token not in repr(stop)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [("", None), ("?container_log_storage=true", "true"), ("?container_log_storage=false", "false"),
         ("?container_log_storage=my-bucket", "my-bucket"), ("?container_log_storage=", None), ("?other=1", None)],
    )  # fmt: skip
    async def test_where_logs_go(
        self, agent: Agent, session: aiohttp.ClientSession, query: str, expected: str | None
    ) -> None:
        """`container_log_storage` is taken over into the stop."""
        async with session.delete(PATH + query, headers=RIGHT) as response:
            assert response.status == 202
        assert agent.driver.state.stop is not None
        assert agent.driver.state.stop.log_storage == expected

    @pytest.mark.parametrize(
        "headers",
        [{}, {"authorization": ""}, {"authorization": "0" * 32}, {"authorization": f"Bearer {DROP_IN.tokens[0]}"},
         {"authorization": DROP_IN.tokens[0][:-1]}, {"authorization": "tökén"}],
    )  # fmt: skip
    async def test_a_wrong_token(self, agent: Agent, session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
        """401 with the `message` that the platform's errors have; nothing happens, and no token is told."""
        before = agent.facts
        async with session.delete(PATH, headers=headers) as response:
            problem = await is_problem(response, 401)
        assert problem["message"] == problem["detail"]
        assert not any(token in json.dumps(problem) for token in DROP_IN.tokens)
        assert agent.facts == before

    async def test_a_token_that_is_not_utf8(self, agent: Agent) -> None:
        """Is as wrong as any other."""
        answer = await exchange(
            agent, f"DELETE {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: ".encode() + b"\xff\r\n\r\n"
        )
        assert answer.split()[1] == b"401"
        assert agent.driver.state.phase is Phase.STARTING

    @pytest.mark.parametrize("path", ["/v1/self/stop/ffffffffffff/463660", "/v1/self/stop/23c01225b99d/1"])
    async def test_another_deployment(self, agent: Agent, session: aiohttp.ClientSession, path: str) -> None:
        """404 with the right token, 401 with a wrong one: who has no token learns nothing about ids."""
        async with session.delete(path, headers=RIGHT) as response:
            problem = await is_problem(response, 404)
            assert DROP_IN.stop_key not in json.dumps(problem)
        async with session.delete(path, headers={"authorization": "x"}) as response:
            await is_problem(response, 401)
        assert agent.driver.state.phase is Phase.STARTING

    async def test_a_wrong_query(self, agent: Agent, session: aiohttp.ClientSession) -> None:
        """A storage that cannot be one is refused."""
        async with session.delete(PATH + "?container_log_storage=two%20words", headers=RIGHT) as response:
            problem = await is_problem(response, 400)
        assert problem["errors"][0]["field"] == "container_log_storage"
        assert agent.driver.state.phase is Phase.STARTING

    async def test_twice(self, agent: Agent, session: aiohttp.ClientSession) -> None:
        """A second call is accepted like the first, also when the game is gone already."""
        for _ in range(2):
            async with session.delete(PATH, headers=RIGHT) as response:
                assert response.status == 202
        now = agent.driver.now()
        agent.driver.post(GameExited(now, Ended(code=0)))
        agent.driver.post(GameGone(now))
        async with session.delete(PATH, headers=RIGHT) as response:
            assert response.status == 202

    async def test_without_injected_values(self, tmp_path: Path) -> None:
        """Outside the platform there is nothing to check a token with: 404 that says what to use."""
        async with running(tmp_path, drop_in=None) as agent, aiohttp.ClientSession(agent.url) as session:
            async with session.delete(PATH, headers=RIGHT) as response:
                assert "/v1/stop" in (await is_problem(response, 404))["detail"]
            assert agent.driver.state.phase is Phase.STARTING


class TestDocument:
    """`/openapi.json`."""

    @pytest.fixture
    async def document(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """As it is served."""
        async with session.get("/openapi.json") as response:
            assert response.content_type == "application/json"
            served: dict[str, Any] = await response.json()
            return served

    async def test_it_is_openapi(self, document: dict[str, Any]) -> None:
        """Valid against the schema of OpenAPI 3.1, and each model against JSON Schema 2020-12."""
        from schemathesis.specs.openapi.definitions import OPENAPI_31  # noqa: PLC0415 - takes a second, in every worker

        jsonschema.Draft202012Validator(OPENAPI_31).validate(document)
        for name, schema in document["components"]["schemas"].items():
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema == {} or schema.get("description"), name

    async def test_client_generators_know_what_every_list_holds(self, document: dict[str, Any]) -> None:
        """openapi-python-client leaves an operation out where a list of its input has no `items`."""

        def lists(schema: Any) -> Iterator[Any]:
            if isinstance(schema, dict):
                kind = schema.get("type")
                if kind == "array" or (isinstance(kind, list) and "array" in kind):
                    yield schema
            for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
                yield from lists(inner)

        found = list(lists(document))
        assert found
        assert not [schema for schema in found if "items" not in schema]

    async def test_it_lists_what_is_served(self, document: dict[str, Any], session: aiohttp.ClientSession) -> None:
        """Each path and method is served, each that is served is listed, each reference leads somewhere."""
        listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        assert listed == {operation.http for operation in OPERATIONS} | {
            ("GET", "/v1/events"),
            ("GET", "/v1/events/stop"),
            ("GET", "/openapi.json"),
        }
        text = json.dumps(document)
        for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
            assert reference in document["components"]["schemas"]

    async def test_it_describes_each_event(self, document: dict[str, Any]) -> None:
        """Those that can be published, by the type that mypy holds the publishers to."""
        assert set(EVENTS) == set(get_args(EventName))
        described = document["paths"]["/v1/events"]["get"]["description"]
        for name, model in EVENTS.items():
            assert model.__name__ in document["components"]["schemas"]
            assert name in described

    async def test_answers_are_as_it_says(
        self, agent: Agent, document: dict[str, Any], session: aiohttp.ClientSession
    ) -> None:
        """Successes and problems match the schemas of their status."""
        sent: list[tuple[str, str, str, Any]] = [
            ("get", "/v1/status", "/v1/status", None),
            ("post", "/v1/ready", "/v1/ready", None),
            ("post", "/v1/ready", "/v1/ready", {"x": 1}),
            ("get", "/readyz", "/readyz", None),
            ("get", "/healthz", "/healthz", None),
            ("post", "/v1/health", "/v1/health", {}),
            ("get", "/v1/deployment", "/v1/deployment", None),
            ("put", "/v1/players", "/v1/players", {"count": 1, "capacity": 2}),
            ("put", "/v1/players", "/v1/players", {"count": 3}),
            ("put", "/v1/players/{id}", "/v1/players/a", None),
            ("get", "/v1/players", "/v1/players", None),
            ("delete", "/v1/players/{id}", "/v1/players/a", None),
            ("post", "/v1/metrics", "/v1/metrics", {"a": 1}),
            ("post", "/v1/metrics", "/v1/metrics", {"a": {"observe": 1}}),  # 409: it is a gauge
            ("put", "/v1/tags/{name}", "/v1/tags/a", None),
            ("get", "/v1/tags", "/v1/tags", None),
            ("delete", "/v1/tags/{name}", "/v1/tags/a", None),
            ("post", "/v1/uploads", "/v1/uploads", {"path": "/no/such/file"}),
            ("delete", "/v1/self/stop/{deployment_id}/{stop_key}", PATH, None),
            ("post", "/v1/stop", "/v1/stop", {"reason": "over"}),
            ("get", "/v1/status", "/v1/status", None),
            ("get", "/readyz", "/readyz", None),
        ]
        for method, template, path, body in sent:
            async with session.request(method, path, json=body) as response:
                described = document["paths"][template][method]["responses"][str(response.status)]
                schema = described["content"][response.content_type]["schema"]
                answer = await response.json(content_type=None)
                jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer)

    def test_each_kind_of_problem_has_a_status(self) -> None:
        """Statuses are errors, and JSON-RPC codes are in the ranges that the standard has for them."""
        for kind in Kind:
            assert 400 <= kind.status <= 599
            assert -32768 <= kind.code <= -32000


async def test_a_hundred_clients_at_once(agent: Agent) -> None:
    """All are served."""
    answers = await asyncio.gather(
        *(
            exchange(agent, b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            for _ in range(100)
        )
    )
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)

"""A local API that runs for a test: real sockets, a real driver on the real loop, fake rooms around it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote

import aiohttp
from yarl import URL

from agent.api import http, rpc
from agent.api.contracts import DropIn, Keep, TagsBackend
from agent.api.events import EventBus
from agent.api.feed import Feed
from agent.api.operations import Operations
from agent.api.table import BY_NAME
from agent.config.injected import parse
from agent.errors import AgentError
from agent.init.policy_timer import PolicyTimer
from agent.lifecycle.driver import Driver
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.policies import Limits
from agent.lifecycle.states import Effect, GameStarted, Rules, State
from agent.lifecycle.states import Event as LifecycleEvent
from agent.lifecycle.transition import initial
from agent.link.messages import StateChanged
from agent.link.wire import Unpacker, pack
from tests.rules import default_rules

DEADLINE = 10.0
"""Seconds after which a test no longer waits for what should happen at once."""
GAME_PID = 4242
DEPLOYMENT = parse(
    {"ARBITRIUM_REQUEST_ID": "23c01225b99d", "ARBITRIUM_DEPLOYMENT_LOCATION": '{"city": "Chicago"}'}
).deployment.document()
DROP_IN = DropIn("23c01225b99d", "463660", ("c0ffee5ec2e7c0ffee5ec2e7c0ffee11", "substitute-for-the-game"))


@dataclass
class FakeTags:
    """The platform's tags, in memory; `broken` is what it says instead of doing anything, `asked` how often it was."""

    names: list[str] = field(default_factory=list)
    broken: str = ""
    hold: asyncio.Event | None = None
    asked: int = 0

    async def list(self) -> list[str]:
        """All of them."""
        await self._wait()
        return list(self.names)

    async def add(self, name: str) -> None:
        """One more."""
        await self._wait()
        if name not in self.names:
            self.names.append(name)

    async def remove(self, name: str) -> None:
        """One less."""
        await self._wait()
        if name in self.names:
            self.names.remove(name)

    async def _wait(self) -> None:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.broken:
            raise AgentError(self.broken)


@dataclass
class Agent:
    """An agent that serves, seen from both sides."""

    driver: Driver
    report: GameReport
    events: EventBus
    operations: Operations
    feed: Feed
    port: int
    socket_path: str
    effects: list[Effect]
    requests: list[tuple[str, str, str]]
    http: http.HttpServer
    rpc: rpc.RpcServer

    @property
    def url(self) -> str:
        """Where HTTP is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def facts(self) -> tuple[State, object]:
        """All that a request could change."""
        report = self.report
        return self.driver.state, (
            report.count,
            report.capacity,
            dict(report.ids),
            report.heartbeats,
            dict(report.metrics),
        )


def _told(state: State, event: LifecycleEvent) -> State:
    """A state as the agent's process has it: it came over the link from the init."""
    [(message, _)] = Unpacker().feed(pack(StateChanged(state, event, 0)))
    assert isinstance(message, StateChanged)
    return message.state


@asynccontextmanager
async def running(
    directory: Path,
    *,
    rules: Rules | None = None,
    tags: TagsBackend | None = None,
    keep: Keep | None = None,
    drop_in: DropIn | None = DROP_IN,
    game_connects: bool = False,
    users: frozenset[int] | None = None,
    events: EventBus | None = None,
) -> AsyncIterator[Agent]:
    """Runs an agent whose game was started and has said nothing yet.

    Args:
        directory: for the socket.
        rules: of the lifecycle.
        tags: the deployment's tags.
        keep: what keeps files.
        drop_in: what the self-stop route answers to.
        game_connects: whether who connects to the socket counts as part of the game.
        users: who may connect to the socket.
        events: the bus.
    """
    loop = asyncio.get_running_loop()
    effects: list[Effect] = []
    requests: list[tuple[str, str, str]] = []
    driver = Driver(initial(rules or default_rules(), loop.time()), lambda effect, _state: effects.append(effect), loop)
    report, bus = GameReport(), events or EventBus()
    operations = Operations(
        driver,
        report,
        bus,
        deployment=lambda: DEPLOYMENT,
        game_pid=lambda: GAME_PID,
        urls={"api": "http://127.0.0.1:1"},
        tags=tags,
        keep=keep,
        drop_in=drop_in,
    )
    feed = Feed(driver, report, bus, operations.view)

    def follow(before: State, after: State, event: LifecycleEvent) -> None:
        feed.on_transition(_told(before, event), _told(after, event), event)

    driver.watch(follow)
    # What belongs beside the policies: a drain that nobody waits for any more, a report that a restart clears.
    PolicyTimer(
        driver,
        report,
        Limits(),
        loop=cast("Any", loop),
        began=loop.time(),
        expected_players=None,
        on_hang=lambda: None,
        warn=lambda _seconds: None,
    )
    driver.post(GameStarted(loop.time(), GAME_PID))

    def on_request(transport: str, operation: str, status: str, seconds: float) -> None:
        assert seconds >= 0
        requests.append((transport, operation, status))

    tcp = socket.create_server(("127.0.0.1", 0))
    tcp.setblocking(False)
    # The paths of sockets are short, those of tests are not.
    path = str(directory / "s")
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(path)
    unix.listen()
    unix.setblocking(False)
    port = tcp.getsockname()[1]
    web = await http.serve(tcp, operations, feed, on_request=on_request)
    lines = await rpc.serve(
        unix, operations, feed, is_game=lambda _peer: game_connects, users=users, on_request=on_request
    )
    try:
        yield Agent(driver, report, bus, operations, feed, port, path, effects, requests, web, lines)
    finally:
        bus.close()
        await asyncio.gather(web.close(), lines.close())


@dataclass
class Answer:
    """What an operation brought, whatever the transport.

    Attributes:
        result: its result, or None where it failed.
        problem: the problem document, or None where it did not.
    """

    result: Any = None
    problem: Any = None


class HttpCaller:
    """Calls operations over HTTP by their names in the table."""

    name = "http"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(self._agent.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, operation: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Calls one; what is in the path of its URL comes out of the params."""
        method, path = BY_NAME[operation].http
        given = dict(params or {})
        for name in BY_NAME[operation].path_fields:
            path = path.replace(f"{{{name}}}", quote(str(given.pop(name)), safe=""))
        body = json.dumps(given).encode() if given or params == {} else b""
        async with self._session.request(method, URL(path, encoded=True), data=body) as response:
            answer = await response.json(content_type=None)
            if response.status < 400:
                assert response.content_type == "application/json"
                assert response.status == BY_NAME[operation].status
                return Answer(result=answer)
            assert response.content_type == "application/problem+json"
            assert answer["status"] == response.status
            return Answer(problem=answer)


class SocketCaller:
    """Calls operations over the socket."""

    name = "socket"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._calls = 0

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_unix_connection(self._agent.socket_path, limit=2**24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):  # the agent was quicker
            await self.writer.wait_closed()

    async def call(self, operation: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Calls one."""
        self._calls += 1
        request: dict[str, Any] = {"jsonrpc": "2.0", "id": self._calls, "method": operation}
        if params is not None:
            request["params"] = params
        answer = await self.ask(request)
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == self._calls
        assert ("result" in answer) != ("error" in answer)
        if "result" in answer:
            return Answer(result=answer["result"])
        assert answer["error"]["message"] == answer["error"]["data"]["detail"]
        return Answer(problem=answer["error"]["data"])

    async def ask(self, message: object) -> Any:
        """Sends anything as a line and reads a line."""
        await self.send(json.dumps(message).encode() + b"\n")
        return await self.receive()

    async def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> Any:
        """Reads a line; None at the end."""
        async with asyncio.timeout(DEADLINE):
            line = await self.reader.readline()
        return json.loads(line) if line else None


async def eventually(condition: Any, what: str) -> None:
    """Waits until `condition()` holds; fails with `what` after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE
    while not condition():
        assert loop.time() < end, what
        await asyncio.sleep(0.005)

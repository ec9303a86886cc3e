"""The hosts that are answered for, served for a test: real sockets, a real driver, the operations themselves."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.compat import hosts
from agent.compat.prepare import Prepared, prepare
from agent.config.injected import parse
from agent.config.model import load
from agent.config.names import variable
from agent.lifecycle.states import Phase, Source, StopRequest, StopRequested
from agent.lifecycle.states import Reason as StopReason
from tests.api_fakes import Agent, running

PORTS = {
    "ports": {
        "gameport": {"name": "gameport", "internal": 7777, "external": 32013, "protocol": "UDP"},
        "query": {"name": "query", "internal": 7778, "external": 32014, "protocol": "UDP"},
    }
}
ENVIRONMENT = {
    "ARBITRIUM_REQUEST_ID": "23c01225b99d",
    "ARBITRIUM_PUBLIC_IP": "172.236.117.196",
    "ARBITRIUM_HOST_ID": "chicago-edge",
    "ARBITRIUM_DEPLOYMENT_LOCATION": '{"city": "Chicago"}',
    "ARBITRIUM_PORTS_MAPPING": json.dumps(PORTS),
}
MATCH = {
    "MM_MATCH_ID": "3d3bd9bd-7bd0-4f0a-9f3f-1d3b4e9a7a00",
    "MM_MATCH_PROFILE": "duel",
    "MM_TICKET_IDS": '["ada", "grace"]',
    "MM_TICKET_ada": '{"skill": 7}',
}


@dataclass
class Answer:
    """What a listener said."""

    status: int
    body: Any


@dataclass
class Served:
    """A running agent with hosts around it, and what it told the policies."""

    agent: Agent
    compat: hosts.Compat
    prepared: Prepared
    game_env: dict[str, str]
    session: aiohttp.ClientSession
    health_limits: list[float] = field(default_factory=list)
    holds: list[float | None] = field(default_factory=list)
    saved: list[dict[str, Any]] = field(default_factory=list)

    def phase(self) -> Phase:
        """Where the lifecycle is."""
        return self.agent.driver.state.phase

    def port(self, listener: str) -> int:
        """Where a listener is."""
        return self.prepared.ports[listener].number

    def stop(self, reason: StopReason = StopReason.PLATFORM_STOP) -> None:
        """Somebody asks for a stop."""
        now = self.agent.driver.now()
        source = Source.POLICY if reason is StopReason.HEARTBEAT_LOST else Source.OPERATOR
        self.agent.driver.post(StopRequested(now, StopRequest(source, reason, now)))

    async def call(self, listener: str, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """Asks a listener; the body is sent as JSON."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"http://localhost:{self.port(listener)}{path}"
        async with self.session.request(method, url, data=data, **more) as response:
            raw = await response.read()
            try:
                return Answer(response.status, json.loads(raw) if raw else None)
            except ValueError:
                return Answer(response.status, raw)


@asynccontextmanager
async def serving(
    directory: Path,
    wanted: str,
    *,
    match: bool = False,
    environ: Mapping[str, str] | None = None,
    saved: Mapping[str, Any] | None = None,
    prepared: Prepared | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """Serves hosts on free ports.

    Args:
        directory: the game's home.
        wanted: AGENT_COMPAT.
        match: whether the matchmaker injected a match.
        environ: more that the platform injected.
        saved: what an agent before this one saved.
        prepared: what the init prepared before that one.
        settings: settings by name, as text.
    """
    raw = {f"{host}_port": "0" for host in ("agones_http", "agones_grpc", "multiplay", "playfab")} | settings
    injected = dict(ENVIRONMENT) | (MATCH if match else {}) | dict(environ or {})
    game_env = {"HOME": str(directory)}
    made = prepared or prepare(tuple(wanted.split(",")), injected, raw.get, game_env)
    assert not made.problems, made.problems
    before = dict(os.environ)
    try:
        os.environ.update({variable(name): value for name, value in raw.items()} | {"AGENT_COMPAT": wanted})
        loaded = load()
    finally:
        os.environ.clear()
        os.environ.update(before)
    limits: list[float] = []
    holds: list[float | None] = []
    snapshots: list[dict[str, Any]] = []
    async with _short() as short, running(short) as agent, _closing(made, kept=prepared is not None):
        compat = await hosts.serve(
            made,
            agent.operations,
            agent.events,
            agent.report,
            settings=loaded,
            deployment=parse(injected).deployment,
            phase=lambda: agent.driver.state.phase,
            limit_health=limits.append,
            hold=holds.append,
            saved=saved,
            save=snapshots.append,
            on_request=lambda transport, operation, status, _seconds: agent.requests.append(
                (transport, operation, status)
            ),
        )
        async with aiohttp.ClientSession() as session:
            try:
                yield Served(agent, compat, made, game_env, session, limits, holds, snapshots)
            finally:
                await compat.close()


@asynccontextmanager
async def _short() -> AsyncIterator[Path]:
    """A directory of a short name for the agent's own socket, which is not what is looked at."""
    with tempfile.TemporaryDirectory(prefix="compat") as name:
        yield Path(name)


@asynccontextmanager
async def _closing(made: Prepared, *, kept: bool) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if not kept:
            made.close()

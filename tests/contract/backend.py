"""A backend that calls the emulator over HTTP, and checks every answer against the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import psutil

from agent.emulator.deployment import Deployment
from agent.emulator.server import Emulator
from agent.emulator.settings import Delays, EmulatorSettings
from tests.contract.openapi import Contract

CONTRACT = Contract()
Seen = TypeVar("Seen")
SECONDS = 30.0
"""Longest that anything here is waited for, on a machine that may be very busy."""
PLAYER = {"user_type": "geo_coordinates", "user_data": {"latitude": 48.85, "longitude": 2.35}}
QUICK = Delays(seeking=0.02, seeked=0.02, deploying=0.02, terminating=0.0, restart=0.02, restart_max=0.1)
SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
"""A game that runs until it is stopped, and dies of SIGTERM."""


def quick(**settings: Any) -> EmulatorSettings:
    """Settings for a test: hardly any delay, no limits, no container engine."""
    return EmulatorSettings(**{"delays": QUICK, "rate_limits": None, "engine": "none", **settings})


def python(source: str) -> dict[str, str]:
    """A version's command and arguments that run some Python."""
    return {"command": shlex.quote(sys.executable), "arguments": f"-c {shlex.quote(source)}"}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Backend:
    """Calls with the organisation's token unless told otherwise."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self._session = session
        self._versions = 0

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        authorization: str | None = "",
    ) -> Answer:
        """One request; `authorization` None sends none, and "" the organisation's."""
        headers = {}
        if authorization is not None:
            headers["Authorization"] = authorization or self.emulator.authorization["Authorization"]
        async with self._session.request(
            method, self.emulator.url + path, json=body, params=params, headers=headers
        ) as response:
            text = await response.text()
            answer = Answer(response.status, json.loads(text) if text else None, response.headers)
        if not path.startswith("/emulator"):
            CONTRACT.check(method, path, answer.status, answer.body)
        return answer

    async def get(self, path: str, **params: str) -> Any:
        """The body of a GET that succeeds."""
        answer = await self.call("GET", path, params=params)
        assert answer.status == 200, answer
        return answer.body

    async def version(self, application: str = "game", **more: Any) -> str:
        """A new version of an application, which is made if need be; returns its name."""
        self._versions += 1
        name = f"v{self._versions}"
        created = await self.call("POST", "/v1/app", {"name": application, "is_active": True, "image": ""})
        assert created.status in {200, 409}
        body = {"req_cpu": 256, "req_memory": 256, "docker_repository": "", "docker_image": "", "docker_tag": ""}
        body |= {"name": name, **python(SLEEPS), **more}
        created = await self.call("POST", f"/v1/app/{application}/version", body)
        assert created.status == 200, created
        return name

    async def deploy(self, version: str, application: str = "game", **more: Any) -> str:
        """A new deployment; returns its id."""
        body = {"application": application, "version": version, "users": [PLAYER], **more}
        answer = await self.call("POST", "/v2/deployments", body)
        assert answer.status == 202, answer
        return str(answer.body["request_id"])

    async def running(self, **version: Any) -> str:
        """A deployment of a new version, once it is ready; returns its id."""
        deployment_id = await self.deploy(await self.version(**version))
        await self.until(deployment_id, "READY")
        return deployment_id

    async def status(self, deployment_id: str) -> dict[str, Any]:
        """A deployment's status."""
        return dict(await self.get(f"/v1/status/{deployment_id}"))

    async def until(self, deployment_id: str, *names: str) -> dict[str, Any]:
        """Wait until a deployment is in one of some states; returns its status then."""
        wanted = {f"Status.{name}" for name in names}
        return await poll(lambda: self.status(deployment_id), lambda status: status["current_status"] in wanted)

    async def stop(self, deployment_id: str, **params: str) -> dict[str, Any]:
        """Stop a deployment and wait for its end; returns its status then."""
        answer = await self.call("DELETE", f"/v1/stop/{deployment_id}", params=params)
        assert answer.status in {200, 202}, answer
        return await self.until(deployment_id, "TERMINATED")

    async def logs(self, deployment_id: str) -> dict[str, Any]:
        """A deployment's logs."""
        return dict(await self.get(f"/v1/deployment/{deployment_id}/container-logs"))

    async def until_logged(self, deployment_id: str, text: str) -> str:
        """Wait until a running deployment has written something; returns all of its log."""
        return str((await poll(lambda: self.logs(deployment_id), lambda logs: text in logs["logs"]))["logs"])

    def inner(self, deployment_id: str) -> Deployment:
        """What the emulator itself knows of a deployment."""
        return self.emulator.platform.deployments[deployment_id]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that only waits to be reaped by somebody else does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def poll(look: Callable[[], Awaitable[Seen]], holds: Callable[[Seen], bool]) -> Seen:
    """Look until what is seen holds, and return it; fails after `SECONDS`."""
    async with asyncio.timeout(SECONDS):
        while not holds(seen := await look()):  # noqa: ASYNC110 - another process, or HTTP, tells no event
            await asyncio.sleep(0.02)
    return seen


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fails after `SECONDS`."""

    async def look() -> bool:
        return holds()

    await poll(look, bool)


@asynccontextmanager
async def backend(settings: EmulatorSettings | None = None) -> AsyncIterator[Backend]:
    """An emulator of one's own, and a backend that calls it."""
    async with Emulator(settings or quick()) as emulator, aiohttp.ClientSession() as session:
        yield Backend(emulator, session)

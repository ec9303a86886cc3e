"""The emulator as a command, under load and at its end: nothing of any deployment is left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil
import pytest

SECONDS = 50.0
TOKEN = "a-token-for-this-test"
DEPLOYMENTS = 50
USERS = [{"user_type": "ip_address", "user_data": {"ip_address": "127.0.0.1"}}]
PORTS = [{"port": 7777, "protocol": "UDP", "name": "gameport"}, {"port": 7778, "protocol": "TCP", "name": "query"}]
SHORT = "-c 'echo up; trap \"exit 0\" TERM; sleep 600 & wait'"
STUBBORN = "-c 'trap \"\" TERM; setsid sleep 600 & echo up; while :; do sleep 1; done'"


@dataclass
class Running:
    """An emulator in a process of its own."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    port: int

    @property
    def ps(self) -> psutil.Process:
        """The process, as psutil sees it."""
        return psutil.Process(self.process.pid)

    def sockets(self) -> set[int]:
        """The ports it listens on, UDP and TCP."""
        return {
            each.laddr.port
            for each in self.ps.net_connections("inet")
            if each.status in {psutil.CONN_LISTEN, psutil.CONN_NONE}
        }

    async def call(self, method: str, path: str, body: Any = None, **params: str) -> Any:
        """One call that succeeds, however often it is told to wait; returns its body."""
        while True:
            async with self.session.request(method, path, json=body, params=params) as response:
                if response.status != 429:
                    assert response.status < 300, await response.text()
                    return await response.json()
                await asyncio.sleep(float(response.headers["Retry-After"]))

    async def furnish(self, arguments: str, ports: list[dict[str, Any]]) -> None:
        """An application with one version."""
        await self.call("POST", "/v1/app", {"name": "game", "is_active": True, "image": ""})
        version = {
            "name": "1",
            "req_cpu": 100,
            "req_memory": 100,
            "command": "sh",
            "arguments": arguments,
            "ports": ports,
        }
        version |= {"docker_repository": "", "docker_image": "", "docker_tag": ""}
        await self.call("POST", "/v1/app/game/version", version)

    async def deploy(self) -> str:
        """One deployment; its id."""
        body = {"application": "game", "version": "1", "users": USERS, "tags": ["e2e"]}
        return str((await self.call("POST", "/v2/deployments", body))["request_id"])

    async def until_listed(self, count: int, query: str) -> list[dict[str, Any]]:
        """Wait until a list has so many; returns them."""
        async with asyncio.timeout(SECONDS):
            while True:
                body = await self.call("GET", "/v1/deployments", query=query, limit="100")
                if body["total_count"] == count:
                    return list(body["data"])
                await asyncio.sleep(0.1)


@asynccontextmanager
async def emulator(*options: str) -> AsyncIterator[Running]:
    """`arbitrium-agent emulate`, in a session of its own as in a terminal, stopped at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "emulate", "--port", "0", "--token", TOKEN, "--engine", "none", *options),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        first = (await asyncio.wait_for(process.stdout.readline(), SECONDS)).decode()
        found = re.fullmatch(r"emulator listening on (http://127\.0\.0\.1:\d+)\n", first)
        assert found, first
        async with aiohttp.ClientSession(found[1], headers={"Authorization": f"token {TOKEN}"}) as session:
            yield Running(process, session, int(found[1].rpartition(":")[2]))
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), SECONDS)


def of_deployments(ids: set[str]) -> list[int]:
    """Live processes whose environment says that they belong to one of these deployments."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ARBITRIUM_REQUEST_ID") in ids and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


READY = '{"filters": [{"field": "status", "operator": "eq", "value": "ready"}]}'
ANY = '{"filters": [{"field": "tags", "operator": "eq", "value": "e2e"}]}'


@pytest.mark.slow
async def test_fifty_deployments_at_once_leave_nothing_behind() -> None:
    """All reach ready with ports of their own, all stop; no process, no port and no file descriptor is left."""
    async with emulator() as running:
        await running.furnish(SHORT, PORTS)
        await running.call("GET", "/v1/deployments")
        listening, descriptors = running.sockets(), running.ps.num_fds()
        ids = set(await asyncio.gather(*(running.deploy() for _ in range(DEPLOYMENTS))))
        assert len(ids) == DEPLOYMENTS
        ready = await running.until_listed(DEPLOYMENTS, READY)
        assert {each["request_id"] for each in ready} == ids
        ports = [port[side] for each in ready for port in each["ports"].values() for side in ("internal", "external")]
        assert len(set(ports)) == 4 * DEPLOYMENTS
        externals = {port["external"] for each in ready for port in each["ports"].values()}
        assert running.sockets() - listening == externals
        assert len(of_deployments(ids)) >= DEPLOYMENTS
        body = {"filters": [{"field": "deployment_tags", "filter_type": "any", "values": ["e2e"]}]}
        stopped = await running.call("POST", "/v1/deployments/bulk-stop", body)
        assert {each["request_id"] for each in stopped["processable"]} == ids
        await running.until_listed(0, ANY)
        for deployment_id in list(ids)[:5]:
            assert (await running.call("GET", f"/v1/status/{deployment_id}"))["current_status"] == "Status.TERMINATED"
        assert of_deployments(ids) == []
        assert running.ps.children(recursive=True) == []
        assert running.sockets() == listening
        # The client's own connections come and go; they are the only ones that may.
        connections = len(
            [each for each in running.ps.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED]
        )
        assert running.ps.num_fds() <= descriptors + connections


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.slow
async def test_ctrl_c_stops_every_deployment(times: int) -> None:
    """Games that ignore SIGTERM and fork daemons are gone when the command is; a second Ctrl-C does not wait."""
    async with emulator() as running:
        await running.furnish(STUBBORN, PORTS[:1])
        ids = {await running.deploy() for _ in range(5)}
        await running.until_listed(5, READY)
        async with asyncio.timeout(SECONDS):
            while len(of_deployments(ids)) < 15:  # noqa: ASYNC110 - processes tell no event
                await asyncio.sleep(0.05)
        began = time.monotonic()
        for _ in range(times):
            # A terminal sends it to the whole foreground group.
            os.killpg(running.process.pid, signal.SIGINT)
            await asyncio.sleep(0.2)
        await asyncio.wait_for(running.process.communicate(), SECONDS)
        assert running.process.returncode == 0
        assert of_deployments(ids) == []
        if times == 1:
            assert time.monotonic() - began >= 4.5  # every game had its grace of 5 s


async def test_a_killed_emulator_takes_its_games_with_it() -> None:
    """Even SIGKILL, which it cannot hear, leaves no game."""
    async with emulator() as running:
        await running.furnish(STUBBORN, [])
        ids = {await running.deploy() for _ in range(3)}
        await running.until_listed(3, READY)
        running.process.kill()
        await running.process.wait()
        async with asyncio.timeout(SECONDS):
            while of_deployments(ids):  # noqa: ASYNC110 - processes tell no event
                await asyncio.sleep(0.05)


DEPLOYS_AND_DIES = """
import os, signal, socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
request = sys.argv[2].encode()
client.sendall(request * 3 + request[: len(request) - 9])
client.recv(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
async def test_a_client_that_dies_while_it_deploys_leaves_a_working_emulator() -> None:
    """Three whole requests and a part of one; what came of them is there for the next client, who can stop it."""
    async with emulator() as running:
        await running.furnish(SHORT, [])
        body = json.dumps({"application": "game", "version": "1", "users": USERS, "tags": ["e2e"]})
        request = (
            f"POST /v2/deployments HTTP/1.1\r\nHost: x\r\nAuthorization: token {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DEPLOYS_AND_DIES, str(running.port), request
        )
        assert await client.wait() == -signal.SIGKILL
        left = await running.call("GET", "/v1/deployments", query=ANY)
        assert 1 <= left["total_count"] <= 3
        await running.until_listed(left["total_count"], READY)
        for each in left["data"]:
            await running.call("DELETE", f"/v1/stop/{each['request_id']}")
        await running.until_listed(0, ANY)

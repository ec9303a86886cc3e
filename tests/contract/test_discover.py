"""`arbitrium-agent discover` against the emulator: who is found, what is asked, and what happens on a bad day."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import BaseTestServer, TestServer

from agent.discover.server import application, serving
from agent.discover.targets import Wanted
from agent.discover.watcher import Watcher
from agent.edgegap.client import EdgegapClient
from agent.edgegap.errors import EdgegapError
from agent.edgegap.filters import Filter, Query
from tests.contract.backend import Backend, backend, poll

TOKEN = "of this test"
METRICS = [{"port": 0, "protocol": "TCP", "name": "metrics"}]


def client(caller: Backend) -> EdgegapClient:
    """A client of the organisation that does not try again."""
    return EdgegapClient(caller.emulator.token, caller.emulator.url, retries=0)


def found(watcher: Watcher) -> dict[str, str]:
    """The address of each deployment that is a target."""
    groups: Any = watcher.groups
    return {group["labels"]["deployment"]: group["targets"][0] for group in groups}


async def test_deployments_come_and_go_and_each_is_asked_about_once() -> None:
    """A list item has no version and no place; a status call for each at every look would use the limit up."""
    async with backend() as caller, client(caller) as platform:
        watcher = Watcher(platform, Wanted())
        assert await watcher.refresh() == []
        await caller.running(ports=[{"port": 0, "protocol": "UDP", "name": "gameport"}])
        version = await caller.version(ports=METRICS)
        ids = [await caller.deploy(version), await caller.deploy(version)]
        for deployment in ids:
            await caller.until(deployment, "READY")
        await watcher.refresh()
        (one, two) = (caller.emulator.platform.deployments[name].ports[0].external for name in ids[:2])
        assert found(watcher) == {ids[0]: f"127.0.0.1:{one}", ids[1]: f"127.0.0.1:{two}"}
        groups: Any = watcher.groups
        assert {group["labels"]["app_version"] for group in groups} == {version}
        caller.emulator.records.clear()
        await watcher.refresh()
        assert caller.emulator.records.all("getDeployment") == []
        await caller.stop(ids[0])
        await poll(watcher.refresh, lambda groups: len(groups) == 1)
        assert list(found(watcher)) == [ids[1]]


async def test_a_filter_is_the_platforms_own() -> None:
    """What is not wanted is not even listed."""
    async with backend() as caller, client(caller) as platform:
        ids = [await caller.running(ports=METRICS) for _ in range(2)]
        watcher = Watcher(platform, Wanted(), Query([Filter.parse("version=v2")]))
        await watcher.refresh()
        assert list(found(watcher)) == [ids[1]]


async def raw(server: BaseTestServer, header: bytes) -> bytes:
    """The status of an answer to a header that no client sends."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /targets HTTP/1.1\r\nHost: here\r\nConnection: close\r\n" + header + b"\r\n\r\n")
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer.split()[1]


async def test_a_platform_that_does_not_answer_costs_no_target() -> None:
    """The last list is served until it is too old; then Prometheus keeps what it has, and counts a failure."""
    async with backend() as caller, client(caller) as platform:
        deployment = await caller.running(ports=METRICS)
        wall = 1000.0
        watcher = Watcher(platform, Wanted(), wall=lambda: wall)
        app = application(watcher, TOKEN, stale=60.0, wall=lambda: wall)
        async with TestServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as session:

            async def targets(token: str = TOKEN) -> tuple[int, str]:
                headers = {"Authorization": f"Bearer {token}"}
                async with session.get("/targets", headers=headers) as answer:
                    return answer.status, await answer.text()

            assert (await targets())[0] == 503
            await watcher.refresh()
            status, text = await targets()
            assert status == 200
            assert deployment in text
            assert (await targets("wrong"))[0] == 401
            assert await raw(server, b"Authorization: Bearer \xff") == b"401", "no UTF-8 is a wrong token as well"
            await caller.call("PUT", "/emulator/faults", {"route": "listDeployments", "status": 503})
            with pytest.raises(EdgegapError, match="cannot list deployments"):
                await watcher.refresh()
            wall += 59
            assert await targets() == (200, text)
            wall += 2
            assert (await targets())[0] == 503
            async with session.get("/metrics") as answer:
                exposed = await answer.text()
            assert "arbitrium_discover_targets 1.0" in exposed
            assert "arbitrium_discover_refresh_failures_total 1.0" in exposed
            assert "arbitrium_discover_last_success_timestamp_seconds 1000.0" in exposed


async def test_a_deployment_whose_status_cannot_be_had_is_a_target_all_the_same() -> None:
    """Without its version for now; a metric without a label is better than no metric."""
    async with backend() as caller, client(caller) as platform:
        await caller.running(ports=METRICS)
        watcher = Watcher(platform, Wanted())
        await caller.call("PUT", "/emulator/faults", {"route": "getDeployment", "status": 500, "count": 1})
        (group,) = await watcher.refresh()
        labels: Any = group["labels"]
        assert "app_version" not in labels
        (group,) = await watcher.refresh()
        labels = group["labels"]
        assert labels["app_version"] == "v1"


@pytest.mark.slow
async def test_the_command_writes_a_file_and_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    """As an operator runs it: `--file` and `--listen` at once, SIGTERM, exit code 0."""
    async with backend() as caller:
        deployment = await caller.running(ports=METRICS)
        path = tmp_path / "targets.json"
        environ = os.environ | {
            "EDGEGAP_API_TOKEN": caller.emulator.token,
            "EDGEGAP_BASE_URL": caller.emulator.url,
        }
        command = [sys.executable, "-m", "agent", "discover", "--interval", "1s"]
        once = await asyncio.create_subprocess_exec(
            *command, "--once", env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, _ = await once.communicate()
        assert once.returncode == 0
        assert json.loads(out)[0]["labels"]["deployment"] == deployment
        running = await asyncio.create_subprocess_exec(
            *command, "--file", str(path), "--listen", "127.0.0.1:0", env=environ, stderr=asyncio.subprocess.PIPE
        )
        assert running.stderr is not None
        try:
            first = (await running.stderr.readline()).decode()
            url = first[first.index("http://") :].strip()
            async with aiohttp.ClientSession() as session:

                async def served() -> str:
                    async with session.get(url) as answer:
                        return await answer.text()

                await poll(served, lambda text: deployment in text)
            assert json.loads(path.read_text())[0]["labels"]["deployment"] == deployment
            running.terminate()
            assert await running.wait() == 0
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()


async def test_two_cannot_listen_on_one_port() -> None:
    """Said as all else is."""
    async with backend() as caller, client(caller) as platform:
        watcher = Watcher(platform, Wanted())
        async with serving(watcher, "127.0.0.1", 0) as port:
            with pytest.raises(Exception, match=rf"cannot listen on 127.0.0.1:{port}: .*; choose another --listen"):
                async with serving(watcher, "127.0.0.1", port):
                    pass

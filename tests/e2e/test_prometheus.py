"""A real Prometheus scrapes deployments on the emulator that `discover` has found, and answers the dashboards."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy import dashboards
from tests.contract.backend import Backend, backend, poll, python, quick

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not installed: apt-get install prometheus"
    ),
]
RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
GAME = """
import json, os, socket, time, urllib.request
def call(method, path, body):
    url = os.environ["AGENT_URL"] + path
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode())
    urllib.request.urlopen(request, timeout=10).read()
game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
game.bind(("127.0.0.1", int(os.environ["ARBITRIUM_PORT_GAMEPORT_INTERNAL"])))
call("POST", "/v1/ready", {})
while True:
    call("POST", "/v1/health", {})
    call("PUT", "/v1/players", {"count": 3, "capacity": 8})
    print("tick", flush=True)
    time.sleep(0.5)
"""
PORTS = [
    {"port": 0, "protocol": "UDP", "name": "gameport"},
    {"port": 0, "protocol": "TCP", "name": "metrics"},
]


def under_agent(source: str, tmp_path: Path, *options: str) -> dict[str, Any]:
    """A version whose game runs under the agent; its sockets are its own."""
    plain = python(source)
    agent = ["-m", "agent", "run", "--socket-path", "off", "--control-port", "0", *options, "--"]
    spool = ["--spool-dir", str(tmp_path / "spool")]
    words = " ".join([*agent[:3], *spool, *agent[3:], plain["command"], plain["arguments"]])
    return {"command": plain["command"], "arguments": words}


@asynccontextmanager
async def process(*command: str, environ: dict[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is gone at the end."""
    with log.open("wb") as file:
        running = await asyncio.create_subprocess_exec(*command, env=environ, stdout=file, stderr=file)
    try:
        yield running
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(running.wait(), 15)
            except TimeoutError:
                running.kill()
                await running.wait()


class Prometheus:
    """What a real one answers."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str, **params: str) -> Any:
        """The data of an API call; None while it does not answer."""
        try:
            async with self._session.get(f"{self._url}/api/v1/{path}", params=params) as answer:
                if answer.status == 503:  # it is still starting
                    return None
                content = await answer.json()
        except aiohttp.ClientConnectionError:
            return None
        assert content["status"] == "success", content
        return content["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of a query at this moment."""
        data = await self.get("query", query=expression)
        return [] if data is None else list(data["result"])


@asynccontextmanager
async def watched(caller: Backend, tmp_path: Path) -> AsyncIterator[Prometheus]:
    """Prometheus with the shipped rules, behind a `discover` that looks each second."""
    targets, port = tmp_path / "targets.json", "0"
    import socket  # noqa: PLC0415 - for a free port only

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found = probe.getsockname()[1]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{RULES}]\n"
        "scrape_configs:\n"
        "  - job_name: games\n"
        f"    http_sd_configs: [{{url: 'http://127.0.0.1:{found}/targets', refresh_interval: 1s}}]\n"
        "    relabel_configs:\n"
        "      - source_labels: [__meta_edgegap_tags]\n"
        "        regex: '.*,ranked,.*'\n"
        "        target_label: mode\n"
        "        replacement: ranked\n"
        f"  - job_name: discover\n    static_configs: [{{targets: ['127.0.0.1:{found}']}}]\n"
    )
    environ = os.environ | {"EDGEGAP_API_TOKEN": caller.emulator.token, "EDGEGAP_BASE_URL": caller.emulator.url}
    discover = [sys.executable, "-m", "agent", "discover", "--interval", "1s"]
    discover += ["--listen", f"127.0.0.1:{found}", "--file", str(targets)]
    server = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    server += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    async with (
        process(*discover, environ=environ, log=tmp_path / "discover.log"),
        process(*server, environ=dict(os.environ), log=tmp_path / "prometheus.log"),
        aiohttp.ClientSession() as session,
    ):
        yield Prometheus(session, f"http://127.0.0.1:{port}")


def filled(expression: str, deployment: str) -> str:
    """An expression with Grafana's variables in it, as Grafana sends it."""
    named = {"application": ".*", "version": ".*", "city": ".*", "deployment": deployment, "__rate_interval": "10s"}
    return re.sub(r"\$(\w+)", lambda found: named[found[1]], expression)


async def test_prometheus_finds_deployments_and_every_query_of_the_dashboards_returns_data(tmp_path: Path) -> None:
    """Two deployments, found and labelled; a query may be empty only where this machine has not its metric at all."""
    async with backend(quick()) as caller:
        version = await caller.version(**under_agent(GAME, tmp_path), ports=PORTS, req_memory=1024, req_cpu=1024)
        ids = [await caller.deploy(version, tags=["ranked"]), await caller.deploy(version)]
        for deployment in ids:
            await caller.until(deployment, "READY")
        async with watched(caller, tmp_path) as prometheus:
            ready = 'arbitrium_phase{arbitrium_phase="ready"} == 1'
            series = await poll(lambda: prometheus.query(ready), lambda found: len(found) == 2)
            labels = {one["metric"]["deployment"]: one["metric"] for one in series}
            assert set(labels) == set(ids)
            for one in labels.values():
                assert (one["application"], one["app_version"]) == ("game", version)
                assert one["city"]
            assert labels[ids[0]]["mode"] == "ranked"
            assert "mode" not in labels[ids[1]]
            await poll(lambda: prometheus.query("count_over_time(up[10s]) >= 8"), lambda found: len(found) >= 2)
            names = set(await prometheus.get("label/__name__/values"))
            panels = [panel for board in dashboards.BOARDS.values() for row in board.values() for panel in row]
            asked = [query.expr for panel in panels for query in panel.queries]
            empty = [expr for expr in asked if not await prometheus.query(filled(expr, ids[0]))]
            needed = [set(re.findall(r"arbitrium_\w+(?=\{)", expression)) for expression in empty]
            assert [expression for expression, wants in zip(empty, needed, strict=True) if wants <= names] == []
            assert len(empty) <= 8, f"this machine has too few metrics to check the dashboards: {empty}"
            (targets,) = await prometheus.query("arbitrium_discover_targets")
            assert targets["value"][1] == "2"
            await caller.stop(ids[1])
            await poll(lambda: prometheus.query("up{deployment!=''}"), lambda found: len(found) == 1)


async def test_the_important_alerts_fire_for_real_deployments(tmp_path: Path) -> None:
    """A game that crashes again and again, from its exit over the agent, discovery and Prometheus to the alert."""
    crashes = under_agent("import time; time.sleep(0.3); raise SystemExit(3)", tmp_path, "--on-crash", "restart")
    crashes["arguments"] = crashes["arguments"].replace(
        "--on-crash", "--restart-limit 1000 --restart-backoff 0 --on-crash"
    )
    async with backend(quick()) as caller:
        deployment = await caller.running(**crashes, ports=PORTS, req_memory=1024, req_cpu=1024)
        async with watched(caller, tmp_path) as prometheus:
            alert = 'ALERTS{alertname="ArbitriumCrashLoop",alertstate="firing"}'
            (fired,) = await poll(lambda: prometheus.query(alert), bool)
            assert fired["metric"]["deployment"] == deployment
            assert fired["metric"]["severity"] == "critical"

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
from tests import certificates
from tests.contract.backend import Backend, backend, poll, python, quick
from tests.free_ports import free_port

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
async def watched(
    caller: Backend, tmp_path: Path, *, rules: Path = RULES, scrape: str = "", options: tuple[str, ...] = ()
) -> AsyncIterator[Prometheus]:
    """Prometheus with the shipped rules, behind a `discover` that looks each second and takes a token.

    Args:
        caller: has the emulator.
        tmp_path: for files.
        rules: what Prometheus alerts by.
        scrape: more of the scrape configuration of the games.
        options: of `discover`.
    """
    targets, port, found = tmp_path / "targets.json", free_port(), free_port()
    token = tmp_path / "discover.token"
    token.write_text("of discover\n")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{rules}]\n"
        "scrape_configs:\n"
        "  - job_name: games\n"
        "    http_sd_configs:\n"
        f"      - {{url: 'http://127.0.0.1:{found}/targets', refresh_interval: 1s,"
        f" authorization: {{credentials_file: {token}}}}}\n"
        "    relabel_configs:\n"
        "      - source_labels: [__meta_edgegap_tags]\n"
        "        regex: '.*,ranked,.*'\n"
        "        target_label: mode\n"
        "        replacement: ranked\n"
        f"{scrape}"
        f"  - job_name: discover\n    static_configs: [{{targets: ['127.0.0.1:{found}']}}]\n"
    )
    environ = os.environ | {"EDGEGAP_API_TOKEN": caller.emulator.token, "EDGEGAP_BASE_URL": caller.emulator.url}
    discover = [sys.executable, "-m", "agent", "discover", "--interval", "1s", *options]
    discover += ["--listen", f"127.0.0.1:{found}", "--file", str(targets), "--token-file", str(token)]
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


ALERTS = """
import json, os, sys, time, urllib.request
def call(method, path, body):
    request = urllib.request.Request(os.environ["AGENT_URL"] + path, method=method, data=json.dumps(body).encode())
    urllib.request.urlopen(request, timeout=10).read()
call("POST", "/v1/health", {})
call("PUT", "/v1/players", {"count": 0, "capacity": 8})
call("POST", "/v1/ready", {})
while True:
    time.sleep(1)
    %s
"""


async def test_the_important_alerts_fire_for_real_deployments(tmp_path: Path) -> None:
    """From what a game does over the agent, discovery and Prometheus to the alert; scraped over TLS with a token.

    The shipped rules wait for minutes: here they wait for a second, and are otherwise what they are.
    """
    certificate, key = certificates.write(tmp_path)
    (tmp_path / "token").write_text("fleet")
    rules = tmp_path / "rules.yml"
    shortened = re.sub(r"for: \d+m", "for: 1s", RULES.read_text())
    rules.write_text(shortened.replace("heartbeat_age_seconds > 30", "heartbeat_age_seconds > 3"))
    tls = ("--metrics-tls-cert", str(certificate), "--metrics-tls-key", str(key))
    restart = ("--on-crash", "restart", "--restart-limit", "1000", "--restart-backoff", "0")
    token = [{"key": "AGENT_METRICS_TOKEN_FILE", "value": str(tmp_path / "token")}]
    games = {
        "ArbitriumCrashLoop": ("import time; time.sleep(0.3); raise SystemExit(3)", restart),
        "ArbitriumEmptyAndBilled": (ALERTS % 'call("POST", "/v1/health", {})', ()),
        "ArbitriumHeartbeatLost": (ALERTS % 'call("PUT", "/v1/players", {"count": 1, "capacity": 8})', ()),
    }
    ids: dict[str, str] = {}
    async with backend(quick()) as caller:
        for alert, (source, options) in games.items():
            words = under_agent(source, tmp_path / alert, *tls, *options)
            ids[alert] = await caller.running(**words, envs=token, ports=PORTS, req_memory=1024, req_cpu=1024)
        silent = python("import time; time.sleep(600)")  # nobody listens on its metrics port
        ids["ArbitriumAgentSilent"] = await caller.running(**silent, ports=PORTS, req_memory=1024, req_cpu=1024)
        scrape = (
            f"    authorization: {{credentials_file: {tmp_path / 'token'}}}\n"
            f"    tls_config: {{ca_file: {certificate}, server_name: localhost}}\n"
        )
        async with watched(
            caller, tmp_path, rules=rules, scrape=scrape, options=("--scheme", "https", "--address", "ip")
        ) as prometheus:
            for alert, deployment in ids.items():
                firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
                fired = await poll(lambda asked=firing: prometheus.query(asked), bool)  # type: ignore[misc]
                assert deployment in {one["metric"]["deployment"] for one in fired}, alert
            await caller.stop(ids["ArbitriumAgentSilent"])
            gone = "up{deployment='" + ids["ArbitriumAgentSilent"] + "'}"
            await poll(lambda: prometheus.query(gone), lambda found: not found)

"""Real dedicated servers, as Debian packages them, under the agent. Skipped, visibly, where one is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.free_ports import free_port
from tests.process.harness import Launcher, Run, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Server:
    """A server of a Debian package.

    Attributes:
        package: what to install.
        program: what it installs.
        arguments: with `{port}` and `{home}`.
        ready: AGENT_READY_WHEN.
        query: protocol of its server browser, or None.
        says: a piece of its output.
        stop: AGENT_STOP.
        code: what it exits with then, with or without the agent.
    """

    package: str
    program: str
    arguments: list[str]
    ready: str
    says: str
    query: str | None = None
    stop: str = "signal:SIGTERM"
    code: int = 0


SERVERS = [
    Server(
        "minetest-server",
        "/usr/games/minetestserver",
        ["--world", "{home}/world", "--port", "{port}", "--gameid", "minetest", "--logfile", "{home}/debug.txt"],
        "port:{port}",
        "listening on",
    ),
    Server(
        "teeworlds-server",
        "/usr/games/teeworlds-server",
        ["sv_port {port};bindaddr 127.0.0.1;sv_register 0"],
        r"output:server name is",
        "server name is",
        code=143,  # it handles no signal, so that SIGTERM ends it where it is
    ),
    Server(
        "openarena-server",
        "/usr/games/openarena-server",
        [
            *["+set", "dedicated", "1", "+set", "net_ip", "127.0.0.1", "+set", "net_port", "{port}"],
            *["+set", "fs_homepath", "{home}", "+set", "sv_master1", "", "+set", "sv_maxclients", "12"],
            *["+map", "oa_dm1"],
        ],
        "output:AAS initialized",
        "AAS initialized",
        query="quake3",
        stop="stdin:quit",  # after SIGTERM it exits with 1
    ),
]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts the agent with a game."""
    with Launcher(tmp_path) as launcher:
        yield launcher


@pytest.fixture(params=SERVERS, ids=lambda server: server.package)
def server(request: pytest.FixtureRequest) -> Server:
    """Each server that is installed."""
    found: Server = request.param
    if not os.access(found.program, os.X_OK):
        pytest.skip(f"{found.program} is not installed (Debian: {found.package})")
    return found


def start(launch: Launcher, server: Server, logs: Path) -> Run:
    """The server under the agent."""
    port, home = free_port(), launch.files / "home"
    home.mkdir()
    filled = [argument.format(port=port, home=home) for argument in server.arguments]
    env = {
        "HOME": str(home),
        "AGENT_READY_WHEN": server.ready.format(port=port),
        "AGENT_LOG_URL": f"file://{logs}",
        "AGENT_LOG_FORM": "verbatim",
        "AGENT_STOP": server.stop,
        "AGENT_PLAYERS_INTERVAL": "300ms",
    }
    if server.query is not None:
        env["AGENT_PLAYERS_FROM"] = f"query:{server.query}://127.0.0.1:{port}"
    return launch([server.program, *filled], env=env, mode="subreaper", cwd=home)


def test_a_real_server_lives_and_dies(launch: Launcher, server: Server, tmp_path: Path) -> None:
    """Ready without a word of its own, players by query where it answers one, a clean end, log and story kept."""
    logs = tmp_path / "shipped"
    run = start(launch, server, logs)
    eventually(lambda: run.http("GET", "/readyz").status == 200, "it is seen ready", 60)
    if server.query is not None:
        eventually(lambda: run.http("GET", "/v1/players").json()["capacity"] == 12, "it was asked for its players", 60)
        assert run.http("GET", "/v1/players").json()["count"] == 0
    metrics = run.http("GET", "/metrics", url=run.game_environment["AGENT_METRICS_URL"])
    assert b"arbitrium_game_resident_memory_bytes" in metrics.body
    done = run.stop()
    assert done.code == server.code
    assert ("does not handle SIGTERM" in done.stderr) is (server.code == 143)
    (path,) = logs.glob("**/exit.json")
    story: dict[str, Any] = json.loads(path.read_text())
    assert story["reason"] == "platform_stop"
    assert story["cause"] == ("clean" if server.code == 0 else "signal")
    assert not any(step.get("step") == "kill" for step in story["happened"])
    assert server.says in done.stdout.decode(errors="replace") + done.stderr
    assert server.says in story["output_tail"]

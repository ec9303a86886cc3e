"""More than anybody means to send: lines, bodies and names without end. The game lives, and memory is bounded."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess

import pytest

from tests.process.harness import PYTHON, Launcher, Run, agent_process, eventually, game, status_of

pytestmark = pytest.mark.slow

MOST_KB = 160_000
"""Of each of the agent's two processes; they take 10 and 40 MB with nothing to do."""
POST = b"POST /v1/metrics HTTP/1.1\r\nHost: localhost\r\n"
BLOCK = b"x" * 65_536
LONG_LINE = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"\\nbye\\n"), sys.exit(4)))
for _ in range(100):
    block = memoryview(b"x" * 1_000_000)
    while block:
        block = block[os.write(1, block):]
os.write(1, b"\\nServer started\\n")
while True:
    signal.pause()
"""


def lives(run: Run) -> None:
    """The API answers, in the process that was there from the beginning, and neither process has grown."""
    assert run.http("GET", "/v1/status").status == 200
    agent = agent_process(run.pid)
    assert agent is not None
    peaks = {pid: int(status_of(pid)["VmHWM"].split()[0]) for pid in (run.pid, agent)}
    assert max(peaks.values()) < MOST_KB, peaks


def ends_well(run: Run) -> None:
    """It hears its stop, and everything is written down."""
    assert run.stop().code == 4
    document = run.story()
    assert (document["reason"], document["exit_code"], document["agent_starts"]) == ("platform_stop", 4, 1)


def test_a_line_of_100_megabytes(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a line to be found behind it, patterns to be replaced in it, and a store."""
    store = tmp_path_factory.mktemp("store")
    env = {
        "AGENT_READY_WHEN": "output:^Server started$",
        "AGENT_REDACT": "/x[0-9]+/",
        "AGENT_LOG_URL": f"file://{store}",
        "AGENT_SPOOL_MAX": "8MiB",
        "AGENT_GRACE_SECONDS": "10",
    }
    run = launch([*PYTHON, "-c", LONG_LINE], env=env, stdout=subprocess.DEVNULL)
    eventually(lambda: run.http("GET", "/readyz").status == 200, "its line is found")
    lives(run)
    ends_well(run)
    spooled = sum(path.stat().st_size for path in run.spool.rglob("*") if path.is_file())
    assert spooled <= 16 << 20, "the spool is bounded"


@pytest.mark.parametrize(
    ("listener", "head", "block"),
    [
        ("AGENT_URL", POST + b"Content-Length: 1073741824\r\n\r\n", BLOCK),
        ("AGENT_URL", POST + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + BLOCK + b"\r\n"),
        ("AGENT_URL", POST, b"X-Header: " + b"x" * 1000 + b"\r\n"),
        ("AGENT_METRICS_URL", POST + b"Content-Length: 1073741824\r\n\r\n", BLOCK),
        ("AGENT_SOCKET", b'{"jsonrpc": "2.0", "method": "', BLOCK),
    ],
    ids=["announced", "in chunks", "headers", "metrics", "socket"],
)
def test_a_gigabyte_in_one_request(launch: Launcher, listener: str, head: bytes, block: bytes) -> None:
    """Whoever sends it may be hung up on, or sends it for nothing."""
    run = launch(game("polite", "4"), env={"AGENT_GRACE_SECONDS": "10"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    to = run.game_environment[listener]
    with _unix(to) if listener == "AGENT_SOCKET" else _tcp(to) as connection, contextlib.suppress(OSError):
        connection.sendall(head)
        for _ in range((1 << 30) // len(block)):
            connection.sendall(block)
    lives(run)
    ends_well(run)


def _tcp(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").split("/")[0].rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=30)


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(path)
    return connection


def test_a_million_names(launch: Launcher) -> None:
    """The first ones are shown, and the next ones are refused."""
    run = launch(game("polite", "4"), env={"AGENT_GRACE_SECONDS": "10"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    with run.rpc() as rpc:
        for first, last in [(0, 200), *((first, first + 2000) for first in range(200, 1_000_000, 2000))]:
            names = dict.fromkeys((f"m{number}" for number in range(first, last)), 1)
            rpc.send(json.dumps({"jsonrpc": "2.0", "method": "metrics", "params": names}).encode())
        assert "error" in rpc.call("metrics", last=1)
    shown = run.http("GET", "/metrics", url="AGENT_METRICS_URL").body
    assert b"\ngame_m199 1" in shown
    assert shown.count(b"\ngame_m") == 200
    lives(run)
    ends_well(run)

"""The last values of short lives, in a real Prometheus and a real Pushgateway."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Launcher


def ask(url: str) -> bytes:
    """The body of an answer; empty while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - one of this file
            body: bytes = answer.read()
            return body
    except OSError:
        return b""


def serving(command: list[str], ready: str) -> "subprocess.Popen[bytes]":
    """Starts a server and waits until it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not ask(ready):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A real Prometheus that takes remote writes."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {}\n")
    url = f"127.0.0.1:{free_port()}"
    process = serving(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={url}",
            "--web.enable-remote-write-receiver",
        ],
        f"http://{url}/-/ready",
    )
    yield f"http://{url}"
    process.kill()
    process.wait()


@pytest.fixture
def pushgateway() -> Iterator[str]:
    """A real Pushgateway."""
    if shutil.which("prometheus-pushgateway") is None:
        pytest.skip("the Pushgateway is not installed (Debian: apt install prometheus-pushgateway)")
    url = f"127.0.0.1:{free_port()}"
    process = serving(["prometheus-pushgateway", f"--web.listen-address={url}"], f"http://{url}/-/ready")
    yield f"http://{url}"
    process.kill()
    process.wait()


GAME = 'curl -sf -X POST "$AGENT_URL/v1/metrics" -d \'{"rounds_total": 4}\' && sleep 1'


def test_prometheus_has_the_last_values_of_a_short_life(prometheus: str, launch: Launcher) -> None:
    """A game that lived for a second is in a Prometheus that never scraped it."""
    run = launch(["sh", "-c", GAME], env={"AGENT_METRICS_PUSH_URL": f"{prometheus}/api/v1/write"})
    done = run.finish()
    assert done.code == 0
    assert "cannot" not in done.stderr, done.stderr
    for query, expected in (("game_rounds_total", "4"), ('arbitrium_phase{arbitrium_phase="flushing"}', "1")):
        found = json.loads(ask(f"{prometheus}/api/v1/query?query={urllib.parse.quote(query)}"))
        (series,) = found["data"]["result"]
        assert series["value"][1] == expected
        assert series["metric"]["job"] == "arbitrium-agent"


def test_a_pushgateway_has_the_last_values_of_a_short_life(pushgateway: str, launch: Launcher) -> None:
    """And finds nothing to complain about in them."""
    run = launch(["sh", "-c", GAME], env={"AGENT_METRICS_PUSH_URL": f"{pushgateway}/metrics/job/game"})
    assert run.finish().code == 0
    text = ask(f"{pushgateway}/metrics").decode()
    (line,) = [line for line in text.splitlines() if line.startswith("game_rounds_total")]
    assert 'job="game"' in line
    assert line.endswith("} 4")
    failures = [line for line in text.splitlines() if line.startswith("push_failure_time_seconds{")]
    assert [line.rpartition(" ")[2] for line in failures] == ["0"]

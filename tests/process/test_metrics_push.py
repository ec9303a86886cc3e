"""The last values of short lives, in a real Prometheus and a real Pushgateway."""

import gzip
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.free_ports import free_port
from tests.process.harness import Launcher, eventually


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


# Its last value is its last word: it is not to be had by pushing at an interval.
GAME = """for rounds in 3 4; do sleep 0.5; curl -sf "$AGENT_URL/v1/metrics" -d "{\\"rounds_total\\": $rounds}"; done"""


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_receiver_that_hangs_delays_neither_exit_json_nor_the_end(launch: Launcher, tmp_path: Path) -> None:
    """It takes the connection and says nothing: the plan's end is the end, and the store has `exit.json` before."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hangs:
        address = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        settings = {
            "AGENT_METRICS_PUSH_URL": f"{address}/metrics/job/game",
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_LOGS_EXPORTER": "otlp",
            "AGENT_LOG_URL": f"file://{tmp_path}/store",
            "AGENT_SHIP_SECONDS": "2",
            "AGENT_SPOOL_DIR": f"{tmp_path}/spool",
        }
        run = launch(["sh", "-c", "echo over; exit 3"], env={**settings, "AGENT_ON_CRASH": "exit"})
        eventually(lambda: list((tmp_path / "store").rglob("exit.json")), "exit.json is in the store")
        began = time.monotonic()
        assert run.finish().code == 3
        assert time.monotonic() - began < 8, "an exporter of OpenTelemetry alone waits for 10 s"
    (document,) = (tmp_path / "store").rglob("exit.json")
    assert json.loads(document.read_text())["code"] == 3
    assert list((tmp_path / "store").rglob("*.ndjson.zst"))
    assert not list((tmp_path / "spool").rglob("*.seg")), "a later agent would upload it again"


@pytest.mark.slow
def test_a_collector_and_a_store_both_have_the_log(launch: Launcher, tmp_path: Path) -> None:
    """Each line once in both, though the store confirms a segment, which deletes it, at its own time."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/logs":
                bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://127.0.0.1:{server.server_port}/v1/logs",
            "AGENT_LOG_URL": f"file://{tmp_path}/store",
            "AGENT_SHIP_INTERVAL": "200ms",
        }
        run = launch(["sh", "-c", "for n in $(seq 30); do echo line $n; sleep 0.05; done"], env=settings)
        done = run.finish()
        server.shutdown()
    assert done.code == 0
    assert "cannot export" not in done.stderr, done.stderr
    requests = [ExportLogsServiceRequest.FromString(body) for body in bodies]
    records = [
        record
        for request in requests
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    wanted = [f"line {number}" for number in range(1, 31)]
    assert [record.body.string_value for record in records if record.body.string_value.startswith("line")] == wanted
    shipped = b"".join(
        zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
        for path in sorted((tmp_path / "store").rglob("*.ndjson.zst"))
    )
    assert [line for line in (json.loads(row)["line"] for row in shipped.splitlines()) if line in wanted] == wanted

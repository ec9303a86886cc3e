"""`/metrics` as Prometheus reads it: both formats, compression, lint, and what happens when a part cannot be read."""

import asyncio
import gzip
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.config.injected import parse
from agent.config.tls import server_context
from agent.connections import connections_limit
from agent.game.cgroup import CgroupReading
from agent.lifecycle.game_metrics import CustomMetric
from agent.lifecycle.game_report import GameReport, ReportError
from agent.lifecycle.states import GameReady, GameStarted, Reason, Source
from agent.lifecycle.transition import initial, transition
from agent.metrics.container import ContainerReading
from agent.metrics.counts import LogCounts
from agent.metrics.registry import Metrics
from agent.metrics.server import CONNECTIONS, DESCRIPTORS_SHARE, MetricsServer
from tests import certificates
from tests.rules import default_rules

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
ENVIRONMENT = {
    "ARBITRIUM_REQUEST_ID": "23c01225b99d",
    "ARBITRIUM_PUBLIC_IP": "172.236.117.196",
    "ARBITRIUM_DELETE_URL": "https://api.edgegap.com/v1/self/stop/23c01225b99d/463660",
    "ARBITRIUM_DELETE_TOKEN": "0123456789abcdef0123456789abcdef",
    "ARBITRIUM_DEPLOYMENT_TAGS": 'tag1,quote " and back\\slash',
    "ARBITRIUM_DEPLOYMENT_LOCATION": '{"city": "Montréal", "country": "Canada"}',
}


class Agent:
    """What the metrics are read from, and the address where they are served."""

    def __init__(self, game: int) -> None:
        self.report = GameReport()
        self.logs = LogCounts({"stdout": 1000, "stderr": 0}, shipped=600, dropped=50)
        self.broken = False
        self.state = initial(default_rules(), at=time.monotonic())
        self.metrics = Metrics(
            version="0.1.0",
            deployment=parse(ENVIRONMENT).deployment,
            state=lambda: self.state,
            report=self.report,
            logs=self.read_logs,
            container=lambda: self.read_container(),  # noqa: PLW0108 - a test puts another one in its place
            attempt_results=["confirmed", "refused"],
        )
        self.url = ""

    def read_logs(self) -> LogCounts:
        """The counters of the logs, or a fault."""
        if self.broken:
            raise OSError("the spool is gone")
        return self.logs

    def read_container(self) -> ContainerReading:
        """The counters of the container, or a fault (in another thread)."""
        if self.broken:
            raise RuntimeError("no such file system")
        return ContainerReading(CgroupReading(version=2, memory_limit=3_000_000_000, cpu_throttled_seconds=0.25))

    async def get(
        self, path: str = "/metrics", method: str = "GET", **headers: str
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and body; decompressed as any client would."""
        async with (
            aiohttp.ClientSession() as client,
            client.request(method, self.url + path, headers=headers) as answer,
        ):
            return answer.status, dict(answer.headers), await answer.text()

    async def families(self, accept: str = "") -> dict[str, Metric]:
        """What a parser makes of it, by name."""
        status, _, body = await self.get(Accept=accept)
        assert status == 200
        read = parse_openmetrics if "openmetrics" in accept else parse_text
        found = list(read(body))
        assert len({family.name for family in found}) == len(found), "each family is there once"
        return {family.name: family for family in found}


@pytest.fixture
def game() -> Iterator[int]:
    """A process that does nothing, as the game."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@pytest.fixture
async def agent(game: int) -> AsyncIterator[Agent]:
    """Metrics that are served, with a bit of everything in them."""
    it = Agent(game)
    listening = socket.create_server(("127.0.0.1", 0))
    it.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server: MetricsServer = await it.metrics.serve(listening)
    started = GameStarted(time.monotonic(), game)
    it.state, _ = transition(it.state, started)
    it.state, _ = transition(it.state, GameReady(started.at + 1.5))
    it.metrics.on_request("http", "health", 204, 0.0002)
    it.metrics.on_request("socket", "status", "ok", 0.3)
    it.metrics.on_stop_request(Source.GAME, Reason.REQUESTED)
    it.metrics.on_self_stop_attempt("confirmed")
    it.report.set_players(1.0, 2, 16)
    it.report.join("ada", 2.0)
    it.report.leave("ada", 3.0)
    it.report.heartbeat(time.monotonic())
    it.report.set_metrics([CustomMetric("rounds_total", 3, "Rounds."), CustomMetric("tick_seconds", 0.02)], 4.0)
    yield it
    await server.close()


def value(families: Mapping[str, Metric], name: str, sample: str = "", **labels: str) -> float:
    """The value of the one sample with these labels."""
    found = [
        each.value
        for each in families[name].samples
        if each.name == (sample or each.name) and labels.items() <= each.labels.items()
    ]
    assert len(found) == 1, (name, labels, families[name].samples)
    return found[0]


async def test_what_was_told_and_what_is_read_is_there(agent: Agent, game: int) -> None:
    """Each room's facts come out under the names and labels that the README lists."""
    families = await agent.families()
    assert value(families, "arbitrium_agent_build_info", version="0.1.0") == 1
    assert value(families, "arbitrium_deployment_info", request_id="23c01225b99d", city="Montréal") == 1
    assert value(families, "arbitrium_phase", arbitrium_phase="ready") == 1
    assert value(families, "arbitrium_phase", arbitrium_phase="stopping") == 0
    assert value(families, "arbitrium_game_startup_seconds") == pytest.approx(1.5)
    assert value(families, "arbitrium_game_start_time_seconds") == pytest.approx(time.time(), abs=60)
    assert value(families, "arbitrium_stop_requests", source="game", reason="requested") == 1
    assert value(families, "arbitrium_stop_requests", source="platform", reason="platform_stop") == 0
    assert value(families, "arbitrium_self_stop_attempts", result="confirmed") == 1
    assert value(families, "arbitrium_self_stop_attempts", result="refused") == 0
    assert value(families, "arbitrium_game_restarts") == 0
    assert value(families, "arbitrium_game_processes") == 1
    assert value(families, "arbitrium_game_resident_memory_bytes") > 1_000_000
    assert value(families, "arbitrium_game_cpu_seconds", mode="user") >= 0
    assert value(families, "arbitrium_game_context_switches", kind="voluntary") >= 0
    assert value(families, "arbitrium_game_io_operations", direction="read") > 0
    assert value(families, "arbitrium_game_open_fds") >= 3
    assert value(families, "arbitrium_players") == 2
    assert value(families, "arbitrium_players_capacity") == 16
    assert value(families, "arbitrium_players_joined") == 3
    assert value(families, "arbitrium_heartbeats") == 1
    assert 0 <= value(families, "arbitrium_heartbeat_age_seconds") < 60
    assert value(families, "arbitrium_log_received_bytes", stream="stdout") == 1000
    assert value(families, "arbitrium_log_shipped_bytes") == 600
    assert value(families, "arbitrium_log_dropped_bytes") == 50
    assert value(families, "arbitrium_agent_requests", transport="http", operation="health", status="204") == 1
    durations = "arbitrium_agent_request_duration_seconds"
    assert value(families, durations, f"{durations}_count", transport="socket", operation="status") == 1
    assert value(families, durations, f"{durations}_bucket", operation="status", le="0.25") == 0
    assert value(families, durations, f"{durations}_bucket", operation="status", le="0.5") == 1
    assert value(families, "arbitrium_container_memory_limit_bytes") == 3_000_000_000
    assert value(families, "arbitrium_container_cpu_throttled_seconds") == 0.25
    assert value(families, "arbitrium_agent_process_cpu_seconds") > 0
    assert value(families, "game_rounds") == 3
    assert value(families, "game_tick_seconds") == 0.02
    assert families["arbitrium_game_cpu_seconds"].type == "counter"
    assert all(family.documentation for family in families.values())


async def test_no_metric_of_the_python_runtime_or_of_a_global_registry_is_there(agent: Agent) -> None:
    """The registry is its own: everything begins with `arbitrium_` or `game_`."""
    assert {name.split("_")[0] for name in await agent.families()} == {"arbitrium", "game"}


async def test_no_secret_is_there(agent: Agent) -> None:
    """Neither the token nor the stop key of the delete URL."""
    _, _, body = await agent.get()
    assert ENVIRONMENT["ARBITRIUM_DELETE_TOKEN"] not in body
    assert "463660" not in body


async def test_openmetrics_is_given_to_who_asks_for_it(agent: Agent) -> None:
    """Prometheus asks for it; the same facts come out, in a format that its strict parser takes."""
    status, headers, body = await agent.get(Accept=OPENMETRICS)
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith("# EOF\n")
    new, old = await agent.families(OPENMETRICS), await agent.families()
    assert {name.removesuffix("_info") for name in old} == set(new)
    assert new["arbitrium_phase"].type == "stateset"
    assert new["arbitrium_agent_build"].type == "info"


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain;version=0.0.4", "text/plain;version=abc", "text/html, ;;,=,"]
)
async def test_anything_else_gets_the_older_text_format(agent: Agent, accept: str) -> None:
    """Also a header that makes no sense."""
    status, headers, _ = await agent.get(Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("accepts", "compressed"),
    [("gzip", True), ("br;q=1.0, GZIP;q=0.8", True), ("identity", False), ("gzip;q=0", False), ("gzip; q=0.0", False)],
)
async def test_the_answer_is_compressed_for_who_can_read_it(agent: Agent, accepts: str, compressed: bool) -> None:
    """As `Accept-Encoding` says."""
    async with (
        aiohttp.ClientSession(auto_decompress=False) as client,
        client.get(f"{agent.url}/metrics", headers={"Accept-Encoding": accepts}) as answer,
    ):
        body = await answer.read()
        assert (answer.headers.get("Content-Encoding") == "gzip") is compressed
    assert b"arbitrium_agent_build_info" in (gzip.decompress(body) if compressed else body)


async def test_other_paths_and_methods_are_answered_with_what_to_do(agent: Agent) -> None:
    """A person who looks around finds the way; nothing can be changed here."""
    status, headers, body = await agent.get("/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert 'href="/metrics"' in body
    status, _, body = await agent.get("/v1/status")
    assert status == 404
    assert body.startswith("cannot")
    assert "/metrics" in body
    status, headers, body = await agent.get(method="POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert body.startswith("cannot")
    status, headers, body = await agent.get(method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 0


async def test_a_part_that_cannot_be_read_does_not_take_the_others_with_it(
    agent: Agent, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is left out, counted, and said in the log."""
    agent.broken = True
    families = await agent.families()
    assert "arbitrium_log_received_bytes" not in families
    assert value(families, "arbitrium_players") == 2
    assert value(families, "arbitrium_agent_collect_errors", part="logs") == 1
    assert value(families, "arbitrium_agent_collect_errors", part="container") == 1
    assert value(families, "arbitrium_agent_collect_errors", part="game") == 0
    assert "cannot read the metrics of logs" in capfd.readouterr().err
    agent.broken = False
    families = await agent.families()
    assert value(families, "arbitrium_log_received_bytes", stream="stdout") == 1000


async def test_what_a_game_names_badly_cannot_spoil_the_rest(agent: Agent) -> None:
    """A counter beside a gauge of the same base name, and help text that is no UTF-8, still make a readable page."""
    agent.report.set_metrics(
        [
            CustomMetric("shots_total", 5),
            CustomMetric("shots", 7),
            CustomMetric("hits_total", 2),
            CustomMetric("hits_created", 1),
            CustomMetric("_total", 4),
            CustomMetric("odd", 1, "half \ud83d of a pair\nand a second line"),
        ],
        5.0,
    )
    for accept in ("", OPENMETRICS):
        families = await agent.families(accept)
        assert value(families, "game_shots") == 7
        assert value(families, "game_hits_created") == 1
        assert value(families, "game_odd") == 1
        _, _, body = await agent.get(Accept=accept)
        assert {"game_shots_total 5.0", "game_hits_total 2.0", "game__total 4.0"} <= set(body.splitlines())


async def test_the_games_own_figures_have_labels_buckets_and_exemplars(agent: Agent) -> None:
    """As the game reported them; an exemplar leads to a trace, in OpenMetrics only."""
    trace = (("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),)
    agent.report.set_metrics(
        [
            CustomMetric("rooms", 2, labels=(("map", 'a "quoted" \\ name'),)),
            CustomMetric("rooms", 1, labels=(("map", "mill"),)),
            CustomMetric("tick_duration_seconds", observe=(0.003, 0.7), exemplar=trace),
            CustomMetric("crashes_total", add=1, exemplar=trace),
        ],
        5.0,
    )
    for accept in ("", OPENMETRICS):
        families = await agent.families(accept)
        assert value(families, "game_rooms", map='a "quoted" \\ name') == 2
        ticks = families["game_tick_duration_seconds"]
        assert value(families, ticks.name, f"{ticks.name}_bucket", le="0.004") == 1
        assert value(families, ticks.name, f"{ticks.name}_bucket", le="+Inf") == 2
        found = {sample.labels.get("le"): sample.exemplar for sample in ticks.samples if sample.exemplar}
        if accept:
            assert found["1.0"].value == 0.7
            assert found["1.0"].labels == dict(trace)
            (crashes, *_) = families["game_crashes"].samples
            assert crashes.exemplar is not None
        else:
            assert not found
    with pytest.raises(ReportError):
        agent.report.set_metrics([CustomMetric("rooms", 1, kind="histogram")], 6.0)
    assert value(await agent.families(), "arbitrium_game_metrics_refused", why="type") == 1


async def test_players_are_not_shown_before_the_game_spoke_of_any(agent: Agent) -> None:
    """0 would be a lie; after a restart nothing is known, and what was counted stays."""
    agent.report.clear(6.0)
    families = await agent.families()
    assert not {"arbitrium_players", "arbitrium_players_capacity", "arbitrium_heartbeat_age_seconds"} & set(families)
    assert value(families, "arbitrium_players_joined") == 3
    assert value(families, "arbitrium_heartbeats") == 1


async def test_many_scrapes_at_once_all_get_the_whole_answer(agent: Agent) -> None:
    """Two Prometheus servers and a person with curl do not disturb each other."""
    answers = await asyncio.gather(*(agent.families() for _ in range(20)))
    assert len({frozenset(families) for families in answers}) == 1


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install prometheus)"
)
async def test_promtool_finds_nothing_to_complain_about(agent: Agent) -> None:
    """Names, types, help and units are as Prometheus has them."""
    _, _, body = await agent.get()
    promtool = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=-1, stdout=-1, stderr=subprocess.STDOUT, env=dict(os.environ)
    )
    said, _ = await promtool.communicate(body.encode())
    assert (promtool.returncode, said.decode()) == (0, "")


async def test_connections_that_say_nothing_do_not_shut_prometheus_out(
    agent: Agent, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever holds connections open loses the oldest of them; a scrape is answered, and nothing is logged."""
    port = int(agent.url.rpartition(":")[2])
    async with aiohttp.ClientSession() as client:
        async with client.get(f"{agent.url}/metrics") as answer:  # this connection is kept, as Prometheus keeps its own
            assert answer.status == 200
        held = [
            await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3 * connections_limit(CONNECTIONS, DESCRIPTORS_SHARE))
        ]
        for _, writer in held[::2]:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: slow")
        async with asyncio.timeout(5):
            async with client.get(f"{agent.url}/metrics") as answer:
                assert b"arbitrium_agent_build_info" in await answer.read()
            assert await held[0][0].read() == b"", "the longest silent was closed"
    for _, writer in held:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in held), return_exceptions=True)
    assert capfd.readouterr().err == ""


async def test_a_crowd_that_scrapes_costs_a_few_readings(agent: Agent) -> None:
    """Who asks while others wait shares what is read for them, and never gets what was read before it asked."""
    readings = 0
    read = agent.read_container

    def counted() -> ContainerReading:
        nonlocal readings
        readings += 1
        return read()

    agent.read_container = counted  # type: ignore[method-assign]
    await asyncio.gather(*(agent.get() for _ in range(60)))
    assert 1 <= readings <= 30
    agent.report.set_players(9.0, 7, 16)
    assert value(await agent.families(), "arbitrium_players") == 7


async def test_with_tls_and_a_token_only_who_has_both_reads_it(agent: Agent, tmp_path: Path) -> None:
    """Over https with the right token; connections that never finish a handshake do not shut that out."""
    certificate, key = certificates.write(tmp_path)
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listening.getsockname()[1]
    url = f"https://localhost:{port}/metrics"
    server = await agent.metrics.serve(listening, token="hush", tls=server_context(str(certificate), str(key)))
    trusting = ssl.create_default_context(cafile=certificate)
    held = [
        await asyncio.open_connection("127.0.0.1", port)
        for _ in range(connections_limit(CONNECTIONS, DESCRIPTORS_SHARE) + 8)
    ]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as client:
        async with asyncio.timeout(10), client.get(url, headers={"Authorization": "Bearer hush"}) as answer:
            assert b"arbitrium_agent_build_info" in await answer.read()
        assert await asyncio.wait_for(held[0][0].read(), 5) == b"", "the oldest handshake was given up"
        for wrong in ({}, {"Authorization": "Bearer wr\u00f6ng"}, {"Authorization": "hush"}):
            async with client.get(url, headers=wrong) as answer:
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
                text = await answer.text()
                assert "AGENT_METRICS_TOKEN" in text
                assert "hush" not in text
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(url.replace("https", "http"))
    for _, writer in held:
        writer.close()
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)

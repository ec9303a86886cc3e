"""OTLP as a collector reads it, by the protocol's own messages, on a small receiver."""

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.config.injected import parse
from agent.config.model import Settings
from agent.logs import frames
from agent.logs.runs import Segment
from agent.metrics.exports import Exports, LogOrigin, trace_id
from agent.metrics.exposition import Family, counter, gauge, histogram_samples

DEPLOYMENT = parse(
    {"ARBITRIUM_REQUEST_ID": "23c01225b99d", "ARBITRIUM_DEPLOYMENT_LOCATION": '{"city": "Montréal"}'}
).deployment
BEGAN = 1_795_845_000.0
DOCUMENT: dict[str, Any] = {
    "reason": "requested",
    "cause": "segfault",
    "summary": "the game ended with signal SIGSEGV",
    "code": None,
    "signal": "SIGSEGV",
    "evidence": ["wait status: SIGSEGV"],
    "stop": {"source": "game", "message": "match over"},
    "times": {"stop_requested": "2026-11-28T06:00:10.000Z"},
    "phases": [
        {"phase": "starting", "at": "2026-11-28T06:00:00.000Z", "seconds": 2.0},
        {"phase": "ready", "at": "2026-11-28T06:00:02.000Z", "seconds": 8.0},
        {"phase": "draining", "at": "2026-11-28T06:00:10.000Z", "seconds": 1.0},
        {"phase": "stopping", "at": "2026-11-28T06:00:11.000Z", "seconds": 2.0},
        {"phase": "flushing", "at": "2026-11-28T06:00:13.000Z", "seconds": None},
    ],
    "happened": [
        {"step": "stop", "seconds": 2.0, "planned_seconds": 4.0},
        {
            "method": "signal:SIGTERM",
            "after_seconds": 1.0,
            "seconds": 1.5,
            "planned_seconds": 4.0,
            "outcome": "applied",
            "acknowledged": False,
        },
    ],
}
FAMILIES = [
    gauge("arbitrium_players", "Players now.").single(3),
    counter("arbitrium_heartbeats_total", "Heartbeats.").single(7),
    Family("game_lag_seconds", "histogram", "Lag.", histogram_samples((("map", "mill"),), (0.1, 1.0), (2, 1, 4), 9.5)),
]


class Collector:
    """Takes OTLP over HTTP, and keeps the messages by path."""

    def __init__(self) -> None:
        self.got: dict[str, list[bytes]] = {}
        self.status = 200
        self.url = ""

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        """Keeps what came."""
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.got.setdefault(request.path, []).append(body)
        return web.Response(status=self.status, content_type="application/x-protobuf")


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A receiver that the SDK finds by its own variable."""
    it = Collector()
    runner = web.ServerRunner(web.Server(it.take))
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    it.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    await web.SockSite(runner, sock).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", it.url)
    yield it
    await runner.cleanup()


class Spool:
    """Closes segments that a test makes, and remembers which were let go of."""

    def __init__(self) -> None:
        self.let_go: list[int] = []
        self._take: Callable[[Segment], None] | None = None

    def close_segment(self, number: int, *pieces: tuple[str, bytes]) -> None:
        """One more segment, of bytes by stream."""
        segment = Segment(number, "/run", 0)
        for index, (stream, data) in enumerate(pieces):
            for kind, body in ((frames.NAME, stream.encode()), (frames.DATA, data)):
                segment.memory.append(frames.header(kind, index, len(body), 1_795_845_001_000_000_000 + index) + body)
        self.show(segment)

    def show(self, segment: Segment) -> None:
        """It is there to be read."""
        assert self._take is not None
        self._take(segment)

    def tapped(self) -> bool:
        """Whether somebody reads."""
        return self._take is not None

    def tap(self, take: Callable[[Segment], None] | None) -> None:
        """As the agent's spool."""
        self._take = take

    def taken(self, segment: Segment) -> None:
        """As the agent's spool."""
        self.let_go.append(segment.number)

    def seal_after(self, seconds: float | None) -> None:
        """As the agent's spool."""

    def flush(self, deadline: float) -> bool:
        """As the agent's spool."""
        return True

    def dropped_before(self, segment: Segment) -> int:
        """As the agent's spool."""
        return 0


async def families() -> list[Family]:
    """What is exported."""
    return FAMILIES


def exports(collector: Collector, origin: LogOrigin | None = None, **environ: str) -> Exports:
    """What the agent makes with this collector."""
    wanted = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **environ}
    settings = Settings(app_name="arena", app_version="1.2")
    return Exports(settings, wanted, DEPLOYMENT, families, began=BEGAN, origin=origin)


def attributes(pairs: Any) -> dict[str, str]:
    """Attributes whose values are text."""
    return {pair.key: pair.value.string_value for pair in pairs}


async def test_a_life_is_one_trace(collector: Collector) -> None:
    """The deployment above, phases below it, stop methods below the stop; what comes later is of the same trace."""
    it = exports(collector)
    await it.last(DOCUMENT, time.monotonic() + 5)
    await it.step("release", time.monotonic() - 1, time.monotonic(), outcome="confirmed")
    requests = [ExportTraceServiceRequest.FromString(body) for body in collector.got["/v1/traces"]]
    resource = attributes(requests[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "arena"
    assert resource["service.version"] == "1.2"
    assert resource["service.instance.id"] == resource["deployment.id"] == "23c01225b99d"
    assert resource["geo.locality.name"] == "Montréal"
    spans = {
        span.name: span
        for request in requests
        for resources in request.resource_spans
        for scope in resources.scope_spans
        for span in scope.spans
    }
    assert set(spans) == {"deployment", "start", "ready", "drain", "stop", "stop method signal", "autopsy", "release"}
    assert {span.trace_id.hex() for span in spans.values()} == {it.trace_id}
    root = spans["deployment"]
    assert root.parent_span_id == b""
    assert root.status.code == root.status.STATUS_CODE_ERROR
    assert attributes(root.attributes)["arbitrium.cause"] == "segfault"
    assert [event.name for event in root.events] == ["evidence"]
    method = spans.pop("stop method signal")
    assert method.parent_span_id == spans["stop"].span_id
    assert method.end_time_unix_nano - method.start_time_unix_nano == 1_500_000_000
    del spans["deployment"]
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}
    assert spans["ready"].start_time_unix_nano == spans["start"].end_time_unix_nano
    assert spans["ready"].end_time_unix_nano - spans["ready"].start_time_unix_nano == 8_000_000_000


async def test_metrics_keep_their_names_types_and_units(collector: Collector) -> None:
    """A counter is a monotonic sum since the start, a histogram has its buckets one by one."""
    await exports(collector).last(DOCUMENT, time.monotonic() + 5)
    (body,) = collector.got["/v1/metrics"]
    request = ExportMetricsServiceRequest.FromString(body)
    metrics = {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}
    assert metrics["arbitrium_players"].gauge.data_points[0].as_double == 3
    total = metrics["arbitrium_heartbeats_total"].sum
    assert (total.is_monotonic, total.data_points[0].as_double) == (True, 7)
    assert total.data_points[0].start_time_unix_nano == int(BEGAN * 1e9)
    lag = metrics["game_lag_seconds"]
    (point,) = lag.histogram.data_points
    assert (lag.unit, list(point.bucket_counts), point.count, point.sum) == ("s", [2, 1, 4], 7, 9.5)
    assert list(point.explicit_bounds) == [0.1, 1.0]


async def test_only_what_is_asked_for_is_exported(collector: Collector) -> None:
    """The variables that the SDK knows: an exporter that is `none`, or everything switched off."""
    await exports(collector, OTEL_TRACES_EXPORTER="none").last(DOCUMENT, time.monotonic() + 5)
    assert set(collector.got) == {"/v1/metrics"}
    off = exports(collector, OTEL_SDK_DISABLED="true")
    assert not off.wanted
    assert off.trace_id is None


async def test_the_log_is_exported_where_it_is_asked_for(collector: Collector) -> None:
    """Line by line, once each, as part of the trace; a collector that refuses one segment gets the next."""
    assert exports(collector, LogOrigin(Spool(), 0, print))._log is None, "it is large: nobody gets it unasked"
    spool, sent, some = Spool(), list[int](), asyncio.Event()

    def note(number: int) -> None:
        sent.append(number)
        some.set()

    it = exports(collector, LogOrigin(spool, 1, note), OTEL_LOGS_EXPORTER="otlp")
    task = asyncio.create_task(it.run())
    spool.close_segment(1, ("stdout", b"an earlier process of the agent has exported it\n"))
    collector.status = 400
    spool.close_segment(2, ("stdout", b"refused\n"))
    await asyncio.wait_for(some.wait(), 10)
    collector.got.clear()
    collector.status = 200
    spool.close_segment(3, ("stdout", "joined: Zoë\x85\n".encode()), ("stderr", b"bad \xff\nhalf"))
    await it.last(DOCUMENT, time.monotonic() + 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (request,) = [ExportLogsServiceRequest.FromString(body) for body in collector.got["/v1/logs"]]
    assert attributes(request.resource_logs[0].resource.attributes)["service.name"] == "arena"
    records = request.resource_logs[0].scope_logs[0].log_records
    lines = [(attributes(record.attributes).get("log.iostream"), record.body.string_value) for record in records]
    assert lines == [("stdout", "joined: Zoë\x85"), ("stderr", "bad \ufffd"), ("stderr", "half")]
    assert {record.trace_id.hex() for record in records} == {it.trace_id}
    assert records[0].time_unix_nano == 1_795_845_001_000_000_000
    assert (sent, spool.let_go) == ([2, 3], [1, 2, 3])


async def test_a_segment_that_there_was_no_room_for_is_left_out(
    collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    """The spool lets go of what the store has where the collector is slow; what comes next is exported."""
    spool = Spool()
    it = exports(collector, LogOrigin(spool, 0, print), OTEL_LOGS_EXPORTER="otlp")
    spool.show(Segment(1, "/run", 0, "/no/such/file"))
    spool.close_segment(2, ("stdout", b"later\n"))
    await it.last(DOCUMENT, time.monotonic() + 5)
    assert "it takes less than the game writes; what the spool has no room for is left out" in capfd.readouterr().err
    (body,) = collector.got["/v1/logs"]
    assert b"later" in body
    assert spool.let_go == [1, 2]


async def test_an_agent_that_leaves_lets_go_of_the_log(collector: Collector) -> None:
    """What a collector has not taken by then is not kept for a later agent, which would upload it again."""
    spool = Spool()
    it = exports(collector, LogOrigin(spool, 0, print), OTEL_LOGS_EXPORTER="otlp")
    assert spool.tapped()
    it.close()
    assert not spool.tapped()
    await it.last(DOCUMENT, time.monotonic() + 5)
    exports(collector).close()


async def test_metrics_are_exported_at_the_interval_of_the_sdk(collector: Collector) -> None:
    """`OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds; a failing collector does not end it."""
    collector.status = 400
    task = asyncio.create_task(exports(collector, OTEL_METRIC_EXPORT_INTERVAL="150").run())
    end = time.monotonic() + 10
    while len(collector.got.get("/v1/metrics", ())) < 2:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_trace_has_the_same_id_in_every_process_of_the_agent() -> None:
    """It follows from the deployment and its start, and is never that of another one."""
    assert trace_id(DEPLOYMENT, BEGAN) == trace_id(DEPLOYMENT, BEGAN)
    assert trace_id(DEPLOYMENT, BEGAN) != trace_id(DEPLOYMENT, BEGAN + 1)
    assert int(trace_id(DEPLOYMENT, BEGAN), 16)


def test_the_sdk_is_not_imported_without_an_endpoint() -> None:
    """It takes a third of a second and 20 MB; so does what pushes, in its measure."""
    code = "import agent.runtime.app, agent.metrics.collector, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    modules = json.loads(done.stdout)
    heavy = ("opentelemetry", "google.protobuf", "requests", "psutil", "agent.metrics.push")
    assert [name for name in modules if name.startswith(heavy)] == []

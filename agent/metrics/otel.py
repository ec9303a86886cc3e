"""Metrics, log and the lifecycle's trace over OTLP/HTTP, by OpenTelemetry's official SDK (`arbitrium-agent[otel]`).

Imported only where an `OTEL_EXPORTER_OTLP_..._ENDPOINT` is set. The SDK reads its own variables (endpoint, headers,
timeout, compression, certificates, resource attributes): https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
Its exporters block, so every function here is called in another thread.

A deployment is one trace. Its id follows from what names the deployment, so that a later process of the agent, and the
exemplars of `/metrics`, have the same one. Resource attributes keep the semantic conventions
(https://opentelemetry.io/docs/specs/semconv/resource/); what these do not name begins with `arbitrium.`.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import export as data
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from agent import __version__
from agent.config.injected import Deployment
from agent.metrics.exposition import Family

_SCOPE = "arbitrium-agent"
_SPANS = {
    "starting": "start",
    "ready": "ready",
    "draining": "drain",
    "stopping": "stop",
    "flushing": "autopsy",
    "releasing": "release",
    "restarting": "restart",
}
_UNITS = (("_seconds", "s"), ("_bytes", "By"), ("_ratio", "1"), ("_hertz", "Hz"))


def resource(deployment: Deployment, name: str, version: str, environ: Mapping[str, str]) -> Resource:
    """What the metrics and spans are of.

    Args:
        deployment: what the platform injected.
        name: of the application, or "".
        version: of the application, or "".
        environ: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` in it win.
    """
    location = deployment.location
    known = {
        "service.name": name or "game-server",
        "service.version": version,
        "service.instance.id": deployment.request_id,
        "deployment.id": deployment.request_id,
        "host.id": deployment.host_id,
        "geo.locality.name": location and location.city,
        "arbitrium.location.country": location and location.country,
        "arbitrium.location.continent": location and location.continent,
        "arbitrium.tags": list(deployment.tags),
        "arbitrium.match.id": deployment.match.match_id,
    }
    given = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    set_by_user = {pair.partition("=")[0].strip() for pair in given.split(",")}
    if environ.get("OTEL_SERVICE_NAME"):
        set_by_user.add("service.name")
    return Resource.create({key: value for key, value in known.items() if value and key not in set_by_user})


def export_metrics(families: Sequence[Family], of: Resource, began: float, seconds: float) -> bool:
    """Exports all metrics once.

    Args:
        families: the metrics.
        of: the resource.
        began: when counting began, in seconds of Unix time.
        seconds: how long it may take.

    Returns:
        Whether the collector has taken them.
    """
    start, now = int(began * 1e9), time.time_ns()
    metrics = [metric for family in families if (metric := _metric(family, start, now)) is not None]
    scoped = data.ScopeMetrics(InstrumentationScope(_SCOPE, __version__), metrics, "")
    exporter = OTLPMetricExporter(timeout=seconds)
    try:
        whole = data.MetricsData([data.ResourceMetrics(of, [scoped], "")])
        return exporter.export(whole, timeout_millis=seconds * 1000) is data.MetricExportResult.SUCCESS
    finally:
        exporter.shutdown()


def _metric(family: Family, start: int, now: int) -> data.Metric | None:
    unit = next((unit for suffix, unit in _UNITS if family.name.endswith(suffix)), "")
    points: data.DataT
    if not family.samples:
        return None
    if family.kind == "histogram":
        points = data.Histogram(list(_histograms(family, start, now)), data.AggregationTemporality.CUMULATIVE)
    else:
        rows = [
            data.NumberDataPoint(dict(labels), start, now, float(value), []) for _, labels, value, _ in family.samples
        ]
        if family.kind == "counter":
            points = data.Sum(rows, data.AggregationTemporality.CUMULATIVE, is_monotonic=True)
        else:
            points = data.Gauge(rows)
    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    return data.Metric(family.name + suffix, family.help, unit, points)


def _histograms(family: Family, start: int, now: int) -> Iterator[data.HistogramDataPoint]:
    bounds: list[float] = []
    running: list[int] = []
    count = 0
    for suffix, labels, value, _ in family.samples:
        if suffix == "_bucket":
            running.append(round(value))
            if (bound := dict(labels)["le"]) != "+Inf":
                bounds.append(float(bound))
        elif suffix == "_count":
            count = round(value)
        else:
            alone = [number - before for number, before in zip(running, (0, *running), strict=False)]
            # The least and the most are not known: infinities that are the wrong way round say so.
            yield data.HistogramDataPoint(
                dict(labels), start, now, count, value, alone, bounds, float("inf"), float("-inf")
            )
            bounds, running = [], []


class LogSender:
    """Sends lines of the log; `log.iostream` says where the game wrote them (semantic conventions, general logs)."""

    def __init__(self, of: Resource, trace_id: str | None) -> None:
        """Takes the resource, and the id of the trace that the lifecycle is exported as, which the lines belong to."""
        self._resource = of
        self._scope = InstrumentationScope(_SCOPE, __version__)
        span: trace.Span = trace.INVALID_SPAN
        if trace_id is not None:
            span = trace.NonRecordingSpan(_root_context(trace_id))
        self._context = trace.set_span_in_context(span)

    def send(self, records: list[dict[str, Any]], seconds: float) -> bool:
        """Sends lines.

        Args:
            records: `ns`, `stream`, `line`, and where there are any `partial` and `dropped_bytes`.
            seconds: how long it may take.

        Returns:
            Whether the collector has taken them.
        """
        exporter = OTLPLogExporter(timeout=seconds)
        try:
            return exporter.export([self._record(record) for record in records]).name == "SUCCESS"
        finally:
            exporter.shutdown()  # type: ignore[no-untyped-call]

    def _record(self, line: dict[str, Any]) -> ReadableLogRecord:
        stream = line["stream"]
        attributes = {"log.iostream" if stream in ("stdout", "stderr") else "arbitrium.stream": stream}
        attributes |= {f"arbitrium.{name}": line[name] for name in ("partial", "dropped_bytes") if name in line}
        record = LogRecord(
            timestamp=line["ns"],
            observed_timestamp=line["ns"],
            context=self._context,
            body=line["line"],
            attributes=attributes,
        )
        return ReadableLogRecord(record, self._resource, self._scope)


class LifecycleTrace:
    """The spans of one deployment, of one trace."""

    def __init__(self, of: Resource, trace_id: str) -> None:
        """Takes the resource and the id of the trace in hexadecimal."""
        self._finished = InMemorySpanExporter()
        self._provider = TracerProvider(resource=of, sampler=ALWAYS_ON, id_generator=_Ids(int(trace_id, 16)))
        self._provider.add_span_processor(SimpleSpanProcessor(self._finished))
        self._tracer = self._provider.get_tracer(_SCOPE, __version__)
        # Every span of the deployment is below this one, whichever process of the agent exports it.
        self._root = trace.set_span_in_context(trace.NonRecordingSpan(_root_context(trace_id)))

    def take(self, document: Mapping[str, Any], now: float) -> None:
        """Makes spans of what `exit.json` says: the deployment, each phase, each stop method.

        Args:
            document: the content of `exit.json`.
            now: Unix time in seconds, at which a phase that goes on is cut.
        """
        phases = [phase for phase in document.get("phases", ()) if phase.get("at")]
        if not phases:
            return
        begin = _nanoseconds(phases[0]["at"])
        end = int(now * 1e9)
        self._span_of_deployment(document, begin, end)
        bounds = [*(_nanoseconds(phase["at"]) for phase in phases[1:]), end]
        for phase, until in zip(phases, bounds, strict=True):
            span = self._tracer.start_span(
                _SPANS.get(phase["phase"], phase["phase"]),
                self._root,
                attributes={"arbitrium.phase": phase["phase"]},
                start_time=_nanoseconds(phase["at"]),
            )
            if phase["phase"] == "stopping":
                self._methods(document, trace.set_span_in_context(span))
            span.end(until)

    def _span_of_deployment(self, document: Mapping[str, Any], begin: int, end: int) -> None:
        stop = document.get("stop") or {}
        facts = {
            "arbitrium.reason": document.get("reason"),
            "arbitrium.cause": document.get("cause"),
            "arbitrium.stop.source": stop.get("source"),
            "arbitrium.stop.message": stop.get("message"),
            "arbitrium.attempt": document.get("attempt"),
            "arbitrium.restarts": document.get("restarts"),
            "process.exit.code": document.get("code"),
            "arbitrium.signal": document.get("signal"),
        }
        self._provider.id_generator.as_root = True  # type: ignore[attr-defined]
        span = self._tracer.start_span(
            "deployment",
            trace.set_span_in_context(trace.INVALID_SPAN),
            attributes={name: value for name, value in facts.items() if value not in (None, "")},
            start_time=begin,
        )
        for line in document.get("evidence", ()):
            span.add_event("evidence", {"arbitrium.evidence": str(line)}, timestamp=end)
        good = document.get("cause") == "clean"
        summary = None if good else str(document.get("summary", ""))
        span.set_status(trace.Status(trace.StatusCode.OK if good else trace.StatusCode.ERROR, summary))
        span.end(end)

    def _methods(self, document: Mapping[str, Any], below: Any) -> None:
        asked = (document.get("times") or {}).get("stop_requested")
        if asked is None:
            return
        for step in document.get("happened", ()):
            if "method" not in step:
                continue
            begin = _nanoseconds(asked) + int(step["after_seconds"] * 1e9)
            span = self._tracer.start_span(
                f"stop method {str(step['method']).partition(':')[0]}",
                below,
                attributes={
                    "arbitrium.stop.method": step["method"],
                    "arbitrium.stop.outcome": step["outcome"],
                    "arbitrium.stop.acknowledged": step["acknowledged"],
                    "arbitrium.stop.planned_seconds": step["planned_seconds"],
                },
                start_time=begin,
            )
            span.end(begin + int(step["seconds"] * 1e9))

    def step(self, name: str, began: float, ended: float, **attributes: str) -> None:
        """One more span below the deployment: `ship`, `release`.

        Args:
            name: of the span.
            began: Unix time in seconds.
            ended: likewise.
            attributes: what is to be said of it, without `arbitrium.` in front.
        """
        shown = {f"arbitrium.{key}": value for key, value in attributes.items()}
        self._tracer.start_span(name, self._root, attributes=shown, start_time=int(began * 1e9)).end(int(ended * 1e9))

    def export(self, seconds: float) -> bool:
        """Exports the spans made since the last time, within so many seconds; says whether the collector has them."""
        spans: Iterable[ReadableSpan] = self._finished.get_finished_spans()
        self._finished.clear()
        exporter = OTLPSpanExporter(timeout=seconds)
        try:
            return exporter.export(list(spans)).name == "SUCCESS"
        finally:
            exporter.shutdown()  # type: ignore[no-untyped-call]


_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)


class _Ids(RandomIdGenerator):
    """Random ids for spans, but for the trace and its first span."""

    def __init__(self, trace_id: int) -> None:
        self._trace_id = trace_id
        self.as_root = False

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        if self.as_root:
            self.as_root = False
            return _root_id(f"{self._trace_id:032x}")
        return super().generate_span_id()


def _root_context(trace_id: str) -> trace.SpanContext:
    """Of the span of the deployment."""
    return trace.SpanContext(int(trace_id, 16), _root_id(trace_id), is_remote=False, trace_flags=_SAMPLED)


def _root_id(trace_id: str) -> int:
    return int(trace_id[:16], 16) or 1


def _nanoseconds(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1e9)

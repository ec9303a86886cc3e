"""Exports: pushes metrics at an interval and at the end, and sends the lifecycle as a trace, and the log.

Everything here is switched on by a setting or a variable, and imported only then.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agent import log
from agent.config.injected import Deployment
from agent.config.model import Settings
from agent.errors import how_to_install

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from agent.metrics.exposition import Family
    from agent.metrics.otel import LifecycleTrace, LogSender
    from agent.metrics.otel_logs import LogExport, Tapped
    from agent.metrics.push import Pusher

_ENDPOINT = "OTEL_EXPORTER_OTLP_{}ENDPOINT"
_OTEL_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"  # in milliseconds, as the SDK has it
_OTEL_INTERVAL_DEFAULT = 60000.0
_OTEL_SECONDS = 10.0
_RELEASE_SECONDS = 5.0


def trace_id(deployment: Deployment, began: float) -> str:
    """The id of a deployment's trace, the same in every process of the agent.

    Args:
        deployment: what the platform injected.
        began: when the container began, in seconds of Unix time.
    """
    named = f"{deployment.request_id or ''} {began:.3f}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


class LogOrigin(NamedTuple):
    """The source of the log.

    Attributes:
        spool: the spool.
        sent: number of the last segment that an earlier process of the agent has exported; 0 for none.
        on_sent: called with the number of each exported segment.
    """

    spool: Tapped
    sent: int
    on_sent: Callable[[int], None]


class Exports:
    """Pushes metrics, exports the trace and the log, as far as they are switched on."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        deployment: Deployment,
        collect: Callable[[], Awaitable[list[Family]]],
        *,
        began: float,
        origin: LogOrigin | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            settings: where metrics are pushed to.
            environ: the container's environment, for the variables of OpenTelemetry.
            deployment: what the platform injected.
            collect: reads all metrics.
            began: when the container began, in seconds of Unix time.
            origin: the source of the log; None if it is not captured.
        """
        self._settings = settings
        self._environ = environ
        self._deployment = deployment
        self._collect = collect
        self._began = began
        disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        self._traces = not disabled and _wanted(environ, "TRACES")
        self._metrics = not disabled and _wanted(environ, "METRICS")
        self._log: LogExport | None = None
        if origin is not None and not disabled and _logs_wanted(environ):
            from agent.metrics.otel_logs import LogExport  # noqa: PLC0415 - only where it is asked for

            self._log = LogExport(
                origin.spool,
                self._log_sender,
                interval=settings.ship_interval,
                sent=origin.sent,
                on_sent=origin.on_sent,
            )
        self._pusher: Pusher | None = None
        self._resource: Resource | None = None
        self._trace: LifecycleTrace | None = None

    @property
    def trace_id(self) -> str | None:
        """The id of the lifecycle's trace; None if it is not exported."""
        return trace_id(self._deployment, self._began) if self._traces else None

    @property
    def wanted(self) -> bool:
        """Whether anything is exported."""
        return bool(self._settings.metrics_push_url) or self._traces or self._metrics or self._log is not None

    async def run(self) -> None:
        """Pushes metrics at the intervals that are set, until it is cancelled."""
        work = []
        if (pusher := self._push()) is not None and self._settings.metrics_push_interval:
            work.append(pusher.run(self._settings.metrics_push_interval))
        if self._otel() and self._metrics:
            work.append(self._export_metrics_again_and_again())
        if self._otel() and self._log is not None:
            work.append(self._log.run())
        await asyncio.gather(*work)

    async def last(self, document: Mapping[str, Any], until: float) -> None:
        """Makes the exports after the game's end. Never raises.

        Args:
            document: the content of `exit.json` so far.
            until: the deadline, in seconds of the monotonic clock.
        """
        work: list[Awaitable[object]] = []
        if (pusher := self._push()) is not None:
            work.append(pusher.push_last(until))
        if self._otel():
            if self._metrics:
                work.append(self._export_metrics(until - time.monotonic()))
            if self._traces:
                work.append(self._export_trace(document, until))
            if self._log is not None:
                work.append(self._log.finish(max(0.1, until - time.monotonic())))
        for problem in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(problem, Exception):
                log.warning(f"cannot export what is to be exported at the end: {type(problem).__name__}: {problem}")

    def close(self) -> None:
        """Releases the log: the rest is not exported, and segments that the store has are deleted."""
        if self._log is not None:
            self._log.give_up()

    async def step(self, name: str, began: float, ended: float, **attributes: str) -> None:
        """Adds a span to the trace that was exported already, such as the release. Never raises.

        Args:
            name: of the span.
            began: seconds of the monotonic clock.
            ended: likewise.
            attributes: its attributes.
        """
        if not self._traces or not self._otel() or self._trace is None:
            return
        offset = time.time() - time.monotonic()
        self._trace.step(name, began + offset, ended + offset, **attributes)
        try:
            await asyncio.to_thread(self._trace.export, _RELEASE_SECONDS)
        except Exception as problem:
            log.warning(f"cannot export the span {name}: {type(problem).__name__}: {problem}")

    def _push(self) -> Pusher | None:
        url = self._settings.metrics_push_url
        if url is not None and self._pusher is None:
            from agent.metrics.push import Pusher, instance_name  # noqa: PLC0415 - only where it is asked for

            auth = self._settings.metrics_push_auth
            self._pusher = Pusher(
                url,
                self._collect,
                job=self._settings.app_name or "arbitrium-agent",
                instance=instance_name(self._deployment.request_id),
                auth=auth.get_secret_value() if auth is not None else None,
            )
        return self._pusher

    def _otel(self) -> bool:
        """Whether the SDK is installed and switched on."""
        if not self._traces and not self._metrics and self._log is None:
            return False
        if self._resource is None:
            try:
                from agent.metrics import otel  # noqa: PLC0415 - 300 ms and 20 MB, only where it is asked for
            except ImportError as missing:
                log.warning(f"cannot export to OpenTelemetry ({missing.name} is missing): {how_to_install('otel')}")
                self._traces = self._metrics = False
                if self._log is not None:
                    self._log.give_up()
                    self._log = None
                return False
            settings = self._settings
            self._resource = otel.resource(self._deployment, settings.app_name, settings.app_version, self._environ)
        return True

    def _log_sender(self) -> LogSender:
        from agent.metrics import otel  # noqa: PLC0415 - as above

        assert self._resource is not None, "made when the SDK was looked for"
        return otel.LogSender(self._resource, self.trace_id)

    async def _export_metrics(self, seconds: float) -> bool:
        from agent.metrics import otel  # noqa: PLC0415 - as above

        assert self._resource is not None, "made when the SDK was looked for"
        families = await self._collect()
        return await asyncio.to_thread(otel.export_metrics, families, self._resource, self._began, max(0.1, seconds))

    async def _export_metrics_again_and_again(self) -> None:
        try:
            interval = max(0.1, float(self._environ.get(_OTEL_INTERVAL) or _OTEL_INTERVAL_DEFAULT) / 1000)
        except ValueError:
            interval = _OTEL_INTERVAL_DEFAULT / 1000
        while True:
            await asyncio.sleep(interval)
            await self._export_metrics(min(_OTEL_SECONDS, interval))

    async def _export_trace(self, document: Mapping[str, Any], until: float) -> None:
        from agent.metrics import otel  # noqa: PLC0415 - as above

        assert self._resource is not None, "made when the SDK was looked for"
        self._trace = otel.LifecycleTrace(self._resource, trace_id(self._deployment, self._began))
        self._trace.take(document, time.time())
        await asyncio.to_thread(self._trace.export, max(0.1, until - time.monotonic()))


def _wanted(environ: Mapping[str, str], signal: str) -> bool:
    """Whether a signal is exported: an endpoint is set, and its exporter is not `none`."""
    exporter = environ.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower()
    endpoint = environ.get(_ENDPOINT.format("")) or environ.get(_ENDPOINT.format(f"{signal}_"))
    return bool(endpoint) and exporter == "otlp"


def _logs_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the log is exported: unlike the other signals, only on explicit request, because it is large."""
    asked = environ.get("OTEL_LOGS_EXPORTER") or environ.get(_ENDPOINT.format("LOGS_"))
    return bool(asked) and _wanted(environ, "LOGS")

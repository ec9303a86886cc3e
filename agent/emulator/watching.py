"""The page's data about deployments, and a feed with a bounded buffer for each reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from agent.emulator.deployment import Deployment
from agent.emulator.places import PLACES
from agent.emulator.platform import Platform

CHART_SAMPLES = 120
"""Samples that a chart shows; older ones are not sent."""


def view(deployment: Deployment, since: float, minute_seconds: float) -> dict[str, Any]:
    """What the page shows of a deployment; its samples only from a moment (Unix time) on, excluded."""
    host, place, crash = deployment.host, deployment.location, deployment.crash
    removal = deployment.removal_time(minute_seconds)
    samples = [sample for sample in list(deployment.samples)[-CHART_SAMPLES:] if sample.at > since]
    return {
        "id": deployment.id,
        "application": deployment.request.application,
        "version": deployment.request.version,
        "status": deployment.status.value,
        "history": [[status.value, moment.timestamp()] for status, moment in deployment.history],
        "created": deployment.created.timestamp(),
        "ready": deployment.ready_at.timestamp() if deployment.ready_at else None,
        "ended": deployment.ended_at.timestamp() if deployment.ended_at else None,
        "removal": removal.timestamp() if removal else None,
        "error": deployment.error_detail,
        "log_trouble": deployment.log_trouble,
        "stop_by": deployment.stop_request.by if deployment.stop_request else None,
        "crash": f"{crash.message} ({crash.exit_code})" if crash else None,
        "restarts": deployment.restart_count,
        "restart_policy": deployment.version.restart_policy,
        "grace": deployment.version.termination_grace_period_seconds,
        "cpu_units": deployment.version.req_cpu,
        "memory_mb": deployment.version.req_memory,
        "public_ip": deployment.public_ip,
        "ports": [port.as_json(deployment.fqdn) for port in deployment.ports],
        "city": place.city if place else None,
        "country": place.country if place else None,
        "host": host.host_id if host else None,
        "tags": list(deployment.tags),
        "samples": [
            [
                round(each.at, 2),
                *(round(value, 2) for value in (each.cpu_percent, each.memory_mb)),
                each.receive_rate,
                each.transmit_rate,
            ]
            for each in samples
        ],
    }


def catalogue(platform: Platform) -> dict[str, Any]:
    """What can be deployed, and where players can be."""
    return {
        "url": platform.url,
        "sample_seconds": platform.settings.sample_seconds,
        "warnings": platform.warnings,
        "tls": {"port": platform.tls_port, "authority": platform.tls_authority} if platform.tls_port else None,
        "cities": [place.city for place in PLACES],
        "versions": [
            {"application": application.body.name, "version": version}
            for application in platform.catalogue.applications.values()
            for version, body in application.versions.items()
            if application.body.is_active and body.body.is_active
        ],
    }


class Feed:
    """What one reader has not been told yet: names of what changed, not the changes, so that it stays small.

    Args:
        platform: what is watched.
    """

    def __init__(self, platform: Platform) -> None:
        """See the class."""
        self._platform = platform
        self._changed: dict[str, None] = dict.fromkeys(platform.deployments)
        self._told: dict[str, float] = {}
        self._catalogue = True
        self._bell = asyncio.Event()
        self._bell.set()
        self._ends: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._ends = [self._platform.watch(self._on_deployment), self._platform.catalogue.on_change(self._on_catalogue)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch no more."""
        for end in self._ends:
            end()

    def _on_deployment(self, deployment: Deployment) -> None:
        self._changed[deployment.id] = None
        self._bell.set()

    def _on_catalogue(self) -> None:
        self._catalogue = True
        self._bell.set()

    def ring(self) -> None:
        """End the waiting."""
        self._bell.set()

    async def wait(self, seconds: float) -> None:
        """Until there is something to tell, or so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """The events since the last time: their names and data."""
        self._bell.clear()
        events: list[tuple[str, dict[str, Any]]] = []
        if self._catalogue:
            self._catalogue = False
            events.append(("catalogue", catalogue(self._platform)))
        changed, self._changed = self._changed, {}
        for deployment_id in changed:
            deployment = self._platform.deployments.get(deployment_id)
            if deployment is not None:
                said = view(deployment, self._told.get(deployment_id, 0.0), self._platform.settings.minute_seconds)
                self._told[deployment_id] = (
                    said["samples"][-1][0] if said["samples"] else self._told.get(deployment_id, 0.0)
                )
                events.append(("deployment", said))
        for gone in [deployment_id for deployment_id in self._told if deployment_id not in self._platform.deployments]:
            del self._told[gone]
            events.append(("gone", {"id": gone}))
        return events

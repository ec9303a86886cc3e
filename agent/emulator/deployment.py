"""The platform's data of one deployment, and its representations in answers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from agent.emulator.catalogue import now, rfc3339, stamp
from agent.emulator.container import Container
from agent.emulator.container_log import ContainerLog
from agent.emulator.fleets import Host
from agent.emulator.models import DeploymentCreate, StorageBody, VersionBody
from agent.emulator.places import Place
from agent.emulator.ports import Forwarding, Mapping
from agent.emulator.samples import Samples


class Status(StrEnum):
    """The states of a deployment; one is only ever followed by a later one."""

    SEEKING = "SEEKING"
    SEEKED = "SEEKED"
    DEPLOYING = "DEPLOYING"
    READY = "READY"
    ERROR = "ERROR"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"

    @property
    def shown(self) -> str:
        """As the API writes it."""
        return f"Status.{self.value}"


@dataclass
class TagRecord:
    """One tag, as the contract has it."""

    name: str
    created: datetime = field(default_factory=now)
    updated: datetime = field(default_factory=now)

    def as_json(self) -> dict[str, Any]:
        """The contract's `TagRecord`."""
        return {"name": self.name, "create_time": rfc3339(self.created), "last_updated": rfc3339(self.updated)}


@dataclass(frozen=True)
class StopRequest:
    """Why a deployment is to end, and where its logs are to go."""

    by: str
    """`backend`, `self`, `bulk`, `page`, `max_duration`, `exited` or `emulator`."""
    log_storage: str | None = None
    """As `container_log_storage` has it; None follows the version."""
    at: datetime = field(default_factory=now)


@dataclass(frozen=True)
class Crash:
    """The contract's `crash_data`."""

    exit_code: int
    message: str


@dataclass(frozen=True)
class KeptLogs:
    """What an endpoint storage received, and how to find it again."""

    storage: StorageBody
    key: str
    """Of the object with all of the output."""
    crash_key: str | None
    """Of the object with the last crash's output."""
    link: str


class Deployment:
    """One deployment; changed by `runner`, read by everyone.

    Args:
        request: what was asked for.
        version: the version as it was then.
        public_ip: where players connect.
        domain: what follows the id in its name; empty for the address itself.
        log_bytes: most output kept.
        changed: called after every change that a watcher may want to see.
    """

    def __init__(
        self,
        request: DeploymentCreate,
        version: VersionBody,
        *,
        public_ip: str,
        domain: str,
        log_bytes: int,
        changed: Callable[[Deployment], None],
    ) -> None:
        """See the class."""
        self.id = secrets.token_hex(6)
        self.request = request
        self.version = version
        self.public_ip = public_ip
        self.fqdn = f"{self.id}.{domain}" if domain else public_ip
        self.stop_key = str(secrets.randbelow(900_000) + 100_000)
        self.security_number = str(secrets.randbelow(900_000) + 100_000)
        self.delete_token = secrets.token_hex(16)
        self.context_token = secrets.token_hex(16)
        self.tags: dict[str, TagRecord] = {name: TagRecord(name) for name in request.tags}
        self.created = now()
        self.ready_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.status = Status.SEEKING
        self.last_status: Status | None = None
        self.history: list[tuple[Status, datetime]] = [(Status.SEEKING, self.created)]
        """The states it entered, and when."""
        self.error_detail: str | None = None
        self.location: Place | None = None
        self.host: Host | None = None
        self.forwarding: Forwarding | None = None
        self.ports: list[Mapping] = []
        self.container: Container | None = None
        self.restart_count = 0
        self.crash: Crash | None = None
        self.crash_logs: bytes | None = None
        self.kept_logs: KeptLogs | None = None
        self.log_trouble: str | None = None
        self.stop_request: StopRequest | None = None
        self.log_storage: str | None = None
        """As `container_log_storage` of a stop has it, said at the deploy already; None follows the version."""
        self.is_joinable: bool | None = None
        self.wake = asyncio.Event()
        """Set when its runner has something to look at: a stop request, or the end of its container."""
        self.container_log = ContainerLog(log_bytes)
        self.samples = Samples()
        self._changed = changed

    def become(self, status: Status) -> None:
        """Enter a state."""
        self.last_status, self.status = self.status, status
        self.history.append((status, now()))
        if status is Status.READY:
            self.ready_at = now()
        elif status is Status.TERMINATED:
            self.ended_at = now()
        self._changed(self)

    def ask_to_stop(self, request: StopRequest) -> None:
        """Let the first request to stop stand; later ones change nothing."""
        if self.stop_request is None:
            self.stop_request = request
            self.wake.set()
            self._changed(self)

    def note_change(self) -> None:
        """Tell watchers of a change that is not one of state."""
        self._changed(self)

    @property
    def active(self) -> bool:
        """Whether it still takes room, and is listed."""
        return self.status is not Status.TERMINATED

    @property
    def started(self) -> datetime:
        """When it became ready; before that, when it was made (the contract has no null here)."""
        return self.ready_at or self.created

    def removal_time(self, minute_seconds: float) -> datetime | None:
        """When it was stopped; before that, when `max_duration` is over; None without a limit or before ready."""
        if self.ended_at is not None:
            return self.ended_at
        if self.version.max_duration < 0 or self.ready_at is None:
            return None
        return self.ready_at + timedelta(seconds=self.version.max_duration * minute_seconds)

    def ports_json(self) -> dict[str, Any]:
        """The ports by name."""
        return {port.name: port.as_json(self.fqdn) for port in self.ports}

    def status_json(self, minute_seconds: float = 60.0) -> dict[str, Any]:
        """The contract's `DeploymentStatus`."""
        elapsed = ((self.ended_at or now()) - self.ready_at).total_seconds() if self.ready_at else 0
        removal = self.removal_time(minute_seconds)
        body: dict[str, Any] = {
            "request_id": self.id,
            "fqdn": self.fqdn,
            "public_ip": self.public_ip,
            "app_name": self.request.application,
            "app_version": self.request.version,
            "current_status": self.status.shown,
            "running": self.status is Status.READY,
            "whitelisting_active": False,
            "start_time": rfc3339(self.started),
            "elapsed_time": max(0, int(elapsed)),
            "max_duration": self.version.max_duration,
            "removal_time": rfc3339(removal) if removal else None,
            "last_status": self.last_status.shown if self.last_status else None,
            "error": self.error_detail is not None,
            "error_detail": self.error_detail,
            "ports": self.ports_json(),
            "tags": list(self.tags),
            "command": self.version.command,
            "arguments": self.version.arguments,
        }
        if self.location:
            body["location"] = self.location.as_json()
        return body

    def list_json(self) -> dict[str, Any]:
        """The contract's `DeploymentListItem`."""
        return {
            "request_id": self.id,
            "fqdn": self.fqdn,
            "status": self.status.shown,
            "ready": self.status is Status.READY,
            "start_time": stamp(self.started),
            "public_ip": self.public_ip,
            "ports": self.ports_json(),
            "tags": list(self.tags),
        }

    def context_json(self) -> dict[str, Any]:
        """The contract's `Context`."""
        body: dict[str, Any] = {
            "request_id": self.id,
            "public_ip": self.public_ip,
            "status": self.status.shown,
            "ready": self.status is Status.READY,
            "fqdn": self.fqdn,
            "whitelisting_active": False,
            "ports": self.ports_json(),
            "tags": list(self.tags),
            "sockets": None,
            "sockets_usage": None,
            "is_joinable_by_session": self.is_joinable,
        }
        if self.location:
            body["location"] = self.location.as_json()
        return body

    def logs_json(self, kept: tuple[str | None, str | None] = (None, None)) -> dict[str, Any]:
        """The contract's `Logs`: live while it runs, what a storage kept after that, else an empty text.

        Args:
            kept: the logs and the crash logs that its storage has.
        """
        logs, crash_logs = kept
        if self.active:
            logs = self.container_log.text().decode(errors="replace")
            crash_logs = self.crash_logs.decode(errors="replace") if self.crash_logs is not None else None
        crash = None
        if self.crash is not None:
            crash = {
                "exit_code": self.crash.exit_code,
                "message": self.crash.message,
                "restart_count": self.restart_count,
            }
        return {
            "logs": logs or "",
            "crash_logs": crash_logs,
            "crash_data": crash,
            "encoding": "utf-8",
            "logs_link": self.kept_logs.link if self.kept_logs else None,
        }

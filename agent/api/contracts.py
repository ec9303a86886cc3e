"""The interfaces that the operations need; `agent.runtime.app` provides the implementations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from agent.lifecycle.states import Event, Source, State
from agent.record import Record


class Control(Protocol):
    """The lifecycle for the operations; implemented by `agent.runtime.mirror.Mirror`."""

    @property
    def state(self) -> State:
        """The present state."""

    def post(self, event: Event) -> State:
        """Posts an event and returns the resulting state."""

    def now(self) -> float:
        """The current time in seconds of the monotonic clock."""


class TagsBackend(Protocol):
    """The deployment's tags on the platform. Each call raises `AgentError`, without secrets, if it fails."""

    async def list(self) -> list[str]:
        """All tags."""

    async def add(self, name: str) -> None:
        """Adds a tag; an existing tag is not an error."""

    async def remove(self, name: str) -> None:
        """Removes a tag; a missing tag is not an error."""


OnRequest: TypeAlias = Callable[[str, str, str, float], None]
"""Called for each request: transport (`http`, `socket`), operation, status, seconds. The status is that of HTTP; for
the socket it is `ok` or the JSON-RPC error code."""

Keep: TypeAlias = Callable[[str], Awaitable[str]]
"""Marks the file at an absolute path without symbolic links to be uploaded at the end of the deployment; returns where
it will be stored, and raises `AgentError` if that is not possible."""


class DropIn(Record):
    """What the self-stop route of this agent accepts.

    Attributes:
        deployment_id: the id in its path.
        stop_key: the number in its path.
        tokens: all accepted ones: the injected token, and the substitute that the game got.
    """

    deployment_id: str
    stop_key: str
    tokens: tuple[str, ...]

    def __repr__(self) -> str:
        """Without its secrets."""
        return f"DropIn({self.deployment_id!r})"


class Caller(Record):
    """The caller of an operation.

    Attributes:
        transport: `http` or `socket`.
        source: the source that is recorded for a stop request of this caller.
    """

    transport: str
    source: Source

"""What the operations need from the rest of the agent; `agent.runtime.app` brings it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from agent.lifecycle.states import Event, Source, State


class Control(Protocol):
    """The lifecycle as the operations see it; `agent.lifecycle.driver.Conductor` is one."""

    @property
    def state(self) -> State:
        """The present state."""

    def post(self, event: Event) -> State:
        """Takes an event in and returns the state that follows."""

    def now(self) -> float:
        """The present moment in seconds of the monotonic clock."""


class TagsBackend(Protocol):
    """The deployment's tags on the platform. Each call raises `AgentError`, without a secret in it, when it cannot."""

    async def list(self) -> list[str]:
        """All tags."""

    async def add(self, name: str) -> None:
        """Adds a tag; one that is there already is no error."""

    async def remove(self, name: str) -> None:
        """Removes a tag; one that is not there is no error."""


OnRequest: TypeAlias = Callable[[str, str, str, float], None]
"""Told of each request: transport (`http`, `socket`), operation, status, seconds. The status is HTTP's, and over the
socket `ok` or the JSON-RPC error code."""

Keep: TypeAlias = Callable[[str], Awaitable[str]]
"""Keeps the file at an absolute path without symbolic links, beyond the end of the deployment; returns where it will
lie, and raises `AgentError` when it cannot."""


@dataclass(frozen=True, slots=True)
class DropIn:
    """What the self-stop route of this agent answers to.

    Attributes:
        deployment_id: the id in its path.
        stop_key: the number in its path.
        tokens: each is accepted: the injected one, and the one that the game got in its place.
    """

    deployment_id: str
    stop_key: str = field(repr=False)
    tokens: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        transport: `http` or `socket`.
        source: as whom a stop request of theirs counts.
    """

    transport: str
    source: Source

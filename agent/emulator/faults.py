"""Faults on demand: errors of the platform or of the network."""

from __future__ import annotations

import asyncio
import fnmatch
import socket
import struct
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.emulator.errors import ApiError, Unanswered
from agent.emulator.records import FAULT


class Fault(BaseModel):
    """One fault, as `PUT /emulator/faults` takes it.

    `route` is an operation id of the contract (`selfStop`), a path with `*` (`/v1/self/*`), one with a method before
    it (`DELETE /v1/self/*`), or `*`. `delay` comes first, then at most one of the others. With `when` `after`, the
    request is carried out, and only its answer is lost or replaced.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    route: str = Field(min_length=1)
    count: int | None = Field(default=None, ge=1)
    """How often it happens; None for always."""
    skip: int = Field(default=0, ge=0)
    """How many matching requests pass before the first."""
    when: Literal["before", "after"] = "before"
    delay: float = Field(default=0.0, ge=0, le=3600)
    """Seconds."""
    status: int | None = Field(default=None, ge=400, le=599)
    message: str | None = None
    retry_after: int | None = Field(default=None, ge=0)
    """Seconds; sent with `status`."""
    reset: bool = False
    """Reset the connection (RST) instead of answering."""
    hang: bool = False
    """Never answer; the connection stays open until the client leaves."""

    def matches(self, request: web.Request, operation_id: str) -> bool:
        """Whether it is about this request."""
        method, _, path = self.route.rpartition(" ")
        if method and method.upper() != request.method:
            return False
        return path == operation_id or fnmatch.fnmatchcase(request.path, path)


LATER = web.RequestKey("later", list[Fault])
"""The faults that happen once the request has been carried out."""


class FaultsBody(BaseModel):
    """`PUT /emulator/faults`: replaces those there were."""

    model_config = ConfigDict(strict=True, extra="forbid")
    faults: list[Fault]

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """A list of faults, or a single one, says as much as the whole body."""
        if isinstance(value, dict) and "route" in value:
            value = [value]
        return {"faults": value} if isinstance(value, list) else value


class Faults:
    """The faults in force.

    Args:
        closing: set when the emulator closes, which ends what hangs.
    """

    def __init__(self, closing: asyncio.Event) -> None:
        """See the class."""
        self._closing = closing
        self._faults: list[Fault] = []
        self._seen: list[int] = []

    def set(self, faults: list[Fault]) -> None:
        """These, and no others, from now on."""
        self._faults = list(faults)
        self._seen = [0] * len(faults)

    def as_json(self) -> dict[str, Any]:
        """What is in force, and how many requests each has met."""
        return {
            "faults": [
                {**fault.model_dump(exclude_defaults=True), "met": seen}
                for fault, seen in zip(self._faults, self._seen, strict=True)
            ]
        }

    async def before(self, request: web.Request, operation_id: str) -> None:
        """Let faults happen before the request is looked at; counts those of both kinds."""
        later: list[Fault] = []
        request[LATER] = later
        for position, fault in enumerate(self._faults):
            if not fault.matches(request, operation_id):
                continue
            self._seen[position] += 1
            turn = self._seen[position] - fault.skip
            if turn < 1 or (fault.count is not None and turn > fault.count):
                continue
            if fault.when == "after":
                later.append(fault)
            else:
                await self._happen(request, fault)

    async def after(self, request: web.Request, operation_id: str) -> None:
        """Let the others happen, now that the request has been carried out."""
        for fault in request[LATER]:
            await self._happen(request, fault)

    async def _happen(self, request: web.Request, fault: Fault) -> None:
        request[FAULT] = fault.route
        if fault.delay:
            await self._wait(fault.delay)
        if fault.hang:
            await self._until_left(request)
            _reset(request)
        elif fault.reset:
            _reset(request)
        elif fault.status is not None:
            headers = None if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            message = fault.message or "cannot do this now: a fault was asked for; try again"
            raise ApiError(fault.status, message, headers=headers)

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _until_left(self, request: web.Request) -> None:
        while request.transport is not None and not request.transport.is_closing() and not self._closing.is_set():
            await self._wait(0.05)


def _reset(request: web.Request) -> None:
    """Close the connection so that the client sees a reset, not an end."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            # SO_LINGER with a time of 0 makes the kernel send RST on close.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    raise Unanswered

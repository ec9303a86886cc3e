"""The table of operations, shared by HTTP, the socket and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from agent.api import models as m
from agent.api.contracts import Caller
from agent.api.operations import Operations
from agent.api.problems import Kind, wrong_input
from agent.record import Record

BODY_LIMIT = 64 * 1024
"""The most bytes of a request body, or of a line on the socket."""


class Operation(Record):
    """One operation and its name in each transport.

    Attributes:
        name: its name in metrics, and on the socket if `socket` is set.
        call: the method that executes it.
        takes: model of its input.
        gives: model of its result.
        doing: what it does, as used after "cannot".
        http: method and path, with `{field}` for fields of the input that are in the path.
        socket: whether it can be called over the socket.
        status: HTTP status of its success.
        fails: its possible problems besides wrong input.
        query, headers: fields of the input that are in the query or in a header of the same name.
    """

    name: str
    call: Callable[[Operations, Any, Caller], BaseModel | Awaitable[BaseModel]]
    takes: type[BaseModel]
    gives: type[BaseModel]
    doing: str
    http: tuple[str, str]
    socket: bool = True
    status: int = 200
    fails: tuple[Kind, ...] = ()
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()

    @cached_property
    def path_fields(self) -> tuple[str, ...]:
        """The fields of the input that are in the path, in order."""
        return tuple(part[1:-1] for part in self.http[1].split("/") if part.startswith("{"))

    @cached_property
    def body_fields(self) -> tuple[str, ...]:
        """The fields of the input that are in the body."""
        elsewhere = {*self.path_fields, *self.query, *self.headers}
        return tuple(name for name in self.takes.model_fields if name not in elsewhere)

    @cached_property
    def takes_nothing(self) -> BaseModel | None:
        """The input for an empty body, or None if a body is required."""
        try:
            return self.takes.model_validate({})
        except ValidationError:
            return None

    def parse(self, body: bytes) -> BaseModel:
        """Reads the input from JSON; an empty body counts as an empty object.

        Raises:
            OperationError: it is not JSON, or not valid for this operation.
        """
        if not body:
            if self.takes_nothing is not None:
                return self.takes_nothing
            body = b"{}"
        try:
            return self.takes.model_validate_json(body)
        except ValidationError as wrong:
            raise wrong_input(self.doing, wrong, self.takes) from None

    def take(self, given: Any) -> BaseModel:
        """Reads the input from a parsed JSON object.

        Raises:
            OperationError: it is not valid for this operation.
        """
        try:
            return self.takes.model_validate(given)
        except ValidationError as wrong:
            raise wrong_input(self.doing, wrong, self.takes) from None


OPERATIONS: tuple[Operation, ...] = (
    Operation("ready", Operations.ready, m.Nothing, m.ReadyResult, "report ready", ("POST", "/v1/ready")),
    Operation("health", Operations.health, m.Nothing, m.HealthResult, "take a heartbeat", ("POST", "/v1/health")),
    Operation(
        "stop",
        Operations.stop,
        m.StopInput,
        m.StopResult,
        "stop",
        ("POST", "/v1/stop"),
        status=202,
        fails=(Kind.CONFLICT,),
    ),
    Operation(
        "stop.ack",
        Operations.stop_ack,
        m.AckInput,
        m.AckResult,
        "acknowledge a stop",
        ("POST", "/v1/stop/ack"),
        fails=(Kind.CONFLICT,),
    ),
    Operation("status", Operations.status, m.Nothing, m.StatusResult, "tell the status", ("GET", "/v1/status")),
    Operation(
        "deployment",
        Operations.deployment,
        m.Nothing,
        m.DeploymentResult,
        "describe the deployment",
        ("GET", "/v1/deployment"),
    ),
    Operation("players", Operations.players, m.Nothing, m.PlayersResult, "list players", ("GET", "/v1/players")),
    Operation(
        "players.set",
        Operations.players_set,
        m.PlayersInput,
        m.PlayersCount,
        "set players",
        ("PUT", "/v1/players"),
        fails=(Kind.CONFLICT,),
    ),
    Operation(
        "players.join",
        Operations.players_join,
        m.PlayerInput,
        m.PlayersCount,
        "join",
        ("PUT", "/v1/players/{id}"),
        fails=(Kind.CONFLICT,),
    ),
    Operation(
        "players.leave",
        Operations.players_leave,
        m.PlayerInput,
        m.PlayersCount,
        "leave",
        ("DELETE", "/v1/players/{id}"),
    ),
    Operation(
        "metrics",
        Operations.metrics,
        m.MetricsInput,
        m.MetricsResult,
        "set metrics",
        ("POST", "/v1/metrics"),
        fails=(Kind.CONFLICT,),
    ),
    Operation(
        "tags.list",
        Operations.tags_list,
        m.Nothing,
        m.TagsResult,
        "list tags",
        ("GET", "/v1/tags"),
        fails=(Kind.BACKEND, Kind.UNAVAILABLE),
    ),
    Operation(
        "tags.add",
        Operations.tags_add,
        m.TagInput,
        m.TagsResult,
        "add a tag",
        ("PUT", "/v1/tags/{name}"),
        fails=(Kind.BACKEND, Kind.UNAVAILABLE),
    ),
    Operation(
        "tags.remove",
        Operations.tags_remove,
        m.TagInput,
        m.TagsResult,
        "remove a tag",
        ("DELETE", "/v1/tags/{name}"),
        fails=(Kind.BACKEND, Kind.UNAVAILABLE),
    ),
    Operation(
        "upload",
        Operations.upload,
        m.UploadInput,
        m.UploadResult,
        "keep a file",
        ("POST", "/v1/uploads"),
        status=202,
        fails=(Kind.BACKEND, Kind.UNAVAILABLE),
    ),
    Operation(
        "self_stop",
        Operations.self_stop,
        m.SelfStopInput,
        m.SelfStopResult,
        "self-stop",
        ("DELETE", "/v1/self/stop/{deployment_id}/{stop_key}"),
        socket=False,
        status=202,
        fails=(Kind.UNAUTHORIZED, Kind.NOT_FOUND, Kind.CONFLICT, Kind.GONE),
        query=("container_log_storage",),
        headers=("authorization",),
    ),
    Operation("healthz", Operations.alive, m.Nothing, m.Alive, "answer", ("GET", "/healthz"), socket=False),
    Operation(
        "readyz",
        Operations.readiness,
        m.Nothing,
        m.Readiness,
        "take players",
        ("GET", "/readyz"),
        socket=False,
        fails=(Kind.UNAVAILABLE,),
    ),
)

BY_NAME = {operation.name: operation for operation in OPERATIONS}

"""The input and output models of the operations, for all transports.

Input is strict (`"5"` is not a number, unknown members are refused) but accepts `5.0` as a whole number, because some
languages only have floating-point numbers. Times are UTC; durations are seconds. Each model is built when it is first
used (`defer_build`): building all of them would take longer than the start of the server.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, RootModel, model_validator
from pydantic.config import JsonDict

from agent.lifecycle.game_metrics import (
    LABEL_NAME,
    MAX_BUCKETS,
    MAX_HELP,
    MAX_LABEL_VALUE,
    MAX_LABELS,
    MAX_METRICS,
    METRIC_NAME,
    RESERVED_LABELS,
    CustomMetric,
)
from agent.lifecycle.game_report import MAX_ID_LENGTH, MAX_PLAYERS, one_line
from agent.lifecycle.states import Phase, Reason, Source
from agent.lifecycle.stop_plan import Step

STORAGE_NAME = r"^[\x21-\x7e]+$"
STORAGE_NAME_OR_NONE = r"^[\x21-\x7e]*$"
ABSOLUTE_PATH = "^/"


class Input(BaseModel):
    """Base of all input models."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


class Output(BaseModel):
    """Base of all output models; the agent creates them itself, always complete."""

    model_config = ConfigDict(frozen=True, defer_build=True)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _storage(value: Any) -> Any:
    """`true` and `false` as the platform spells them in its query."""
    return str(value).lower() if isinstance(value, bool) else value


def _message(value: Any) -> Any:
    return one_line(value, 500) if isinstance(value, str) else value


_InRange: TypeAlias = Annotated[int, Field(ge=0, le=MAX_PLAYERS)]
_Storage: TypeAlias = Annotated[str, Field(max_length=255, pattern=STORAGE_NAME)]
Whole: TypeAlias = Annotated[_InRange, BeforeValidator(_whole, json_schema_input_type=_InRange)]
LogStorage: TypeAlias = Annotated[_Storage, BeforeValidator(_storage, json_schema_input_type=bool | _Storage)]

# In ---------------------------------------------------------------------------------------------------------------


class Nothing(Input):
    """No input."""


class StopInput(Input):
    """A request to stop the deployment."""

    reason: Annotated[str | None, BeforeValidator(_message, json_schema_input_type=str | None)] = Field(
        default=None, description="The reason in your own words; one line, cut to 500 characters."
    )
    grace_seconds: float | None = Field(
        default=None, ge=0, le=3600, description="Seconds that the game gets to end; AGENT_GRACE_SECONDS by default."
    )
    log_storage: LogStorage | None = Field(
        default=None,
        description="What the platform does with the container's logs: true (the storage of the version), false, or "
        "the name of a storage; AGENT_LOG_STORAGE by default.",
    )


class AckInput(Input):
    """The game acknowledges the stop."""

    more_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Seconds wanted beyond the share of the current stop method; once per stop.",
    )


class SelfStopInput(Input):
    """The platform's own self-stop call, made to the agent."""

    deployment_id: str = Field(description="Id of the deployment.")
    stop_key: str = Field(description="The number at the end of ARBITRIUM_DELETE_URL.")
    authorization: str = Field(default="", description="ARBITRIUM_DELETE_TOKEN, without a prefix.")
    container_log_storage: str = Field(
        default="",
        max_length=255,
        pattern=STORAGE_NAME_OR_NONE,
        description="true, false, or the name of a storage.",
    )


class PlayersInput(Input):
    """The number of players and the capacity: at least one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["count"], "properties": {"count": {"type": "integer"}}},
                {"required": ["capacity"], "properties": {"capacity": {"type": "integer"}}},
            ]
        }
    )

    count: Whole | None = Field(default=None, description="Players now.")
    capacity: Whole | None = Field(default=None, description="Players at most.")

    @model_validator(mode="after")
    def _makes_sense(self) -> PlayersInput:
        if self.count is None and self.capacity is None:
            raise ValueError("a count, a capacity, or both")
        return self


class PlayerInput(Input):
    """One player."""

    id: str = Field(
        min_length=1, max_length=MAX_ID_LENGTH, description="An id of your choice, of printable characters."
    )


_Labels: TypeAlias = dict[str, Annotated[str, Field(max_length=MAX_LABEL_VALUE)]]
_LABEL_NAMES: JsonDict = {
    "propertyNames": {"pattern": f"^(?!(?:{'|'.join(sorted(RESERVED_LABELS))})$){LABEL_NAME.pattern}$"}
}
_NUMBER: JsonDict = {"type": "number"}
MAX_OBSERVATIONS = 1000


class MetricInput(Input):
    """A detailed report of a metric: exactly one of `value`, `add` and `observe` is given."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["value"], "properties": {"value": _NUMBER}},
                {"required": ["add"], "properties": {"add": _NUMBER}},
                # `items` is for generators of clients; schemathesis cannot negate one that says more here.
                {"required": ["observe"], "properties": {"observe": {"type": ["number", "array"], "items": {}}}},
            ]
        }
    )

    value: float | None = Field(default=None, description="The current value; for a histogram, one observation.")
    add: float | None = Field(default=None, description="The increase since the last report.")
    observe: float | Annotated[list[float], Field(min_length=1, max_length=MAX_OBSERVATIONS)] | None = Field(
        default=None, description="Observations for a histogram, such as the duration of each tick."
    )
    type: Literal["counter", "gauge", "histogram"] | None = Field(
        default=None,
        description="By default: counter if the name ends in _total, histogram if there are observations, else gauge.",
    )
    labels: _Labels = Field(
        default={},
        max_length=MAX_LABELS,
        description="Labels that identify the series, such as the room's map.",
        json_schema_extra=_LABEL_NAMES,
    )
    buckets: Annotated[list[float], Field(max_length=MAX_BUCKETS)] = Field(
        default=[], description="Upper bounds of a histogram's buckets, ascending; once, with the first report."
    )
    help: str = Field(default="", max_length=MAX_HELP, description="A description; shown by Prometheus.")
    exemplar: _Labels = Field(
        default={},
        max_length=MAX_LABELS,
        description="Labels that identify the source of the last value, such as trace_id; OpenMetrics shows them.",
        json_schema_extra=_LABEL_NAMES,
    )

    @model_validator(mode="after")
    def _is_one_report(self) -> MetricInput:
        if sum(given is not None for given in (self.value, self.add, self.observe)) != 1:
            raise ValueError("exactly one of value, add and observe")
        return self

    def as_metric(self, name: str) -> CustomMetric:
        """As a report for the lifecycle."""
        observed = () if self.observe is None else self.observe if isinstance(self.observe, list) else (self.observe,)
        return CustomMetric(
            name,
            self.value,
            self.help,
            tuple(self.labels.items()),
            self.type,
            self.add,
            tuple(observed),
            tuple(self.buckets),
            tuple(self.exemplar.items()),
        )


_Reports: TypeAlias = Annotated[list[MetricInput], Field(min_length=1, max_length=MAX_METRICS)]


class MetricsInput(RootModel[dict[str, float | MetricInput | _Reports]]):
    """Metrics of the game by name: a number, a report, or a list of reports with different labels.

    A name that ends in `_total` is a counter, one with observations a histogram, any other a gauge.
    """

    model_config = ConfigDict(
        defer_build=True,
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={
            "maxProperties": MAX_METRICS,
            "propertyNames": {"pattern": f"^{METRIC_NAME.pattern}$"},
            "patternProperties": {"_total$": {"minimum": 0, "properties": {"value": {"minimum": 0}}}},
            "examples": [
                {
                    "tick_duration_seconds": {"observe": [0.016, 0.017]},
                    "rooms": [{"value": 2, "labels": {"map": "dust"}}, {"value": 1, "labels": {"map": "mill"}}],
                    "rounds_total": {"add": 1},
                }
            ],
        },
    )

    def as_metrics(self) -> list[CustomMetric]:
        """As reports for the lifecycle."""
        found: list[CustomMetric] = []
        for name, given in self.root.items():
            if isinstance(given, list):
                found.extend(each.as_metric(name) for each in given)
            else:
                found.append(given.as_metric(name) if isinstance(given, MetricInput) else CustomMetric(name, given))
        return found


class TagInput(Input):
    """One tag."""

    name: str = Field(min_length=1, max_length=40, description="The tag, in the form that the platform accepts.")


class UploadInput(Input):
    """A file to keep."""

    path: str = Field(max_length=4096, pattern=ABSOLUTE_PATH, description="Absolute path of a readable regular file.")


# Out --------------------------------------------------------------------------------------------------------------


class Alive(Output):
    """The agent answers."""

    alive: Literal[True] = True


class ReadyResult(Output):
    """Whether the game is ready for players."""

    phase: Phase
    ready: bool
    ready_at: datetime | None


class Readiness(Output):
    """The game is ready."""

    ready: Literal[True] = True


class HealthResult(Output):
    """The heartbeat was received. A game that only sends heartbeats learns here that it must stop."""

    phase: Phase
    stopping: bool


class PlanStep(Output):
    """A step of the stop: it has `seconds` and must be over `ends` seconds after the stop began."""

    step: Step
    seconds: float
    ends: float


class StopResult(Output):
    """The stop under way: the request that was accepted first, for all callers."""

    source: Source
    reason: Reason
    message: str
    requested_at: datetime
    grace_seconds: float | None = Field(
        description="Seconds that the game has to end, kill included; null if it has ended by itself."
    )
    log_storage: str | None = Field(description="The requested value; null means the setting.")
    deadline: datetime | None = Field(description="The latest time at which the game is gone and its logs are shipped.")
    plan: list[PlanStep]


class StopStatus(StopResult):
    """A stop, and its progress."""

    game_seconds_left: float = Field(description="Seconds until the game is killed.")
    seconds_left: float = Field(description="Seconds until the deadline.")


class AckResult(Output):
    """The extra time that the game gets."""

    more_seconds: float = Field(description="Seconds granted beyond the share of the current stop method.")
    kill_in_seconds: float = Field(description="Seconds until the remaining processes of the game are killed.")


class SelfStopResult(Output):
    """The platform's answer to a self-stop."""

    message: str


class Player(Output):
    """A player known by id."""

    id: str
    joined_at: datetime


class PlayersCount(Output):
    """How many play."""

    count: int
    capacity: int | None


class PlayersResult(PlayersCount):
    """Who plays."""

    expected: int | None = Field(default=None, description="How many players the match was made for.")
    ids: list[Player]


class Heartbeats(Output):
    """The game's heartbeats."""

    count: int
    last_at: datetime | None
    age_seconds: float | None


class GameStatus(Output):
    """The game's main process."""

    pid: int | None
    started_at: datetime | None
    uptime_seconds: float | None


class ExitResult(Output):
    """How the game's main process ended."""

    code: int | None
    signal: int | None
    core_dumped: bool
    exit_code: int = Field(description="The agent's exit code for it: the code, or 128 plus the signal.")


class StatusResult(Output):
    """The whole current status."""

    version: str
    phase: Phase
    ready: bool
    ready_at: datetime | None
    attempt: int
    restarts: int
    uptime_seconds: float = Field(description="Since the agent started.")
    game: GameStatus
    players: PlayersResult
    heartbeat: Heartbeats
    text: str
    metrics: dict[str, float]
    stop: StopStatus | None
    exit: ExitResult | None
    reason: Reason | None
    urls: dict[str, str]


def _object(**properties: JsonDict) -> JsonDict:
    """An object that always has these members; more may come."""
    return {"type": "object", "properties": {**properties}, "required": [*properties]}


def _or_null(schema: JsonDict) -> JsonDict:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT: JsonDict = {"type": "string"}
_TEXTS: JsonDict = {"type": "array", "items": _TEXT}
_INTEGER: JsonDict = {"type": "integer"}
_FLAG: JsonDict = {"type": "boolean"}
_ANYTHING: JsonDict = {}
_PORT = _object(
    name=_TEXT,
    internal=_INTEGER,
    external=_or_null(_INTEGER),
    protocol=_or_null(_TEXT),
    tls_upgrade=_or_null(_FLAG),
    link=_or_null(_TEXT),
    proxy=_ANYTHING,
)
# `agent.config.injected.Deployment` as JSON, for the document only: it is made of text from outside, part of which
# pydantic would refuse (surrogates), and it was checked there.
_DEPLOYMENT = _object(
    request_id=_or_null(_TEXT),
    public_ip=_or_null(_TEXT),
    host_id=_or_null(_TEXT),
    tags=_TEXTS,
    location=_or_null(
        _object(
            city=_or_null(_TEXT),
            country=_or_null(_TEXT),
            continent=_or_null(_TEXT),
            administrative_division=_or_null(_TEXT),
            timezone=_or_null(_TEXT),
            latitude=_or_null(_NUMBER),
            longitude=_or_null(_NUMBER),
        )
    ),
    ports={"type": "object", "additionalProperties": _PORT},
    vcpu_units=_or_null(_INTEGER),
    memory_mb=_or_null(_INTEGER),
    host_base_clock_frequency=_or_null(_INTEGER),
    host_in_private_fleet=_or_null(_FLAG),
    private_fleet_id=_or_null(_TEXT),
    beacon=_or_null(
        _object(
            enabled=_or_null(_FLAG),
            public_ip=_or_null(_TEXT),
            port_udp_external=_or_null(_INTEGER),
            port_tcp_external=_or_null(_INTEGER),
        )
    ),
    match=_object(
        match_id=_or_null(_TEXT),
        profile=_ANYTHING,
        ticket_ids=_TEXTS,
        tickets={"type": "object", "additionalProperties": _ANYTHING},
    ),
)


class DeploymentResult(RootModel[dict[str, JsonValue]]):
    """What the platform injected, without secrets."""

    model_config = ConfigDict(defer_build=True, json_schema_extra=_DEPLOYMENT)


class MetricsResult(Output):
    """The current values of the reported metrics, by name and labels; for a histogram its count and sum."""

    metrics: dict[str, float]


class TagsResult(Output):
    """The tags of the deployment."""

    tags: list[str]


class UploadResult(Output):
    """A file that will be kept."""

    path: str
    bytes: int
    kept_as: str = Field(description="Where it will be stored.")


class Subscribed(Output):
    """Events follow as notifications, the current state first."""

    subscribed: Literal[True] = True


# Events -----------------------------------------------------------------------------------------------------------


EventName = Literal["state", "stop", "players", "warning", "text", "tags", "upload", "gap"]
"""The types of events; the OpenAPI document describes each."""


class StateEvent(Output):
    """The deployment entered a phase; or, at the start of a subscription, its current phase."""

    at: datetime
    phase: Phase
    previous: Phase | None
    attempt: int
    restarts: int
    reason: Reason | None
    exit: ExitResult | None


class StopEvent(StopResult):
    """The game will be stopped, or its deadline moved."""

    at: datetime


class WarningEvent(Output):
    """The deployment's maximum duration is nearly over."""

    at: datetime
    seconds_left: float


class PlayersEvent(Output):
    """Players came or left."""

    at: datetime
    count: int
    capacity: int | None
    joined: str | None
    left: str | None


class TextEvent(Output):
    """The game set its status text."""

    at: datetime
    text: str


class TagsEvent(Output):
    """A tag was added or removed through the agent."""

    at: datetime
    added: str | None = None
    removed: str | None = None


class UploadEvent(Output):
    """A file will be kept."""

    at: datetime
    path: str
    kept_as: str


class GapEvent(Output):
    """Events were lost because this subscriber did not read them in time."""

    at: datetime
    missed: int

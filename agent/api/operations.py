"""The operations: one method each, for all transports.

They turn requests into events of the lifecycle and facts of the report, and the state into answers; the lifecycle makes
all decisions.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from pydantic import JsonValue

from agent import __version__
from agent.api.contracts import Caller, Control, DropIn, Keep, TagsBackend
from agent.api.events import EventBus
from agent.api.files import readable_file
from agent.api.models import (
    AckInput,
    AckResult,
    Alive,
    DeploymentResult,
    HealthResult,
    MetricsInput,
    MetricsResult,
    Nothing,
    PlayerInput,
    PlayersCount,
    PlayersInput,
    PlayersResult,
    Readiness,
    ReadyResult,
    SelfStopInput,
    SelfStopResult,
    StatusResult,
    StopInput,
    StopResult,
    TagInput,
    TagsEvent,
    TagsResult,
    UploadEvent,
    UploadInput,
    UploadResult,
)
from agent.api.problems import FieldProblem, Kind, OperationError
from agent.api.views import View
from agent.errors import AgentError
from agent.game.user import User
from agent.lifecycle.game_report import GameReport, ReportError
from agent.lifecycle.states import GameReady, Phase, Reason, StopRequest, StopRequested
from agent.lifecycle.stop_plan import Step
from agent.tokens import same

_T = TypeVar("_T")


class Operations:
    """All operations.

    Args:
        control: the lifecycle.
        report: the game's reports about itself.
        events: where events are published.
        deployment: what the platform injected, without secrets.
        wall: converts a time of the monotonic clock into a time of day; by default with the current difference of the
            two clocks, so that the same input always gives the same result.
        game_pid: process id of the game, or None while it does not run.
        urls: the agent's addresses, by name (`api`, `socket`, `metrics`).
        tags: the deployment's tags, or None if they cannot be accessed.
        keep: keeps a file, or None without a store.
        drop_in: what the self-stop route accepts, or None if nothing was injected.
        acknowledge: tells the stop methods that the game is shutting down and how many more seconds it wants; returns
            how many it gets, and raises `AgentError` if it asked before.
        expected_players: how many players the match was made for, or None.
    """

    def __init__(
        self,
        control: Control,
        report: GameReport,
        events: EventBus,
        *,
        deployment: Callable[[], dict[str, JsonValue]],
        wall: Callable[[float], datetime] | None = None,
        game_pid: Callable[[], int | None] = lambda: None,
        urls: Mapping[str, str] | None = None,
        tags: TagsBackend | None = None,
        keep: Keep | None = None,
        user: User | None = None,
        drop_in: DropIn | None = None,
        acknowledge: Callable[[float], Awaitable[float]] | None = None,
        expected_players: int | None = None,
    ) -> None:
        """Stores the arguments; calls nothing yet."""
        self.events = events
        self.view = View(wall or _fixed_wall(control.now), expected_players)
        self._control = control
        self._report = report
        self._deployment = deployment
        self._game_pid = game_pid
        self._urls = dict(urls or {})
        self._tags = tags
        self._keep = keep
        self._user = user
        self._drop_in = drop_in
        self._acknowledge = acknowledge or _nobody_to_tell

    # The lifecycle ----------------------------------------------------------------------------------------------------

    def ready(self, _given: Nothing, _caller: Caller) -> ReadyResult:
        """Reports that the game is ready for players.

        A repeated call, or a call during a stop, changes nothing and is not an error, as with Agones: a stop cannot be
        undone, and the game should not fail because of the timing. The answer contains the current phase.
        """
        state = self._control.post(GameReady(self._control.now()))
        ready = state.phase is Phase.READY
        return ReadyResult(phase=state.phase, ready=ready, ready_at=self.view.moment(state.ready_at))

    def health(self, _given: Nothing, _caller: Caller) -> HealthResult:
        """Sends a heartbeat of the game."""
        self._report.heartbeat(self._control.now())
        phase = self._control.state.phase
        return _heard(phase)

    def stop(self, given: StopInput, caller: Caller) -> StopResult:
        """Requests a stop. The request that was accepted first counts; all later ones return it."""
        return self._stop(
            StopRequest(
                source=caller.source,
                reason=Reason.REQUESTED,
                at=self._control.now(),
                message=given.reason or "",
                grace_seconds=given.grace_seconds,
                log_storage=given.log_storage,
            )
        )

    def ending(self, message: str, caller: Caller) -> None:
        """Reports that the game is ending by itself: it gets time before any stop method is applied."""
        self._stop(StopRequest(caller.source, Reason.REQUESTED, self._control.now(), message, ending=True))

    def _stop(self, request: StopRequest) -> StopResult:
        state = self._control.post(StopRequested(request.at, request))
        result = self.view.stop(state)
        if result is None:
            # The game has ended by itself and is being restarted: the request has nothing to stop.
            raise OperationError(
                Kind.CONFLICT,
                f"cannot stop while the deployment is {state.phase}: the game has just ended by itself; ask again",
            )
        return result

    def self_stop(self, given: SelfStopInput, caller: Caller) -> SelfStopResult:
        """The platform's self-stop call, answered like the platform; stops the game gracefully first."""
        drop_in = self._drop_in
        if drop_in is None:
            raise OperationError(
                Kind.NOT_FOUND,
                "cannot self-stop: nothing was injected that this call could be checked with; use POST /v1/stop",
            )
        # All tokens are compared in constant time, so that the duration reveals nothing about them.
        matches = [same(given.authorization, token) for token in drop_in.tokens if token]
        if not any(matches):
            missing = not given.authorization
            raise OperationError(
                Kind.UNAUTHORIZED,
                f"cannot self-stop: the authorization header is {'missing' if missing else 'wrong'}; "
                "send ARBITRIUM_DELETE_TOKEN as it was injected",
                [FieldProblem("authorization", None, "ARBITRIUM_DELETE_TOKEN, without a prefix")],
            )
        right_id = same(given.deployment_id, drop_in.deployment_id)
        right_key = same(given.stop_key, drop_in.stop_key)
        if not (right_id and right_key):
            raise OperationError(
                Kind.NOT_FOUND,
                "cannot self-stop: this is not the deployment in the URL; use ARBITRIUM_DELETE_URL as it was injected",
            )
        if self._control.state.phase is Phase.EXITED:
            raise OperationError(Kind.GONE, "cannot self-stop: the deployment is already terminated")
        self._stop(
            StopRequest(
                source=caller.source,
                reason=Reason.REQUESTED,
                at=self._control.now(),
                message="self-stop call",
                log_storage=given.container_log_storage or None,
            )
        )
        # The words of the platform's own answer.
        return SelfStopResult(message=f"{drop_in.deployment_id} - Delete request will be processed soon")

    async def stop_ack(self, given: AckInput, _caller: Caller) -> AckResult:
        """Acknowledges the stop; the game is shutting down, and may ask once for more time within the deadline."""
        state = self._control.state
        if state.phase not in (Phase.DRAINING, Phase.STOPPING) or state.plan is None:
            raise OperationError(Kind.CONFLICT, "cannot acknowledge a stop: none is under way")
        try:
            granted = await self._acknowledge(given.more_seconds)
        except AgentError as problem:
            raise OperationError(Kind.CONFLICT, str(problem)) from None
        return AckResult(more_seconds=granted, kill_in_seconds=max(0.0, state.due(Step.STOP) - self._control.now()))

    # What is known ----------------------------------------------------------------------------------------------------

    def status(self, _given: Nothing, _caller: Caller) -> StatusResult:
        """Returns the whole current status."""
        return self.view.status(
            self._control.state,
            self._report,
            now=self._control.now(),
            pid=self._game_pid(),
            urls=self._urls,
            version=__version__,
        )

    def deployment(self, _given: Nothing, _caller: Caller) -> DeploymentResult:
        """Returns what the platform injected, without secrets."""
        return DeploymentResult(self._deployment())

    def alive(self, _given: Nothing, _caller: Caller) -> Alive:
        """The agent answers."""
        return Alive()

    def readiness(self, _given: Nothing, _caller: Caller) -> Readiness:
        """Returns whether the game is ready for players; a problem with status 503 if it is not."""
        phase = self._control.state.phase
        if phase is Phase.READY:
            return Readiness()
        raise OperationError(Kind.UNAVAILABLE, f"cannot take players: the deployment is {phase}")

    # What the game reports --------------------------------------------------------------------------------------------

    def players(self, _given: Nothing, _caller: Caller) -> PlayersResult:
        """Who plays."""
        return self.view.players(self._report)

    def players_set(self, given: PlayersInput, _caller: Caller) -> PlayersCount:
        """Sets the number of players, the capacity, or both."""
        try:
            self._report.set_players(self._control.now(), given.count, given.capacity)
        except ReportError as wrong:
            raise _conflict(wrong) from None
        return self._count()

    def players_join(self, given: PlayerInput, _caller: Caller) -> PlayersCount:
        """Adds a player; a repeated id counts once. Refused while the deployment is ending."""
        phase = self._control.state.phase
        if phase in (Phase.DRAINING, Phase.STOPPING, Phase.FLUSHING, Phase.RELEASING):
            raise OperationError(Kind.CONFLICT, f"cannot join: the deployment is {phase}; send the player elsewhere")
        try:
            self._report.join(given.id, self._control.now())
        except ReportError as wrong:
            raise _conflict(wrong) from None
        return self._count()

    def players_leave(self, given: PlayerInput, _caller: Caller) -> PlayersCount:
        """Removes a player; an unknown id changes nothing."""
        self._report.leave(given.id, self._control.now())
        return self._count()

    def _count(self) -> PlayersCount:
        return PlayersCount(count=self._report.count, capacity=self._report.capacity)

    def metrics(self, given: MetricsInput, _caller: Caller) -> MetricsResult:
        """Records metrics of the game: all of them, or none if one is wrong."""
        known = self._report.set_known_metrics(given.root, self._control.now())
        if known is not None:
            return MetricsResult(metrics=known)
        try:
            names = self._report.set_metrics(given.as_metrics(), self._control.now())
        except ReportError as wrong:
            kind = Kind.CONFLICT if wrong.conflict else Kind.BAD_INPUT
            raise OperationError(kind, str(wrong), [_field(wrong)]) from None
        return MetricsResult(metrics=self._report.metrics.flat(names))

    # The platform and the logs ----------------------------------------------------------------------------------------

    async def tags_list(self, _given: Nothing, _caller: Caller) -> TagsResult:
        """Returns the tags of the deployment from the platform."""
        return TagsResult(tags=await _platform(self._tags_backend("list tags").list()))

    async def tags_add(self, given: TagInput, _caller: Caller) -> TagsResult:
        """Adds a tag to the deployment."""
        backend = self._tags_backend("add a tag")
        await _platform(backend.add(given.name))
        self.events.publish("tags", TagsEvent(at=self._time(), added=given.name))
        return TagsResult(tags=await _platform(backend.list()))

    async def tags_remove(self, given: TagInput, _caller: Caller) -> TagsResult:
        """Removes a tag from the deployment."""
        backend = self._tags_backend("remove a tag")
        await _platform(backend.remove(given.name))
        self.events.publish("tags", TagsEvent(at=self._time(), removed=given.name))
        return TagsResult(tags=await _platform(backend.list()))

    def _tags_backend(self, doing: str) -> TagsBackend:
        if self._tags is None:
            raise OperationError(
                Kind.UNAVAILABLE,
                f"cannot {doing}: neither a context URL was injected nor an organisation token configured",
            )
        return self._tags

    async def upload(self, given: UploadInput, _caller: Caller) -> UploadResult:
        """Marks a file to be uploaded at the end of the deployment."""
        path, size = readable_file(given.path, self._user)
        if self._keep is None:
            raise OperationError(Kind.UNAVAILABLE, "cannot keep a file: there is no store; set AGENT_LOG_URL")
        kept_as = await _platform(self._keep(path))
        self.events.publish("upload", UploadEvent(at=self._time(), path=path, kept_as=kept_as))
        return UploadResult(path=path, bytes=size, kept_as=kept_as)

    def _time(self) -> datetime:
        return self.view.time(self._control.now())


async def _nobody_to_tell(_more_seconds: float) -> float:
    return 0.0


_RUNNING = (Phase.STARTING, Phase.READY, Phase.RESTARTING)


@cache  # asked for more often than all else
def _heard(phase: Phase) -> HealthResult:
    return HealthResult(phase=phase, stopping=phase not in _RUNNING)


def _fixed_wall(now: Callable[[], float]) -> Callable[[float], datetime]:
    before, wall, after = now(), time.time(), now()
    difference = wall - (before + after) / 2
    return lambda at: datetime.fromtimestamp(at + difference, UTC)


def _field(wrong: ReportError) -> FieldProblem:
    got = wrong.got if isinstance(wrong.got, int | float | str) else str(wrong.got)
    return FieldProblem(wrong.field, got if not isinstance(got, str) else got[:100], wrong.takes)


def _conflict(wrong: ReportError) -> OperationError:
    return OperationError(Kind.CONFLICT, str(wrong), [_field(wrong)])


async def _platform(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except OperationError:
        raise
    except AgentError as problem:
        raise OperationError(Kind.BACKEND, str(problem)) from problem

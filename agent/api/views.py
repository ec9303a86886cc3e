"""Converts the state and the report into the models of the answers. Pure: values in, models out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache

from agent.api.models import (
    ExitResult,
    GameStatus,
    Heartbeats,
    PlanStep,
    Player,
    PlayersEvent,
    PlayersResult,
    StateEvent,
    StatusResult,
    StopEvent,
    StopResult,
    StopStatus,
)
from agent.lifecycle.game_report import GameReport, PlayersReported
from agent.lifecycle.states import Phase, Source, State
from agent.lifecycle.stop_plan import Step


class View:
    """Converts times of the monotonic clock, and everything that contains them, to times of day."""

    def __init__(self, wall: Callable[[float], datetime], expected_players: int | None = None) -> None:
        """Takes the function that converts times, and how many players the match was made for."""
        # The same few moments are asked for again and again: when the game started, when it became ready.
        self.time = lru_cache(64)(wall)
        self.expected_players = expected_players
        # Cached for this report, its number of changes, the count and the capacity.
        self._players: tuple[tuple[GameReport, int, int, int | None], PlayersResult] | None = None

    def moment(self, at: float | None) -> datetime | None:
        """An optional time."""
        return None if at is None else self.time(at)

    def stop(self, state: State) -> StopResult | None:
        """The stop under way; None if there is none.

        If the game ended by itself there may be no stop request: then the result says so in the same form.
        """
        plan = state.plan
        request = state.stop
        if request is None and (state.reason is None or state.will_restart):
            return None
        steps = [PlanStep(step=s.step, seconds=s.seconds, ends=s.ends) for s in plan.shares] if plan else []
        deadline = self.time(state.plan_began + plan.total) if plan else None
        if request is not None:
            return StopResult(
                source=request.source,
                reason=request.reason,
                message=request.message,
                requested_at=self.time(request.at),
                grace_seconds=state.rules.grace if request.grace_seconds is None else request.grace_seconds,
                log_storage=request.log_storage,
                deadline=deadline,
                plan=steps,
            )
        assert state.reason is not None, "looked at above"
        return StopResult(
            source=Source.GAME,
            reason=state.reason,
            message="the game " + ("ended by itself" if state.could_not_start is None else "could not be started"),
            requested_at=self.time(state.plan_began),
            grace_seconds=None,
            log_storage=None,
            deadline=deadline,
            plan=steps,
        )

    def stop_status(self, state: State, now: float) -> StopStatus | None:
        """The stop under way with the time that is left at `now`."""
        result = self.stop(state)
        if result is None:
            return None
        due = (state.due(Step.STOP), state.due(Step.SHIP)) if state.plan else (now, now)
        left = [round(max(0.0, moment - now), 3) for moment in due]
        return StopStatus(**dict(result), game_seconds_left=left[0], seconds_left=left[1])

    def stop_event(self, state: State, at: float) -> StopEvent | None:
        """The announcement of the stop under way."""
        result = self.stop(state)
        return None if result is None else StopEvent(**dict(result), at=self.time(at))

    def state_event(self, state: State, at: float, previous: Phase | None, phase: Phase) -> StateEvent:
        """The event for entering `phase` at `at`, or for the current phase."""
        return StateEvent(
            at=self.time(at),
            phase=phase,
            previous=previous,
            attempt=state.attempt,
            restarts=state.restarts,
            reason=state.reason,
            exit=exit_result(state),
        )

    def players_event(self, fact: PlayersReported) -> PlayersEvent:
        """A change of the players."""
        return PlayersEvent(
            at=self.time(fact.at), count=fact.count, capacity=fact.capacity, joined=fact.joined, left=fact.left
        )

    def players(self, report: GameReport) -> PlayersResult:
        """Who plays."""
        key = (report, report.ids_changed, report.count, report.capacity)
        known = self._players
        if known is None or known[0] != key:
            if known is not None and known[0][:2] == key[:2]:
                ids = known[1].ids
            else:
                ids = [Player(id=player, joined_at=self.time(at)) for player, at in report.ids.items()]
            result = PlayersResult(
                count=report.count, capacity=report.capacity, expected=self.expected_players, ids=ids
            )
            known = self._players = (key, result)
        return known[1]

    def status(
        self,
        state: State,
        report: GameReport,
        *,
        now: float,
        pid: int | None,
        urls: Mapping[str, str],
        version: str,
    ) -> StatusResult:
        """The whole status at the time `now`."""
        started, beat = state.started_at, report.last_heartbeat
        return StatusResult(
            version=version,
            phase=state.phase,
            ready=state.phase is Phase.READY,
            ready_at=self.moment(state.ready_at),
            attempt=state.attempt,
            restarts=state.restarts,
            uptime_seconds=round(now - state.history[0].at, 3) if state.history else 0.0,
            game=GameStatus(
                pid=pid,
                started_at=self.moment(started),
                uptime_seconds=round(now - started, 3) if started is not None and state.exit is None else None,
            ),
            players=self.players(report),
            heartbeat=Heartbeats(
                count=report.heartbeats,
                last_at=self.moment(beat),
                age_seconds=None if beat is None else round(now - beat, 3),
            ),
            text=report.text,
            metrics=report.metrics.flat(),
            stop=self.stop_status(state, now),
            exit=exit_result(state),
            reason=state.reason,
            urls=dict(urls),
        )


def exit_result(state: State) -> ExitResult | None:
    """How the game's main process ended."""
    if state.exit is None:
        return None
    return ExitResult(
        code=state.exit.code,
        signal=state.exit.signal,
        core_dumped=state.exit.core_dumped,
        exit_code=state.exit.exit_code,
    )

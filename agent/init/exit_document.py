"""Builds the content of `exit.json` that the init knows: the cause, the stop, its plan and what really happened.

Imported only when the game is asked to stop, to keep the start fast. Standard library only.
"""

from __future__ import annotations

import json

from agent import __version__
from agent.game.autopsy import Evidence, examine, may_have_left_core
from agent.game.cgroup import read_cgroup
from agent.game.crash_reports import find_crash
from agent.game.exit_report import build_report, last_line
from agent.lifecycle.states import Phase
from agent.lifecycle.stop_plan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.game.autopsy import OtherEnd
    from agent.game.cgroup import CgroupReading
    from agent.game.process import GameProcess
    from agent.init.inputs import Inputs
    from agent.init.oom_watch import OomWatch
    from agent.init.output import Output
    from agent.init.stop_sequence import StopSequence, Turn
    from agent.lifecycle.game_report import GameReport
    from agent.lifecycle.states import State


def exit_document(
    state: State,
    *,
    inputs: Inputs,
    process: GameProcess,
    output: Output,
    report: GameReport,
    sequence: StopSequence | None,
    at_stop: CgroupReading | None,
    deployment: str,
    now: float,
    agent_starts: int,
    oom: OomWatch,
    others: Sequence[OtherEnd] = (),
    left_behind: Sequence[str] = (),
) -> tuple[dict[str, object], bool]:
    """Builds the document.

    Args:
        state: of the lifecycle, in `flushing`.
        inputs: what the agent was started with.
        process: the game that is gone.
        output: its output.
        report: what it reported about itself.
        sequence: the stop sequence, or None if the game was not asked to stop.
        at_stop: what the container's cgroup had counted when its stop was announced, or None where none was.
        deployment: what the platform injected, without secrets, as JSON.
        now: the present moment, in seconds of the monotonic clock.
        agent_starts: how often the agent's process was started.
        oom: whom the OOM killer took.
        others: other processes of the game that were seen to end.
        left_behind: names of those that the main process left running.

    Returns:
        The content of `exit.json`, to which the agent later adds the result of shipping; and whether the game crashed
        in a way that may have left a core.
    """
    turns = sequence.turns if sequence is not None else []
    before, after = process.cgroup, read_cgroup()
    status, stop = state.exit, state.stop
    ended = state.history[-1].at
    last_oom = oom.last(after)
    tail = output.capture.tail() if output.capture is not None else b""
    failure = process.failure
    evidence = Evidence(
        code=status.code if status else None,
        signal=status.signal if status else None,
        core_dumped=status.core_dumped if status else False,
        could_not_start=_why_not(state, failure),
        stop_source=stop.source if stop else None,
        stop_reason=stop.reason if stop else None,
        stop_message=stop.message if stop else "",
        stopped_seconds=ended - stop.at if stop else None,
        killed=state.killed,
        kill_after_seconds=state.killed_at - state.plan_began if state.killed_at is not None else None,
        sent_signals=_sent_signals(turns),
        heartbeat_age_seconds=now - report.last_heartbeat if report.last_heartbeat is not None else None,
        before=before,
        after=after,
        at_stop=at_stop if stop else None,
        own_oom_kills=oom.own(state.started_at or 0.0),
        own_oom_kills_since_stop=oom.own(stop.at) if stop else 0,
        oom_kill_age_seconds=max(0.0, ended - last_oom) if last_oom is not None else None,
        others=tuple(others),
        left_behind=tuple(left_behind),
        crash=find_crash(tail),
        last_line=last_line(tail),
    )
    document = build_report(
        autopsy=examine(evidence),
        reason=state.reason,
        exit_code=state.exit_code,
        code=status.code if status else None,
        signal=status.signal if status else None,
        core_dumped=status.core_dumped if status else False,
        wall_offset=inputs.wall_offset,
        started_at=state.started_at,
        ready_at=state.ready_at,
        ended_at=ended,
        phases=[(moment.phase, moment.at) for moment in state.history],
        stop={name: getattr(stop, name) for name in stop.fields} if stop else None,
        plan=_plan(state, sequence),
        happened=[*_happened(state), *(_shown(turn, state) for turn in turns)],
        tail=tail,
        heartbeat={"at": report.last_heartbeat, "count": report.heartbeats} if report.heartbeats else None,
        players={"count": report.count, "capacity": report.capacity, "ids": list(report.ids)},
        before=before,
        after=after,
        attempt=state.attempt,
        restarts=state.restarts,
        logs=output.capture.counters() if output.capture is not None else None,
        deployment=json.loads(deployment) if deployment else {"request_id": inputs.deployment_id or None},
        command=[output.redactor.text(word) for word in inputs.command],
        agent_version=__version__,
        application=inputs.setting("app_name"),
        version=inputs.setting("app_version"),
    )
    document["agent_starts"] = agent_starts
    return document, status is not None and may_have_left_core(evidence)


def _why_not(state: State, failure: Exception | None) -> str | None:
    if state.could_not_start is None:
        return None
    return str(failure) if failure is not None else "cannot start with these settings; the log says which are wrong"


def _sent_signals(turns: Sequence[Turn]) -> tuple[str, ...]:
    return tuple(
        turn.method.split(":")[1] for turn in turns if turn.method.startswith("signal:") and turn.outcome == "applied"
    )


def _shown(turn: Turn, state: State) -> dict[str, object]:
    """The entry of one stop method."""
    return {
        "method": turn.method,
        "after_seconds": round(max(0.0, turn.at - state.plan_began), 3),
        "seconds": round(turn.seconds, 3),
        "planned_seconds": round(turn.planned_seconds, 3),
        "outcome": turn.outcome,
        "acknowledged": turn.acknowledged,
        "more_seconds": round(turn.more_seconds, 3),
        "asked": list(turn.asked),
    }


def _plan(state: State, sequence: StopSequence | None) -> dict[str, object] | None:
    if state.plan is None:
        return None
    steps = [{"step": share.step, "seconds": round(share.seconds, 3)} for share in state.plan.shares]
    planned = sequence.planned if sequence is not None else []
    methods = [{"method": turn.method, "seconds": round(turn.seconds, 3)} for turn in planned]
    return {"total_seconds": round(state.plan.total, 3), "steps": steps, "methods": methods}


def _happened(state: State) -> list[dict[str, object]]:
    """For each step before the flush, the planned time and the time it really took."""
    if state.plan is None:
        return []
    bounds = [*state.history[1:], None]
    steps: list[dict[str, object]] = []
    for moment, following in zip(state.history, bounds, strict=True):
        if following is None or moment.at < state.plan_began - 0.001:
            continue
        if moment.phase is Phase.DRAINING:
            steps.append(_step(state, Step.DRAIN, following.at - moment.at))
        elif moment.phase is Phase.STOPPING:
            asked_until = state.killed_at if state.killed_at is not None else following.at
            steps.append(_step(state, Step.STOP, asked_until - moment.at))
            if state.killed_at is not None:
                steps.append(_step(state, Step.KILL, following.at - state.killed_at))
    return steps


def _step(state: State, step: Step, seconds: float) -> dict[str, object]:
    planned = state.plan.seconds(step) if state.plan is not None else 0.0
    return {"step": step, "seconds": round(max(0.0, seconds), 3), "planned_seconds": round(planned, 3)}

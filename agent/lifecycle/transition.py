"""The lifecycle of a deployment under the agent, as a pure function.

`transition(state, event)` returns the next state and the effects to execute. Nothing in this module reads a clock,
touches a process or waits: every event carries the time it happened (seconds of the monotonic clock). A timer is
started by the `Arm` effect and causes a `TimerFired` event. A timer that fires too early, or in a phase that does not
wait for it, changes nothing.

    starting -> ready -> draining -> stopping -> flushing -> releasing -> exited
                                                    |
                                                    +-> restarting -> starting    (where the crash policy says so)
"""

from __future__ import annotations

from agent.lifecycle.states import (
    Announce,
    ApplyStop,
    Arm,
    Effect,
    Event,
    Exit,
    Flush,
    Flushed,
    GameExited,
    GameGone,
    GameReady,
    GameStarted,
    Kill,
    Moment,
    Phase,
    PlayersGone,
    Reason,
    Release,
    Released,
    Rules,
    Source,
    Spawn,
    SpawnFailed,
    State,
    StopRequest,
    StopRequested,
    StopSignal,
    Sweep,
    Timer,
    TimerFired,
)
from agent.lifecycle.stop_plan import Step, plan_stop, plan_within
from agent.record import replace
from agent.retry import RetryPolicy

# Timers and clocks may disagree by the resolution of the event loop's clock.
_TOLERANCE = 0.005

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Outcome: TypeAlias = tuple[State, tuple[Effect, ...]]

_NOTHING: tuple[Effect, ...] = ()


class _Change:
    """Collects the state changes and effects of a transition, so that each rule below is short."""

    __slots__ = ("effects", "state")

    def __init__(self, state: State, effects: list[Effect] | None = None) -> None:
        self.state = state
        self.effects: list[Effect] = [] if effects is None else effects

    def enter(self, phase: Phase, at: float, **changes: object) -> _Change:
        moved = replace(self.state, phase=phase, history=(*self.state.history, Moment(phase, at)), **changes)
        return _Change(moved, self.effects)

    def do(self, *effects: Effect) -> _Change:
        self.effects.extend(effects)
        return self

    def done(self) -> Outcome:
        return self.state, tuple(self.effects)


def initial(rules: Rules, at: float) -> State:
    """The state before the game is spawned, at `at` seconds of the monotonic clock."""
    return State(Phase.STARTING, rules, history=(Moment(Phase.STARTING, at),))


def transition(state: State, event: Event) -> Outcome:  # noqa: C901, PLR0911 - one case and one return an event is its shape
    """The next state and the effects of `event` in `state`.

    Args:
        state: the current state.
        event: what happened, with its time.

    Returns:
        The next state (the same object if nothing changes) and the effects, in the order of execution.
    """
    if state.phase is Phase.EXITED:
        return state, _NOTHING
    match event:
        case GameStarted():
            return _on_started(state, event)
        case SpawnFailed():
            return _on_spawn_failed(state, event)
        case GameReady():
            return _on_ready(state, event)
        case StopRequested():
            return _on_stop_requested(state, event)
        case StopSignal():
            return _on_signal(state, event)
        case PlayersGone():
            return _on_players_gone(state, event)
        case GameExited():
            return _on_game_exited(state, event)
        case GameGone():
            return _on_game_gone(state, event)
        case Flushed():
            return _on_flushed(state, event)
        case Released():
            return _on_released(state, event)
        case TimerFired():
            return _on_timer(state, event)


def _on_started(state: State, event: GameStarted) -> Outcome:
    if state.phase is not Phase.STARTING or state.started_at is not None:
        return state, _NOTHING
    return replace(state, started_at=event.at), _NOTHING


def _on_spawn_failed(state: State, event: SpawnFailed) -> Outcome:
    if state.phase is not Phase.STARTING:
        return state, _NOTHING
    planned = _planned(replace(state, could_not_start=event.exit_code), event.at, 0.0, killed_at_end=False)
    return _flush(_Change(planned), event.at)


def _on_ready(state: State, event: GameReady) -> Outcome:
    if state.phase is not Phase.STARTING:
        return state, _NOTHING
    return _Change(state).enter(Phase.READY, event.at, ready_at=event.at).done()


def _on_stop_requested(state: State, event: StopRequested) -> Outcome:
    match state.phase:
        case Phase.STARTING | Phase.READY:
            return _begin_stop(_planned_for(state, event.at, event.request), event.at)
        case Phase.RESTARTING:
            # No game is running and the logs of the last attempt were shipped: only the deployment has to be stopped.
            return _leave(_Change(replace(state, stop=event.request)), event.at)
        case Phase.STOPPING | Phase.FLUSHING if state.stop is None and state.ended_alone and _goes_on(state):
            # The game has ended by itself already; what is asked for is that neither the agent nor the platform starts
            # it again.
            return replace(state, stop=event.request), _NOTHING
        case _:
            return state, _NOTHING


def _on_signal(state: State, event: StopSignal) -> Outcome:
    told = replace(state, told_by_platform=True, signals=state.signals + 1)
    second = state.signals > 0
    request = state.stop or StopRequest(
        source=Source.OPERATOR if event.interrupt else Source.PLATFORM,
        reason=Reason.INTERRUPTED if event.interrupt else Reason.PLATFORM_STOP,
        at=event.at,
    )
    match state.phase:
        case Phase.STARTING | Phase.READY:
            planned = _planned(
                replace(told, stop=request), event.at, state.rules.grace, killed_at_end=True, backlog=event.backlog
            )
            return _begin_stop(planned, event.at)
        case Phase.RESTARTING:
            return _exit(_Change(replace(told, stop=request)), event.at)
        case Phase.DRAINING | Phase.STOPPING if second:
            return _kill(_Change(told if told.phase is Phase.STOPPING else _entered_stopping(told, event.at)), event.at)
        case Phase.DRAINING | Phase.STOPPING:
            return _hurry(told, event)
        case Phase.FLUSHING:
            hurried = _tighter(told, event)
            return _Change(hurried).do(*_shipping(hurried, event.at)).done()
        case _:  # releasing: this is what the self-stop was for, or the platform was quicker
            return _exit(_Change(told), event.at)


def _on_players_gone(state: State, event: PlayersGone) -> Outcome:
    if state.phase is not Phase.DRAINING:
        return state, _NOTHING
    return _stop(_Change(state), event.at)


def _on_game_exited(state: State, event: GameExited) -> Outcome:
    match state.phase:
        case Phase.STARTING | Phase.READY:
            alone = _planned(
                replace(state, exit=event.status, ended_alone=True), event.at, state.rules.grace, killed_at_end=False
            )
            return _sweep(_Change(alone), event.at)
        case Phase.DRAINING:
            return _sweep(_Change(replace(state, exit=event.status)), event.at)
        case Phase.STOPPING if state.exit is None:
            # The remaining processes need a signal too: the stop methods reach only the main process and its group.
            return replace(state, exit=event.status), (Sweep(),)
        case Phase.FLUSHING | Phase.RELEASING if state.exit is None:
            # It survived SIGKILL for a while (uninterruptible wait) and is reaped late: its exit code still counts.
            return replace(state, exit=event.status), _NOTHING
        case _:
            return state, _NOTHING


def _on_game_gone(state: State, event: GameGone) -> Outcome:
    if state.phase is not Phase.STOPPING:
        return state, _NOTHING
    return _flush(_Change(state), event.at)


def _on_flushed(state: State, event: Flushed) -> Outcome:
    if state.phase is not Phase.FLUSHING:
        return state, _NOTHING
    return _after_flush(state, event.at)


def _on_released(state: State, event: Released) -> Outcome:
    if state.phase is not Phase.RELEASING or state.release is not None:
        return state, _NOTHING
    settled = _Change(replace(state, release=event.outcome))
    if event.outcome == "confirmed" and state.rules.hold > 0:
        return settled.do(Arm(Timer.HOLD, event.at + state.rules.hold)).done()
    return _exit(settled, event.at)


def _on_timer(state: State, event: TimerFired) -> Outcome:  # noqa: PLR0911 - one return a timer
    match state.phase, event.timer:
        case Phase.DRAINING, Timer.DRAIN if _is_due(event.at, state.due(Step.DRAIN)):
            return _stop(_Change(state), event.at)
        case Phase.STOPPING, Timer.KILL if _is_due(event.at, state.due(Step.STOP)):
            return _kill(_Change(state), event.at)
        case Phase.STOPPING, Timer.GONE if _is_due(event.at, state.due(Step.KILL)):
            # A process in an uninterruptible wait survives SIGKILL; ship the known facts anyway.
            return _flush(_Change(replace(state, killed_at=state.killed_at or event.at)), event.at)
        case Phase.FLUSHING, Timer.FLUSH if _is_due(event.at, state.due(Step.SHIP)):
            return _after_flush(state, event.at)
        case Phase.RELEASING, Timer.HOLD if state.release == "confirmed":
            return _exit(_Change(state), event.at)
        case Phase.RESTARTING, Timer.BACKOFF if _is_due(event.at, state.history[-1].at + _backoff(state)):
            fresh = replace(
                state,
                attempt=state.attempt + 1,
                restarts=state.restarts + 1,
                restarts_in_row=state.restarts_in_row + 1,
                started_at=None,
                ready_at=None,
                plan=None,
                killed_at=None,
                exit=None,
                ended_alone=False,
            )
            return _Change(fresh).enter(Phase.STARTING, event.at).do(Spawn()).done()
        case _:
            return state, _NOTHING


# The pieces they share -----------------------------------------------------------------------------------------------


# What a store did not take is told of, files are closed, two processes end: 20 to 60 ms on a busy machine.
_LEAVING_SECONDS, _LEAVING_PART = 0.1, 0.3


def _is_due(now: float, due: float) -> bool:
    return now >= due - _TOLERANCE


def _planned(state: State, at: float, grace: float, *, killed_at_end: bool, backlog: float = 0.0) -> State:
    """The same state with the plan of a stop that begins at `at` and gives `grace` seconds."""
    rules = state.rules
    plan = plan_stop(grace, killed_at_end=killed_at_end, drain=rules.drain, ship=rules.ship, backlog=backlog)
    return replace(state, plan=plan, plan_began=at)


def _planned_for(state: State, at: float, request: StopRequest) -> State:
    """The same state with the plan of a stop that was requested at `at`."""
    grace = request.grace_seconds if request.grace_seconds is not None else state.rules.grace
    asked = replace(state, stop=request)
    if request.within_seconds is None:
        return _planned(asked, at, grace, killed_at_end=False)
    plan = plan_within(request.within_seconds, grace=grace, drain=state.rules.drain, ship=state.rules.ship)
    return replace(asked, plan=plan, plan_began=at)


def _tighter(state: State, signal: StopSignal) -> State:
    """The same stop under the platform's deadline, if that ends sooner than the plan under way."""
    hurried = _planned(state, signal.at, state.rules.grace, killed_at_end=True, backlog=signal.backlog)
    return hurried if hurried.due(Step.SHIP) < state.due(Step.SHIP) else state


def _begin_stop(planned: State, at: float) -> Outcome:
    change = _Change(planned).do(Announce())
    if planned.plan is not None and planned.plan.seconds(Step.DRAIN) > 0:
        return change.enter(Phase.DRAINING, at).do(Arm(Timer.DRAIN, planned.due(Step.DRAIN))).done()
    return _stop(change, at)


def _hurry(state: State, signal: StopSignal) -> Outcome:
    """The platform's first signal during a stop begun by another request: its deadline counts if it is sooner."""
    hurried = _tighter(state, signal)
    change = _Change(hurried)
    if hurried is state or hurried.plan is state.plan:
        return change.done()
    if hurried.phase is Phase.DRAINING:
        return change.do(Announce(), Arm(Timer.DRAIN, hurried.due(Step.DRAIN))).done()
    until = hurried.due(Step.STOP)
    change.do(Announce(), ApplyStop(until), Arm(Timer.KILL, until), Arm(Timer.GONE, hurried.due(Step.KILL)))
    return change.done()


def _entered_stopping(state: State, at: float) -> State:
    return _Change(state).enter(Phase.STOPPING, at).state


def _stop(change: _Change, at: float) -> Outcome:
    until = change.state.due(Step.STOP)
    gone = change.state.due(Step.KILL)
    return change.enter(Phase.STOPPING, at).do(ApplyStop(until), Arm(Timer.KILL, until), Arm(Timer.GONE, gone)).done()


def _sweep(change: _Change, at: float) -> Outcome:
    until = change.state.due(Step.STOP)
    gone = change.state.due(Step.KILL)
    return change.enter(Phase.STOPPING, at).do(Sweep(), Arm(Timer.KILL, until), Arm(Timer.GONE, gone)).done()


def _kill(change: _Change, at: float) -> Outcome:
    killed = _Change(replace(change.state, killed_at=change.state.killed_at or at), change.effects)
    return killed.do(Kill(), Arm(Timer.GONE, killed.state.due(Step.KILL))).done()


def _flush(change: _Change, at: float) -> Outcome:
    return change.enter(Phase.FLUSHING, at).do(*_shipping(change.state, at)).done()


def _shipping(state: State, at: float) -> tuple[Flush, Arm]:
    """Shipping until the end of its share; under the platform's deadline a little less, for the end after it."""
    until = state.due(Step.SHIP)
    leaving = min(_LEAVING_SECONDS, max(0.0, until - at) * _LEAVING_PART) if state.told_by_platform else 0.0
    return Flush(until - leaving), Arm(Timer.FLUSH, until)


def _after_flush(state: State, at: float) -> Outcome:
    if state.will_restart:
        waiting = _Change(replace(state, restarts_in_row=state.crashes_in_row)).enter(Phase.RESTARTING, at)
        return waiting.do(Arm(Timer.BACKOFF, at + _backoff(waiting.state))).done()
    return _leave(_Change(state), at)


def _backoff(state: State) -> float:
    """Seconds before the next restart."""
    return RetryPolicy(state.rules.restart_backoff, state.rules.restart_backoff_cap).ceiling(state.restarts_in_row)


def _leave(change: _Change, at: float) -> Outcome:
    """The game is gone and its logs are shipped: make the self-stop if it is needed, else exit."""
    if _owes_release(change.state):
        return change.enter(Phase.RELEASING, at).do(Release()).done()
    return _exit(change, at)


def _owes_release(state: State) -> bool:
    if not state.rules.can_self_stop or state.told_by_platform:
        return False
    if state.stop is not None:
        return True
    clean = state.exit is not None and state.exit.clean and state.could_not_start is None
    # If a restart is not possible any more (crash loop, or the game cannot be executed), the deployment is stopped:
    # after an exit the platform's restart policy would only repeat the failure.
    return (state.rules.on_exit if clean else state.rules.on_crash) != "exit"


def _goes_on(state: State) -> bool:
    """Whether the policies would keep the deployment running by a restart, by the agent or by the platform."""
    clean = state.exit is not None and state.exit.clean
    return (state.rules.on_exit if clean else state.rules.on_crash) != "self-stop"


def _exit(change: _Change, at: float) -> Outcome:
    return change.enter(Phase.EXITED, at).do(Exit(change.state.exit_code)).done()

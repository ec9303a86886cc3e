"""The transition function: every rule by example, and by hypothesis that nothing is ever stuck or late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lifecycle.states import (
    Announce,
    ApplyStop,
    Arm,
    Effect,
    Event,
    Exit,
    ExitStatus,
    Flush,
    Flushed,
    GameExited,
    GameGone,
    GameReady,
    GameStarted,
    Kill,
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
from agent.lifecycle.stop_plan import Step
from agent.lifecycle.transition import initial, transition
from agent.record import replace
from tests.rules import default_rules

ON_PLATFORM = default_rules(can_self_stop=True)


def request(at: float = 10.0, *, source: Source = Source.GAME, **more: object) -> StopRequest:
    """A stop request as the local API makes it."""
    return StopRequest(source=source, reason=Reason.REQUESTED, at=at, **more)  # type: ignore[arg-type]


def run(state: State, *events: Event) -> tuple[State, list[Effect]]:
    """Feeds events in order; gives the last state and all effects."""
    effects: list[Effect] = []
    for event in events:
        state, more = transition(state, event)
        effects.extend(more)
    return state, effects


def started(rules: Rules = ON_PLATFORM) -> State:
    """A game that runs since moment 1."""
    return run(initial(rules, 0.0), GameStarted(1.0, 42))[0]


def ready(rules: Rules = ON_PLATFORM) -> State:
    """A game that is ready since moment 2."""
    return run(started(rules), GameReady(2.0))[0]


def test_a_game_that_asks_for_its_stop_is_stopped_flushed_and_released() -> None:
    """The whole way of a match that ends."""
    state, effects = run(ready(), StopRequested(10.0, request(message="match over")))
    assert state.phase is Phase.STOPPING
    assert [type(effect) for effect in effects] == [Announce, ApplyStop, Arm, Arm]
    state, effects = run(state, GameExited(11.0, ExitStatus(code=0)), GameGone(11.0))
    assert state.phase is Phase.FLUSHING
    state, effects = run(state, Flushed(11.5))
    assert state.phase is Phase.RELEASING
    assert effects == [Release()]
    state, effects = run(state, Released(12.0, "confirmed"))
    assert state.phase is Phase.RELEASING
    assert effects == [Arm(Timer.HOLD, 72.0)]
    state, effects = run(state, StopSignal(12.5))
    assert state.phase is Phase.EXITED
    assert effects == [Exit(0)]
    assert state.reason is Reason.REQUESTED
    assert [moment.phase for moment in state.history] == [
        Phase.STARTING,
        Phase.READY,
        Phase.STOPPING,
        Phase.FLUSHING,
        Phase.RELEASING,
        Phase.EXITED,
    ]


def test_only_the_first_stop_request_counts() -> None:
    """A hundred requests cause one stop, and all get the first one as their answer."""
    state, effects = run(ready(), *(StopRequested(10.0 + n, request(10.0 + n)) for n in range(100)))
    assert state.stop == request(10.0)
    assert sum(isinstance(effect, ApplyStop) for effect in effects) == 1


def test_the_platforms_signal_stops_without_a_release() -> None:
    """SIGTERM means that the platform stops the container: no self-stop is owed."""
    state, _ = run(ready(), StopSignal(10.0), GameExited(11.0, ExitStatus(code=7)), GameGone(11.0))
    state, effects = run(state, Flushed(11.2))
    assert state.phase is Phase.EXITED
    assert effects == [Exit(7)]
    assert state.reason is Reason.PLATFORM_STOP


def test_a_game_that_does_not_obey_is_killed_and_its_code_is_137() -> None:
    """The kill timer leads to SIGKILL, and the wait status of that is passed on."""
    state, _ = run(ready(), StopSignal(10.0))
    due = state.due(Step.STOP)
    early, effects = run(state, TimerFired(due - 1.0, Timer.KILL))
    assert early is state
    assert effects == []
    state, effects = run(state, TimerFired(due, Timer.KILL))
    assert effects[0] == Kill()
    state, _ = run(state, GameExited(due + 0.1, ExitStatus(signal=9)), GameGone(due + 0.1), Flushed(due + 0.2))
    assert state.killed
    assert state.exit_code == 137


def test_shipping_leaves_time_for_the_end_behind_it() -> None:
    """A store that hangs takes its whole share, and two processes end after it, 0.25 s before the SIGKILL."""
    rules = replace(ON_PLATFORM, grace=5.0, ship=10.0)
    for gone, least in ((11.0, 0.1), (14.55, 0.05)):
        _, effects = run(ready(rules), StopSignal(10.0), GameExited(gone, ExitStatus(code=0)), GameGone(gone))
        (until,) = (effect.until for effect in effects if isinstance(effect, Flush))
        assert until <= 14.75 - least
    _, effects = run(ready(rules), StopRequested(10.0, request()), GameExited(11.0, ExitStatus(code=0)), GameGone(11.0))
    (until,) = (effect.until for effect in effects if isinstance(effect, Flush))
    assert until == 10.0 + 5.0 + 0.15 + 10.0, "nobody kills: shipping has all of its time"


def test_a_second_signal_skips_the_wait() -> None:
    """Whoever asks twice wants it now."""
    state, effects = run(ready(), StopSignal(10.0), StopSignal(10.5))
    assert Kill() in effects
    assert state.phase is Phase.STOPPING


def test_a_second_signal_while_players_drain_kills_as_well() -> None:
    """Draining is a wait like any other."""
    state, effects = run(ready(replace(ON_PLATFORM, drain=2.0)), StopSignal(10.0), StopSignal(10.5))
    assert state.phase is Phase.STOPPING
    assert Kill() in effects


def test_the_platforms_signal_tightens_a_stop_that_the_game_began() -> None:
    """A stop with a long grace of its own still ends inside the platform's, and owes no release any more."""
    state, _ = run(ready(), StopRequested(10.0, request(grace_seconds=300.0)))
    assert state.due(Step.STOP) > 200
    state, effects = run(state, StopSignal(20.0))
    assert state.due(Step.SHIP) <= 25.0
    assert Kill() not in effects
    assert Arm(Timer.KILL, state.due(Step.STOP)) in effects
    state, effects = run(state, GameExited(21.0, ExitStatus(code=0)), GameGone(21.0), Flushed(21.1))
    assert effects[-1] == Exit(0)


def test_players_may_finish_before_the_stop_methods_are_applied() -> None:
    """Draining ends when nobody plays, or when its share is over."""
    draining, effects = run(ready(replace(ON_PLATFORM, drain=2.0)), StopRequested(10.0, request()))
    assert draining.phase is Phase.DRAINING
    assert not any(isinstance(effect, ApplyStop) for effect in effects)
    for event in (PlayersGone(11.0), TimerFired(12.0, Timer.DRAIN)):
        state, effects = run(draining, event)
        assert state.phase is Phase.STOPPING
        assert any(isinstance(effect, ApplyStop) for effect in effects)


def test_what_a_dead_game_leaves_behind_is_swept() -> None:
    """The main process ended by itself; what it forked is asked to end, then killed."""
    state, effects = run(ready(), GameExited(10.0, ExitStatus(code=0)))
    assert state.phase is Phase.STOPPING
    assert effects[0] == Sweep()
    state, effects = run(state, TimerFired(state.due(Step.STOP), Timer.KILL))
    assert effects[0] == Kill()


@pytest.mark.parametrize(
    ("status", "rules", "phase", "reason"),
    [
        (ExitStatus(code=0), ON_PLATFORM, Phase.RELEASING, Reason.GAME_EXITED),
        (ExitStatus(code=3), ON_PLATFORM, Phase.RELEASING, Reason.GAME_CRASHED),
        (ExitStatus(signal=11), ON_PLATFORM, Phase.RELEASING, Reason.GAME_CRASHED),
        (ExitStatus(code=0), replace(ON_PLATFORM, on_exit="exit"), Phase.EXITED, Reason.GAME_EXITED),
        (ExitStatus(code=3), replace(ON_PLATFORM, on_crash="exit"), Phase.EXITED, Reason.GAME_CRASHED),
        (ExitStatus(code=3), replace(ON_PLATFORM, on_crash="restart"), Phase.RESTARTING, Reason.GAME_CRASHED),
        (ExitStatus(code=0), replace(ON_PLATFORM, on_crash="restart"), Phase.RELEASING, Reason.GAME_EXITED),
        (ExitStatus(code=0), default_rules(), Phase.EXITED, Reason.GAME_EXITED),
    ],
)
def test_what_follows_when_the_game_ends_by_itself(
    status: ExitStatus, rules: Rules, phase: Phase, reason: Reason
) -> None:
    """The exit and crash policies, on and off the platform."""
    state, _ = run(ready(rules), GameExited(10.0, status), GameGone(10.0), Flushed(10.1))
    assert state.phase is phase
    assert state.reason is reason
    assert state.exit_code == status.exit_code


def test_restarts_back_off_and_end_in_a_crash_loop() -> None:
    """Each restart waits twice as long as the one before; after the limit the deployment is stopped."""
    rules = replace(ON_PLATFORM, on_crash="restart", restart_limit=3)
    state, now, pauses = started(rules), 1.0, []
    while True:
        state, effects = run(state, GameExited(now, ExitStatus(code=1)), GameGone(now), Flushed(now))
        if state.phase is not Phase.RESTARTING:
            break
        (due,) = [effect.at for effect in effects if isinstance(effect, Arm) and effect.timer is Timer.BACKOFF]
        pauses.append(due - now)
        unmoved, _ = run(state, TimerFired(due - 0.5, Timer.BACKOFF))
        assert unmoved is state
        state, effects = run(state, TimerFired(due, Timer.BACKOFF))
        assert effects == [Spawn()]
        now = due
        state, _ = run(state, GameStarted(now, 43))
    assert pauses == [1.0, 2.0, 4.0]
    assert state.phase is Phase.RELEASING
    assert state.reason is Reason.CRASH_LOOP
    assert (state.restarts, state.attempt) == (3, 4)


def test_a_game_that_lived_long_starts_a_new_row_of_restarts() -> None:
    """A crash a day is no crash loop."""
    rules = replace(ON_PLATFORM, on_crash="restart", restart_limit=1)
    state = replace(started(rules), restarts_in_row=1)
    state, _ = run(state, GameExited(100.0, ExitStatus(code=1)), GameGone(100.0), Flushed(100.0))
    assert state.phase is Phase.RESTARTING


def test_a_crash_after_a_long_life_is_no_crash_loop_while_it_is_looked_into() -> None:
    """The story of such a game is written before it is started again: what it says is what follows."""
    rules = replace(ON_PLATFORM, on_crash="restart", restart_limit=1)
    state, _ = run(replace(started(rules), restarts_in_row=1), GameExited(100.0, ExitStatus(code=1)), GameGone(100.0))
    assert state.phase is Phase.FLUSHING
    assert state.reason is Reason.GAME_CRASHED
    assert state.will_restart


def test_a_stop_during_the_backoff_needs_no_game() -> None:
    """Between two attempts there is nothing to stop but the deployment."""
    rules = replace(ON_PLATFORM, on_crash="restart")
    waiting, _ = run(started(rules), GameExited(2.0, ExitStatus(code=1)), GameGone(2.0), Flushed(2.0))
    asked, effects = run(waiting, StopRequested(2.5, request(2.5)))
    assert asked.phase is Phase.RELEASING
    assert effects == [Release()]
    told, effects = run(waiting, StopSignal(2.5))
    assert told.phase is Phase.EXITED
    assert effects == [Exit(1)]


def test_a_stop_after_a_crash_keeps_the_game_from_being_started_again() -> None:
    """Asked while the crash is being looked into, it counts all the same; why the game ended stays what it was."""
    state, _ = run(
        started(replace(ON_PLATFORM, on_crash="restart")), GameExited(2.0, ExitStatus(code=1)), GameGone(2.0)
    )
    state, _ = run(state, StopRequested(2.1, request(2.1)))
    state, effects = run(state, Flushed(2.2))
    assert effects == [Release()]
    assert state.reason is Reason.GAME_CRASHED


def test_a_stop_after_a_crash_stops_a_deployment_that_the_policy_would_leave_running() -> None:
    """AGENT_ON_CRASH=exit leaves it to the platform to start it again; whoever asks for a stop wants no such thing."""
    state, _ = run(started(replace(ON_PLATFORM, on_crash="exit")), GameExited(2.0, ExitStatus(code=5)), GameGone(2.0))
    state, effects = run(state, StopRequested(2.1, request(2.1)), Flushed(2.2))
    assert Release() in effects


def test_a_game_that_cannot_be_executed_is_flushed_and_released() -> None:
    """Exit 127 would be started again and billed again by the platform's restart policy."""
    state, effects = run(initial(ON_PLATFORM, 0.0), SpawnFailed(0.1, 127))
    assert any(isinstance(effect, Flush) for effect in effects)
    state, effects = run(state, Flushed(0.2))
    assert effects == [Release()]
    assert state.exit_code == 127
    assert state.reason is Reason.COULD_NOT_START


def test_a_refused_release_ends_without_a_hold() -> None:
    """The platform said no for good: waiting for its SIGTERM would be waiting for nothing."""
    state, _ = run(ready(), GameExited(10.0, ExitStatus(code=0)), GameGone(10.0), Flushed(10.0))
    state, effects = run(state, Released(10.5, "refused"))
    assert effects == [Exit(0)]


def test_a_process_that_survives_sigkill_does_not_hold_up_the_end() -> None:
    """An uninterruptible process (a dead network mount) must not cost the logs."""
    state, _ = run(ready(), StopSignal(10.0))
    state, _ = run(state, TimerFired(state.due(Step.STOP), Timer.KILL))
    state, effects = run(state, TimerFired(state.due(Step.KILL), Timer.GONE))
    assert state.phase is Phase.FLUSHING
    assert any(isinstance(effect, Flush) for effect in effects)
    assert state.exit_code == 137


def test_ready_twice_changes_nothing() -> None:
    """Reporting is idempotent."""
    state = ready()
    assert run(state, GameReady(3.0)) == (state, [])


# No sequence of events is ever stuck or late -------------------------------------------------------------------------

moments = st.floats(0.0, 3.0)
_EVENTS = st.one_of(
    st.builds(lambda: ("started",)),
    st.builds(lambda: ("ready",)),
    st.builds(lambda grace: ("stop", grace), st.one_of(st.none(), st.floats(0, 100))),
    st.builds(lambda interrupt: ("signal", interrupt), st.booleans()),
    st.builds(lambda: ("players gone",)),
    st.builds(lambda code: ("exited", code), st.integers(-15, 255)),
    st.builds(lambda: ("gone",)),
    st.builds(lambda: ("flushed",)),
    st.builds(lambda outcome: ("released", outcome), st.sampled_from(["confirmed", "refused"])),
    st.builds(lambda timer: ("timer", timer), st.sampled_from(list(Timer))),
)
_RULES = st.builds(
    default_rules,
    grace=st.floats(0, 60),
    drain=st.floats(0, 60),
    ship=st.floats(0, 60),
    hold=st.floats(0, 60),
    on_exit=st.sampled_from(["self-stop", "exit"]),
    on_crash=st.sampled_from(["self-stop", "exit", "restart"]),
    can_self_stop=st.booleans(),
    restart_limit=st.integers(0, 3),
)


def make(kind: tuple[object, ...], at: float) -> Event:  # noqa: C901, PLR0911 - a table of events
    """An event from what hypothesis drew."""
    match kind:
        case ("started",):
            return GameStarted(at, 42)
        case ("ready",):
            return GameReady(at)
        case ("stop", float() | None as grace):
            return StopRequested(at, request(at, grace_seconds=grace))
        case ("signal", bool() as interrupt):
            return StopSignal(at, interrupt=interrupt)
        case ("players gone",):
            return PlayersGone(at)
        case ("exited", int() as code):
            return GameExited(at, ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code))
        case ("gone",):
            return GameGone(at)
        case ("flushed",):
            return Flushed(at)
        case ("released", "confirmed" | "refused" as outcome):
            return Released(at, outcome)
        case ("timer", Timer() as timer):
            return TimerFired(at, timer)
    raise AssertionError(kind)


class World:
    """Keeps the timers that were armed, as the driver does, and lets only them pass the time."""

    def __init__(self, rules: Rules) -> None:
        self.state = initial(rules, 0.0)
        self.now = 0.0
        self.timers: dict[Timer, float] = {}
        self.release_asked = False
        self.flush_until: float | None = None

    def take(self, event: Event) -> None:
        """One transition, with its effects."""
        before = self.state
        self.state, effects = transition(before, event)
        if before.phase is Phase.EXITED:
            assert self.state is before
            assert effects == ()
        for effect in effects:
            match effect:
                case Arm(timer=timer, at=at):
                    assert at >= self.now - 0.01, "a timer is never armed for the past by more than the tolerance"
                    self.timers[timer] = max(at, self.now)
                case Release():
                    self.release_asked = True
                case Flush(until=until):
                    self.flush_until = until
                case Exit():
                    assert self.state.phase is Phase.EXITED
                case _:
                    pass

    def fire_next(self) -> bool:
        """Lets the earliest timer come back."""
        if not self.timers:
            return False
        timer = min(self.timers, key=lambda name: self.timers[name])
        self.now = max(self.now, self.timers.pop(timer))
        self.take(TimerFired(self.now, timer))
        return True


@given(_RULES, st.lists(st.tuples(moments, _EVENTS), max_size=30))
def test_no_sequence_of_events_is_stuck(rules: Rules, sequence: list[tuple[float, tuple[object, ...]]]) -> None:
    """After anything at all, one SIGTERM and nothing but timers lead to the end, inside the grace.

    The one exception is a flush whose end was promised by an earlier, tighter deadline: that one is kept.
    """
    world = World(rules)
    for pause, kind in sequence:
        # Timers that are due come back first, as they would.
        target = world.now + pause
        while world.timers and min(world.timers.values()) <= target:
            world.fire_next()
        world.now = target
        world.take(make(kind, world.now))
    told = world.now
    world.take(StopSignal(told))
    while world.state.phase is not Phase.EXITED:
        assert world.fire_next(), f"stuck in {world.state.phase}"
    assert world.now <= told + rules.grace + 0.01
    assert 0 <= world.state.exit_code <= 255


@given(_RULES, st.lists(st.tuples(moments, _EVENTS), max_size=30))
def test_without_the_platform_every_state_has_a_way_out(
    rules: Rules, sequence: list[tuple[float, tuple[object, ...]]]
) -> None:
    """Once anything ends the game, timers alone lead to the end, or to a release that waits for its answer."""
    world = World(rules)
    for pause, kind in sequence:
        target = world.now + pause
        while world.timers and min(world.timers.values()) <= target:
            world.fire_next()
        world.now = target
        world.take(make(kind, world.now))
    for _ in range(100):
        match world.state.phase:
            case Phase.EXITED:
                return
            case Phase.STARTING | Phase.READY:
                world.take(GameExited(world.now, ExitStatus(code=1)))
            case Phase.RELEASING if world.state.release is None:
                assert world.release_asked
                world.take(Released(world.now, "confirmed"))
            case _:
                assert world.fire_next(), f"stuck in {world.state.phase}"
    raise AssertionError("the end was not reached")


@given(_RULES, st.floats(0, 200))
def test_a_stop_is_never_late_and_never_early(rules: Rules, grace: float) -> None:
    """The game gets all of its share before SIGKILL, and nothing bounded ends after the plan."""
    world = World(replace(rules, drain=0.0))
    world.take(GameStarted(0.0, 42))
    world.take(StopRequested(0.0, request(0.0, grace_seconds=grace)))
    plan = world.state.plan
    assert plan is not None
    assert world.timers[Timer.KILL] == pytest.approx(plan.ends(Step.STOP))
    assert plan.seconds(Step.STOP) >= grace * 0.7
    while world.state.phase in (Phase.STOPPING, Phase.FLUSHING):
        assert world.fire_next()
    assert world.now <= plan.total + 0.01

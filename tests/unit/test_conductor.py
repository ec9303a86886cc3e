"""The conductor: one event after the other, timers that come back, effects in order."""

from __future__ import annotations

import asyncio

from agent.lifecycle.driver import Conductor
from agent.lifecycle.states import (
    ApplyStop,
    Effect,
    Event,
    ExitStatus,
    Flush,
    Flushed,
    GameExited,
    GameGone,
    GameReady,
    GameStarted,
    Kill,
    Phase,
    Rules,
    State,
    StopSignal,
)
from agent.lifecycle.transition import initial


async def test_events_that_an_effect_brings_about_wait_for_their_turn() -> None:
    """Hands that post at once never see two transitions overlap."""
    seen: list[str] = []

    def hands(effect: Effect, _state: State) -> None:
        seen.append(type(effect).__name__)
        if isinstance(effect, ApplyStop):
            conductor.post(GameExited(conductor.now(), ExitStatus(code=0)))
            conductor.post(GameGone(conductor.now()))
            assert conductor.state.phase is Phase.STOPPING, "the event is not finished yet"
        if isinstance(effect, Flush):
            conductor.post(Flushed(conductor.now()))

    conductor = Conductor(initial(Rules(), 0.0), hands, asyncio.get_running_loop())
    conductor.post(GameStarted(conductor.now(), 42))
    conductor.post(StopSignal(conductor.now()))
    assert await conductor.exited == 0
    assert seen == ["Announce", "ApplyStop", "Sweep", "Flush"]


async def test_timers_come_back_as_events() -> None:
    """A game that does not obey is killed when its share is over, by the clock of the loop."""
    killed = asyncio.Event()

    def hands(effect: Effect, _state: State) -> None:
        if isinstance(effect, Kill):
            killed.set()

    conductor = Conductor(initial(Rules(grace=0.2), 0.0), hands, asyncio.get_running_loop())
    conductor.post(GameStarted(conductor.now(), 42))
    conductor.post(StopSignal(conductor.now()))
    async with asyncio.timeout(5):
        await killed.wait()
    assert conductor.state.killed


async def test_observers_see_before_and_after_and_only_changes() -> None:
    """Reporting ready twice is one change."""
    seen: list[tuple[Phase, Phase, str]] = []

    def watch(before: State, after: State, event: Event) -> None:
        seen.append((before.phase, after.phase, type(event).__name__))

    conductor = Conductor(initial(Rules(), 0.0), lambda _effect, _state: None, asyncio.get_running_loop())
    conductor.watch(watch)
    conductor.post(GameReady(1.0))
    conductor.post(GameReady(2.0))
    assert seen == [(Phase.STARTING, Phase.READY, "GameReady")]

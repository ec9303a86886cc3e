"""The driver: one event after the other, timers that come back, effects in order."""

from __future__ import annotations

import asyncio

from agent.lifecycle.driver import Driver
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
    State,
    StopSignal,
)
from agent.lifecycle.transition import initial
from tests.rules import default_rules


async def test_events_that_an_effect_brings_about_wait_for_their_turn() -> None:
    """Hands that post at once never see two transitions overlap."""
    seen: list[str] = []

    def execute(effect: Effect, _state: State) -> None:
        seen.append(type(effect).__name__)
        if isinstance(effect, ApplyStop):
            driver.post(GameExited(driver.now(), ExitStatus(code=0)))
            driver.post(GameGone(driver.now()))
            assert driver.state.phase is Phase.STOPPING, "the event is not finished yet"
        if isinstance(effect, Flush):
            driver.post(Flushed(driver.now()))

    driver = Driver(initial(default_rules(), 0.0), execute, asyncio.get_running_loop())
    driver.post(GameStarted(driver.now(), 42))
    driver.post(StopSignal(driver.now()))
    assert driver.exit_code == 0
    assert seen == ["Announce", "ApplyStop", "Sweep", "Flush"]


async def test_timers_come_back_as_events() -> None:
    """A game that does not obey is killed when its share is over, by the clock of the loop."""
    killed = asyncio.Event()

    def execute(effect: Effect, _state: State) -> None:
        if isinstance(effect, Kill):
            killed.set()

    driver = Driver(initial(default_rules(grace=0.2), 0.0), execute, asyncio.get_running_loop())
    driver.post(GameStarted(driver.now(), 42))
    driver.post(StopSignal(driver.now()))
    async with asyncio.timeout(5):
        await killed.wait()
    assert driver.state.killed


async def test_observers_see_before_and_after_and_only_changes() -> None:
    """Reporting ready twice is one change."""
    seen: list[tuple[Phase, Phase, str]] = []

    def watch(before: State, after: State, event: Event) -> None:
        seen.append((before.phase, after.phase, type(event).__name__))

    driver = Driver(initial(default_rules(), 0.0), lambda _effect, _state: None, asyncio.get_running_loop())
    driver.watch(watch)
    driver.post(GameReady(1.0))
    driver.post(GameReady(2.0))
    assert seen == [(Phase.STARTING, Phase.READY, "GameReady")]


async def test_a_fault_in_an_effect_or_an_observer_costs_no_timer() -> None:
    """The timers behind it are armed all the same, so that the lifecycle ends."""
    killed = asyncio.Event()

    def execute(effect: Effect, _state: State) -> None:
        if isinstance(effect, Kill):
            killed.set()
        raise AssertionError("a fault of the agent")

    def observe(_before: State, _after: State, _event: Event) -> None:
        raise AssertionError("another one")

    driver = Driver(initial(default_rules(grace=0.2), 0.0), execute, asyncio.get_running_loop())
    driver.watch(observe)
    driver.post(GameStarted(driver.now(), 42))
    driver.post(StopSignal(driver.now()))
    async with asyncio.timeout(5):
        await killed.wait()

"""Drives the lifecycle: hands every event to `transition`, carries out its effects, runs its timers.

One event is finished before the next one is looked at, also where carrying out an effect brings about another event,
so that no two transitions ever overlap. Everything here happens on the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from agent.lifecycle.states import Arm, Effect, Event, Exit, State, Timer, TimerFired
from agent.lifecycle.transition import transition

Observer: TypeAlias = Callable[[State, State, Event], None]
Hands: TypeAlias = Callable[[Effect, State], None]


class Conductor:
    """The lifecycle in motion.

    Attributes:
        state: the present state. Replaced as a whole at each transition; a reference to it stays true for its moment.
        exited: resolves to the exit code once the lifecycle is over.
    """

    def __init__(self, state: State, hands: Hands, loop: asyncio.AbstractEventLoop) -> None:
        """Takes the state to begin with and what carries out effects.

        Args:
            state: from `agent.lifecycle.transition.initial`.
            hands: called once an effect, in order, with the state after the transition. It must not block; what takes
                time goes on in a task and posts an event when it is done.
            loop: its clock (`loop.time()`) is the clock of all events and timers.
        """
        self.state = state
        self.exited: asyncio.Future[int] = loop.create_future()
        self._hands = hands
        self._loop = loop
        self._observers: list[Observer] = []
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._waiting: deque[Event] = deque()
        self._busy = False

    def watch(self, observer: Observer) -> None:
        """Calls `observer(before, after, event)` after every transition that changed something, before its effects."""
        self._observers.append(observer)

    def now(self) -> float:
        """The present moment in seconds of the monotonic clock, for making events."""
        return self._loop.time()

    def post(self, event: Event) -> State:
        """Takes an event in and returns the state that follows from it.

        Called while another event is being finished, the event is taken in right after that one, and the state
        returned is still the one before it.
        """
        self._waiting.append(event)
        if self._busy:
            return self.state
        self._busy = True
        try:
            while self._waiting:
                self._step(self._waiting.popleft())
        finally:
            self._busy = False
        return self.state

    def _step(self, event: Event) -> None:
        before = self.state
        self.state, effects = transition(before, event)
        if self.state is not before:
            for observer in self._observers:
                observer(before, self.state, event)
        for effect in effects:
            match effect:
                case Arm(timer=timer, at=at):
                    self._arm(timer, at)
                case Exit(code=code):
                    self._finish(code)
                case _:
                    self._hands(effect, self.state)

    def _arm(self, timer: Timer, at: float) -> None:
        if running := self._timers.pop(timer, None):
            running.cancel()
        self._timers[timer] = self._loop.call_at(at, self._fire, timer)

    def _fire(self, timer: Timer) -> None:
        self._timers.pop(timer, None)
        self.post(TimerFired(self._loop.time(), timer))

    def _finish(self, code: int) -> None:
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        if not self.exited.done():
            self.exited.set_result(code)

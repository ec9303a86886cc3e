"""Drives the lifecycle: gives every event to `transition`, has its effects executed, runs its timers.

One event is finished before the next one is looked at, also where executing an effect brings about another event, so
that no two transitions ever overlap. A fault in an observer or an effect is logged, and what follows it is done all the
same: a lifecycle whose timers are not armed would never end. Standard library only.
"""

from __future__ import annotations

from collections import deque

from agent import log
from agent.errors import LEAVING
from agent.lifecycle.states import Arm, Effect, Event, Exit, State, Timer, TimerFired
from agent.lifecycle.transition import transition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeAlias

    Observer: TypeAlias = Callable[[State, State, Event], None]
    Execute: TypeAlias = Callable[[Effect, State], None]

    class TimerHandle(Protocol):
        """A timer that was asked for."""

        def cancel(self) -> None:
            """Lets it not fire."""

    class Clock(Protocol):
        """What moments and timers come from: `agent.init.loop.Loop`, or an asyncio event loop."""

        def time(self) -> float:
            """The present moment in seconds of the monotonic clock."""

        def call_at(self, when: float, callback: Callable[..., object], *args: object) -> TimerHandle:
            """Calls back at a moment."""


class Driver:
    """The lifecycle in motion.

    Attributes:
        state: the present state. Replaced as a whole at each transition; a reference to it stays true for its moment.
        exit_code: what the lifecycle ended with; None before it is over.
    """

    def __init__(
        self, state: State, execute: Execute, clock: Clock, on_exit: Callable[[int], None] = lambda _code: None
    ) -> None:
        """Takes the state to begin with and what executes effects.

        Args:
            state: from `agent.lifecycle.transition.initial`.
            execute: called once an effect, in order, with the state after the transition. It must not block; what
                takes time goes on beside and posts an event when it is done.
            clock: the clock of all events and timers.
            on_exit: called once, with the exit code, when the lifecycle is over.
        """
        self.state = state
        self.exit_code: int | None = None
        self._execute = execute
        self._clock = clock
        self._on_exit = on_exit
        self._observers: list[Observer] = []
        self._timers: dict[Timer, TimerHandle] = {}
        self._waiting: deque[Event] = deque()
        self._busy = False

    def watch(self, observer: Observer) -> None:
        """Calls `observer(before, after, event)` after every transition that changed something, before its effects."""
        self._observers.append(observer)

    def now(self) -> float:
        """The present moment in seconds of the monotonic clock, for making events."""
        return self._clock.time()

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
                self._guard("note a transition", observer, before, self.state, event)
        for effect in effects:
            match effect:
                case Arm(timer=timer, at=at):
                    self._arm(timer, at)
                case Exit(code=code):
                    self._finish(code)
                case _:
                    self._guard(f"carry out {type(effect).__name__}", self._execute, effect, self.state)

    def _guard(self, doing: str, call: Callable[..., object], *args: object) -> None:
        try:
            call(*args)
        except LEAVING:
            raise
        except BaseException as problem:
            log.fault(f"cannot {doing}", problem)

    def _arm(self, timer: Timer, at: float) -> None:
        if running := self._timers.pop(timer, None):
            running.cancel()
        self._timers[timer] = self._clock.call_at(at, self._fire, timer)

    def _fire(self, timer: Timer) -> None:
        self._timers.pop(timer, None)
        self.post(TimerFired(self._clock.time(), timer))

    def _finish(self, code: int) -> None:
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        if self.exit_code is None:
            self.exit_code = code
            self._guard("leave", self._on_exit, code)

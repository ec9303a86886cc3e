"""Drives the lifecycle: passes every event to `transition`, has its effects executed, runs its timers.

Each event is finished before the next one is handled, even if an effect causes another event, so that transitions never
overlap. An exception in an observer or an effect is logged and the remaining effects are still executed: a lifecycle
whose timers were not armed would never end. Standard library only.
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
        """A pending timer."""

        def cancel(self) -> None:
            """Cancels the timer."""

    class Clock(Protocol):
        """The source of times and timers: `agent.init.loop.Loop`, or an asyncio event loop."""

        def time(self) -> float:
            """The current time in seconds of the monotonic clock."""

        def call_at(self, when: float, callback: Callable[..., object], *args: object) -> TimerHandle:
            """Calls back at the given time."""


class Driver:
    """The lifecycle in motion.

    Attributes:
        state: the current state, immutable: each transition replaces it as a whole.
        exit_code: the exit code, once the lifecycle is over; None before.
    """

    def __init__(
        self, state: State, execute: Execute, clock: Clock, on_exit: Callable[[int], None] = lambda _code: None
    ) -> None:
        """Takes the state to begin with and what executes effects.

        Args:
            state: from `agent.lifecycle.transition.initial`.
            execute: called once for each effect, in order, with the state after the transition. It must not block;
                longer work continues in the background and posts an event when it is done.
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
        """The current time in seconds of the monotonic clock, for the events."""
        return self._clock.time()

    def post(self, event: Event) -> State:
        """Handles an event and returns the resulting state.

        If it is called while another event is being handled, the event is queued and handled next; the returned state
        is then still the one before it.
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

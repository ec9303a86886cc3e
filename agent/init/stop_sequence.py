"""Applies the stop methods in order, each with a time slot. Standard library only.

This module handles only order and time; what each method does is in `agent.init.stop_actions`.
"""

from __future__ import annotations

from agent import log
from agent.errors import AgentError
from agent.lifecycle.stop_methods import ITSELF, Method, turns, with_last_resort
from agent.lifecycle.stop_plan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from agent.lifecycle.driver import Clock, TimerHandle
    from agent.lifecycle.states import State

    class Actions(Protocol):
        """What the methods do; implemented by `agent.init.stop_actions.StopActions`."""

        def prepare(self) -> float:
            """Prepares the game for its stop (resumes it if it is suspended).

            Returns:
                Seconds that subscribers need to receive the stop event first.
            """

        def apply(self, turn: Turn, method: Method, state: State, ends: float, failed: Callable[[str], None]) -> str:
            """Applies a method, without waiting.

            Args:
                turn: records which processes were signalled.
                method: which.
                state: of the lifecycle.
                ends: when its turn is over, in seconds of the monotonic clock.
                failed: called with the reason if it turns out later that the method has no effect.

            Returns:
                Why it has no effect, or "".
            """

        def end(self) -> None:
            """The turn is over: ends what the method is still doing."""


# The share of the whole time that is kept for later methods when the game asks for more time.
_KEPT_FOR_THE_REST = 0.1


class PlannedTurn:
    """The plan for one method when the stop begins: its name and its seconds."""

    __slots__ = ("method", "seconds")

    def __init__(self, method: str, seconds: float) -> None:
        """Takes both."""
        self.method = method
        self.seconds = seconds


class Turn:
    """A method that had its turn.

    Attributes:
        method: as it is shown.
        at: when its turn began, in seconds of the monotonic clock.
        planned_seconds: how long it had.
        seconds: how long it took until the game was gone, its time was over, or it failed.
        outcome: `applied`, or why it had no effect.
        acknowledged: whether the game acknowledged the stop.
        more_seconds: the extra time that the game asked for and got.
        asked: the processes that were signalled, in words.
    """

    def __init__(self, method: str, at: float, planned_seconds: float) -> None:
        """A turn that begins."""
        self.method = method
        self.at = at
        self.planned_seconds = planned_seconds
        self.seconds = 0.0
        self.outcome = "applied"
        self.acknowledged = False
        self.more_seconds = 0.0
        self.asked: list[str] = []


class StopSequence:
    """One stop of one game, made when it is announced.

    Attributes:
        planned: the time of each method, as planned before the first turn.
        turns: the methods that had their turn so far.
        started: whether the first turn has begun, or is about to.
    """

    def __init__(self, methods: Sequence[Method], actions: Actions, state: State, clock: Clock) -> None:
        """Plans the turns.

        Args:
            methods: as AGENT_STOP has them.
            actions: applies them.
            state: of the lifecycle; it has a plan.
            clock: used for all times.
        """
        ending = state.stop is not None and state.stop.ending
        self._methods = with_last_resort((ITSELF, *methods) if ending else methods)
        self._actions = actions
        self._clock = clock
        self._state = state
        self._index = -1
        self._timer: TimerHandle | None = None
        self._extended = False
        self._over = False
        self._open = False  # whether a method is being applied
        self.started = False
        self.turns: list[Turn] = []
        # Acknowledgement that came before the first turn, during the drain; it is given to that turn.
        self._acknowledged = ending
        self._promised = self._more = 0.0
        self.plan(state)

    def plan(self, state: State) -> None:
        """Plans the turns when the stop is announced, and again where its deadline moves before they begin."""
        self._began, self._until = state.due(Step.DRAIN), state.due(Step.STOP)
        ends = turns(self._methods, max(0.0, self._until - self._began))
        self._ends = self._began + ends[0]
        self.planned = [
            PlannedTurn(str(method), end - begin)
            for method, begin, end in zip(self._methods, (0.0, *ends), ends, strict=False)
        ]

    def start(self, state: State, until: float) -> None:
        """Applies the first method, after subscribers have had time to receive the stop event.

        Args:
            state: of the lifecycle, when the drain is over.
            until: time of the monotonic clock by which the game must be gone; `hurry` moves it.
        """
        self.started = True
        self._state = state
        self._until, self._began = until, self._clock.time()
        settle = self._actions.prepare()
        if settle > 0 and self._methods[0].kind != "notify":
            self._timer = self._clock.call_at(self._began + settle, self._next)
        else:
            self._next()

    def hurry(self, until: float) -> None:
        """Moves the deadline: the remaining time is divided again."""
        self._until = until
        if self._open:
            before = self._ends
            self._share_out(self._index, self._clock.time())
            self._ends = min(before, self._ends)  # the time used so far is subtracted
            self._arm()

    def acknowledge(self, more_seconds: float) -> float:
        """The game acknowledges the stop and is shutting down.

        Args:
            more_seconds: the extra time it wants before the next method; 0 for none.

        Returns:
            The extra time it gets: never beyond the deadline, minus the time that the next methods need.

        Raises:
            AgentError: it asked for more time before.
        """
        if more_seconds > 0 and self._extended:
            raise AgentError("cannot give more time: it was given once before; end before the deadline")
        self._acknowledged = True
        granted = 0.0
        if more_seconds > 0:
            self._extended = True
            before = self._ends
            self._ends = max(before, min(before + more_seconds, self._latest))
            granted = self._ends - before
        if self.turns:
            self.turns[-1].acknowledged = True
            self.turns[-1].more_seconds += granted
            if self._open:
                self._arm()
        else:
            self._more, self._promised = granted, self._ends
        return granted

    def end(self) -> None:
        """The game is gone or is being killed: applies no further method."""
        if not self._over:
            self._over = True
            self._close_turn()

    def was_applied(self, method: Method) -> bool:
        """Whether a method had its effect on the game."""
        return any(turn.method == str(method) and turn.outcome == "applied" for turn in self.turns)

    @property
    def _latest(self) -> float:
        """The latest time at which an extended turn may end."""
        return self._until - (self._until - self._began) * _KEPT_FOR_THE_REST

    def _next(self) -> None:
        """Applies the next method, if there is one."""
        self._close_turn()
        if self._over or self._index + 1 >= len(self._methods):
            return
        self._index += 1
        method, now = self._methods[self._index], self._clock.time()
        self._share_out(self._index, now)
        turn = Turn(str(method), now, max(0.0, self._ends - now))
        if not self.turns:
            turn.acknowledged, turn.more_seconds = self._acknowledged, self._more
            # Extra time granted during the drain is kept even if the drain ended early.
            self._ends = min(self._until, max(self._promised, min(self._ends + self._more, self._latest), self._ends))
        self.turns.append(turn)
        self._open = True
        self._arm()
        log.debug(f"stop method {method}", seconds=round(turn.planned_seconds, 2))
        try:
            problem = self._actions.apply(turn, method, self._state, self._ends, lambda why: self._fail(turn, why))
        except Exception as fault:  # whatever went wrong, the next method is applied
            problem = f"{type(fault).__name__}: {fault}"
        if problem:
            self._fail(turn, problem)

    def _fail(self, turn: Turn, problem: str) -> None:
        """A method has no effect: applies the next one now."""
        if self._over or turn is not self.turns[-1] or turn.outcome != "applied":
            return
        turn.outcome = problem
        log.warning(f"cannot stop the game by {turn.method}: {problem}; going on to the next method")
        self._next()

    def _close_turn(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open:
            self._open = False
            self.turns[-1].seconds = self._clock.time() - self.turns[-1].at
            self._actions.end()

    def _share_out(self, index: int, now: float) -> None:
        whole = max(0.0, self._until - self._began)
        self._ends = now + turns(self._methods[index:], max(0.0, self._until - now), whole)[0]

    def _arm(self) -> None:
        """Ends the turn at `_ends`, even if that is moved meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(self._ends, self._next)

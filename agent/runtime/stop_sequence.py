"""The stop methods in their turn: each for its share of the time that the game has to end.

Here is only the order and the clock; what a method does to the game is `agent.runtime.stop_actions`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from agent import log
from agent.errors import AgentError
from agent.lifecycle.states import State
from agent.lifecycle.stop_methods import ITSELF, Method, turns, with_last_resort
from agent.lifecycle.stop_plan import Step

# However much more time the game asks for, what comes after its method gets this part of the whole.
_KEPT_FOR_THE_REST = 0.1


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """What a method gets, as it is planned when the stop begins."""

    method: str
    seconds: float


@dataclass(slots=True)
class Turn:
    """A method that had its turn.

    Attributes:
        method: as it is shown.
        at: when its turn began, in seconds of the monotonic clock.
        planned_seconds: how long it had.
        seconds: how long it took until the game was gone, its time was over, or it had no effect.
        outcome: `applied`, or why it had no effect.
        acknowledged: whether the game said that it heard.
        more_seconds: how much longer the game asked for, and got.
    """

    method: str
    at: float
    planned_seconds: float
    seconds: float = 0.0
    outcome: str = "applied"
    acknowledged: bool = False
    more_seconds: float = 0.0


class Asker(Protocol):
    """Applies methods to the game; `agent.runtime.stop_actions.GameAsker` is it."""

    async def settle(self) -> None:
        """Waits a moment for whoever listens to take what was announced."""

    def ask(self, method: Method, state: State, ends: float, failed: Callable[[str], None]) -> str:
        """Applies a method, without waiting.

        Args:
            method: which.
            state: of the lifecycle.
            ends: when its turn is over, in seconds of the monotonic clock.
            failed: called where it turns out later that the method has no effect, with why.

        Returns:
            Why it has no effect, or "".
        """

    async def end(self) -> None:
        """The turn is over: what the method still does ends with it."""

    def helper_ended(self, pid: int, status: int) -> None:
        """A process that the agent had started for itself was reaped with a wait status."""


class Stopping:
    """One stop of one game, made when it is announced.

    Attributes:
        planned: what each method gets, as things stood before the first turn.
        turns: the methods that had their turn so far.
    """

    def __init__(self, methods: Sequence[Method], asker: Asker, state: State) -> None:
        """Plans the turns.

        Args:
            methods: as AGENT_STOP has them.
            asker: applies them.
            state: of the lifecycle; it has a plan.
        """
        ending = state.stop is not None and state.stop.ending
        self._methods = with_last_resort((ITSELF, *methods) if ending else methods)
        self._asker = asker
        self._changed = asyncio.Event()
        self._extended = False
        self.turns: list[Turn] = []
        # Said before the first turn, while players drain; given to that turn.
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

    async def run(self, state: State, until: float) -> None:
        """Applies all methods in turn; cancel it when the game is gone.

        Args:
            state: of the lifecycle, when the drain is over.
            until: moment of the monotonic clock at which the game must be gone; `hurry` moves it.
        """
        self._until, self._began = until, asyncio.get_running_loop().time()
        await self._asker.settle()
        for index, method in enumerate(self._methods):
            await self._take_turn(index, method, state)

    def hurry(self, until: float) -> None:
        """Moves the end of the whole: what is left of it is shared out anew."""
        self._until = until
        self._changed.set()

    def acknowledge(self, more_seconds: float) -> float:
        """The game heard the stop and is busy ending.

        Args:
            more_seconds: how much longer than its share it wants before the next method; 0 for no longer.

        Returns:
            How much longer it gets: never beyond the deadline, less what the next methods need.

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
            self._changed.set()
        else:
            self._more, self._promised = granted, self._ends
        return granted

    def helper_ended(self, pid: int, status: int) -> None:
        """See `Asker`."""
        self._asker.helper_ended(pid, status)

    def was_applied(self, method: Method) -> bool:
        """Whether a method had its effect on the game."""
        return any(turn.method == str(method) and turn.outcome == "applied" for turn in self.turns)

    @property
    def _latest(self) -> float:
        """The latest moment at which a turn may end that was made longer."""
        return self._until - (self._until - self._began) * _KEPT_FOR_THE_REST

    async def _take_turn(self, index: int, method: Method, state: State) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._share_out(index, now)
        turn = Turn(str(method), now, max(0.0, self._ends - now))
        if not self.turns:
            turn.acknowledged, turn.more_seconds = self._acknowledged, self._more
            # What was promised during the drain is kept also if the drain was over sooner than planned.
            self._ends = min(self._until, max(self._promised, min(self._ends + self._more, self._latest), self._ends))
        self.turns.append(turn)
        failed = partial(self._fail, turn)
        try:
            if problem := self._asker.ask(method, state, self._ends, failed):
                failed(problem)
            log.debug(f"stop method {method}", seconds=round(turn.planned_seconds, 2))
            await self._wait(index, turn)
        finally:
            turn.seconds = loop.time() - turn.at
            await self._asker.end()

    def _fail(self, turn: Turn, problem: str) -> None:
        """A method has no effect: the next one has its turn now."""
        if turn.outcome == "applied" and turn is self.turns[-1]:
            turn.outcome = problem
            log.warning(f"cannot stop the game by {turn.method}: {problem}; going on to the next method")
            self._changed.set()

    def _share_out(self, index: int, now: float) -> None:
        whole = max(0.0, self._until - self._began)
        self._ends = now + turns(self._methods[index:], max(0.0, self._until - now), whole)[0]

    async def _wait(self, index: int, turn: Turn) -> None:
        """Until the turn is over, however it is moved meanwhile."""
        loop = asyncio.get_running_loop()
        until = self._until
        while turn.outcome == "applied" and (left := self._ends - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()
                    self._changed.clear()
            if self._until != until:
                until, before = self._until, self._ends
                self._share_out(index, loop.time())
                self._ends = min(before, self._ends)  # what it has had already is not given again

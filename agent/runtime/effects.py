"""Carries out what the lifecycle orders: signals to the game, the flush, the self-stop, the next start.

Each order returns at once. What takes time goes on in a task that belongs to this object, and ends in an event for the
conductor, whatever happens in it: a fault in here is said in the log, and the lifecycle goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from agent import log
from agent.edgegap.self_stop import Attempt, SelfStop
from agent.errors import LEAVING
from agent.game.signals import kill_all, sweep
from agent.init.main import Boot, start_game
from agent.lifecycle.driver import Conductor
from agent.lifecycle.states import (
    Announce,
    ApplyStop,
    Effect,
    Flush,
    Flushed,
    GameStarted,
    Kill,
    Phase,
    Release,
    Released,
    Spawn,
    SpawnFailed,
    State,
    Sweep,
)
from agent.lifecycle.stop_methods import SIGTERM
from agent.runtime.stop_sequence import Stopping

# A process that forks while the others are killed may slip away: what is left is listed and killed again this often.
_KILL_AGAIN = 0.02
_AFTER_FAULT = 5.0


class LastWords(Protocol):
    """Autopsy and shipping; `agent.runtime.finalizer.Farewell` is it."""

    async def flush(self, state: State, until: float, stopping: Stopping | None) -> None:
        """Finds the cause and ships, until a moment of the monotonic clock; `stopping` is how the game was asked."""

    def hurry(self, until: float) -> None:
        """Moves the end of a flush that is under way."""


class Hands:
    """The conductor's hands.

    Attributes:
        conductor: set by the composition root right after both exist.
        stopping: the stop methods, planned or at work; None before a stop.
    """

    conductor: Conductor

    def __init__(
        self,
        boot: Boot,
        *,
        stopping: Callable[[State], Stopping],
        last_words: LastWords,
        self_stop: Callable[[State], SelfStop],
        on_attempt: Callable[[Attempt], None],
    ) -> None:
        """Takes what orders are carried out with.

        Args:
            boot: the game and what it needs to be started again.
            stopping: makes what applies the stop methods, once a stop, when it is announced.
            last_words: what is done when the game is gone.
            self_stop: makes the call that stops the deployment.
            on_attempt: told of every attempt of that call.
        """
        self._boot = boot
        self._make_stopping = stopping
        self.stopping: Stopping | None = None
        self._applying: asyncio.Task[None] | None = None
        self._last_words = last_words
        self._self_stop = self_stop
        self._on_attempt = on_attempt
        self._tasks: set[asyncio.Task[None]] = set()
        self._flushing = False

    def __call__(self, effect: Effect, state: State) -> None:
        """Carries out one order; see `agent.lifecycle.states` for what each means."""
        match effect:
            case Announce():
                self._announce(state)
            case ApplyStop(until=until):
                self._apply_stop(state, until)
            case Sweep():
                self._sweep()
            case Kill():
                self._kill()
            case Flush(until=until):
                self._flush(state, until)
            case Release():
                self._start(self._release(state))
            case Spawn():
                self.start_game(again=True)

    async def close(self) -> None:
        """Ends what is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # The game --------------------------------------------------------------------------------------------------------

    def start_game(self, *, again: bool = False) -> None:
        """Tells the conductor of the game that boot has started, or (`again`) starts it anew."""
        if again:
            self.stopping = self._applying = None
            start_game(self._boot)
        game, failure = self._boot.game, self._boot.failure
        if game is not None:
            self.conductor.post(GameStarted(game.started_at, game.pid))
        elif failure is not None:
            log.error(str(failure))
            self.conductor.post(SpawnFailed(self.conductor.now(), failure.exit_code))

    def _announce(self, state: State) -> None:
        request = state.stop
        assert request is not None, "only a stop that was asked for is announced"
        if self.stopping is None:
            self.stopping = self._make_stopping(state)
        elif self._applying is None:
            self.stopping.plan(state)
        words = f' ("{request.message}")' if request.message else ""
        methods = ", ".join(f"{turn.method} {turn.seconds:.2f} s" for turn in self.stopping.planned)
        log.info(
            f"stopping: {request.source} asked, {request.reason}{words}; deadline {state.plan}; asking by {methods}"
        )

    def _apply_stop(self, state: State, until: float) -> None:
        assert self.stopping is not None, "a stop is announced before it is applied"
        if self._applying is not None:
            self.stopping.hurry(until)
        else:
            self._applying = self._start(self.stopping.run(state, until))

    def helper_ended(self, pid: int, status: int) -> None:
        """A process that the agent started for itself was reaped."""
        if self.stopping is not None:
            self.stopping.helper_ended(pid, status)

    def _sweep(self) -> None:
        if self._boot.game is None:
            return
        asked = self.stopping is not None and self.stopping.was_applied(SIGTERM)
        left = sweep(self._boot.game.pid, self._boot.reaper, group_was_asked=asked)
        if left:
            log.info(f"the game has ended and left {left} process{'es' if left > 1 else ''} behind: asked to end")

    def _end_methods(self) -> None:
        if self._applying is not None:
            self._applying.cancel()

    def _kill(self) -> None:
        self._end_methods()
        log.warning("the game did not end in its time: SIGKILL to all of it")
        self._start(self._kill_until_gone())

    async def _kill_until_gone(self) -> None:
        while self._boot.game is not None and self.conductor.state.phase is Phase.STOPPING:
            kill_all(self._boot.game.pid, self._boot.reaper)
            await asyncio.sleep(_KILL_AGAIN)

    # The end ---------------------------------------------------------------------------------------------------------

    def _flush(self, state: State, until: float) -> None:
        if self._flushing:
            self._last_words.hurry(until)
            return
        self._end_methods()
        self._flushing = True
        self._start(self._flush_and_tell(state, until))

    async def _flush_and_tell(self, state: State, until: float) -> None:
        try:
            await self._last_words.flush(state, until, self.stopping)
        finally:
            self._flushing = False
            self.conductor.post(Flushed(self.conductor.now()))

    async def _release(self, state: State) -> None:
        call = self._self_stop(state)
        log.info(f"stopping the deployment: DELETE {call.shown_url}")

        def note(attempt: Attempt) -> None:
            self._on_attempt(attempt)
            if attempt.retry_in is not None:
                log.warning(f"{attempt.message} (attempt {attempt.number}, next in {attempt.retry_in:.1f} s)")

        outcome = None
        while outcome is None:
            try:
                outcome = await call.run(note)
            except Exception as problem:
                # A fault of the agent must not leave a deployment running that nobody plays on.
                log.error(f"cannot self-stop ({type(problem).__name__}: {problem}); trying again in {_AFTER_FAULT:g} s")
                await asyncio.sleep(_AFTER_FAULT)
        if outcome.confirmed:
            log.info(f"the platform will stop this deployment (attempts: {outcome.attempts}); holding until it does")
        else:
            log.error(f"{outcome.message}. The deployment may go on to be billed: stop it from a backend")
        self.conductor.post(Released(self.conductor.now(), "confirmed" if outcome.confirmed else "refused"))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (*LEAVING, asyncio.CancelledError):
            raise
        except BaseException as problem:
            log.error(f"cannot carry out an order of the lifecycle ({type(problem).__name__}: {problem}); going on")

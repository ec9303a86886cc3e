"""Executes the lifecycle's effects: signals to the game, flush, self-stop, the next start. Standard library only.

Each effect returns at once. Longer work is a timer or runs in the agent's process, and its end is reported by an event.
"""

from __future__ import annotations

from agent import log
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, Protocol

    from agent.game.process import GameProcess
    from agent.init.attempt import Attempt
    from agent.init.loop import Loop
    from agent.init.stop_sequence import StopSequence
    from agent.lifecycle.driver import Driver

    class Ending(Protocol):
        """What follows the game's end; `agent.init.ending.Ending` is it."""

        def flush(self, attempt: Attempt, state: State, until: float, done: Callable[[], None]) -> None:
            """Writes `exit.json`, ships; calls `done` when that is over."""

        def hurry(self, until: float) -> None:
            """Moves the deadline of the flush."""

        def release(self, state: State, settled: Callable[[Literal["confirmed", "refused"]], None]) -> None:
            """Calls the platform's self-stop until it is settled."""

        def prepare(self) -> None:
            """Prepares for the end of the game, which has just been asked to stop."""


# A process that forks during the kill may be missed: the remaining processes are listed and killed again this often.
_KILL_AGAIN = 0.02
# The first stop method is applied before the modules for the end are imported, which takes time.
_PREPARE_AFTER = 0.1
# Processes that the main process left behind may end by themselves, such as `tee` at the end of its input.
_SWEEP_AFTER = 0.3


class Effects:
    """Executes effects on the present start of the game.

    Attributes:
        driver: the lifecycle's driver; set right after both objects exist.
        attempt: the present start.
    """

    driver: Driver
    attempt: Attempt

    def __init__(
        self,
        loop: Loop,
        process: GameProcess,
        ending: Ending,
        *,
        new_attempt: Callable[[], Attempt],
        new_sequence: Callable[[Attempt, State], StopSequence],
    ) -> None:
        """Takes what effects are executed with.

        Args:
            loop: for timers.
            process: the game.
            ending: flush and release.
            new_attempt: makes the attempt for a game that was just started, or could not be.
            new_sequence: plans the stop of an attempt.
        """
        self._loop = loop
        self._process = process
        self._ending = ending
        self._new_attempt = new_attempt
        self._new_sequence = new_sequence

    def __call__(self, effect: Effect, state: State) -> None:
        """Executes one effect; see `agent.lifecycle.states` for what each means."""
        match effect:
            case Announce():
                self._announce(state)
            case ApplyStop(until=until):
                self._apply_stop(state, until)
            case Sweep():
                self._sweep(state)
            case Kill():
                log.warning("the game did not end in its time: SIGKILL to all of it")
                self.attempt.end_methods()
                self.attempt.kill(self._loop.call_later, _KILL_AGAIN)
            case Flush(until=until):
                self._flush(state, until)
            case Release():
                self._ending.release(state, self._released)
            case Spawn():
                self._process.start()
                self.begin()
            case _:
                raise AssertionError(f"the driver does this itself: {effect}")

    def begin(self) -> None:
        """Tells the driver that the game was started, or could not be started."""
        self.attempt = self._new_attempt()
        game, failure = self._process.game, self._process.failure
        if game is not None:
            self.driver.post(GameStarted(game.started_at, game.pid))
        elif failure is not None:
            log.error(str(failure))
            self.driver.post(SpawnFailed(self.driver.now(), failure.exit_code))

    def _announce(self, state: State) -> None:
        attempt, request = self.attempt, state.stop
        if attempt.sequence is None:
            attempt.sequence = self._new_sequence(attempt, state)
        elif not attempt.sequence.started:
            attempt.sequence.plan(state)
        # A game that ended by itself is not asked to stop; a SIGTERM while its last processes end still has a deadline.
        why = f"{request.source} asked, {request.reason}" if request is not None else "the platform asked"
        words = f' ("{request.message}")' if request is not None and request.message else ""
        methods = ", ".join(f"{turn.method} {turn.seconds:.2f} s" for turn in attempt.sequence.planned)
        log.info(f"stopping: {why}{words}; deadline {state.plan}; asking by {methods}")

    def _apply_stop(self, state: State, until: float) -> None:
        sequence = self.attempt.sequence
        if sequence is None:
            sequence = self.attempt.sequence = self._new_sequence(self.attempt, state)
        if sequence.started:
            sequence.hurry(until)
        elif state.exit is None:
            sequence.start(state, until)
            self._loop.call_later(_PREPARE_AFTER, self._ending.prepare)

    def _sweep(self, state: State) -> None:
        """The main process has ended: asks the processes that it left behind to end, each of them once."""
        sequence = self.attempt.sequence
        if sequence is not None and sequence.turns:
            ended_by = state.exit.signal if state.exit is not None else None
            self.attempt.actions.main_ended(sequence.turns[-1], ended_by)
        self.attempt.sweep(self._loop.call_later, _SWEEP_AFTER)

    def _flush(self, state: State, until: float) -> None:
        attempt = self.attempt
        if attempt.flushing:
            self._ending.hurry(until)
            return
        attempt.close()
        attempt.flushing = True
        self._ending.flush(attempt, state, until, self._flushed)

    def _flushed(self) -> None:
        if self.driver.state.phase is Phase.FLUSHING:
            self.driver.post(Flushed(self.driver.now()))

    def _released(self, outcome: Literal["confirmed", "refused"]) -> None:
        self.driver.post(Released(self.driver.now(), outcome))

"""The lifecycle with its real driver, effects and stop sequence on a virtual clock; fakes only at the edge.

Every sequence of events up to a length that reaches restarts, hurries and second signals is tried, and longer ones by
hypothesis. Whatever happens, it ends, inside the deadline, with an `exit.json`, without a fault in any effect.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import log
from agent.errors import EXIT_NOT_FOUND, CannotStartError
from agent.init.attempt import Attempt
from agent.init.effects import Effects
from agent.init.stop_sequence import StopSequence, Turn
from agent.lifecycle.driver import Driver
from agent.lifecycle.states import (
    Event,
    ExitStatus,
    GameExited,
    GameGone,
    GameReady,
    Phase,
    PlayersGone,
    Reason,
    Rules,
    Source,
    State,
    StopRequest,
    StopRequested,
    StopSignal,
)
from agent.lifecycle.stop_methods import Method, parse
from agent.lifecycle.transition import initial
from tests.rules import default_rules

GRACE = 5.0
RULES = {
    "self-stop": default_rules(grace=GRACE, drain=1.0, ship=3.0, hold=10.0, can_self_stop=True),
    "restart": default_rules(
        grace=GRACE, ship=3.0, hold=10.0, on_crash="restart", restart_limit=1, restart_backoff=1.0, can_self_stop=True
    ),
    "exit": default_rules(grace=GRACE, on_exit="exit", on_crash="exit"),
}
# What can happen, as letters; a dot is a second that passes.
EVENTS = "rRstikgcpf."


class Timer:
    """A call that is to come."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        """It does not come."""
        self.cancelled = True


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, int, Timer, Callable[..., object], tuple[object, ...]]] = []
        self._count = itertools.count()

    def time(self) -> float:
        """The present moment."""
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Timer:
        """Calls back at a moment."""
        timer = Timer()
        heapq.heappush(self._calls, (when, next(self._count), timer, callback, args))
        return timer

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        """Calls back after so many seconds."""
        return self.call_at(self.now + seconds, callback, *args)

    def advance(self, seconds: float) -> None:
        """Time passes, and what comes due is called."""
        until = self.now + seconds
        while self._calls and self._calls[0][0] <= until:
            when, _, timer, callback, args = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            if not timer.cancelled:
                callback(*args)
        self.now = until


class Game:
    """A game's processes: it can be started, killed, or fail to start."""

    def __init__(self, world: World, *, startable: bool) -> None:
        self.world = world
        self.startable = startable
        self.game: Any = None
        self.failure: CannotStartError | None = None
        self.starts = 0

    def start(self) -> None:
        """Starts it."""
        self.starts += 1
        if self.startable:
            self.game = type("Started", (), {"started_at": self.world.clock.now, "pid": 100 + self.starts})()
            self.world.main_lives = self.world.rest_lives = True
        else:
            self.failure = CannotStartError("cannot start it", EXIT_NOT_FOUND)

    def pids(self) -> list[int]:
        """None that could really be signalled."""
        return []

    def kill(self) -> int:
        """The kernel ends all of it, a moment later."""
        if self.world.immortal:
            return 1
        if not (self.world.main_lives or self.world.rest_lives):
            return 0
        self.world.clock.call_later(0.001, self.world.vanish)
        return 1


class Actions:
    """Methods that have no effect on the game, or fail."""

    def __init__(self, *, raises: bool) -> None:
        self.raises = raises
        self.asked: dict[int, int] = {}

    def prepare(self) -> float:
        """Listeners are told first."""
        return 0.03

    def apply(self, _turn: Turn, _method: Method, _state: State, _ends: float, _failed: Callable[[str], None]) -> str:
        """Does nothing."""
        if self.raises:
            raise OSError("no descriptor is left")
        return ""

    def end(self) -> None:
        """Nothing goes on."""

    def main_ended(self, _turn: Turn, _ended_by: int | None) -> None:
        """Nobody is asked."""


class Ending:
    """Shipping that hangs until its time is over, or is quick; a platform that confirms, late."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.flushes = 0
        self.releases = 0
        self.until = 0.0

    def flush(self, _attempt: Attempt, _state: State, until: float, done: Callable[[], None]) -> None:
        """Writes exit.json and ships."""
        self.flushes += 1
        self.until = until
        if not self.world.hangs:
            self.world.clock.call_later(0.2, done)

    def hurry(self, until: float) -> None:
        """Less time."""
        self.until = until

    def prepare(self) -> None:
        """Nothing is imported here."""

    def release(self, _state: State, settled: Callable[[Literal["confirmed", "refused"]], None]) -> None:
        """Confirmed after a while."""
        self.releases += 1
        self.world.clock.call_later(2.0, settled, "confirmed")


class World:
    """One deployment on a virtual clock."""

    def __init__(
        self, rules: Rules, *, hangs: bool = False, immortal: bool = False, raises: bool = False, startable: bool = True
    ) -> None:
        self.clock = Clock()
        self.hangs = hangs
        self.immortal = immortal
        self.main_lives = self.rest_lives = False
        self.signalled: float | None = None
        self.requested = False
        self.ended_at: float | None = None
        self.game = Game(self, startable=startable)
        self.ending = Ending(self)
        self.effects = Effects(
            cast("Any", self.clock),
            cast("Any", self.game),
            self.ending,
            new_attempt=lambda: Attempt(cast("Any", self.game), None, cast("Any", Actions(raises=raises))),
            new_sequence=lambda attempt, state: StopSequence(
                parse("notify@40%,signal:SIGTERM"), attempt.actions, state, self.clock
            ),
        )
        self.driver = self.effects.driver = Driver(
            initial(rules, self.clock.now), self.effects, self.clock, lambda _code: self._note_end()
        )
        self.game.start()
        self.effects.begin()

    def _note_end(self) -> None:
        self.ended_at = self.clock.now

    def vanish(self) -> None:
        """All processes of the game are gone."""
        self.end_main(ExitStatus(signal=9))
        if self.rest_lives:
            self.rest_lives = False
            self.post(GameGone(self.clock.now))

    def end_main(self, status: ExitStatus) -> None:
        """Its main process ends."""
        if self.main_lives:
            self.main_lives = False
            self.post(GameExited(self.clock.now, status))

    @property
    def known(self) -> tuple[object, ...]:
        """All that an event can change but timers, which change with the state or the time."""
        return self.driver.state, self.clock.now, self.main_lives, self.rest_lives, self.signalled, self.requested

    def post(self, event: Event) -> None:
        """Something happens."""
        self.driver.post(event)

    def happen(self, letter: str) -> None:
        """Something happens, by its letter."""
        now = self.clock.now
        match letter:
            case "r":
                self.post(GameReady(now))
            case "R" | "s":
                ending = letter == "s"
                request = StopRequest(Source.GAME, Reason.REQUESTED, now, ending=ending)
                self.requested = self.requested or self.driver.state.phase is not Phase.EXITED
                self.post(StopRequested(now, request))
            case "t" | "i":
                self.signalled = now if self.signalled is None else self.signalled
                self.post(StopSignal(now, interrupt=letter == "i"))
            case "k":
                self.end_main(ExitStatus(signal=11))
            case "c":
                self.end_main(ExitStatus(code=0))
            case "g":
                if not self.main_lives and self.rest_lives:
                    self.rest_lives = False
                    self.post(GameGone(now))
            case "p":
                self.post(PlayersGone(now))
            case "f":
                self.end_main(ExitStatus(code=3))
                self.happen("g")
            case _:
                self.clock.advance(1.0)

    def finish(self) -> None:
        """The platform stops it, if nothing else does; only the clock goes on from there."""
        if self.driver.exit_code is None:
            self.happen("t")
            self.clock.advance(2 * GRACE)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the agent would ask to report."""
    found: list[str] = []
    monkeypatch.setattr(log, "fault", lambda doing, problem: found.append(f"{doing}: {problem!r}"))
    monkeypatch.setattr(log, "_output", lambda _line: None)
    return found


def check(world: World, faults: list[str], letters: str) -> None:
    """All that has to hold, whatever happened."""
    world.finish()
    assert not faults, (letters, faults)
    assert world.driver.exit_code is not None, f"{letters}: it never ends, in {world.driver.state.phase}"
    assert world.ending.flushes >= 1, f"{letters}: there is no exit.json"
    assert world.ending.releases <= 1, f"{letters}: the deployment is stopped twice"
    if world.signalled is not None and world.ended_at is not None:
        assert world.ended_at <= world.signalled + GRACE, f"{letters}: later than the grace"


@pytest.mark.parametrize(
    ("rules", "world"),
    [*((name, "well") for name in RULES), ("self-stop", "hanging store"), ("restart", "immortal processes")],
)
def test_every_sequence_ends(rules: str, world: str, faults: list[str]) -> None:
    """All sequences of up to three events, and then nothing but the platform's signal and time.

    Where an event changes nothing, what follows it is a shorter sequence, which is tried as well.
    """
    seen: set[tuple[Phase, str]] = set()
    longer = [""]
    while longer:
        letters = longer.pop()
        one = World(RULES[rules], hangs=world == "hanging store", immortal=world == "immortal processes")
        before = None
        for letter in letters:
            before = one.known
            seen.add((one.driver.state.phase, letter))
            one.happen(letter)
        if len(letters) < 3 and one.known != before:
            longer += [letters + letter for letter in EVENTS]
        check(one, faults, letters)
    assert {phase for phase, _ in seen} >= {Phase.STARTING, Phase.READY, Phase.STOPPING, Phase.FLUSHING}


@settings(max_examples=150)
@given(
    st.text(EVENTS, max_size=14),
    st.sampled_from(sorted(RULES)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_longer_sequences_end_too(letters: str, rules: str, hangs: bool, raises: bool, startable: bool) -> None:
    """With restarts, hurries, second signals, methods that raise, and games that cannot be started."""
    faults: list[str] = []
    before, log_output = log.fault, log._output
    log.fault = lambda doing, problem: faults.append(f"{doing}: {problem!r}")
    log.send_to(lambda _line: None)
    try:
        world = World(RULES[rules], hangs=hangs, raises=raises, startable=startable)
        for letter in letters:
            world.happen(letter)
        check(world, faults, letters)
    finally:
        log.fault = before
        log.send_to(log_output)


def test_a_deployment_that_owes_its_stop_is_released(faults: list[str]) -> None:
    """A game that asked, or that ended by itself, is never forgotten by the platform."""
    for letters in ("rR.f", "rR......", "f", "c.g", "k..."):
        world = World(RULES["self-stop"])
        for letter in letters:
            world.happen(letter)
        world.clock.advance(60.0)
        assert world.ending.releases == 1, letters
        assert world.driver.exit_code is not None, letters
        assert not faults


def test_a_crash_that_leaves_a_deaf_child_and_then_sigterm(faults: list[str]) -> None:
    """The announcement of a stop that nobody asked for is no fault, and the timers behind it are armed."""
    world = World(RULES["self-stop"])
    world.happen("k")
    world.clock.advance(3.0)
    world.happen("t")
    world.clock.advance(GRACE)
    assert world.driver.exit_code == 139
    assert world.driver.state.killed
    assert not faults

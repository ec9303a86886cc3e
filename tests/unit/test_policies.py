"""The policies, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.init.policy_timer import PolicyTimer
from agent.lifecycle.driver import Driver
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.policies import Facts, Limits, stops, warnings
from agent.lifecycle.states import GameReady, GameStarted, Phase, Reason, Source
from agent.lifecycle.transition import initial
from agent.record import replace
from tests.rules import default_rules

ALL = Limits(ready=10, first_player=20, empty=30, health=5, duration=600, warnings=(300, 60), reserve=10)
READY = Facts(Phase.READY, began=0.0, started_at=1.0, ready_at=2.0)


def first(limits: Limits, facts: Facts) -> tuple[Reason, float] | None:
    """The stop that comes first."""
    due = stops(limits, facts)
    return (due[0].reason, due[0].at) if due else None


def test_everything_is_off_by_default() -> None:
    """A game under the agent is not stopped for what its author never heard of."""
    busy = replace(READY, seen_players=True, empty_since=3.0, last_heartbeat=3.0)
    assert stops(Limits(), busy) == []
    assert warnings(Limits(), busy) == []


@pytest.mark.parametrize(
    ("limits", "facts", "due"),
    [
        (Limits(ready=10), Facts(Phase.STARTING, 0.0, started_at=1.0), (Reason.NOT_READY, 11.0)),
        (Limits(ready=10), READY, None),
        (Limits(first_player=20), READY, (Reason.FIRST_PLAYER_TIMEOUT, 22.0)),
        (Limits(first_player=20), replace(READY, seen_players=True, players=1), None),
        (Limits(first_player=20), Facts(Phase.STARTING, 0.0, started_at=1.0), None),
        (Limits(empty=30), replace(READY, seen_players=True, empty_since=50.0), (Reason.EMPTY, 80.0)),
        (Limits(empty=30), replace(READY, seen_players=True, empty_since=50.0, held_until=90.0), (Reason.EMPTY, 90.0)),
        (Limits(empty=30), replace(READY, seen_players=True, empty_since=50.0, held_until=60.0), (Reason.EMPTY, 80.0)),
        (Limits(first_player=20), replace(READY, held_until=50.0), (Reason.FIRST_PLAYER_TIMEOUT, 50.0)),
        (Limits(empty=30), replace(READY, seen_players=True, players=2), None),
        (Limits(empty=30), READY, None),
        (Limits(health=5), replace(READY, last_heartbeat=7.0), (Reason.HEARTBEAT_LOST, 12.0)),
        (Limits(health=5), READY, None),
        (Limits(duration=600, reserve=35), READY, (Reason.MAX_DURATION, 565.0)),
        (Limits(duration=60, reserve=35), READY, (Reason.MAX_DURATION, 48.0)),
    ],
)
def test_what_is_due_when(limits: Limits, facts: Facts, due: tuple[Reason, float] | None) -> None:
    """Each policy by example, and what keeps it quiet."""
    assert first(limits, facts) == due


def test_the_message_names_the_players_that_were_expected() -> None:
    """A match that was made for four and got none is worth a look at the matchmaker."""
    (due,) = stops(Limits(first_player=20), replace(READY, expected_players=4))
    assert "none of the 4 expected joined" in due.message


def test_warnings_come_before_the_end_of_the_duration() -> None:
    """Those that fit: ten minutes before the end of a five minute match is no moment."""
    told = warnings(Limits(duration=300, warnings=(600, 120, 60), reserve=10), READY)
    assert [(warning.at, warning.seconds_left) for warning in told] == [(170.0, 120), (230.0, 60)]


_moments = st.one_of(st.none(), st.floats(0, 1000))


@given(
    st.sampled_from(list(Phase)),
    _moments,
    _moments,
    st.integers(0, 3),
    st.booleans(),
    _moments,
    _moments,
)
def test_no_facts_lead_to_a_stop_that_they_do_not_justify(
    phase: Phase,
    started: float | None,
    ready: float | None,
    players: int,
    seen: bool,
    empty: float | None,
    heartbeat: float | None,
) -> None:
    """Never under players for being empty, never for a heartbeat that never was, never twice, always with a reason."""
    facts = Facts(phase, 0.0, started, ready, players, seen, empty, heartbeat)
    due = stops(ALL, facts)
    reasons = [one.reason for one in due]
    assert len(set(reasons)) == len(reasons)
    assert [one.at for one in due] == sorted(one.at for one in due)
    assert all(one.message for one in due)
    if phase not in (Phase.STARTING, Phase.READY):
        assert due == []
    if players > 0:
        assert Reason.EMPTY not in reasons
    if seen:
        assert Reason.FIRST_PLAYER_TIMEOUT not in reasons
    if heartbeat is None:
        assert Reason.HEARTBEAT_LOST not in reasons


class FakeLoop:
    """An event loop whose time the test moves; only what the watch and the driver use."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, int, Callable[[], object]]] = []

    def time(self) -> float:
        """The present moment."""
        return self.now

    def create_future(self) -> asyncio.Future[int]:
        """For the driver's end, which no test here reaches."""
        return asyncio.get_running_loop().create_future()

    def call_soon(self, call: Callable[..., None], *arguments: object) -> Handle:
        """At the present moment."""
        return self.call_at(self.now, call, *arguments)

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Handle:
        """Later."""
        entry = (when, len(self.calls), lambda: callback(*args))
        self.calls.append(entry)
        return Handle(self, entry)

    def advance(self, to: float) -> None:
        """Moves the time, and makes the calls that come due on the way."""
        while due := [call for call in self.calls if call[0] <= to]:
            entry = min(due, key=lambda call: call[:2])
            self.calls.remove(entry)
            self.now = max(self.now, entry[0])
            entry[2]()
        self.now = to


class Handle:
    """Cancels a call."""

    def __init__(self, loop: FakeLoop, entry: tuple[float, int, Callable[[], object]]) -> None:
        self._loop = loop
        self._entry = entry

    def cancel(self) -> None:
        """It is not made."""
        if self._entry in self._loop.calls:
            self._loop.calls.remove(self._entry)


class World:
    """A watch over a game that is ready since moment 2."""

    def __init__(self, limits: Limits) -> None:
        self.loop = FakeLoop()
        self.report = GameReport()
        self.hung = 0
        self.warned: list[float] = []
        self.driver = Driver(initial(default_rules(), 0.0), lambda *_: None, self.loop)
        self.watch = PolicyTimer(
            self.driver,
            self.report,
            limits,
            loop=self.loop,  # type: ignore[arg-type]
            began=0.0,
            expected_players=None,
            on_hang=self._hang,
            warn=self.warned.append,
        )
        self.loop.advance(1.0)
        self.driver.post(GameStarted(1.0, 42))
        self.loop.advance(2.0)
        self.driver.post(GameReady(2.0))

    def _hang(self) -> None:
        self.hung += 1

    @property
    def reason(self) -> Reason | None:
        """Why it was stopped."""
        stop = self.driver.state.stop
        assert stop is None or stop.source is Source.POLICY
        return stop.reason if stop else None


async def test_a_join_cancels_the_empty_timeout() -> None:
    """It counts from the last leave, and not from the first."""
    world = World(Limits(empty=30))
    world.report.set_players(3.0, 1)
    world.loop.advance(10.0)
    world.report.set_players(10.0, 0)
    world.loop.advance(39.0)
    world.report.set_players(39.0, 1)
    world.loop.advance(100.0)
    assert world.reason is None
    world.report.set_players(100.0, 0)
    world.loop.advance(129.9)
    assert world.reason is None
    world.loop.advance(130.0)
    assert world.reason is Reason.EMPTY


async def test_heartbeats_keep_a_game_alive() -> None:
    """Armed by the first one; what can be captured of a hung game is captured first."""
    world = World(Limits(health=5))
    world.loop.advance(100.0)
    assert world.reason is None
    for moment in range(100, 130, 4):
        world.loop.advance(moment)
        world.report.heartbeat(moment)
    world.loop.advance(132.9)
    assert world.reason is None
    world.loop.advance(133.0)
    assert [world.reason, world.hung] == [Reason.HEARTBEAT_LOST, 1]


async def test_nobody_joined() -> None:
    """From the moment of being ready."""
    world = World(Limits(first_player=20))
    world.loop.advance(21.9)
    assert world.reason is None
    world.loop.advance(22.0)
    assert world.reason is Reason.FIRST_PLAYER_TIMEOUT


async def test_the_game_is_warned_once_each() -> None:
    """Then the stop comes in time."""
    world = World(Limits(duration=600, warnings=(300, 60), reserve=10))
    world.loop.advance(589.0)
    assert world.warned == [300, 60]
    assert world.reason is None
    world.loop.advance(590.0)
    assert world.reason is Reason.MAX_DURATION


async def test_players_that_cannot_be_counted_count_as_players() -> None:
    """A failed query is never taken for an empty server; emptiness counts from when it can be counted again."""
    world = World(Limits(first_player=20, empty=30))
    world.watch.players_unknown(False)
    world.watch.players_unknown(True)
    world.loop.advance(500.0)
    assert world.reason is None
    world.watch.players_unknown(False)
    world.loop.advance(529.0)
    assert world.reason is None
    world.loop.advance(530.0)
    assert world.reason is Reason.EMPTY


async def test_a_game_that_is_still_loading_had_no_players() -> None:
    """Queries fail until it answers; nobody has left then, and the first player is waited for from then on."""
    world = World(Limits(first_player=20, empty=5))
    world.watch.players_unknown(True)
    world.loop.advance(100.0)
    assert world.reason is None
    world.watch.players_unknown(False)
    world.loop.advance(119.9)
    assert world.reason is None
    world.loop.advance(120.0)
    assert world.reason is Reason.FIRST_PLAYER_TIMEOUT


async def test_a_pause_of_the_whole_container_is_no_hang() -> None:
    """Nobody ran, so nobody could have sent a heartbeat; the game gets its time again, once."""
    world = World(Limits(health=5))
    world.report.heartbeat(3.0)
    world.loop.advance(4.0)
    world.loop.now = 60.0
    world.loop.advance(60.0)
    assert world.reason is None
    world.loop.advance(64.9)
    assert world.reason is None
    world.loop.advance(65.0)
    assert world.reason is Reason.HEARTBEAT_LOST


async def test_a_port_probe_is_as_if_nobody_had_come() -> None:
    """It neither arms the empty timeout, nor puts one off that runs."""
    world = World(Limits(first_player=20, empty=30))
    for at in (5.0, 10.0):
        world.loop.advance(at)
        world.report.set_players(at, 1)
        world.report.set_players(at + 1.0, 0)
        world.watch.short_visit()
    world.loop.advance(19.9)
    assert world.reason is None
    world.report.set_players(19.9, 1)
    world.loop.advance(25.0)
    assert world.reason is None, "who is there may be a player"
    world.report.set_players(100.0, 0)
    world.loop.advance(120.0)
    world.report.set_players(120.0, 1)
    world.loop.advance(129.0)
    world.report.set_players(129.0, 0)
    world.watch.short_visit()
    world.loop.advance(129.9)
    assert world.reason is None
    world.loop.advance(130.0)
    assert world.reason is Reason.EMPTY

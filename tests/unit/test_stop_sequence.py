"""Stop methods in their turn, on a virtual clock: each has its share, none is late, what is not used is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AgentError
from agent.init.stop_sequence import StopSequence, Turn
from agent.lifecycle.states import GameStarted, PlayersGone, Reason, Source, State, StopRequest, StopRequested
from agent.lifecycle.stop_methods import SIGTERM, Method, parse
from agent.lifecycle.stop_plan import Step, plan_stop
from agent.lifecycle.transition import initial, transition
from tests.rules import default_rules
from tests.virtual_time import run

BEGAN = 1000.0


def stopping_state(seconds: float, *, drain: float = 0.0, ending: bool = False) -> State:
    """A stop that gives the game so many seconds for the methods (and as many for a drain, where there is one)."""
    # The kill's share comes out of the grace as well: the grace is searched for that leaves the seconds wanted.
    low, high = 0.0, 10 * seconds + 10
    for _ in range(100):
        middle = (low + high) / 2
        plan = plan_stop(middle, killed_at_end=False, drain=drain)
        low, high = (middle, high) if plan.seconds(Step.STOP) < seconds else (low, middle)
    request = StopRequest(Source.GAME, Reason.REQUESTED, BEGAN, ending=ending)
    state = transition(initial(default_rules(grace=high, drain=drain), BEGAN), GameStarted(BEGAN, 1))[0]
    return transition(state, StopRequested(BEGAN, request))[0]


class FakeGame:
    """Notes what it is asked, and when; `useless` methods have no effect, `useless_later` ones fail after a second."""

    def __init__(self, useless: Sequence[str] = (), useless_later: Sequence[str] = ()) -> None:
        self.asked: list[tuple[float, str]] = []
        self.ended: list[float] = []
        self._useless = useless
        self._useless_later = useless_later

    def prepare(self) -> float:
        """Nobody listens."""
        return 0.0

    def apply(self, _turn: Turn, method: Method, _state: State, _ends: float, failed: Callable[[str], None]) -> str:
        """Notes it."""
        loop = asyncio.get_running_loop()
        self.asked.append((round(loop.time() - BEGAN, 3), str(method)))
        if str(method).startswith(tuple(self._useless_later)):
            loop.call_later(1.0, failed, "it failed")
        return "of no use" if str(method).startswith(tuple(self._useless)) else ""

    def end(self) -> None:
        """Notes it."""
        self.ended.append(round(asyncio.get_running_loop().time() - BEGAN, 3))


def play(
    text: str,
    seconds: float,
    *,
    game: FakeGame | None = None,
    meanwhile: Sequence[tuple[float, Callable[[StopSequence], object]]] = (),
    state: State | None = None,
    gone_after: float | None = None,
) -> tuple[FakeGame, StopSequence]:
    """Runs all turns of AGENT_STOP=`text`; what happens `meanwhile` has its moment, in seconds after the beginning."""
    game = game or FakeGame()
    state = state or stopping_state(seconds)

    async def go() -> StopSequence:
        loop = asyncio.get_running_loop()
        until = state.due(Step.STOP)
        stopping = StopSequence(parse(text), game, state, loop)
        for after, act in meanwhile:
            loop.call_at(BEGAN + after, act, stopping)
        stopping.start(state, until)
        over = loop.create_future()
        loop.call_at(until + 0.001 if gone_after is None else BEGAN + gone_after, over.set_result, None)
        await over
        stopping.end()
        return stopping

    return game, run(go())


def test_each_method_has_its_share_of_the_whole() -> None:
    """Percentages are of the whole deadline, not of what is left; those without one share the rest."""
    game, stopping = play("notify@40%,stdin:stop@50%,signal:SIGINT", 10.0)
    assert game.asked == [(0.0, "notify"), (4.0, "stdin:stop"), (9.0, "signal:SIGINT"), (9.5, "signal:SIGTERM")]
    assert [turn.seconds for turn in stopping.turns] == pytest.approx([4.0, 5.0, 0.5, 0.5])
    assert [turn.seconds for turn in stopping.planned] == pytest.approx([4.0, 5.0, 0.5, 0.5])


@pytest.mark.parametrize("method", ["notify", "stdin:stop", "signal:SIGINT", "command:true", "rcon:stop"])
def test_every_method_has_its_turn_and_no_longer(method: str) -> None:
    """A game that does not react has all of the share, and SIGTERM comes at its end."""
    game, stopping = play(f"{method}@2s", 5.0)
    shown = "rcon" if method.startswith("rcon") else method
    assert game.asked == [(0.0, shown), (2.0, "signal:SIGTERM")]
    assert game.ended == [2.0, 5.0]
    assert stopping.was_applied(SIGTERM)


@pytest.mark.parametrize("method", ["notify", "stdin:stop", "signal:SIGINT", "command:true", "rcon:stop"])
def test_a_method_that_has_no_effect_gives_its_time_to_the_next(method: str) -> None:
    """The next one has its turn at once, and why is kept."""
    useless = "rcon" if method.startswith("rcon") else method
    game, stopping = play(f"{method}@80%", 5.0, game=FakeGame(useless=[useless]))
    assert [when for when, _ in game.asked] == [0.0, 0.0]
    assert [turn.outcome for turn in stopping.turns] == ["of no use", "applied"]
    assert stopping.turns[1].seconds == pytest.approx(5.0)


def test_a_method_that_turns_out_to_have_no_effect_ends_then() -> None:
    """A hook that fails after a second."""
    game, stopping = play("command:false@80%", 5.0, game=FakeGame(useless_later=["command"]))
    assert game.asked == [(0.0, "command:false"), (1.0, "signal:SIGTERM")]
    assert stopping.turns[0].outcome == "it failed"
    assert stopping.turns[0].seconds == pytest.approx(1.0)


def test_a_game_that_ends_needs_no_further_method() -> None:
    """What its method was doing ends with it, and how long it took is known."""
    game, stopping = play("stdin:stop,signal:SIGINT", 9.0, gone_after=1.5)
    assert [name for _, name in game.asked] == ["stdin:stop"]
    assert game.ended == [1.5]
    assert stopping.turns[0].seconds == pytest.approx(1.5)


def test_more_time_comes_from_the_methods_behind() -> None:
    """Two seconds more for the event, and still everything inside the deadline."""
    granted: list[float] = []
    game, stopping = play(
        "notify@2s,signal:SIGINT", 10.0, meanwhile=[(1.0, lambda it: granted.append(it.acknowledge(2.0)))]
    )
    assert granted == [pytest.approx(2.0)]
    assert [when for when, _ in game.asked] == [0.0, 4.0, 9.0]
    assert stopping.turns[0].acknowledged
    assert stopping.turns[0].more_seconds == pytest.approx(2.0)
    assert game.ended[-1] == 10.0


def test_more_time_is_given_once_and_inside_the_deadline() -> None:
    """However much is asked for, a tenth is kept for what comes after; an acknowledgement alone may be repeated."""
    granted: list[float] = []

    def ask(stopping: StopSequence) -> None:
        granted.append(stopping.acknowledge(1000.0))
        granted.append(stopping.acknowledge(0.0))
        with pytest.raises(AgentError, match="given once before"):
            stopping.acknowledge(1.0)

    game, _ = play("notify@1s", 10.0, meanwhile=[(0.5, ask)])
    assert granted == [pytest.approx(8.0), 0.0]
    assert game.asked[-1] == (9.0, "signal:SIGTERM")


def test_what_is_asked_for_while_players_drain_is_kept() -> None:
    """Also where the drain is over sooner, so that the first turn begins earlier than planned."""
    state = stopping_state(5.0, drain=5.0)
    begins = state.due(Step.DRAIN) - BEGAN
    granted: list[float] = []

    async def go() -> list[Turn]:
        game = FakeGame()
        loop = asyncio.get_running_loop()
        stopping = StopSequence(parse("notify@1s"), game, state, loop)
        granted.append(stopping.acknowledge(2.0))
        drained, _ = transition(state, PlayersGone(BEGAN))
        until = drained.due(Step.STOP)
        stopping.start(drained, until)
        await asyncio.sleep(until - loop.time())
        stopping.end()
        return stopping.turns

    turns = run(go())
    assert granted == [pytest.approx(2.0)]
    assert turns[0].acknowledged
    assert turns[0].seconds >= begins + 3.0 - 0.001


def test_a_sooner_deadline_is_shared_out_anew() -> None:
    """The platform's signal comes while the game's own stop is under way."""
    game, _ = play("notify@5s,signal:SIGINT", 30.0, meanwhile=[(1.0, lambda it: it.hurry(BEGAN + 4.0))])
    assert game.asked[0] == (0.0, "notify")
    assert game.ended[-1] == pytest.approx(4.0)
    assert [name for _, name in game.asked] == ["notify", "signal:SIGINT", "signal:SIGTERM"]


def test_a_game_that_is_ending_by_itself_is_left_alone_for_half_of_the_time() -> None:
    """`STOPPING=1` of sd_notify: SIGTERM in the middle of its saving would be the wrong answer."""
    game, stopping = play("signal:SIGTERM", 8.0, state=stopping_state(8.0, ending=True))
    assert game.asked == [(0.0, "itself"), (4.0, "signal:SIGTERM")]
    assert stopping.turns[0].acknowledged


LISTS = st.lists(
    st.sampled_from(
        ["notify", "stdin:x", "signal:INT", "command:x", "rcon:x", "notify@20%", "stdin:x@3s", "rcon:x@1m"]
    ),
    min_size=1,
    max_size=5,
).filter(lambda parts: sum("20%" in part for part in parts) <= 5)


@given(
    LISTS,
    st.floats(0.5, 300),
    st.sets(st.sampled_from(["notify", "stdin", "command", "rcon"])),
    st.one_of(st.none(), st.tuples(st.floats(0, 300), st.floats(0, 600))),
    st.one_of(st.none(), st.tuples(st.floats(0, 300), st.floats(0.1, 300))),
)
def test_turns_are_never_late_and_never_cut_short(
    parts: list[str],
    seconds: float,
    useless: set[str],
    more: tuple[float, float] | None,
    sooner: tuple[float, float] | None,
) -> None:
    """Whatever fails, is asked for or hurried: methods come in order, and the last turn ends at the deadline."""
    meanwhile: list[tuple[float, Callable[[StopSequence], object]]] = []
    end = seconds
    if more is not None:
        meanwhile.append((more[0], lambda it: it.acknowledge(more[1])))
    if sooner is not None and sooner[0] < seconds and sum(sooner) < seconds:
        end = sum(sooner)
        meanwhile.append((sooner[0], lambda it: it.hurry(BEGAN + end)))
    game, stopping = play(",".join(parts), seconds, game=FakeGame(useless=list(useless)), meanwhile=meanwhile)
    assert [name for _, name in game.asked][-1] == "signal:SIGTERM"
    assert len(game.asked) == len(parts) + 1
    moments = [when for when, _ in game.asked]
    assert moments == sorted(moments)
    assert game.ended[-1] == pytest.approx(end, abs=0.002)
    if sooner is None:
        for turn in stopping.turns:
            assert turn.outcome != "applied" or turn.seconds >= turn.planned_seconds - 0.002

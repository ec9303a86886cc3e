"""The game's report: the rules of players, figures and subscriptions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.lifecycle.game_metrics import MAX_METRICS, CustomMetric
from agent.lifecycle.game_report import (
    MAX_ID_LENGTH,
    MAX_IDS,
    MAX_PLAYERS,
    Fact,
    GameReport,
    HeartbeatReported,
    MetricsReported,
    PlayersReported,
    ReportCleared,
    ReportError,
    TextReported,
    one_line,
)


def everything(report: GameReport) -> tuple[object, ...]:
    """All that it says."""
    return (
        report.count,
        report.capacity,
        report.players_known,
        dict(report.ids),
        report.heartbeats,
        report.last_heartbeat,
        report.text,
        dict(report.metrics),
    )


class Players(RuleBasedStateMachine):
    """Any sequence of set, join and leave, beside a model that is as simple as the rules in the docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.report = GameReport()
        self.facts: list[Fact] = []
        self.report.subscribe(self.facts.append)
        self.count = 0
        self.capacity: int | None = None
        self.ids: set[str] = set()
        self.now = 0.0

    @rule(count=st.none() | st.integers(-1, 6), capacity=st.none() | st.integers(-1, 6))
    def set_players(self, count: int | None, capacity: int | None) -> None:
        """A total replaces the total; the capacity is never exceeded; a smaller total forgets the ids."""
        before = everything(self.report)
        new_count = self.count if count is None else count
        new_capacity = self.capacity if capacity is None else capacity
        possible = new_count >= 0 and (new_capacity is None or new_count <= new_capacity)
        if not possible:
            with pytest.raises(ReportError, match="cannot set players") as caught:
                self.report.set_players(self.now, count, capacity)
            assert caught.value.field in ("count", "capacity")
            assert everything(self.report) == before
            return
        self.report.set_players(self.now, count, capacity)
        self.count, self.capacity = new_count, new_capacity
        if new_count < len(self.ids):
            self.ids.clear()

    @rule(player=st.sampled_from("abcdefgh"))
    def join(self, player: str) -> None:
        """Adds one, once an id, up to the capacity."""
        before = everything(self.report)
        if player not in self.ids and self.capacity is not None and self.count >= self.capacity:
            with pytest.raises(ReportError, match="cannot join") as caught:
                self.report.join(player, self.now)
            assert (caught.value.field, caught.value.got) == ("id", player)
            assert everything(self.report) == before
            return
        assert self.report.join(player, self.now) == (player not in self.ids)
        self.count += player not in self.ids
        self.ids.add(player)

    @rule(player=st.sampled_from("abcdefgh"))
    def leave(self, player: str) -> None:
        """Takes one away, once an id that is known."""
        assert self.report.leave(player, self.now) == (player in self.ids)
        self.count -= player in self.ids
        self.ids.discard(player)

    @invariant()
    def as_the_model_says(self) -> None:
        """Counts agree, ids are never more than players, players never more than fit, and every change was told."""
        self.now += 1
        assert (self.report.count, self.report.capacity) == (self.count, self.capacity)
        assert set(self.report.ids) == self.ids
        assert len(self.ids) <= self.report.count
        if self.facts:
            last = self.facts[-1]
            assert isinstance(last, PlayersReported)
            assert (last.count, last.capacity) == (self.count, self.capacity)
        told = [fact for fact in self.facts if isinstance(fact, PlayersReported)]
        assert [fact.before for fact in told] == [0, *(fact.count for fact in told)][: len(told)]


TestPlayers = Players.TestCase
TestPlayers.settings = settings(stateful_step_count=25)


def test_a_total_smaller_than_the_known_ids_forgets_them() -> None:
    """Somebody left and nobody said who; who leaves by name afterwards was not counted any more."""
    report = GameReport()
    for player in "abc":
        report.join(player, 1.0)
    report.set_players(2.0, count=2)
    assert (report.count, dict(report.ids)) == (2, {})
    assert report.leave("a", 3.0) is False
    assert report.count == 2


def test_a_total_and_names_add_up() -> None:
    """Two unknown players and one with a name are three; a total that includes the name keeps it."""
    report = GameReport()
    report.set_players(1.0, count=2)
    report.join("a", 2.0)
    assert report.count == 3
    report.set_players(3.0, count=3)
    assert dict(report.ids) == {"a": 2.0}
    report.leave("a", 4.0)
    assert report.count == 2


def test_saying_the_same_again_is_no_news() -> None:
    """The first word about players is news even when it is zero; its repetition is not."""
    report = GameReport()
    facts: list[Fact] = []
    report.subscribe(facts.append)
    report.set_players(1.0, count=0)
    report.set_players(2.0, count=0)
    assert facts == [PlayersReported(1.0, 0, 0, None)]
    assert report.players_known


@pytest.mark.parametrize("player", ["", "x" * (MAX_ID_LENGTH + 1), "two\nlines", "nul\0", "\x1b[31m"])
def test_ids_that_are_none(player: str) -> None:
    """Empty, endless or unprintable ones are refused."""
    report = GameReport()
    with pytest.raises(ReportError) as caught:
        report.join(player, 1.0)
    assert caught.value.field == "id"
    assert report.count == 0


def test_ids_are_bounded() -> None:
    """A game that never reports who leaves cannot fill the agent's memory."""
    report = GameReport()
    for number in range(MAX_IDS):
        report.join(str(number), 0.0)
    with pytest.raises(ReportError, match="report who leaves"):
        report.join("one more", 0.0)
    assert report.count == MAX_IDS


@pytest.mark.parametrize("number", [-1, MAX_PLAYERS + 1])
def test_numbers_out_of_range(number: int) -> None:
    """Are refused by name, as a count and as a capacity."""
    report = GameReport()
    for given_numbers, field in (({"count": number}, "count"), ({"capacity": number}, "capacity")):
        with pytest.raises(ReportError) as caught:
            report.set_players(1.0, **given_numbers)
        assert caught.value.field == field
    assert not report.players_known


def test_heartbeats() -> None:
    """Each is counted, told, and the last one's moment kept."""
    report = GameReport()
    facts: list[Fact] = []
    report.subscribe(facts.append)
    for at in (1.0, 2.5):
        report.heartbeat(at)
    assert (report.heartbeats, report.last_heartbeat) == (2, 2.5)
    assert facts == [HeartbeatReported(1.0), HeartbeatReported(2.5)]


def test_text_is_one_line() -> None:
    """What a game says is made printable, cut, and told when it changed."""
    report = GameReport()
    facts: list[Fact] = []
    report.subscribe(facts.append)
    report.set_text(" map\tde_dust \x1b[0m\n", 1.0)
    report.set_text("map de_dust [0m", 2.0)
    assert report.text == "map de_dust [0m"
    assert facts == [TextReported(1.0, "map de_dust [0m")]
    report.set_text("x" * 1000, 3.0)
    assert len(report.text) == 500


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_printable_line(text: str, limit: int) -> None:
    """Whatever goes in."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert line == line.strip()


def test_metrics_are_all_or_none() -> None:
    """One wrong figure keeps out the right ones that came with it."""
    report = GameReport()
    wrong: list[Any] = [
        CustomMetric("1st", 1),
        CustomMetric("with space", 1),
        CustomMetric("", 1),
        CustomMetric("x" * 101, 1),
        CustomMetric("load", math.nan),
        CustomMetric("load", math.inf),
        CustomMetric("rounds_total", -1),
    ]
    for metric in wrong:
        with pytest.raises(ReportError) as caught:
            report.set_metrics([CustomMetric("fine", 1), metric], 1.0)
        assert (caught.value.field, caught.value.conflict) == (metric.name, False)
    assert not report.metrics


def test_metrics_are_kept_by_name() -> None:
    """The latest value counts, an explanation is said once, and a name that ends in _total is a counter."""
    report = GameReport()
    facts: list[Fact] = []
    report.subscribe(facts.append)
    report.set_metrics([CustomMetric("load", 1, "how full"), CustomMetric("rounds_total", 3)], 1.0)
    report.set_metrics([CustomMetric("load", 0.5)], 2.0)
    assert report.metrics.flat() == {"load": 0.5, "rounds_total": 3}
    assert report.metrics["load"].help == "how full"
    assert (report.metrics["load"].kind, report.metrics["rounds_total"].kind) == ("gauge", "counter")
    assert facts == [MetricsReported(1.0, ("load", "rounds_total")), MetricsReported(2.0, ("load",))]
    report.set_metrics([], 3.0)
    assert len(facts) == 2


def test_metrics_are_bounded() -> None:
    """Each name costs a time series; too many are refused, those known already go on."""
    report = GameReport()
    report.set_metrics([CustomMetric(f"m{number}", 1) for number in range(MAX_METRICS)], 1.0)
    with pytest.raises(ReportError) as caught:
        report.set_metrics([CustomMetric("m0", 2), CustomMetric("one_more", 1)], 2.0)
    assert (caught.value.field, caught.value.conflict) == ("one_more", True), "another report came first"
    assert report.metrics.flat()["m0"] == 1
    report.set_metrics([CustomMetric("m0", 2)], 3.0)
    assert report.metrics.flat()["m0"] == 2


def test_clear_forgets_everything_but_who_listens() -> None:
    """After a restart it is as at the beginning, and listeners go on."""
    report = GameReport()
    facts: list[Fact] = []
    fresh = everything(report)
    report.subscribe(facts.append)
    report.join("a", 1.0)
    report.heartbeat(1.0)
    report.set_text("x", 1.0)
    report.set_metrics([CustomMetric("load", 1)], 1.0)
    report.clear(2.0)
    assert everything(report) == fresh
    report.heartbeat(3.0)
    assert facts[-2:] == [ReportCleared(2.0), HeartbeatReported(3.0)]


def test_views_cannot_be_written_and_stay_up_to_date() -> None:
    """What others hold of ids and metrics is read-only."""
    report = GameReport()
    ids: Any = report.ids
    report.join("a", 1.0)
    assert dict(ids) == {"a": 1.0}
    with pytest.raises(TypeError):
        ids["b"] = 2.0


def test_unsubscribing() -> None:
    """Ends the calls, also from inside one, and twice is no harm."""
    report = GameReport()
    facts: list[Fact] = []

    def once(fact: Fact) -> None:
        facts.append(fact)
        end()

    end = report.subscribe(once)
    other: list[Fact] = []
    report.subscribe(other.append)
    report.heartbeat(1.0)
    report.heartbeat(2.0)
    end()
    assert facts == [HeartbeatReported(1.0)]
    assert len(other) == 2

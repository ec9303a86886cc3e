"""The game's own figures: types, labels, histograms, and what is refused."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.lifecycle.game_metrics import (
    MAX_LABELS,
    MAX_SERIES,
    READY_MADE,
    CustomMetric,
    GameMetrics,
    Kind,
    LabelPairs,
    MetricError,
)


def test_a_name_has_the_type_that_was_reported_first() -> None:
    """By the name, by what is given, by the game's word, or because the name is a ready-made one."""
    metrics = GameMetrics()
    metrics.report(
        [
            CustomMetric("shots_total", 1),
            CustomMetric("load", 0.5),
            CustomMetric("lag_seconds", observe=(0.1,)),
            CustomMetric("damage", 3, kind="histogram", bounds=(1, 5)),
            CustomMetric("tick_duration_seconds", 0.016),
        ]
    )
    kinds = {name: metric.kind for name, metric in metrics.items()}
    assert kinds == {
        "shots_total": "counter",
        "load": "gauge",
        "lag_seconds": "histogram",
        "damage": "histogram",
        "tick_duration_seconds": "histogram",
    }
    assert metrics["tick_duration_seconds"].help == READY_MADE["tick_duration_seconds"].help
    assert metrics["damage"].series[()].counts == [0, 1, 0]


def test_amounts_add_up_and_values_replace() -> None:
    """`add` and `value` of counters and gauges, each series for itself whatever the order of its labels."""
    metrics = GameMetrics()
    metrics.report([CustomMetric("rooms", add=2), CustomMetric("rooms", add=-1), CustomMetric("shots_total", 7)])
    metrics.report([CustomMetric("shots_total", add=3)])
    a, b = ("map", "mill"), ("mode", "duel")
    metrics.report([CustomMetric("rooms", 4, labels=(a, b)), CustomMetric("rooms", add=1, labels=(b, a))])
    assert metrics.flat() == {"rooms": 1, 'rooms{map="mill",mode="duel"}': 5, "shots_total": 10}


_MORE: list[tuple[Kind | None, float | None, LabelPairs]] = [
    (None, None, ()),
    (None, 1.0, ()),
    ("histogram", None, ()),
    (None, None, (("map", "mill"),)),
]
_REPORTS = [
    CustomMetric(name, value, kind=kind, add=add, labels=labels)
    for name in ("load", "shots_total", "lag")
    for value in (None, 1, 2.5, -0.5, math.nan, math.inf)
    for kind, add, labels in _MORE
]


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(_REPORTS), max_size=4),
    st.dictionaries(
        st.sampled_from(["load", "shots_total", "lag", "new"]), st.sampled_from([1.0, 2.5, -0.5, math.nan, math.inf])
    ),
)
def test_values_are_set_as_reports_of_them(before: list[CustomMetric], values: dict[str, float]) -> None:
    """The short way for numbers of known names records and returns what the long one does, or does nothing at all."""
    short, long = GameMetrics(), GameMetrics()
    for each in before:
        for metrics in (short, long):
            with contextlib.suppress(MetricError):
                metrics.report([each])
    unchanged = short.flat()
    known = short.set_values(values)
    if known is None:
        assert short.flat() == unchanged
    else:
        names = long.report([CustomMetric(name, value) for name, value in values.items()])
        assert known == long.flat(names)
        assert short.flat() == long.flat()
    assert short.refused == long.refused


def test_which_values_are_set_at_once() -> None:
    """Numbers of gauges and counters without labels, once they are known."""
    metrics = GameMetrics()
    assert metrics.set_values({"load": 1.0}) is None
    metrics.report(
        [CustomMetric("load", 1), CustomMetric("shots_total", 2), CustomMetric("rooms", 1, labels=(("a", "b"),))]
    )
    assert metrics.set_values({"load": -2.5, "shots_total": 3.0}) == {"load": -2.5, "shots_total": 3.0}
    assert metrics.set_values({"load": 4.0, "rooms": 1.0}) is None
    assert metrics["load"].series[()].value == -2.5


WRONG: list[tuple[str, CustomMetric]] = [
    ("name", CustomMetric("1st", 1)),
    ("name", CustomMetric("ticks_count", 1)),
    ("name", CustomMetric("load", kind="histogram", observe=(1.0,))),
    ("type", CustomMetric("shots_total", 1, kind="gauge")),
    ("type", CustomMetric("shots", 1, kind="counter")),
    ("type", CustomMetric("ticks", add=1)),
    ("type", CustomMetric("gauge", observe=(1.0,))),
    ("type", CustomMetric("ticks", 1, bounds=(1.0, 3.0))),
    ("type", CustomMetric("rooms", 1, kind="histogram")),
    ("value", CustomMetric("fresh", 1, kind="histogram", bounds=(2.0, 1.0))),
    ("value", CustomMetric("fresh", float("nan"))),
    ("value", CustomMetric("shots_total", add=-1)),
    ("value", CustomMetric("fresh")),
    ("labels", CustomMetric("fresh", 1, labels=(("le", "1"),))),
    ("labels", CustomMetric("fresh", 1, labels=(("__name__", "x"),))),
    ("labels", CustomMetric("fresh", 1, labels=(("map", "a\nb"),))),
    ("labels", CustomMetric("fresh", 1, labels=(("map", "x" * 101),))),
    ("labels", CustomMetric("fresh", 1, labels=tuple((f"l{n}", "x") for n in range(MAX_LABELS + 1)))),
    ("labels", CustomMetric("fresh", 1, labels=(("map", "a"), ("map", "b")))),
    ("labels", CustomMetric("fresh_total", 1, exemplar=(("trace_id", "x" * 99), ("span_id", "y" * 40)))),
]


@pytest.mark.parametrize(("why", "wrong"), WRONG)
def test_what_cannot_be_changes_nothing_and_is_counted_by_why(why: str, wrong: CustomMetric) -> None:
    """Also what was right beside it; the sentence says what would be possible."""
    metrics = GameMetrics()
    metrics.report([CustomMetric("ticks", observe=(1.0,)), CustomMetric("gauge", 1), CustomMetric("load_bucket", 1)])
    before = metrics.dump()
    with pytest.raises(MetricError, match=r"^cannot set metrics: ") as caught:
        metrics.report([CustomMetric("fine", 1), wrong])
    assert (caught.value.why, caught.value.field) == (why, wrong.name)
    assert metrics.dump() == before
    assert {reason: count for reason, count in metrics.refused.items() if count} == {why: 1}


def test_label_sets_are_bounded() -> None:
    """A label with players' names would cost a series each: from the thousandth on they are refused."""
    metrics = GameMetrics()
    metrics.report([CustomMetric("ping", n, labels=(("player", str(n)),)) for n in range(MAX_SERIES - 20)])
    assert metrics.size == MAX_SERIES - 20
    with pytest.raises(MetricError, match="use fewer label values"):
        metrics.report([CustomMetric("lag", observe=(1.0,), bounds=tuple(map(float, range(18))))])
    metrics.report([CustomMetric("lag", observe=(1.0,), bounds=tuple(map(float, range(17))))])
    assert metrics.size == MAX_SERIES
    with pytest.raises(MetricError):
        metrics.report([CustomMetric("ping", 1, labels=(("player", "new"),))])
    metrics.report([CustomMetric("ping", 9, labels=(("player", "1"),))])
    assert metrics.refused["limit"] == 2


def test_everything_can_be_kept_as_json_and_put_back() -> None:
    """For an agent that is started again; counting goes on from there."""
    metrics, other = GameMetrics(), GameMetrics()
    metrics.report([CustomMetric("rooms", 4, "Rooms.", (("map", "mill"),)), CustomMetric("lag", observe=(0.1, 20))])
    kept: Any = json.loads(json.dumps(metrics.dump()))
    other.load(kept)
    assert other.dump() == metrics.dump()
    assert other.size == metrics.size
    other.report([CustomMetric("lag", observe=(0.1,), exemplar=(("trace_id", "1"),))])
    assert other.flat() == {'rooms{map="mill"}': 4, "lag_count": 3, "lag_sum": pytest.approx(20.2)}

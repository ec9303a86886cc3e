"""What is counted as it happens: counters and latency buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metrics.counts import LATENCY_BUCKETS, MOST_LABEL_SETS, OTHER, Counted, Latency, Tally
from agent.metrics.exposition import Family, histogram_samples
from agent.metrics.families import requests


def test_a_tally_counts_each_set_of_labels_for_itself() -> None:
    """Labels are kept apart, and a known set is there with 0 before anything happened."""
    tally = Tally([("game", "requested")])
    tally.add("platform", "platform_stop")
    tally.add("platform", "platform_stop")
    assert dict(tally) == {("game", "requested"): 0, ("platform", "platform_stop"): 2}


def test_a_tally_does_not_grow_without_end() -> None:
    """A label from an open set ends up in one row for all others, and nothing is lost from the sum."""
    tally = Tally()
    for number in range(MOST_LABEL_SETS + 50):
        tally.add("http", f"/random/{number}")
    counts = dict(tally)
    assert len(counts) == MOST_LABEL_SETS + 1
    assert counts[OTHER, OTHER] == 50
    tally.add("http", "/random/0")
    assert dict(tally)["http", "/random/0"] == 2


@given(st.lists(st.floats(min_value=0, max_value=10)))
def test_every_duration_is_in_all_buckets_that_hold_it_and_in_no_other(seconds: list[float]) -> None:
    """The buckets are cumulative, bounds belong to their own bucket, and the last one counts everything."""
    latency = Latency()
    for each in seconds:
        latency.observe(each, "http", "health")
    for labels, spread in latency:
        assert labels == ("http", "health")
        *rows, count, total = histogram_samples((), LATENCY_BUCKETS, spread.buckets, spread.total)
        assert dict(rows[-1].labels) == {"le": "+Inf"}
        assert rows[-1].value == count.value == len(seconds)
        assert total.value == pytest.approx(sum(seconds))  # since Python 3.12, sum() adds more precisely
        for row, bound in zip(rows, LATENCY_BUCKETS, strict=False):
            assert float(dict(row.labels)["le"]) == bound
            assert row.value == sum(each <= bound for each in seconds)
    assert bool(list(latency)) == bool(seconds)


def test_what_is_counted_while_it_is_read_does_no_harm() -> None:
    """A scrape that is interrupted by a new set of labels goes on with what it began with."""
    tally = Tally([("a",), ("b",)])
    seen = []
    for labels, _ in tally:
        tally.add("new", str(labels))
        seen.append(labels)
    assert seen == [("a",), ("b",)]


def test_durations_are_made_again_only_where_one_was_added() -> None:
    """The same family while nothing was observed; the sum counts as well as the buckets, and so does whose it is."""

    def shown(counted: Counted) -> Family:
        return next(family for family in requests(counted) if family.kind == "histogram")

    def sums(family: Family) -> list[float]:
        return [sample.value for sample in family.samples if sample.suffix == "_sum"]

    counted, others = Counted(), Counted()
    counted.durations.observe(0.002, "http", "health")
    others.durations.observe(0.0015, "http", "health")
    first = shown(counted)
    assert shown(counted) is first
    assert (sums(first), sums(shown(others))) == ([0.002], [0.0015])
    counted.durations.observe(0.004, "http", "status")
    counted.durations.observe(0.001, "http", "health")
    assert sums(shown(counted)) == pytest.approx([0.003, 0.004])
    assert sums(shown(Counted())) == []

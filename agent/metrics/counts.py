"""Counters that other parts of the agent increase: plain numbers, converted to metric families only for a scrape.

The other modules for a scrape (`agent.metrics.families` and more) are imported with the first one. All calls come from
the event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from agent.record import Record

#: Upper bounds of the latency buckets, in seconds. An answer takes a fraction of a millisecond; one that takes longer
#: than a tenth of a second had to wait for something, and more than a second indicates a defect.
LATENCY_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

#: The most label sets of a metric. Labels come from much smaller closed sets; if a caller passes others by mistake, the
#: rest is counted under `other`, so that the memory stays limited.
MOST_LABEL_SETS = 500

OTHER = "other"

Labels = tuple[str, ...]


def _bounded(labels: Labels, known: Mapping[Labels, object]) -> Labels:
    return labels if labels in known or len(known) < MOST_LABEL_SETS else (OTHER,) * len(labels)


class Tally:
    """A counter with labels."""

    def __init__(self, known: Iterable[Labels] = ()) -> None:
        """Starts at 0 for the label sets in `known`, so that `rate()` can detect their first increase."""
        self._counts: dict[Labels, int] = dict.fromkeys(known, 0)

    def add(self, *labels: str) -> None:
        """Counts one."""
        try:
            self._counts[labels] += 1
        except KeyError:
            key = _bounded(labels, self._counts)
            self._counts[key] = self._counts.get(key, 0) + 1

    def __iter__(self) -> Iterator[tuple[Labels, int]]:
        """The label sets with their counts, in the order in which they came up."""
        return iter(list(self._counts.items()))


@dataclass(slots=True)
class Spread:
    """A histogram of durations.

    Attributes:
        buckets: how many fell into each of `LATENCY_BUCKETS` (and into none of the buckets below it); the last one
            counts those above all bounds.
        total: the sum of all durations, in seconds.
    """

    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))
    total: float = 0.0


class Latency:
    """A histogram of durations with labels."""

    def __init__(self) -> None:
        """Begins empty."""
        self._spreads: dict[Labels, Spread] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Takes in one duration in seconds."""
        spread = self._spreads.get(labels)
        if spread is None:
            spread = self._spreads.setdefault(_bounded(labels, self._spreads), Spread())
        spread.buckets[bisect_left(LATENCY_BUCKETS, seconds)] += 1
        spread.total += seconds

    def __iter__(self) -> Iterator[tuple[Labels, Spread]]:
        """The label sets with their durations, in the order in which they came up."""
        return iter(list(self._spreads.items()))


@dataclass(slots=True)
class StatsdCounts:
    """The received StatsD data.

    Attributes:
        datagrams: datagrams read.
        taken: samples accepted.
        refused: samples refused, because they are invalid or too many.
        lost: datagrams dropped by the kernel, because they arrived faster than they could be read.
    """

    datagrams: int = 0
    taken: int = 0
    refused: int = 0
    lost: int = 0


@dataclass(slots=True)
class Counted:
    """All that the agent has counted since it started.

    Attributes:
        stops: stop requests by source and reason.
        attempts: self-stop attempts by result.
        requests: requests to the local API by transport, operation and status.
        durations: how long these took, by transport and operation.
        joined: players that joined.
        heartbeats: heartbeats of the game.
        statsd: the received StatsD data; None if it is switched off.
    """

    stops: Tally = field(default_factory=Tally)
    attempts: Tally = field(default_factory=Tally)
    requests: Tally = field(default_factory=Tally)
    durations: Latency = field(default_factory=Latency)
    joined: int = 0
    heartbeats: int = 0
    statsd: StatsdCounts | None = None


class LogCounts(Record):
    """Counters of the game's output, in bytes.

    Attributes:
        received: written by the game, by stream.
        shipped: stored at AGENT_LOG_URL.
        dropped: dropped because the spool was full.
        not_passed_on: not accepted by the container's own stdout and stderr.
    """

    received: Mapping[str, int] = MappingProxyType({})
    shipped: int = 0
    dropped: int = 0
    not_passed_on: int = 0

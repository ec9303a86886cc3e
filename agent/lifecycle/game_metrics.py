"""The game's own metrics: counters, gauges and histograms with labels, validated and limited in number. Pure.

The first report of a name decides its type; a later report that does not match is refused. A refused report changes
nothing, is explained to the caller, and is counted by reason.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
LabelPairs: TypeAlias = tuple[tuple[str, str], ...]

MAX_METRICS = 200
"""The most different names."""
MAX_SERIES = 1000
"""The most time series, over all names and label sets, since these are the cost in Prometheus. A histogram has one for
each bucket and three more."""
MAX_LABELS = 8
MAX_LABEL_VALUE = 100
MAX_BUCKETS = 30
MAX_HELP = 200
MAX_EXEMPLAR = 128
"""The most characters of all names and values of an exemplar's labels together; the limit of OpenMetrics."""
METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}")
LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,49}")
RESERVED_LABELS = frozenset({"le", "quantile"})

SECONDS_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.012, 0.016, 0.02, 0.025, 0.033, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Buckets for the duration of a tick: 16 ms at 60 ticks per second, 33 ms at 30."""
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Why: TypeAlias = Literal["name", "type", "value", "labels", "limit"]
WHYS: tuple[Why, ...] = ("name", "type", "value", "labels", "limit")


class ReadyMade(NamedTuple):
    """A metric name with a fixed meaning that dashboards can rely on."""

    kind: Kind
    help: str
    bounds: tuple[float, ...] = ()


READY_MADE: Mapping[str, ReadyMade] = MappingProxyType(
    {
        "tick_duration_seconds": ReadyMade("histogram", "What one tick of the simulation took.", SECONDS_BUCKETS),
        "tick_rate_hertz": ReadyMade("gauge", "Ticks of the simulation a second, as they really are."),
        "rooms": ReadyMade("gauge", "Rooms or matches under way."),
        "bandwidth_bytes_total": ReadyMade("counter", "Bytes of game traffic; label direction: received or sent."),
        "round_trip_seconds": ReadyMade(
            "histogram", "Round trip time between players and the game.", (*SECONDS_BUCKETS[4:], 2.5)
        ),
    }
)


class MetricError(ValueError):
    """A metric report is refused. `str()` is a sentence that begins with "cannot".

    Attributes:
        why: the kind of error.
        field: the name of the metric.
        got: the refused value.
        takes: what would be accepted.
        conflict: whether it is refused only because of an earlier report.
    """

    conflict = False

    def __init__(self, why: Why, field: str, got: object, takes: str, message: str = "") -> None:
        """Takes the parts of the sentence, or the whole sentence."""
        super().__init__(message or f"cannot set metrics: {field} takes {takes}")
        self.why: Why = why
        self.field = field
        self.got = got
        self.takes = takes


class CustomMetric(NamedTuple):
    """One report of a metric of the game: a value, an amount to add, or observations.

    Attributes:
        name: as the game calls it.
        value: the current value; for a histogram one observation.
        help: the game's description of it; may be empty.
        labels: the labels of the series.
        kind: its type, if the game says it; else it follows from the name, earlier reports and the given fields.
        add: the amount to add (negative only for a gauge).
        observe: observations of a histogram.
        bounds: upper bounds of the histogram's buckets, ascending; given once.
        exemplar: labels that identify the source of the last observation or addition, such as a trace id.
        weight: how many times each observation counts (a sampling client sends one of many).
    """

    name: str
    value: float | None = None
    help: str = ""
    labels: LabelPairs = ()
    kind: Kind | None = None
    add: float | None = None
    observe: tuple[float, ...] = ()
    bounds: tuple[float, ...] = ()
    exemplar: LabelPairs = ()
    weight: float = 1.0


class GivenExemplar(NamedTuple):
    """The latest observation in a bucket for which the game gave exemplar labels."""

    labels: LabelPairs
    value: float


class Series:
    """One label set of a metric.

    Attributes:
        value: of a counter or gauge; the sum of a histogram.
        counts: observations in each bucket (not cumulative), the last one above all bounds; empty for other types.
        exemplars: one for each bucket, or one for a counter; empty if there is none yet.
    """

    __slots__ = ("counts", "exemplars", "value")

    def __init__(self, value: float = 0.0, counts: Iterable[float] = ()) -> None:
        """Takes the initial values."""
        self.value = value
        self.counts = list(counts)
        self.exemplars: list[GivenExemplar | None] = [None] * len(self.counts)

    def observe(self, number: float, bounds: Sequence[float], weight: float = 1.0) -> int:
        """Records an observation, and returns the index of its bucket."""
        index = bisect_left(bounds, number)
        self.counts[index] += weight
        self.value += number * weight
        return index


class GameMetric:
    """A metric of the game, with all its series.

    Attributes:
        name: as the game calls it.
        kind: its type.
        help: what it means; may be empty.
        bounds: of a histogram's buckets.
        series: by labels, sorted by name.
    """

    __slots__ = ("bounds", "help", "kind", "name", "series")

    def __init__(self, name: str, kind: Kind, help_text: str = "", bounds: tuple[float, ...] = ()) -> None:
        """Creates the metric without series."""
        self.name = name
        self.kind: Kind = kind
        self.help = help_text
        self.bounds = bounds
        self.series: dict[LabelPairs, Series] = {}

    @property
    def cost(self) -> int:
        """The number of time series for each label set."""
        return len(self.bounds) + 3 if self.kind == "histogram" else 1


class GameMetrics(Mapping[str, GameMetric]):
    """All metrics of the game, by name.

    Attributes:
        generation: changes with each `clear`, so that holders of older series notice that these are no longer shown.
        refused: how many reports were refused, by reason.
    """

    def __init__(self) -> None:
        """None yet."""
        self._metrics: dict[str, GameMetric] = {}
        self._size = 0
        self.generation = 0
        self.refused: dict[Why, int] = dict.fromkeys(WHYS, 0)

    def __getitem__(self, name: str) -> GameMetric:
        """The metric of that name."""
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of their first report."""
        return iter(self._metrics)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._metrics)

    @property
    def size(self) -> int:
        """How many time series there are."""
        return self._size

    def report(self, given: Iterable[CustomMetric]) -> tuple[str, ...]:
        """Records metric reports: all of them, or none if one is wrong.

        Args:
            given: the reports.

        Returns:
            Their names.

        Raises:
            MetricError: a name is invalid, a number is out of range, a type does not match, or there are too many.
                Nothing was changed, and the refusal is counted.
        """
        given = list(given)
        try:
            new, resolved = self._resolve(given)
        except MetricError as wrong:
            self.refused[wrong.why] += 1
            wrong.conflict = self._would_be_taken_first(given)
            raise
        for metric in new.values():
            self._metrics[metric.name] = metric
        for each, (metric, labels) in zip(given, resolved, strict=True):
            if each.help:
                metric.help = each.help
            self._apply(self._series(metric, labels), metric, each)
        return tuple(dict.fromkeys(each.name for each in given))

    def set_values(self, values: Mapping[str, object]) -> dict[str, float] | None:
        """Sets metrics, if all of these are correct numbers for known metrics without labels.

        Most reports are: a game sends the same names many times a second. `report` does everything else, and refuses
        what is wrong.

        Args:
            values: by name of the metric.

        Returns:
            The values that were set, as `flat` returns them; None if nothing was.
        """
        found: dict[str, float] = {}
        for name, value in values.items():
            metric = self._metrics.get(name)
            if metric is None or metric.kind == "histogram" or not isinstance(value, float):
                return None
            if () not in metric.series or len(metric.series) > 1:
                return None
            if not (-_LARGEST if metric.kind == "gauge" else 0) <= value <= _LARGEST:
                return None
            found[name] = value
        for name, number in found.items():
            self._metrics[name].series[()].value = number
        return found

    def series(
        self, name: str, kind: Kind, labels: LabelPairs, bounds: tuple[float, ...] = ()
    ) -> tuple[GameMetric, Series]:
        """The metric and its series, created if they are new, for a caller that writes many values.

        Raises:
            MetricError: as for `report`.
        """
        wanted = CustomMetric(name, None, "", labels, kind)
        try:
            new, ((metric, sorted_labels),) = self._resolve([wanted], empty=True)
        except MetricError as wrong:
            self.refused[wrong.why] += 1
            raise
        self._metrics.update(new)
        return metric, self._series(metric, sorted_labels)

    def refuse(self, why: Why) -> None:
        """Counts a report that the caller has already refused."""
        self.refused[why] += 1

    def clear(self) -> None:
        """Removes all metrics; the counts of refused reports are kept."""
        self._metrics.clear()
        self._size = 0
        self.generation += 1

    def flat(self, names: Iterable[str] | None = None) -> dict[str, float]:
        """Each series with its value, as `name` or `name{label="value"}`; a histogram as its count and sum.

        Args:
            names: which metrics; all by default.
        """
        found: dict[str, float] = {}
        for name in self._metrics if names is None else names:
            metric = self._metrics[name]
            for labels, series in metric.series.items():
                shown = "{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}" if labels else ""
                if metric.kind == "histogram":
                    found[f"{name}_count{shown}"] = sum(series.counts)
                    found[f"{name}_sum{shown}"] = series.value
                else:
                    found[f"{name}{shown}"] = series.value
        return found

    def dump(self) -> list[list[object]]:
        """Everything as JSON-compatible values, for `load`."""
        return [
            [
                metric.name,
                metric.kind,
                metric.help,
                list(metric.bounds),
                [[[list(pair) for pair in labels], it.value, list(it.counts)] for labels, it in metric.series.items()],
            ]
            for metric in self._metrics.values()
        ]

    def load(self, document: Iterable[Sequence[object]]) -> None:
        """Replaces the content by what `dump` returned, which does not include exemplars."""
        self.clear()
        for name, kind, help_text, bounds, rows in document:
            metric = GameMetric(name, kind, help_text, tuple(bounds))  # type: ignore[arg-type]
            for labels, value, counts in rows:  # type: ignore[attr-defined]
                metric.series[tuple((label, text) for label, text in labels)] = Series(value, counts)
                self._size += metric.cost
            self._metrics[metric.name] = metric

    @staticmethod
    def _would_be_taken_first(given: Sequence[CustomMetric]) -> bool:
        try:
            GameMetrics()._resolve(given)
        except MetricError:
            return False
        return True

    # Checking ---------------------------------------------------------------------------------------------------------

    def _resolve(
        self, given: Sequence[CustomMetric], *, empty: bool = False
    ) -> tuple[dict[str, GameMetric], list[tuple[GameMetric, LabelPairs]]]:
        """The metric for each report; new ones are in the first result, but not registered yet."""
        new: dict[str, GameMetric] = {}
        new_series: set[tuple[str, LabelPairs]] = set()
        resolved: list[tuple[GameMetric, LabelPairs]] = []
        size = self._size
        for each in given:
            metric = self._metrics.get(each.name) or new.get(each.name)
            if metric is None:
                metric = new[each.name] = self._make(each, new)
                if len(self._metrics) + len(new) > MAX_METRICS:
                    takes = f"at most {MAX_METRICS} different names"
                    raise MetricError("limit", each.name, each.name, takes, f"cannot set metrics: a game has {takes}")
            _check(each, metric, empty=empty)
            labels = tuple(sorted(each.labels)) if each.labels else ()
            if labels not in metric.series and (each.name, labels) not in new_series:
                new_series.add((each.name, labels))
                size += metric.cost
                if size > MAX_SERIES:
                    takes = f"at most {MAX_SERIES} time series, label sets and buckets included; use fewer label values"
                    raise MetricError("limit", each.name, each.name, takes, f"cannot set metrics: a game has {takes}")
            resolved.append((metric, labels))
        return new, resolved

    def _make(self, given: CustomMetric, new: Mapping[str, GameMetric]) -> GameMetric:
        name = given.name
        if not METRIC_NAME.fullmatch(name):
            takes = "letters, digits and underscores, at most 100, not a digit first"
            message = f"cannot set metrics: {name[:120]!r} is no name for one; a name has {takes}"
            raise MetricError("name", name, name, takes, message)
        ready_made = READY_MADE.get(name)
        if ready_made is not None:
            kind, help_text, bounds = ready_made
            bounds = given.bounds or bounds
        else:
            total = name.endswith("_total")
            kind = given.kind or ("counter" if total else "histogram" if given.observe or given.bounds else "gauge")
            if (kind == "counter") is not total:
                takes = "a name that ends in _total for a counter, and only for a counter"
                raise MetricError("type", name, kind, takes)
            help_text, bounds = "", given.bounds or DEFAULT_BUCKETS
        if kind == "histogram":
            _check_bounds(name, bounds)
        self._check_clash(name, kind, new)
        return GameMetric(name, kind, help_text, bounds if kind == "histogram" else ())

    def _check_clash(self, name: str, kind: Kind, new: Mapping[str, GameMetric]) -> None:
        """Raises if a name collides with the sample names of a histogram (`_bucket`, `_sum`, `_count`)."""
        known = {**self._metrics, **new}
        taken = [name + suffix for suffix in _HISTOGRAM_SUFFIXES] if kind == "histogram" else []
        clash = next((other for other in taken if other in known), None)
        for suffix in _HISTOGRAM_SUFFIXES:
            base = name.removesuffix(suffix)
            if base != name and base in known and known[base].kind == "histogram":
                clash = base
        if clash is not None:
            raise MetricError("name", name, name, f"another name: {clash} is one of the game's figures already")

    def _series(self, metric: GameMetric, labels: LabelPairs) -> Series:
        series = metric.series.get(labels)
        if series is None:
            buckets = len(metric.bounds) + 1 if metric.kind == "histogram" else 0
            series = metric.series[labels] = Series(0.0, [0.0] * buckets)
            self._size += metric.cost
        return series

    @staticmethod
    def _apply(series: Series, metric: GameMetric, given: CustomMetric) -> None:
        if metric.kind == "histogram":
            bucket = 0
            observed = given.observe if given.value is None else (given.value,)
            for number in observed:
                bucket = series.observe(number, metric.bounds, given.weight)
            if given.exemplar and observed:
                series.exemplars[bucket] = GivenExemplar(given.exemplar, observed[-1])
            return
        if given.value is not None:
            series.value = given.value
        else:
            series.value += given.add or 0.0
            if given.exemplar:
                series.exemplars = [GivenExemplar(given.exemplar, given.add or 0.0)]


_LARGEST = sys.float_info.max
_HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")


def _check(given: CustomMetric, metric: GameMetric, *, empty: bool) -> None:
    """Raises if a report does not match its metric."""
    name, kind = given.name, metric.kind
    if given.kind is not None and given.kind != kind:
        raise MetricError("type", name, given.kind, f"reports of a {kind}, as which it is known")
    if given.bounds and (kind != "histogram" or given.bounds != metric.bounds):
        takes = "buckets once, with its first report" if kind == "histogram" else f"no buckets: it is a {kind}"
        raise MetricError("type", name, list(given.bounds), takes)
    if kind == "histogram":
        if given.add is not None:
            raise MetricError("type", name, given.add, "observe: it is a histogram")
    elif given.observe:
        raise MetricError("type", name, given.observe[0], f"a value, or an amount to add: it is a {kind}")
    numbers = [number for number in (given.value, given.add, *given.observe) if number is not None]
    if not numbers and not empty:
        raise MetricError("value", name, None, "a value, an amount to add, or observations")
    _check_numbers(name, kind, numbers)
    if given.labels:
        _check_labels(name, given.labels)
    if given.exemplar:
        _check_labels(name, given.exemplar)
        if sum(len(label) + len(text) for label, text in given.exemplar) > MAX_EXEMPLAR:
            takes = f"an exemplar of at most {MAX_EXEMPLAR} characters, names and values together"
            raise MetricError("labels", name, len(given.exemplar), takes)


def _check_numbers(name: str, kind: Kind, numbers: Iterable[float]) -> None:
    for number in numbers:
        if not math.isfinite(number) or (kind == "counter" and number < 0):
            takes = "a finite number, 0 or more (its name ends in _total)" if kind == "counter" else "a finite number"
            raise MetricError("value", name, number, takes)


def _check_labels(name: str, labels: LabelPairs) -> None:
    if len(labels) > MAX_LABELS:
        raise MetricError("labels", name, len(labels), f"at most {MAX_LABELS} labels")
    for label, text in labels:
        if not LABEL_NAME.fullmatch(label) or label in RESERVED_LABELS:
            takes = "label names of letters, digits and underscores, at most 50, not a digit or two underscores first, "
            raise MetricError("labels", name, label[:60], f"{takes}and neither le nor quantile")
        if len(text) > MAX_LABEL_VALUE or not text.isprintable():
            takes = f"label values of at most {MAX_LABEL_VALUE} printable characters"
            raise MetricError("labels", name, text[:100], takes)
    if len({label for label, _ in labels}) < len(labels):
        raise MetricError("labels", name, [label for label, _ in labels], "each label once")


def _check_bounds(name: str, bounds: tuple[float, ...]) -> None:
    ascending = all(map(math.isfinite, bounds)) and all(a < b for a, b in itertools.pairwise(bounds))
    if not 0 < len(bounds) <= MAX_BUCKETS or not ascending:
        takes = f"1 to {MAX_BUCKETS} upper bounds for its buckets, finite and ascending"
        raise MetricError("value", name, list(bounds)[: MAX_BUCKETS + 1], takes)

"""The game's own figures: counters, gauges and histograms with labels, checked and bounded. Pure.

The first report of a name decides its type; a later one that does not go with it is refused. What is refused changes
nothing, is explained, and is counted by why.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
LabelPairs: TypeAlias = tuple[tuple[str, str], ...]

MAX_METRICS = 200
"""Different names at most."""
MAX_SERIES = 1000
"""Time series at most, of all names and label sets together, which is what they cost in Prometheus. A histogram has
one a bucket and three more."""
MAX_LABELS = 8
MAX_LABEL_VALUE = 100
MAX_BUCKETS = 30
MAX_HELP = 200
MAX_EXEMPLAR = 128
"""Characters of all names and values of an exemplar's labels, as OpenMetrics has it."""
METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}")
LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,49}")
RESERVED_LABELS = frozenset({"le", "quantile"})

SECONDS_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.012, 0.016, 0.02, 0.025, 0.033, 0.05, 0.1, 0.25, 0.5, 1.0)
"""For what a tick takes: 16 ms is a tick of 60 a second, 33 ms one of 30."""
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Why: TypeAlias = Literal["name", "type", "value", "labels", "limit"]
WHYS: tuple[Why, ...] = ("name", "type", "value", "labels", "limit")


class ReadyMade(NamedTuple):
    """A name with a meaning that dashboards can rely on."""

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
    """A figure cannot be taken. `str()` is a sentence that begins with "cannot".

    Attributes:
        why: what kind of fault it is.
        field: the name of the figure.
        got: what was there.
        takes: what would be possible.
        conflict: whether it is only what was reported before that rules it out.
    """

    conflict = False

    def __init__(self, why: Why, field: str, got: object, takes: str, message: str = "") -> None:
        """Takes the parts of the sentence, or the whole of it."""
        super().__init__(message or f"cannot set metrics: {field} takes {takes}")
        self.why: Why = why
        self.field = field
        self.got = got
        self.takes = takes


class CustomMetric(NamedTuple):
    """One report of a figure of the game's own: a value, an amount to add, or observations.

    Attributes:
        name: as the game calls it.
        value: what it is now; for a histogram one observation.
        help: what it means, in the game's words; may be empty.
        labels: what tells its series apart.
        kind: its type where the game says so; else the name, what is known of it, and what is given decide.
        add: how much it has grown (a gauge may shrink).
        observe: observations of a histogram.
        bounds: upper bounds of the histogram's buckets, ascending; given once.
        exemplar: labels that lead to what the last observation, or the addition, belongs to, such as a trace id.
        weight: how often each observation counts (a client that samples sends one of many).
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
    """The latest observation of a bucket that the game gave labels for."""

    labels: LabelPairs
    value: float


class Series:
    """One label set of a figure.

    Attributes:
        value: of a counter or gauge; the sum of a histogram.
        counts: observations in each bucket alone, the last one beyond all bounds; empty for the others.
        exemplars: one a bucket, or one for a counter; empty where there is none yet.
    """

    __slots__ = ("counts", "exemplars", "value")

    def __init__(self, value: float = 0.0, counts: Iterable[float] = ()) -> None:
        """Begins with what is known."""
        self.value = value
        self.counts = list(counts)
        self.exemplars: list[GivenExemplar | None] = [None] * len(self.counts)

    def observe(self, number: float, bounds: Sequence[float], weight: float = 1.0) -> int:
        """Takes in an observation, and says into which bucket it fell."""
        index = bisect_left(bounds, number)
        self.counts[index] += weight
        self.value += number * weight
        return index


class GameMetric:
    """A figure of the game's own, with all its series.

    Attributes:
        name: as the game calls it.
        kind: its type.
        help: what it means; may be empty.
        bounds: of a histogram's buckets.
        series: by labels, sorted by name.
    """

    __slots__ = ("bounds", "help", "kind", "name", "series")

    def __init__(self, name: str, kind: Kind, help_text: str = "", bounds: tuple[float, ...] = ()) -> None:
        """Begins without a series."""
        self.name = name
        self.kind: Kind = kind
        self.help = help_text
        self.bounds = bounds
        self.series: dict[LabelPairs, Series] = {}

    @property
    def cost(self) -> int:
        """Time series that each label set costs."""
        return len(self.bounds) + 3 if self.kind == "histogram" else 1


class GameMetrics(Mapping[str, GameMetric]):
    """All figures of the game's own, by name.

    Attributes:
        generation: another number after each `clear`: series that were held before are no longer shown.
        refused: how many reports were refused, by why.
    """

    def __init__(self) -> None:
        """None yet."""
        self._metrics: dict[str, GameMetric] = {}
        self._size = 0
        self.generation = 0
        self.refused: dict[Why, int] = dict.fromkeys(WHYS, 0)

    def __getitem__(self, name: str) -> GameMetric:
        """The figure of that name."""
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        """The names, in the order in which they came up."""
        return iter(self._metrics)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._metrics)

    @property
    def size(self) -> int:
        """How many time series they cost."""
        return self._size

    def report(self, given: Iterable[CustomMetric]) -> tuple[str, ...]:
        """Takes figures: all of them, or none where one is wrong.

        Args:
            given: the figures.

        Returns:
            Their names.

        Raises:
            MetricError: a name is none, a number cannot be, a type does not go with what is known, or there are too
                many. Nothing was changed, and the refusal is counted.
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
        for each, metric in zip(given, resolved, strict=True):
            if each.help:
                metric.help = each.help
            self._apply(metric, each)
        return tuple(dict.fromkeys(each.name for each in given))

    def series(
        self, name: str, kind: Kind, labels: LabelPairs, bounds: tuple[float, ...] = ()
    ) -> tuple[GameMetric, Series]:
        """The figure and its series, made where they are new, for a caller that writes many values.

        Raises:
            MetricError: as for `report`.
        """
        wanted = CustomMetric(name, None, "", labels, kind)
        try:
            new, (metric,) = self._resolve([wanted], empty=True)
        except MetricError as wrong:
            self.refused[wrong.why] += 1
            raise
        self._metrics.update(new)
        return metric, self._series(metric, tuple(sorted(labels)))

    def refuse(self, why: Why) -> None:
        """Counts what a caller found to be wrong before it came here."""
        self.refused[why] += 1

    def clear(self) -> None:
        """Forgets all figures; what was refused stays counted."""
        self._metrics.clear()
        self._size = 0
        self.generation += 1

    def flat(self, names: Iterable[str] | None = None) -> dict[str, float]:
        """Each series with its value, as `name` or `name{label="value"}`; a histogram as its count and sum.

        Args:
            names: which; all by default.
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
        """Everything as JSON can say it, for `load`."""
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
        """Puts back what `dump` wrote, in place of what is known; exemplars are not in it."""
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
    ) -> tuple[dict[str, GameMetric], list[GameMetric]]:
        """The figure that each report is of; those that are new are in the first result, and nowhere else yet."""
        new: dict[str, GameMetric] = {}
        new_series: set[tuple[str, LabelPairs]] = set()
        resolved: list[GameMetric] = []
        size = self._size
        for each in given:
            metric = self._metrics.get(each.name) or new.get(each.name)
            if metric is None:
                metric = new[each.name] = self._make(each, new)
                if len(self._metrics) + len(new) > MAX_METRICS:
                    takes = f"at most {MAX_METRICS} different names"
                    raise MetricError("limit", each.name, each.name, takes, f"cannot set metrics: a game has {takes}")
            _check(each, metric, empty=empty)
            key = (each.name, tuple(sorted(each.labels)))
            if key[1] not in metric.series and key not in new_series:
                new_series.add(key)
                size += metric.cost
                if size > MAX_SERIES:
                    takes = f"at most {MAX_SERIES} time series, label sets and buckets included; use fewer label values"
                    raise MetricError("limit", each.name, each.name, takes, f"cannot set metrics: a game has {takes}")
            resolved.append(metric)
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
        """The samples of a histogram have names of their own, which no other figure can have."""
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

    def _apply(self, metric: GameMetric, given: CustomMetric) -> None:
        series = self._series(metric, tuple(sorted(given.labels)))
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


_HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")


def _check(given: CustomMetric, metric: GameMetric, *, empty: bool) -> None:
    """Whether a report goes with its figure."""
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

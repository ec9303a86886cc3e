"""Metric families as plain data, which the collector makes, and their way into the formats that Prometheus reads.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4) and
https://prometheus.io/docs/specs/om/open_metrics_spec/ (OpenMetrics). The client library of Prometheus negotiates and
writes them; this module is imported with the first scrape, since the library takes some ten milliseconds to import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, overload

from agent.postponed import postpone
from agent.substitutes import Unused, substitute

# The library's metrics and collectors, and what its own servers and its client of the Pushgateway are made of: TLS with
# it, and a third of what a first scrape would execute. `tests/unit/test_rooms.py` fails if a later version needs more.
postpone("prometheus_client")
substitute(
    "prometheus_client.exposition",
    {
        name: Unused(name)
        for name in ("http.server", "socketserver", "ssl", "urllib.error", "urllib.request", "wsgiref.simple_server")
    },
)

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest  # noqa: E402
from prometheus_client.metrics_core import Metric  # noqa: E402 - after these
from prometheus_client.registry import Collector  # noqa: E402
from prometheus_client.samples import Exemplar as WrittenExemplar  # noqa: E402
from prometheus_client.samples import Sample as WrittenSample  # noqa: E402
from prometheus_client.utils import floatToGoString  # noqa: E402

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info", "stateset", "unknown"]
#: Label names and values, in the order in which they are written.
LabelPairs: TypeAlias = tuple[tuple[str, str], ...]
#: Label values and number of a sample.
Row: TypeAlias = tuple[tuple[str, ...], float]

TEXT = CONTENT_TYPE_PLAIN_0_0_4

_MOST_FORMATS = 4
_ZERO = " 0.0"
_PLAIN = 1e6  # from here on the library writes an exponent


class Exemplar(NamedTuple):
    """One observation that stands for others of its bucket, and how to find what it belongs to.

    Attributes:
        labels: such as a trace id; names and values together take 128 characters at most.
        value: what was observed.
    """

    labels: LabelPairs
    value: float


class Sample(NamedTuple):
    """One line: `suffix` is what follows the family's name, such as `_total` or `_bucket`."""

    suffix: str
    labels: LabelPairs
    value: float
    exemplar: Exemplar | None = None


# Without the NamedTuple's own constructor, a Python function that would be called for each of 150 samples.
_new = tuple.__new__


class Rows(Sequence[Sample]):
    """Samples of one suffix and the same label names. Each is made when it is asked for: a scrape needs none of them.

    Attributes:
        suffix: of all samples.
        names: of the labels.
        rows: label values and number.
    """

    __slots__ = ("names", "rows", "suffix")

    def __init__(self, suffix: str, names: tuple[str, ...], rows: list[Row]) -> None:
        """Takes the attributes."""
        self.suffix = suffix
        self.names = names
        self.rows = rows

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """A sample, or some of them."""
        return list(self)[index]

    def __iter__(self) -> Iterator[Sample]:
        """The samples."""
        suffix, names = self.suffix, self.names
        return iter([_new(Sample, (suffix, _pairs(names, values), number, None)) for values, number in self.rows])


class Family(NamedTuple):
    """A metric with all its samples; `name` is without the suffix of its samples."""

    name: str
    kind: Kind
    help: str
    samples: Sequence[Sample]


class Declared:
    """What never changes of a metric, and its last family, which is given again as long as its numbers are the same.

    A family that was written before is recognized by its identity (`Formats`), without a look at its samples.

    Attributes:
        name: of the family, without the suffix of its samples.
        kind: its type.
        help: the help text.
        suffix: of its samples.
        names: of the labels.
    """

    __slots__ = ("_last", "_rows", "help", "kind", "name", "names", "suffix")

    def __init__(self, name: str, kind: Kind, documentation: str, suffix: str, names: tuple[str, ...]) -> None:
        """Takes the attributes."""
        self.name = name
        self.kind: Kind = kind
        self.help = documentation
        self.suffix = suffix
        self.names = names
        self._rows: list[Row] = []
        self._last: Family | None = None

    def family(self, rows: list[Row]) -> Family:
        """The metric with these label values and numbers. The caller must not change the list afterwards."""
        last = self._last
        if last is None or self._rows != rows:
            self._rows = rows
            values = (self.name, self.kind, self.help, Rows(self.suffix, self.names, rows))
            last = self._last = _new(Family, values)
        return last

    def single(self, value: float) -> Family:
        """The metric, which has no labels, with this number."""
        last = self._last
        return last if last is not None and self._rows[0][1] == value else self.family([((), value)])


def counter(name: str, documentation: str, *names: str) -> Declared:
    """Declares a counter.

    Args:
        name: with `_total` at its end.
        documentation: the help text.
        names: of the labels.
    """
    return Declared(name.removesuffix("_total"), "counter", documentation, "_total", names)


def gauge(name: str, documentation: str, *names: str) -> Declared:
    """Declares a gauge; arguments as `counter`, but for the suffix."""
    return Declared(name, "gauge", documentation, "", names)


@lru_cache(maxsize=2048)  # the same at each scrape
def _pairs(names: tuple[str, ...], values: tuple[str, ...]) -> LabelPairs:
    return tuple(zip(names, values, strict=True))


def info(name: str, documentation: str, facts: dict[str, str]) -> Family:
    """Facts as labels of a sample that is always 1. The sample is called `name` with `_info`."""
    return Family(name, "info", documentation, (Sample("_info", tuple(facts.items()), 1),))


def histogram_samples(
    labels: LabelPairs,
    bounds: Sequence[float],
    counts: Sequence[float],
    total: float,
    exemplars: Sequence[Exemplar | None] | None = None,
) -> list[Sample]:
    """The samples of one histogram.

    Args:
        labels: of the series.
        bounds: upper bounds of the buckets, ascending, without infinity.
        counts: how many observations each bucket alone holds; the last one, beyond all bounds, included.
        total: the sum of all observations.
        exemplars: one a bucket, or None.
    """
    samples = []
    running = 0.0
    for index, (bound, count) in enumerate(zip(_bucket_labels(labels, tuple(bounds)), counts, strict=True)):
        running += count
        exemplar = exemplars[index] if exemplars is not None else None
        samples.append(_new(Sample, ("_bucket", bound, running, exemplar)))
    return [*samples, Sample("_count", labels, running), Sample("_sum", labels, total)]


@lru_cache(maxsize=1024)  # the same at each scrape
def _bucket_labels(labels: LabelPairs, bounds: tuple[float, ...]) -> list[LabelPairs]:
    return [(*labels, ("le", bound)) for bound in (*map(number, bounds), "+Inf")]


def number(value: float) -> str:
    """A number as Prometheus writes it: `1.0`, `1.5e+06`, `+Inf`, `NaN`."""
    if -_PLAIN < value < _PLAIN:  # as Python does
        return repr(float(value))
    written: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # the library has no type for it
    return written


class Formats:
    """The formats that were asked for, with what is known of their lines. Not for two threads at once."""

    def __init__(self) -> None:
        """None yet."""
        self._writers: dict[str, _Writer] = {}

    def negotiate(self, accept: str) -> tuple[Callable[[Iterable[Family]], bytes], str]:
        """The format that is asked for.

        Args:
            accept: the `Accept` header; one that makes no sense gets the text format 0.0.4.

        Returns:
            What writes families in it, and its content type.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        writer = self._writers.get(content_type)
        if writer is None:
            if len(self._writers) >= _MOST_FORMATS:  # the header may name any version
                self._writers.clear()
            writer = self._writers[content_type] = _Writer(encode)
        return writer.write, content_type


class _Written:
    """A family as it was written last.

    Attributes:
        family: what was written.
        text: how.
        header: the lines that come before its samples.
        starts: the line of each sample up to its number; empty where the library does not write one line for each.
        lines: the whole lines.
    """

    __slots__ = ("family", "header", "lines", "starts", "text")

    def __init__(self, family: Family, text: str) -> None:
        self.family = family
        self.text = text
        self.header = ""
        self.starts: list[str] = []
        self.lines: list[str] = []

    def update(self, family: Family) -> bool:
        """Writes the numbers that have changed; False where more than numbers has, or there is an exemplar."""
        last = self.family
        samples, before = family.samples, last.samples
        if family.kind != last.kind or family.help != last.help or len(samples) != len(self.starts):
            return False
        if type(samples) is Rows and type(before) is Rows:
            if samples.suffix != before.suffix or samples.names != before.names:
                return False
            changed = samples.rows != before.rows
            if changed and not self._update_rows(samples.rows, before.rows):
                return False
        else:
            changed = samples != before
            if changed and not self._update_samples(samples, before):
                return False
        self.family = family
        if changed:
            self.text = self.header + "".join(self.lines)
        return True

    def _update_rows(self, rows: list[Row], before: list[Row]) -> bool:
        lines, starts = self.lines, self.starts
        for index, (row, last) in enumerate(zip(rows, before, strict=True)):
            if row != last:
                if row[0] != last[0]:
                    return False
                lines[index] = f"{starts[index]}{number(row[1])}\n"
        return True

    def _update_samples(self, samples: Sequence[Sample], before: Sequence[Sample]) -> bool:
        lines, starts = self.lines, self.starts
        for index, (it, last) in enumerate(zip(samples, before, strict=True)):
            suffix, labels, value, exemplar = it
            if exemplar is not None or labels != last.labels or suffix != last.suffix:
                return False
            if value != last.value:
                lines[index] = f"{starts[index]}{number(value)}\n"
        return True


class _Writer:
    """Writes families in one format.

    The library takes longer to write what never changes (names, labels, help, each checked and escaped anew) than the
    agent takes to find the numbers, twice so in OpenMetrics. So it writes each family once, and of those that follow
    only the numbers that have changed are written; a family that has become another one, or has an exemplar, is written
    by the library as a whole.
    """

    def __init__(self, encode: Callable[[Collector], bytes]) -> None:
        self._encode = encode
        self._end = encode(_Collected(())).decode()  # OpenMetrics ends with a line of its own
        self._known: dict[str, _Written] = {}

    def write(self, families: Iterable[Family]) -> bytes:
        """Everything, as the library would write it."""
        before, self._known = self._known, {}
        for family in families:
            known = before.get(family.name)
            if known is None or not (known.family is family or known.update(family)):
                known = self._learn(family)
            self._known[family.name] = known
        return "".join([*(it.text for it in self._known.values()), self._end]).encode()

    def _whole(self, family: Family) -> str:
        return self._encode(_Collected((family,))).decode().removesuffix(self._end)

    def _learn(self, family: Family) -> _Written:
        """Has the library write a family, and what of that stays the same: its lines with zeros for numbers."""
        known = _Written(family, self._whole(family))
        zeros = [Sample(it.suffix, it.labels, 0.0) for it in family.samples]
        lines = self._whole(family._replace(samples=zeros)).split("\n")[:-1]
        first = len(lines) - len(zeros)
        if not any(line.startswith("#") or not line.endswith(_ZERO) for line in lines[first:]):
            known.header = "".join(f"{line}\n" for line in lines[:first])
            known.starts = [line.removesuffix("0.0") for line in lines[first:]]
            # Those with an exemplar are not written from here; without one they are.
            known.lines = [
                f"{begin}{number(it.value)}\n" for begin, it in zip(known.starts, family.samples, strict=True)
            ]
        return known


def text_format(families: Iterable[Family]) -> bytes:
    """Everything in the text format 0.0.4; info and state sets, which it does not know, become gauges."""
    return generate_latest(_Collected(families))


class _Collected(Collector):
    """Families as the client library takes them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for name, kind, documentation, samples in self._families:
            metric = Metric(name, _text(documentation), kind)
            metric.samples = [_sample(name, each) for each in samples]
            yield metric


def _sample(name: str, it: Sample) -> WrittenSample:
    exemplar = WrittenExemplar(dict(it.exemplar.labels), it.exemplar.value) if it.exemplar is not None else None
    return WrittenSample(name + it.suffix, {key: _text(value) for key, value in it.labels}, it.value, None, exemplar)


def _text(text: str) -> str:
    # A lone surrogate (JSON allows it) is no UTF-8 and would make the whole answer impossible.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

"""Metric families as plain data, and the two text formats that Prometheus reads.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4) and
https://prometheus.io/docs/specs/om/open_metrics_spec/ (OpenMetrics 1.0.0).

The client library of Prometheus is not used for this: importing it takes 7 to 11 ms and 1 MB, and writing 120 samples
took 2 to 3 ms, most of a scrape. Its parsers check in the tests what is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info", "stateset", "unknown"]
#: Label names and values, in the order in which they are written.
LabelPairs: TypeAlias = tuple[tuple[str, str], ...]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


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


class Family(NamedTuple):
    """A metric with all its samples; `name` is without the suffix of its samples."""

    name: str
    kind: Kind
    help: str
    samples: Sequence[Sample]


def counter(name: str, documentation: str, names: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]) -> Family:
    """A counter. Each row has the values of the labels `names`, and a number.

    Args:
        name: with `_total` at its end.
        documentation: the help text.
        names: of the labels.
        rows: label values and number.
    """
    samples = [Sample("_total", tuple(zip(names, values, strict=True)), number) for values, number in rows]
    return Family(name.removesuffix("_total"), "counter", documentation, samples)


def gauge(name: str, documentation: str, value: float) -> Family:
    """A gauge without labels."""
    return Family(name, "gauge", documentation, (Sample("", (), value),))


def gauges(name: str, documentation: str, names: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]) -> Family:
    """A gauge with labels."""
    return Family(
        name, "gauge", documentation, [Sample("", tuple(zip(names, values, strict=True)), n) for values, n in rows]
    )


def info(name: str, documentation: str, facts: dict[str, str]) -> Family:
    """Facts as labels of a sample that is always 1. The sample is called `name` with `_info`."""
    return Family(name, "info", documentation, (Sample("_info", tuple(facts.items()), 1),))


def stateset(name: str, documentation: str, states: dict[str, bool]) -> Family:
    """One sample a state, 1 for those that hold; its label is called like the metric."""
    return Family(name, "stateset", documentation, [Sample("", ((name, state),), on) for state, on in states.items()])


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
        samples.append(Sample("_bucket", bound, running, exemplar))
    return [*samples, Sample("_count", labels, running), Sample("_sum", labels, total)]


@lru_cache(maxsize=1024)  # the same at each scrape
def _bucket_labels(labels: LabelPairs, bounds: tuple[float, ...]) -> list[LabelPairs]:
    return [(*labels, ("le", bound)) for bound in (*map(number, bounds), "+Inf")]


_NO_NUMBERS = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}


def number(value: float) -> str:
    """A number as Prometheus writes it: `1.0`, `+Inf`, `NaN`."""
    text = repr(float(value))
    return text if text[-1] not in "fn" else _NO_NUMBERS[text]


def _escaped(text: str) -> str:
    # A lone surrogate (JSON allows it) is no UTF-8 and would make the whole answer impossible.
    return text.encode("utf-8", "replace").decode().replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escaped_help(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\\", r"\\").replace("\n", r"\n")


@lru_cache(maxsize=4096)  # most label sets are the same at each scrape
def _label_text(labels: LabelPairs) -> str:
    # A label without a value is the same as none to Prometheus; it is written all the same, since OpenMetrics keeps it.
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


@lru_cache(maxsize=512)
def _head(name: str, kind: str, documentation: str) -> str:
    return f"# HELP {name} {_escaped_help(documentation)}\n# TYPE {name} {kind}\n"


def text_format(families: Iterable[Family]) -> bytes:
    """Everything in the text format 0.0.4; info and state sets, which it does not know, become gauges."""
    lines = []
    for name, kind, documentation, samples in families:
        shown, type_name = name, kind
        if kind == "counter":
            shown = f"{name}_total"
        elif kind == "info":
            shown, type_name = f"{name}_info", "gauge"
        elif kind == "stateset":
            type_name = "gauge"
        lines.append(_head(shown, "untyped" if kind == "unknown" else type_name, documentation))
        lines.extend(f"{name}{each[0]}{_label_text(each[1])} {number(each[2])}\n" for each in samples)
    return "".join(lines).encode()


def openmetrics_format(families: Iterable[Family]) -> bytes:
    """Everything in OpenMetrics 1.0.0, exemplars included."""
    lines = []
    for name, kind, documentation, samples in families:
        lines.append(f"# HELP {name} {_escaped(documentation)}\n# TYPE {name} {kind}\n")
        for suffix, labels, value, exemplar in samples:
            line = f"{name}{suffix}{_label_text(labels)} {number(value)}"
            if exemplar is not None:
                line += f" # {_label_text(exemplar.labels)} {number(exemplar.value)}"
            lines.append(line + "\n")
    lines.append("# EOF\n")
    return "".join(lines).encode()


def wants_openmetrics(accept: str) -> bool:
    """Whether the `Accept` header asks for OpenMetrics rather than for the older text format.

    Prometheus names both with a quality each; a header that makes no sense gets the older format.
    """
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        if media not in best:
            continue
        given = dict(piece.partition("=")[::2] for piece in parameters)
        if media == "application/openmetrics-text" and given.get("version", "1.0.0") not in {"1.0.0", "0.0.1"}:
            continue
        try:
            quality = float(given.get("q", "1"))
        except ValueError:
            continue
        best[media] = max(best[media], quality)
    wanted = best["application/openmetrics-text"]
    return wanted > 0 and wanted >= best["text/plain"]

"""Figures, measured: `python -m benchmarks` runs every module of this package that can measure and prints one table.

A module takes part when it is in this folder, its name does not start with `_`, and it has

    def measure(quick: bool) -> list[Row]: ...

where `quick` asks for as few repetitions as still give a figure of the right size (a few seconds in all). Repetitions
have a budget of time (`_tools.rounds`): all modules together take six minutes at most, and 90 s with `--quick`.

A `Row` is one figure of one subject. Rows with the same `what` are compared with each other, so that every figure of
ours stands next to peers or floors *measured in the same run*: these machines are noisy, and a figure alone says
little. The first row of a `what` is what the others are compared with, which is the agent wherever it is among them.

A peer that is not installed, or a measurement that the machine does not permit, is a row with `value=None` and the
reason in `note`: it is printed, never left out in silence. `benchmarks.skipped` makes one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one subject.

    Attributes:
        what: what was measured, the same words for all subjects that are compared.
        who: the subject: `agent`, or the name of a peer or a floor.
        value: the figure, a median where it was measured more than once; None when it could not be measured.
        unit: of `value`, `low` and `high`: `ms`, `µs`, `MB`, `MB/s`, `1/s`, ...
        runs: how many measurements the figure comes from.
        low: the 10th percentile of these, or None.
        high: the 90th percentile of these, or None.
        at_most: what we aim for, where less is better; None without such an aim.
        at_least: what we aim for, where more is better; None without such an aim.
        note: what a reader has to know, or why there is no value.
    """

    what: str
    who: str
    value: float | None
    unit: str
    runs: int = 1
    low: float | None = None
    high: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the aim was reached; None without an aim or without a value."""
        if self.value is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """The `percent`-th percentile (0 to 100) of at least one value: the smallest that so many do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(
    what: str,
    who: str,
    values: Sequence[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Row:
    """A row with the median of `values` (at least one) and how far they spread."""
    return Row(
        what,
        who,
        statistics.median(values),
        unit,
        runs=len(values),
        low=percentile(values, 10),
        high=percentile(values, 90),
        at_most=at_most,
        at_least=at_least,
        note=note,
    )


def skipped(what: str, who: str, unit: str, why: str) -> Row:
    """A row that says why there is no figure, such as `tini is not installed`."""
    return Row(what, who, None, unit, runs=0, note=f"skipped: {why}")

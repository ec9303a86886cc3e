"""Small charts of a deployment's metrics: braille in a terminal, and a picture where matplotlib is installed.

The contract defines no units, so none are shown: values are shown as the platform sends them.
"""

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.edgegap import models
from agent.errors import AgentError, how_to_install
from agent.terminal_text import safe

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 44
HEIGHT = 5
"""Size of one chart in characters; each holds 2 x 4 dots."""

_BRAILLE = 0x2800
_LEFT = (0x40, 0x04, 0x02, 0x01)
_RIGHT = (0x80, 0x20, 0x10, 0x08)
"""The dots of a cell's two columns, from below (Unicode, "Braille Patterns")."""


class CannotDrawError(AgentError):
    """There is no picture, because matplotlib is missing or the file cannot be written."""


def series_of(metrics: models.Metrics) -> dict[str, models.Series]:
    """Give the series that change over time, by the title of their chart."""
    return {
        "cpu": metrics.cpu,
        "memory": metrics.mem,
        "network received": metrics.network.receive,
        "network sent": metrics.network.transmit,
        "cpu throttled, rate": metrics.cpu_throttle_rate,
    }


def totals_of(metrics: models.Metrics) -> dict[str, float]:
    """Give the last value of the series that only grow."""
    growing = {
        "received": metrics.total.receive_total,
        "sent": metrics.total.transmit_total,
        "read from disk": metrics.total.disk_read_total,
        "written to disk": metrics.total.disk_write_total,
        "cpu throttled": metrics.cpu_throttle_total,
    }
    return {name: values[-1] for name, series in growing.items() if (values := known(series.datasets))}


def known(values: Sequence[float | None]) -> list[float]:
    """Give the values that are numbers; gaps, NaN and infinities are left out."""
    return [value for value in values if value is not None and math.isfinite(value)]


def resample(values: Sequence[float | None], columns: int) -> list[float | None]:
    """Stretch or squeeze values over columns; a column holds the mean of what falls into it, None for a gap."""
    resampled: list[float | None] = []
    for column in range(columns if values else 0):
        first = column * len(values) // columns
        last = max(first + 1, (column + 1) * len(values) // columns)
        present = known(values[first:last])
        resampled.append(sum(present) / len(present) if present else None)
    return resampled


def area(values: Sequence[float | None], width: int = WIDTH, height: int = HEIGHT, *, plain: bool = False) -> list[str]:
    """Draw an area from zero (or the lowest value, if that is below) up to each value.

    Args:
        values: samples in order; None is a gap.
        width: columns of characters.
        height: rows of characters.
        plain: use # for a terminal that has no braille.

    Returns:
        Rows from the top.
    """
    columns = resample(values, 2 * width)
    present = known(columns)
    low, high = min([0.0, *present]), max([0.0, *present])
    span = (high - low) or 1.0
    dots = [0 if value is None else max(1, round((value - low) / span * 4 * height)) for value in columns] or [0] * (
        2 * width
    )
    rows = []
    for row in reversed(range(height)):
        cells = []
        for column in range(width):
            cell = _BRAILLE
            for marks, level in ((_LEFT, dots[2 * column]), (_RIGHT, dots[2 * column + 1])):
                cell += sum(marks[: min(4, max(0, level - 4 * row))])
            cells.append(("#" if cell > _BRAILLE else " ") if plain else chr(cell))
        rows.append("".join(cells))
    return rows


def short(value: float) -> str:
    """Write a number in few characters: 1536 is 1.54k."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def panels(metrics: models.Metrics, deployment_id: str) -> "RenderableType":
    """Draw all series as panels that fit beside each other where the terminal is wide enough."""
    from rich.columns import Columns  # noqa: PLC0415 - a picture alone does without rich
    from rich.console import Group  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    plain = "utf" not in (sys.stdout.encoding or "").lower()
    drawn: list[RenderableType] = []
    for title, series in series_of(metrics).items():
        values = known(series.datasets)
        if not values:
            continue
        figures = f"now {short(values[-1])}   mean {short(sum(values) / len(values))}   max {short(max(values))}"
        times = series.labels or series.timestamps
        axis = f"{times[0]}{times[-1]:>{max(1, WIDTH - len(times[0]))}}" if times else ""
        chart = Text("\n".join(area(series.datasets, plain=plain)), style="cyan")
        body = Group(chart, Text(safe(axis), style="dim"), Text(figures))
        drawn.append(Panel(body, title=Text(title), title_align="left", width=WIDTH + 4))
    totals = "   ".join(f"{name} {short(value)}" for name, value in totals_of(metrics).items())
    if not drawn and not totals:
        return Text(f"no samples of deployment {safe(deployment_id)} in this time", style="dim")
    return Group(Columns(drawn), Text(f"in total: {totals}" if totals else ""))


def check_can_draw() -> None:
    """Find out, before anything is asked, whether a picture can be drawn.

    Raises:
        CannotDrawError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise CannotDrawError(f"cannot draw a picture: matplotlib is not installed; {how_to_install('charts')}")


def write_png(metrics: models.Metrics, deployment_id: str, path: str) -> None:
    """Write a picture with one plot a series, gaps left open.

    Args:
        metrics: what to draw.
        deployment_id: for the title.
        path: of the PNG file; what is there is replaced.

    Raises:
        CannotDrawError: matplotlib is not installed, or the file cannot be written.
    """
    check_can_draw()
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra, and slow to import

    drawn = {title: series for title, series in series_of(metrics).items() if known(series.datasets)}
    figure = Figure(figsize=(9, 2.0 * max(1, len(drawn)) + 0.6), layout="constrained")  # no pyplot: no display needed
    figure.suptitle(f"deployment {deployment_id}" + ("" if drawn else ": no samples in this time"))
    for number, (title, series) in enumerate(drawn.items()):
        axes = figure.add_subplot(len(drawn), 1, number + 1)
        values = [math.nan if value is None else value for value in series.datasets]
        axes.plot(range(len(values)), values, linewidth=1.2)
        axes.set_ylim(bottom=min(0.0, *known(values)), top=None)
        axes.set_title(title, loc="left", fontsize=9)
        axes.grid(visible=True, alpha=0.3)
        times = series.labels or series.timestamps
        shown = range(0, len(values), max(1, len(values) // 6))
        axes.set_xticks(list(shown), [times[at] if at < len(times) else str(at) for at in shown], fontsize=8)
    try:
        with Path(path).open("wb") as file:
            figure.savefig(file, format="png", dpi=120)
    except OSError as error:
        raise CannotDrawError(
            f"cannot write {path}: {error.strerror}; name a file in a directory that can be written"
        ) from None

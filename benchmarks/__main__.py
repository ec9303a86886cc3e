"""`python -m benchmarks`: measures and prints one table. See `benchmarks/__init__.py` for what takes part."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import pkgutil
import platform
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import benchmarks
from benchmarks import Row

ORDER = ("start", "memory", "latency", "stop", "scrape", "capture", "instructions")
COLUMNS = ("what", "who", "median", "p10 to p90", "ratio", "aim", "runs", "note")
RIGHT = {"median", "p10 to p90", "ratio", "runs"}


def modules() -> list[str]:
    """Those that can measure: ours in the order of a life, then all others."""
    found = {each.name for each in pkgutil.iter_modules(benchmarks.__path__) if not each.name.startswith("_")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def machine() -> str:
    """What was measured on, in one line."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs ({cpu[1] if cpu else platform.machine()}), {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def table(rows: Iterable[Row]) -> str:
    """The rows as one table, readable as it is and as Markdown."""
    cells = [COLUMNS]
    first: dict[str, Row] = {}
    for row in rows:
        new = row.what not in first
        base = first.setdefault(row.what, row)
        cells.append((row.what if new else "", row.who, *_figures(row, base), row.note))
    widths = [max(len(line[number]) for line in cells) for number in range(len(COLUMNS))]
    lines = []
    for number, line in enumerate(cells):
        padded = [
            text.rjust(width) if name in RIGHT else text.ljust(width)
            for text, width, name in zip(line, widths, COLUMNS, strict=True)
        ]
        lines.append(f"| {' | '.join(padded)} |")
        if number == 0:
            rule = ["-" * (w - 1) + ":" if name in RIGHT else "-" * w for name, w in zip(COLUMNS, widths, strict=True)]
            lines.append(f"| {' | '.join(rule)} |")
    return "\n".join(lines)


def _figures(row: Row, base: Row) -> tuple[str, str, str, str, str]:
    """Median, spread, ratio to the first row of its kind, aim, runs."""
    if row.value is None:
        return "-", "", "", "", ""
    spread = "" if row.low is None or row.high is None else f"{_number(row.low)} to {_number(row.high)}"
    ratio = "" if not base.value else f"{row.value / base.value:.2f}"
    limits = [f"{sign} {limit:g}" for sign, limit in (("≤", row.at_most), ("≥", row.at_least)) if limit is not None]
    aim = f"{', '.join(limits)} {row.unit}: {'reached' if row.reached else 'missed'}" if limits else ""
    return f"{_number(row.value)} {row.unit}", spread, ratio, aim, str(row.runs)


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def main() -> int:
    """Measures what was asked for.

    Returns:
        0, also where an aim was missed: these are figures and no test. 2 for a module that is not there.
    """
    names = modules()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures, and prints one table.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"all by default: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="few repetitions, in a fraction of the time")
    parser.add_argument("--json", action="store_true", help="for programs: one object, the rows in a list")
    args = parser.parse_args()
    if unknown := set(args.modules) - set(names):
        parser.error(f"cannot measure {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    rows: list[Row] = []
    on = machine()
    for name in args.modules or names:
        module = importlib.import_module(f"benchmarks.{name}")
        if not hasattr(module, "measure"):
            continue
        began = time.monotonic()
        print(f"measuring {name} ... ", end="", file=sys.stderr, flush=True)
        rows += module.measure(args.quick)
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if args.json:
        print(json.dumps({"machine": on, "quick": args.quick, "rows": [dataclasses.asdict(row) for row in rows]}))
    else:
        print(f"{on}\nratio: to the first row of the same kind\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

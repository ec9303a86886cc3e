"""How long a report over a fleet's history takes: 10,000 lives in a directory, the whole command."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import Row, skipped, summary
from benchmarks._tools import rounds
from tests import lives

LIVES = 10_000
WHAT = "fleet report, 10,000 lives"


def measure(quick: bool) -> list[Row]:
    """The whole command; beside it, what reading the same files one after the other takes at least."""
    if importlib.util.find_spec("duckdb") is None:
        return [skipped(WHAT, "agent", "s", "duckdb is not installed")]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        lives.write(root, LIVES)
        taken, floor = [], []
        for _ in rounds(12.0, 1 if quick else 5):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "agent", "fleet", "report", directory, "--since", "7d"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            taken.append(time.perf_counter() - began)
            began = time.perf_counter()
            for path in root.rglob("exit.json"):
                path.read_bytes()
            floor.append(time.perf_counter() - began)
    return [
        summary(WHAT, "agent", taken, "s", at_most=10.0, note="the whole command, from a directory"),
        summary(WHAT, "reading the files", floor, "s", note="one after the other, nothing else"),
    ]

"""Writes the README's tables of settings, operations and metrics from the code.

`python -m docs.tables` rewrites README.md; with `--check` it changes nothing and exits 1 where a table is old.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from agent.api.table import OPERATIONS
from agent.config.cli import shown_text
from agent.config.model import Settings
from agent.config.names import variable
from agent.config.table import TABLE

README = Path(__file__).parent.parent / "README.md"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings() -> str:
    """One row a setting."""
    return _table(
        ("variable", "default", "what for"),
        (
            (
                f"`{variable(name)}`",
                f"`{text}`" if (text := shown_text(row.default)) else "",
                row.text,
            )
            for name, row in ((name, TABLE[name]) for name in Settings.fields)
        ),
    )


def operations() -> str:
    """One row an operation."""
    return _table(
        ("operation", "HTTP", "socket", "input"),
        (
            (
                operation.name,
                f"`{' '.join(operation.http)}`",
                f"`{operation.name}`" if operation.socket else "",
                ", ".join(f"`{field}`" for field in operation.takes.model_fields)
                if operation.takes.model_fields
                else "",
            )
            for operation in OPERATIONS
        ),
    )


def metrics() -> str:
    """One row a metric."""
    from docs.metric_rows import rows  # noqa: PLC0415 - it builds every family once

    return _table(("metric", "type", "labels", "what"), rows())


TABLES = {"settings": settings, "operations": operations, "metrics": metrics}


def updated(text: str) -> str:
    """The README with fresh tables."""
    for name, make in TABLES.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = mark.subn(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)  # type: ignore[misc]
        assert count == 1, f"README.md has no place for the table of {name}"
    return text


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before = README.read_text()
    after = updated(before)
    if check:
        return int(after != before)
    README.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())

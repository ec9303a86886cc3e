"""`arbitrium-agent fleet`: what a whole fleet's `exit.json` documents say together."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agent.command_arguments import checked, whole
from agent.errors import AgentError
from agent.terminal_text import safe, safe_json, safe_lines

if TYPE_CHECKING:
    from agent.fleet.database import Database

_SPAN = re.compile(r"(?P<number>\d+)(?P<unit>[mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_BY = ("version", "region", "hour", "day", "country", "host", "agent", "signal")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fleet`."""
    parser.description = (
        "Read the exit.json of every life from the store that AGENT_LOG_URL names, and say what ended them. "
        "Needs DuckDB (the extra arbitrium-agent[fleet])."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    report = commands.add_parser(
        "report",
        help="which cause ended how many servers, by version, region and hour, the worst first",
        description="Which cause ended how many servers, by version, region and hour, the worst first; how long they "
        "lived, and how often logs were lost.",
    )
    report.add_argument("store", nargs="?", metavar="URL", help=_STORE)
    _add_since(report)
    report.add_argument(
        "--by",
        action="append",
        choices=_BY,
        help="break causes down by this (repeatable; default: version, region, hour)",
    )
    report.add_argument("--limit", type=whole(1), default=10, metavar="N", help="rows of each table (%(default)s)")
    report.add_argument("--json", action="store_true", help="print JSON for programs")
    report.set_defaults(does=_report)
    query = commands.add_parser(
        "query",
        help="SQL over the exits and the lines of the logs",
        description="Run SQL (DuckDB's) over the tables exits and logs. Logs are read only where the query names them.",
        epilog='example: arbitrium-agent fleet query "SELECT version, count(*) FROM exits GROUP BY ALL" s3://bucket/games',
    )
    query.add_argument(
        "sql", metavar="SQL", help='the query; "DESCRIBE exits" lists the columns; - reads it from stdin'
    )
    query.add_argument("store", nargs="?", metavar="URL", help=_STORE)
    _add_since(query)
    how = query.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object a row")
    how.add_argument("--csv", action="store_true", help="print CSV")
    query.set_defaults(does=_query)


_STORE = "the store: s3://bucket/prefix, gs://, az://, file:///path or a directory; AGENT_LOG_URL by default"


def _add_since(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=checked(lambda text: since(text, datetime.now(UTC))),
        metavar="TIME",
        help="only lives that ended since then: 24h, 7d, 2026-11-01 or ISO 8601 in UTC; all by default. Lives longer "
        "than two days may be missed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from agent.fleet.database import Database  # noqa: PLC0415 - late: only where it is used

    url = arguments.store or os.environ.get("AGENT_LOG_URL", "").strip()
    if not url:
        raise AgentError(
            "cannot look at a fleet: no store is given and AGENT_LOG_URL is not set; give s3://bucket/prefix"
        )
    with Database(url, os.environ, arguments.since) as database:
        return asyncio.run(_with(database, arguments))


async def _with(database: Database, arguments: argparse.Namespace) -> int:
    await database.load()
    code: int = await arguments.does(database, arguments)
    return code


def since(text: str, now: datetime) -> datetime:
    """Reads `--since`.

    Raises:
        ValueError: it is no time.
    """
    if (span := _SPAN.fullmatch(text.strip())) is not None and int(span["number"]) < 100_000:
        return now - timedelta(**{_UNITS[span["unit"]]: int(span["number"])})
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("takes a span such as 24h or 7d, or a time such as 2026-11-01T12:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _report(database: Database, arguments: argparse.Namespace) -> int:
    from agent.fleet import report  # noqa: PLC0415 - late, see above

    made = report.make(database, tuple(arguments.by or report.DEFAULT_BY), arguments.limit)
    if arguments.json:
        print(safe_json(made, indent=2, default=_as_text, terminal=sys.stdout.isatty()))
        return 0
    from rich.console import Console  # noqa: PLC0415 - only for people

    # Into a pipe or a file, a table is as wide as it needs.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(report.render(made))
    return 0


async def _query(database: Database, arguments: argparse.Namespace) -> int:
    sql = sys.stdin.read() if arguments.sql == "-" else arguments.sql
    answer = await database.query(sql)
    names = [column[0] for column in answer.description or ()]
    if arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
    else:
        writer = None
    shown: list[list[str]] = []
    terminal = sys.stdout.isatty()
    while rows := answer.fetchmany(1000):
        for row in rows:
            if arguments.json:
                print(safe_json(dict(zip(names, row, strict=True)), default=_as_text, terminal=terminal))
            elif writer is not None:
                cells = ["" if value is None else _plain(value) for value in row]
                writer.writerow(map(safe_lines, cells) if terminal else cells)
            else:
                shown.append(["" if value is None else _plain(value) for value in row])
    if not arguments.json and writer is None and names:
        _print_table(names, shown)
    return 0


def _print_table(names: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.table import Table  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(Text(safe(name)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe_lines(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _plain(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, default=_as_text)
        if isinstance(value, list | dict)
        else str(_as_text(value))
        if isinstance(value, datetime)
        else str(value)
    )


def _as_text(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)

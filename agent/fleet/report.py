"""Reports why, where and when servers ended, the most frequent causes first."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.terminal_text import safe

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.fleet.database import Database

BY = {
    "version": "concat_ws(' ', application, version)",
    "region": "region",
    "hour": "strftime(date_trunc('hour', ended), '%Y-%m-%d %H:00')",
    "day": "strftime(ended, '%Y-%m-%d')",
    "country": "country",
    "host": "host_id",
    "agent": "agent_version",
    "signal": "signal",
}
"""What causes can be broken down by, as SQL over `exits`."""
DEFAULT_BY = ("version", "region", "hour")

_BAD = "cause IS DISTINCT FROM 'clean'"


def make(database: Database, by: tuple[str, ...], limit: int) -> dict[str, Any]:
    """The report as data.

    Args:
        database: with its lives loaded.
        by: of `BY`.
        limit: rows of each table.
    """
    ((lives, deployments, bad, first, last, median, p95, longest, lost, lost_bytes, restarts),) = database.all(
        f"""
        SELECT count(*), count(DISTINCT deployment_id), count(*) FILTER ({_BAD}), min(ended), max(ended),
               median(uptime_seconds), quantile_cont(uptime_seconds, 0.95), max(uptime_seconds),
               count(*) FILTER (logs_lost),
               coalesce(sum(coalesce(log_bytes_dropped, 0) + coalesce(log_bytes_not_shipped, 0)), 0),
               coalesce(sum(restarts), 0)
        FROM exits
        """  # noqa: S608 - all of it is our own
    )
    return {
        "store": database.shown,
        "lives": lives,
        "deployments": deployments,
        "bad_ends": bad,
        "from": first,
        "to": last,
        "life_seconds": {"median": median, "p95": p95, "longest": longest},
        "logs_lost": {"lives": lost, "bytes": int(lost_bytes)},
        "restarts": int(restarts),
        "without_exit_json": len(database.found.without),
        "unreadable": sorted(database.found.unreadable),
        "causes": _causes(database),
        "by": {name: _by(database, BY[name], limit) for name in by},
        "worst": _worst(database, limit),
    }


def _causes(database: Database) -> list[dict[str, Any]]:
    names = ("cause", "lives", "share", "median_life_seconds", "p95_life_seconds", "logs_lost", "last", "example")
    found = database.all(
        """
        SELECT coalesce(cause, 'unknown') AS what, count(*) AS lives, count(*) / sum(count(*)) OVER (),
               median(uptime_seconds), quantile_cont(uptime_seconds, 0.95), count(*) FILTER (logs_lost), max(ended),
               arg_max(deployment_id, ended)
        FROM exits GROUP BY what ORDER BY what = 'clean', lives DESC, what
        """
    )
    return [dict(zip(names, row, strict=True)) for row in found]


def _by(database: Database, key: str, limit: int) -> list[dict[str, Any]]:
    names = ("name", "lives", "bad_ends", "share", "median_life_seconds", "logs_lost", "causes")
    found = database.all(
        f"""
        WITH named AS (SELECT coalesce(nullif({key}, ''), 'unknown') AS name, * FROM exits),
             causes AS (SELECT name, cause, count(*) AS n FROM named WHERE {_BAD} GROUP BY ALL)
        SELECT name, count(*) AS lives, count(*) FILTER ({_BAD}) AS bad, bad / lives AS share, median(uptime_seconds),
               count(*) FILTER (logs_lost),
               (SELECT string_agg(n || ' ' || coalesce(cause, 'unknown'), ', ' ORDER BY n DESC, cause)
                FROM causes WHERE causes.name = named.name)
        FROM named GROUP BY name ORDER BY bad DESC, share DESC, name LIMIT ?
        """,  # noqa: S608 - as above
        limit,
    )
    return [dict(zip(names, row, strict=True)) for row in found]


def _worst(database: Database, limit: int) -> list[dict[str, Any]]:
    """Groups of bad ends that look alike: same version, same cause, same sentence but for its numbers."""
    names = ("lives", "version", "cause", "summary", "last", "example")
    found = database.all(
        f"""
        SELECT count(*) AS lives, concat_ws(' ', application, version) AS what, coalesce(cause, 'unknown') AS why,
               arg_max(summary, ended), max(ended), arg_max(deployment_id, ended)
        FROM exits WHERE {_BAD}
        GROUP BY what, why, regexp_replace(coalesce(summary, ''), '[0-9]+', '0', 'g')
        ORDER BY lives DESC, what, why LIMIT ?
        """,  # noqa: S608 - as above
        limit,
    )
    return [dict(zip(names, row, strict=True)) for row in found]


# For people ----------------------------------------------------------------------------------------------------------


def render(report: dict[str, Any]) -> RenderableType:
    """The report as tables."""
    from rich.console import Group  # noqa: PLC0415 - only for people
    from rich.text import Text  # noqa: PLC0415 - likewise

    lives, life, lost = report["lives"], report["life_seconds"], report["logs_lost"]
    restarts = _counted(report["restarts"], "restart")
    lines = [
        f"{_counted(lives, 'life', 'lives')} of {_counted(report['deployments'], 'deployment')} in {report['store']}"
        + (f", ended {_moment(report['from'])} to {_moment(report['to'])}" if lives else ""),
    ]
    if lives:
        lines += [
            f"{report['bad_ends']} ({report['bad_ends'] / lives:.1%}) ended badly; {restarts}",
            f"Lives: {_span(life['median'])} (median), {_span(life['p95'])} (95 %), {_span(life['longest'])} (longest)",
            f"Logs were lost in {lost['lives']} ({lost['lives'] / lives:.1%}), {_bytes(lost['bytes'])} in all",
        ]
    if report["without_exit_json"]:
        lines.append(
            f"{report['without_exit_json']} more left no exit.json: they still run, or everything was killed at once"
        )
    if report["unreadable"]:
        lines.append(f"{len(report['unreadable'])} cannot be read, such as {report['unreadable'][0]}")
    parts: list[RenderableType] = [Text("\n".join(lines))]
    if not lives:
        return Group(*parts)
    causes = _table("Causes", "cause", "lives", "share", "median life", "95 %", "logs lost", "last", "such as")
    for one in report["causes"]:
        _row(
            causes,
            one["cause"],
            one["lives"],
            f"{one['share']:.1%}",
            _span(one["median_life_seconds"]),
            _span(one["p95_life_seconds"]),
            one["logs_lost"],
            _moment(one["last"]),
            one["example"],
        )
    parts.append(causes)
    if report["worst"]:
        worst = _table("Most frequent bad ends", "lives", "version", "what happened", "last", "such as")
        for one in report["worst"]:
            _row(
                worst,
                one["lives"],
                one["version"],
                one["summary"] or one["cause"],
                _moment(one["last"]),
                one["example"],
            )
        parts.append(worst)
    for name, rows in report["by"].items():
        table = _table(f"By {name}", name, "lives", "bad ends", "share", "median life", "logs lost", "causes")
        for one in rows:
            _row(
                table,
                one["name"],
                one["lives"],
                one["bad_ends"],
                f"{one['share']:.1%}",
                _span(one["median_life_seconds"]),
                one["logs_lost"],
                one["causes"],
            )
        parts.append(table)
    return Group(*parts)


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), title_style="bold")
    for column in columns:
        numbers = column in ("lives", "share", "bad ends", "logs lost", "median life", "95 %")
        table.add_column(
            column, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold", header_style="dim"
        )
    return table


def _row(table: Any, *cells: object) -> None:
    from rich.text import Text  # noqa: PLC0415 - as above

    table.add_row(*(Text("" if cell is None else safe(str(cell))) for cell in cells))


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"

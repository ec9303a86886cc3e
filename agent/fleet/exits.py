"""Converts one `exit.json` to one row with stable columns for all versions of the agent. Pure.

Parsing is tolerant, because a fleet runs several versions of the agent at once: a missing field, or one of another
type, is null; an unknown one is only in `document`. A document with a newer `schema` is parsed too: an incompatible
change always gets a new field name.
"""

from __future__ import annotations

import json
import re
from typing import Any

COLUMNS: dict[str, tuple[str, str]] = {
    "directory": ("VARCHAR", "key of the run's directory in the store"),
    "deployment_id": ("VARCHAR", "the platform's id; null outside of the platform"),
    "attempt": ("BIGINT", "which start of the game for this deployment"),
    "application": ("VARCHAR", "AGENT_APP_NAME: from the document, else from the key"),
    "version": ("VARCHAR", "AGENT_APP_VERSION, likewise"),
    "cause": (
        "VARCHAR",
        "clean, stopped_as_asked, exit_code, signal, crashed, out_of_memory, killed_by_agent, heartbeat_lost, …",
    ),
    "summary": ("VARCHAR", "the cause in a sentence"),
    "reason": ("VARCHAR", "why the deployment ended, in the words of the lifecycle"),
    "exit_code": ("BIGINT", "what the agent exited with"),
    "code": ("BIGINT", "exit code of the game"),
    "signal": ("VARCHAR", "name of the signal that ended the game"),
    "core_dumped": ("BOOLEAN", "whether the kernel says that it wrote a core"),
    "started": ("TIMESTAMPTZ", "when the game was started"),
    "ready": ("TIMESTAMPTZ", "when players could come"),
    "stop_requested": ("TIMESTAMPTZ", "when the stop was asked for"),
    "ended": ("TIMESTAMPTZ", "when the game was gone; else when the directory's name says that the agent started"),
    "uptime_seconds": ("DOUBLE", "from start to end"),
    "stop_source": ("VARCHAR", "who asked for the stop"),
    "stop_reason": ("VARCHAR", "why"),
    "restarts": ("BIGINT", "restarts of the game after a crash"),
    "players": ("BIGINT", "players at the end, where they are known"),
    "memory_peak_bytes": ("BIGINT", "the most memory that the container used"),
    "memory_limit_bytes": ("BIGINT", "what it was given"),
    "oom_kills": ("BIGINT", "processes that the kernel killed for memory"),
    "cpu_used_seconds": ("DOUBLE", "CPU time of the container"),
    "cpu_throttled_seconds": ("DOUBLE", "how long it waited at its CPU limit"),
    "log_bytes_dropped": ("BIGINT", "bytes of the log that were given up"),
    "log_bytes_not_shipped": ("BIGINT", "bytes of the log and of kept files that did not reach the store"),
    "logs_lost": ("BOOLEAN", "whether either of the two is more than 0"),
    "city": ("VARCHAR", "where it ran"),
    "country": ("VARCHAR", "likewise"),
    "continent": ("VARCHAR", "likewise"),
    "region": ("VARCHAR", "city and country in one, for people"),
    "host_id": ("VARCHAR", "the platform's host"),
    "tags": ("VARCHAR[]", "the tags that were injected"),
    "match_id": ("VARCHAR", "the match, where a matchmaker says"),
    "agent_version": ("VARCHAR", "of the agent that wrote it"),
    "schema": ("BIGINT", "of the document"),
    "last_output": ("VARCHAR", "the last line that the game wrote"),
    "document": ("JSON", "all of exit.json but output_tail"),
}
"""Name: type and meaning. `docs/fleet.md` has the same table, and a test compares them."""

_RUN = re.compile(r"(?:(?P<above>.*)/)?(?P<time>\d{8}T\d{6}Z)-(?P<id>[^/]+)-(?P<attempt>\d+)")
_LONGEST_LINE = 300


def row(directory: str, document: dict[str, Any]) -> dict[str, object]:
    """The row of one document.

    Args:
        directory: key of the run's directory, which says what the document leaves out.
        document: the content of `exit.json`.

    Returns:
        A value, or None, for each of `COLUMNS`.
    """
    at = _Reader(document)
    known = parts_of(directory)
    city, country = at.text("deployment", "location", "city"), at.text("deployment", "location", "country")
    dropped = at.whole("shipping", "spool", "bytes_dropped")
    if dropped is None:
        dropped = at.whole("logs", "spool_bytes_dropped")
    parts = at.value("shipping", "not_shipped")
    missing = (
        sum(_whole(part.get("bytes")) or 0 for part in parts if isinstance(part, dict))
        if isinstance(parts, list)
        else None
    )
    tags = at.value("deployment", "tags")
    return {
        "directory": directory,
        "deployment_id": at.text("deployment", "request_id") or known["deployment_id"],
        "attempt": known["attempt"] if known["attempt"] is not None else at.whole("attempt"),
        "application": at.text("application") or known["application"],
        "version": at.text("version") or known["version"],
        "cause": at.text("cause"),
        "summary": at.text("summary"),
        "reason": at.text("reason"),
        "exit_code": at.whole("exit_code"),
        "code": at.whole("code"),
        "signal": at.text("signal"),
        "core_dumped": at.flag("core_dumped"),
        "started": at.time("times", "started"),
        "ready": at.time("times", "ready"),
        "stop_requested": at.time("times", "stop_requested"),
        "ended": at.time("times", "ended") or known["time"],
        "uptime_seconds": at.number("uptime_seconds"),
        "stop_source": at.text("stop", "source"),
        "stop_reason": at.text("stop", "reason"),
        "restarts": at.whole("restarts"),
        "players": at.whole("players", "count"),
        "memory_peak_bytes": at.whole("memory", "peak_bytes"),
        "memory_limit_bytes": at.whole("memory", "limit_bytes"),
        "oom_kills": at.whole("memory", "oom_kills"),
        "cpu_used_seconds": at.number("cpu", "used_seconds"),
        "cpu_throttled_seconds": at.number("cpu", "throttled_seconds"),
        "log_bytes_dropped": dropped,
        "log_bytes_not_shipped": missing,
        "logs_lost": None if dropped is None and missing is None else bool(dropped or missing),
        "city": city,
        "country": country,
        "continent": at.text("deployment", "location", "continent"),
        "region": ", ".join(part for part in (city, country) if part) or None,
        "host_id": at.text("deployment", "host_id"),
        "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else None,
        "match_id": at.text("deployment", "match", "match_id"),
        "agent_version": at.text("agent_version"),
        "schema": at.whole("schema"),
        "last_output": _last_line(at.text("output_tail") or ""),
        "document": {name: value for name, value in document.items() if name != "output_tail"},
    }


def line(row: dict[str, object]) -> bytes:
    """A row as a line of JSON that every database takes: lone surrogates, which are no UTF-8, become `?`."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def parse(content: bytes) -> dict[str, Any] | None:
    """The content of an `exit.json`; None where it is no JSON object. NaN and infinity, which are no JSON, are null."""
    try:
        document = json.loads(content, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def parts_of(directory: str) -> dict[str, Any]:
    """What the key of a run's directory says: application, version, deployment_id, attempt, time (None where nothing).

    Both layouts are understood: `application=arena/version=v12/...` anywhere above, and the default `arena/v12/`.
    """
    found: dict[str, Any] = dict.fromkeys(("application", "version", "deployment_id", "attempt", "time"))
    match = _RUN.fullmatch(directory)
    if match is None:
        return found
    above = [part for part in (match["above"] or "").split("/") if part]
    named = dict(part.split("=", 1) for part in above if "=" in part)
    plain = [part for part in above if "=" not in part]
    if named:
        found["application"], found["version"] = _known(named.get("application")), _known(named.get("version"))
    elif len(plain) >= 2:
        found["application"], found["version"] = _known(plain[-2]), _known(plain[-1])
    moment = match["time"]
    found["deployment_id"] = _known(match["id"])
    found["attempt"] = int(match["attempt"])
    found["time"] = f"{moment[:4]}-{moment[4:6]}-{moment[6:11]}:{moment[11:13]}:{moment[13:15]}Z"
    return found


def _known(value: str | None) -> str | None:
    """What is not known is written `_` in keys (`agent.logs.target.clean`)."""
    return None if value in (None, "", "_") else value


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 2**53 else None  # NaN is none either


_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})")


class _Reader:
    """Values by path, each as the type that is wanted, or None."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def value(self, *path: str) -> object:
        here: object = self._document
        for name in path:
            if not isinstance(here, dict):
                return None
            here = here.get(name)
        return here

    def text(self, *path: str) -> str | None:
        found = self.value(*path)
        return found if isinstance(found, str) else None

    def flag(self, *path: str) -> bool | None:
        found = self.value(*path)
        return found if isinstance(found, bool) else None

    def time(self, *path: str) -> str | None:
        found = self.value(*path)
        return found if isinstance(found, str) and _TIME.fullmatch(found) else None

    def number(self, *path: str) -> float | None:
        found = self.value(*path)
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return float(found) if abs(found) < 2**63 else None  # NaN and infinity are none either

    def whole(self, *path: str) -> int | None:
        return _whole(self.value(*path))


def _last_line(tail: str) -> str | None:
    return next((line.strip()[:_LONGEST_LINE] for line in reversed(tail.split("\n")) if line.strip()), None)

"""Rows from `exit.json`, whatever is in it, and what `--since` takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.fleet.cli import since
from agent.fleet.database import read_json
from agent.fleet.exits import COLUMNS, line, parse, parts_of, row
from tests import lives

DOCS = Path(__file__).parents[2] / "docs" / "fleet.md"
ENDED = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
RUN = "20261127T115000Z-23c01225b99d-2"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def test_what_the_agent_writes_fills_the_columns() -> None:
    """The builder is the agent's own: a field that is renamed there is missed here."""
    document = lives.document(ended=ENDED, code=None, signal=9, oom_kills=1, dropped=10)
    found = row(f"application=arena/version=v2/date=2026-11-27/{RUN}", document)
    assert list(found) == list(COLUMNS)
    assert {
        name: found[name] for name in ("deployment_id", "attempt", "application", "version", "cause", "region")
    } == {
        "deployment_id": "23c01225b99d",
        "attempt": 2,
        "application": "arena",
        "version": "v2",
        "cause": "out_of_memory",
        "region": "Montreal, Canada",
    }
    assert (found["ended"], found["uptime_seconds"], found["oom_kills"]) == ("2026-11-27T12:00:00.000Z", 600.0, 1)
    assert (found["logs_lost"], found["log_bytes_dropped"], found["last_output"]) == (True, 10, "match over")
    always = {"match_id", "stop_requested", "stop_source", "stop_reason", "code"}  # nobody asked for this stop
    absent = {name for name, value in found.items() if value is None}
    assert absent <= always | {"memory_limit_bytes", "cpu_used_seconds", "cpu_throttled_seconds", "continent"}
    assert found["document"] == {name: value for name, value in document.items() if name != "output_tail"}


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """One for all examples."""
    with duckdb.connect() as connection:
        yield connection


@settings(max_examples=20)
@given(
    st.dictionaries(
        st.sampled_from(["cause", "times", "deployment", "shipping", "logs", "memory", "players", "attempt", "schema"]),
        anything
        | st.dictionaries(
            st.sampled_from(["started", "ended", "location", "tags", "spool", "not_shipped", "count", "oom_kills"]),
            anything,
        ),
    )
)
def test_no_document_whatever_its_fields_hold_is_more_than_a_row_that_duckdb_takes(
    database: duckdb.DuckDBPyConnection, document: dict[str, Any]
) -> None:
    """A fleet has agents of several versions, and one odd document must not hide all the others."""
    read = parse(json.dumps(document).encode())
    assert read is not None
    with tempfile.NamedTemporaryFile() as file:
        file.write(line(row(f"arena/v1/{RUN}", read)))
        file.flush()
        source = read_json(file.name, {name: kind for name, (kind, _) in COLUMNS.items()})
        found = database.execute(f"SELECT attempt, json_type(document) FROM {source}").fetchall()  # noqa: S608 - our own
    assert found == [(2, "OBJECT")]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null", b"[" * 100_000])
def test_what_is_no_json_object_is_none(content: bytes) -> None:
    """An upload that was cut off, or something else under this name."""
    assert parse(content) is None


@pytest.mark.parametrize(
    ("directory", "application", "version"),
    [
        (f"arena/v1/{RUN}", "arena", "v1"),
        (f"games/eu/arena/v1/{RUN}", "arena", "v1"),
        (f"_/_/{RUN}", None, None),
        (f"application=arena/version=v1/date=2026-11-27/{RUN}", "arena", "v1"),
        (f"eu/version=v1/{RUN}", None, "v1"),
        (f"v1/{RUN}", None, None),
        (RUN, None, None),
    ],
)
def test_application_and_version_are_read_from_the_key_in_both_layouts(
    directory: str, application: str | None, version: str | None
) -> None:
    """And nothing is made up where it has neither."""
    found = parts_of(directory)
    assert (found["application"], found["version"]) == (application, version)
    assert (found["attempt"], found["time"]) == (2, "2026-11-27T11:50:00Z")


def test_a_time_is_a_span_a_day_or_a_moment() -> None:
    """In UTC where no zone is said."""
    assert since("90m", ENDED) == ENDED - timedelta(minutes=90)
    assert since("7d", ENDED) == ENDED - timedelta(days=7)
    assert since("2026-11-01", ENDED) == datetime(2026, 11, 1, tzinfo=UTC)
    assert since("2026-11-01T01:00:00+01:00", ENDED) == datetime(2026, 11, 1, tzinfo=UTC)
    for wrong in ("", "yesterday", "7", "-7d", "7y", "999999999d"):
        with pytest.raises(ValueError, match=r"takes a span such as 24h or 7d"):
            since(wrong, ENDED)


def test_the_documentation_lists_the_columns_as_they_are() -> None:
    """The table in docs/fleet.md is what other programs are written against."""
    text = DOCS.read_text()
    for name, (kind, meaning) in COLUMNS.items():
        assert f"| `{name}` | {kind} | {meaning} |" in text

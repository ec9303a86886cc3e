"""`arbitrium-agent fleet` over stores with lives in them: a directory and a real S3 server."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from agent import cli
from tests import lives
from tests.stores import s3_server

NOW = datetime.now(UTC).replace(microsecond=0)


class Ended(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def fleet(*arguments: str, environ: Mapping[str, str] | None = None, text: str = "") -> Ended:
    """Runs the command, in this process: its database takes half a second to import."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AGENT_"))}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, clean | dict(environ or {}), clear=True),
        mock.patch.object(sys, "stdin", io.StringIO(text)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.main(["fleet", *arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def report(*arguments: str, environ: Mapping[str, str] | None = None) -> Any:
    """The report as data."""
    done = fleet("report", "--json", *arguments, environ=environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fill(root: Path, layout: str = lives.LAYOUT) -> None:
    """A small fleet: two clean ends, an OOM kill, two crashes, one that still runs, one that cannot be read."""

    def life(number: int, hours: float, version: str = "v1", lines: tuple[str, ...] = (), **how: Any) -> None:
        ended = NOW - timedelta(hours=hours)
        deployment = f"{number:012x}"
        content = lives.document(ended=ended, deployment=deployment, **how)
        started = ended - timedelta(seconds=600)
        lives.put(root, content, started=started, deployment=deployment, version=version, layout=layout, lines=lines)

    life(1, 1, lines=("hello", "FATAL: no such map"))
    life(2, 2, dropped=7)
    life(3, 3, version="v2", code=None, signal=9, oom_kills=1, place=("Paris", "France"), lines=("FATAL: bad alloc",))
    life(4, 30, version="v2", code=None, signal=11)
    life(5, 31, version="v2", code=None, signal=11)
    lives.put(root, None, started=NOW - timedelta(minutes=5), deployment="00000000000a", layout=layout)
    lives.put(root, b'{"cause": "cle', started=NOW - timedelta(minutes=6), deployment="00000000000b", layout=layout)


@pytest.mark.parametrize("layout", [lives.LAYOUT, lives.DEFAULT_LAYOUT])
def test_a_report_counts_what_ended_how_where_and_when_the_worst_first(tmp_path: Path, layout: str) -> None:
    """In the hive layout and in the default one."""
    fill(tmp_path, layout)
    made = report(str(tmp_path))
    assert (made["lives"], made["deployments"], made["bad_ends"]) == (5, 5, 3)
    assert (made["without_exit_json"], len(made["unreadable"])) == (1, 1)
    assert made["logs_lost"] == {"lives": 1, "bytes": 7}
    assert made["life_seconds"]["median"] == 600
    assert [(one["cause"], one["lives"]) for one in made["causes"]] == [
        ("signal", 2),
        ("out_of_memory", 1),
        ("clean", 2),
    ]
    versions = [(one["name"], one["lives"], one["bad_ends"], one["causes"]) for one in made["by"]["version"]]
    assert versions == [("arena v2", 3, 3, "2 signal, 1 out_of_memory"), ("arena v1", 2, 0, None)]
    assert made["by"]["region"][0]["name"] == "Montreal, Canada"
    assert len(made["by"]["hour"]) == 5
    assert (made["worst"][0]["lives"], "SIGSEGV" in made["worst"][0]["summary"]) == (2, True)


@pytest.mark.slow
def test_since_leaves_out_what_ended_before(tmp_path: Path) -> None:
    """Of whole days by their names, and of the rest by the end, not by the start."""
    fill(tmp_path)
    assert report(str(tmp_path), "--since", "24h")["lives"] == 3
    assert report(str(tmp_path), "--since", "2000-01-01")["lives"] == 5
    assert report(str(tmp_path), "--since", "1m")["lives"] == 0


@pytest.mark.slow
def test_a_bucket_is_read_as_a_directory_is(tmp_path: Path) -> None:
    """With the variables and the URL that the agent ships with, logs included; wrong keys are said."""
    with s3_server(tmp_path) as store:
        fill(tmp_path / "logs" / "games")
        environ = store.environ()
        url = {"AGENT_LOG_URL": "s3://logs/games"}
        assert report("s3://logs/games", environ=environ)["lives"] == 5
        assert report("--since", "24h", environ=environ | url)["lives"] == 3
        sql = "SELECT deployment_id, line FROM logs JOIN exits USING (directory) WHERE line LIKE 'FATAL%' ORDER BY ALL"
        done = fleet("query", "--json", sql, environ=environ | url)
        assert [json.loads(line) for line in done.stdout.splitlines()] == [
            {"deployment_id": "000000000001", "line": "FATAL: no such map"},
            {"deployment_id": "000000000003", "line": "FATAL: bad alloc"},
        ]
        done = fleet("report", environ=environ | url | {"AWS_SECRET_ACCESS_KEY": "wrong"})
        assert done.returncode == 1
        assert done.stderr.startswith("cannot read s3://logs/games: 403")


@pytest.mark.slow
def test_a_report_for_people_is_tables(tmp_path: Path) -> None:
    """Nothing of a table is cut off in a pipe."""
    fill(tmp_path)
    done = fleet("report", str(tmp_path), "--by", "signal")
    assert done.returncode == 0, done.stderr
    for words in (
        "5 lives of 5 deployments",
        "3 (60.0%) ended badly",
        "Most frequent bad ends",
        "By signal",
        "SIGSEGV",
    ):
        assert words in done.stdout
    assert "left no exit.json" in done.stdout
    assert fleet("report", "--since", "1m", str(tmp_path)).stdout.startswith("0 lives")


@pytest.mark.slow
def test_a_query_answers_in_the_form_that_was_asked_for(tmp_path: Path) -> None:
    """A table, CSV, JSON; from stdin as well; times in UTC."""
    fill(tmp_path)
    sql = "SELECT deployment_id, tags, ended FROM exits WHERE cause = 'out_of_memory'"
    (row,) = csv.DictReader(io.StringIO(fleet("query", "--csv", sql, str(tmp_path)).stdout))
    assert row["tags"] == '["ranked"]'
    assert datetime.fromisoformat(row["ended"]) == NOW - timedelta(hours=3)
    assert json.loads(fleet("query", "--json", "-", str(tmp_path), text=sql).stdout)["tags"] == ["ranked"]
    assert "000000000003" in fleet("query", sql, str(tmp_path)).stdout
    assert "uptime_seconds" in fleet("query", "DESCRIBE exits", str(tmp_path)).stdout
    target = tmp_path / "exits.parquet"
    assert fleet("query", f"COPY exits TO '{target}'", str(tmp_path)).returncode == 0
    assert target.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "SELEC 1", "."], "cannot run the query: "),
        (["report"], "cannot look at a fleet: no store is given and AGENT_LOG_URL is not set"),
        (["report", "/nowhere"], "cannot read a fleet from file:///nowhere: there is no such directory"),
        (
            ["report", "https://example.com/logs"],
            "cannot read a fleet from https://example.com/logs: plain HTTP has no",
        ),
        (["report", "ftp://example.com"], "cannot read a fleet from 'ftp://example.com': it takes a URL such as"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    """In one sentence, without a traceback."""
    done = fleet(*(str(tmp_path) if one == "." else one for one in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr

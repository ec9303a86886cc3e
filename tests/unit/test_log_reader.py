"""What was shipped is found, put together in order, and its gaps are shown."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import zstandard

from agent.cli import main
from agent.logs import objects, runs
from agent.logs.reader import LogReader, document, find_runs, joined
from agent.logs.sources import SourceError, SpoolSource, open_source
from agent.logs.spool import Spool

OLD = "arena/v1/20250101T000000Z-aaaaaaaaaaaa-1"
NEW = "arena/v1/20250102T000000Z-bbbbbbbbbbbb-1"
AGAIN = "arena/v1/20250102T000000Z-bbbbbbbbbbbb-2"


def packed(*items: dict[str, object]) -> bytes:
    """A segment."""
    return zstandard.compress(b"".join(json.dumps(item).encode() + b"\n" for item in items))


def line(text: str, stream: str = "stdout", **more: object) -> dict[str, object]:
    """One line of a segment."""
    return {"ts": "2025-01-02T00:00:00.000000Z", "stream": stream, "line": text, **more}


def put(root: Path, files: dict[str, bytes | dict[str, object]]) -> None:
    """Writes objects as a store has them."""
    for key, content in files.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A directory with two deployments; the newer one had two attempts."""
    root = tmp_path / "store"
    put(
        root,
        {
            f"{OLD}/000001-20250101T000000.000Z.ndjson.zst": packed(line("old")),
            f"{OLD}/exit.json": {"cause": "clean"},
            f"{NEW}/000001-20250102T000000.000Z.ndjson.zst": packed(line("one"), line("half ", partial=True)),
            f"{NEW}/000002-20250102T000001.000Z.ndjson.zst": packed(line("err", "stderr"), line("line")),
            f"{NEW}/000005-20250102T000002.000Z.ndjson.zst": packed(
                line("[arbitrium-agent] 99 bytes of log are missing here: why", "agent", dropped_bytes=99), line("five")
            ),
            f"{NEW}/exit.json": {
                "cause": "exit_code",
                "summary": "the game ended with exit code 3",
                "shipping": {
                    "not_shipped": [{"what": "000006-20250102T000003.000Z.ndjson.zst", "bytes": 1, "why": "no time"}]
                },
            },
            f"{NEW}/keep/20250102T000000Z-x-1/000001-20250102T000000.000Z.ndjson.zst.zst": b"not a segment",
            f"{AGAIN}/run.json": {"first_segment": 7},
            f"{AGAIN}/000007-20250102T000009.000Z.ndjson.zst": packed(line("again \x1b[31mred\u0007")),
        },
    )
    return root


def run(*arguments: str) -> int:
    """A command as a user calls it."""
    return main(list(arguments))


def test_runs_are_found_by_deployment_and_sorted_by_time(store: Path) -> None:
    """Wherever the template put them."""
    source = open_source(str(store), {})
    found = find_runs(source)
    assert [(one.deployment_id, one.attempt) for one in found] == [
        ("aaaaaaaaaaaa", 1),
        ("bbbbbbbbbbbb", 1),
        ("bbbbbbbbbbbb", 2),
    ]
    assert [one.attempt for one in find_runs(source, "bbbbbbbbbbbb")] == [1, 2]


def test_lines_are_put_together_and_gaps_are_shown(store: Path) -> None:
    """In the order of the segments, whatever the store lists first."""
    source = open_source(str(store), {})
    [first, _] = find_runs(source, "bbbbbbbbbbbb")
    items = list(joined(LogReader(source, first).more()))
    assert [item.text for item in items] == [
        "one",
        "err",
        "half line",
        "[arbitrium-agent] segments 3 to 4 of the log: not in the store: dropped, or not shipped",
        "[arbitrium-agent] 99 bytes of log are missing here: why",
        "five",
    ]


def test_a_segment_that_is_damaged_is_a_gap(store: Path) -> None:
    """The others are read all the same."""
    path = store / OLD / "000002-20250101T000001.000Z.ndjson.zst"
    path.write_bytes(b"not zstd")
    source = open_source(str(store), {})
    items = list(LogReader(source, find_runs(source)[0]).more())
    assert [item.gap for item in items] == [False, True]
    assert "segment 2 of the log: it is damaged" in items[1].text


def test_the_command_prints_the_newest_deployment(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an id; and says what is known of its end."""
    assert run("logs", "--url", str(store)) == 0
    out, err = capsys.readouterr()
    assert out == "2025-01-02T00:00:00.000000Z stdout again \x1b[31mred\x07\n"
    assert "left no exit.json" in err


def test_the_command_prints_all_attempts_of_a_deployment(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its id; what was not shipped is shown at the end of its attempt."""
    assert run("logs", "bbbbbbbbbbbb", "--url", str(store), "--raw") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["one", "err", "half line", "five", "again \x1b[31mred\x07"]
    assert "segments 3 to 4" in err
    assert "segment 6 of the log: not shipped: no time" in err
    assert run("logs", "bbbbbbbbbbbb", "--url", f"file://{store}", "--attempt", "2", "--raw") == 0
    assert capsys.readouterr().out == "again \x1b[31mred\x07\n"


def test_the_command_searches_and_filters(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Like grep: 1 when nothing is found; a pattern that is none is an error."""
    assert run("logs", "bbbbbbbbbbbb", "--url", str(store), "-g", "^(half|five)", "--json", "--attempt", "1") == 0
    found = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [item["line"] for item in found if not item.get("gap")] == ["half ", "five"]
    assert run("logs", "bbbbbbbbbbbb", "--url", str(store), "-s", "stderr", "--raw") == 0
    assert capsys.readouterr().out == "err\n"
    assert run("logs", "aaaaaaaaaaaa", "--url", str(store), "-g", "nothing") == 1
    capsys.readouterr()
    assert run("logs", "aaaaaaaaaaaa", "--url", str(store), "-g", "[") == 1
    assert capsys.readouterr().err.startswith("cannot search for '['")


def test_the_command_lists_what_there_is(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line an attempt."""
    assert run("logs", "--list", "--url", str(store)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1] == "20250102T000000Z  bbbbbbbbbbbb  attempt 1  3 segments  exit_code"
    assert lines[2].endswith("1 segments  no exit.json")


def test_autopsy_prints_the_story(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the newest attempt that is asked for; and what it can where there is no exit.json."""
    assert run("autopsy", "bbbbbbbbbbbb", "--attempt", "1", "--url", str(store)) == 0
    assert "exit_code: the game ended with exit code 3" in capsys.readouterr().out
    assert run("autopsy", "aaaaaaaaaaaa", "--url", str(store), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"cause": "clean"}
    assert run("autopsy", "bbbbbbbbbbbb", "--url", str(store)) == 1
    out = capsys.readouterr().out
    assert "It left no exit.json" in out
    assert "again \\x1b[31mred" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--url", "nonsense://x"], "cannot read logs from 'nonsense://x': --url takes a URL"),
        (["--url", "/does/not/exist"], "there is no such directory"),
        (["--url", "https://host/put"], "plain HTTP has no listing"),
        (["--url", "/does/not/exist.tar"], "cannot read the archive"),
        (["--spool", "/does/not/exist"], "there is no spool directory /does/not/exist"),
        (["nobody", "--url", "STORE"], "cannot find deployment nobody in"),
        (["nobody", "--attempt", "9", "--url", "STORE"], "deployment nobody, attempt 9"),
    ],
)
def test_what_cannot_be_read_is_said(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """In one line, with exit code 1."""
    assert run("logs", *[str(store) if word == "STORE" else word for word in arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("cannot ")
    assert says in err


def test_an_archive_is_read_like_a_store(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What came through a presigned URL."""
    archive = tmp_path / "logs.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(store.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(str(path.relative_to(store)))
                info.size = path.stat().st_size
                tar.addfile(info, io.BytesIO(path.read_bytes()))
    assert run("logs", "aaaaaaaaaaaa", "--url", str(archive), "--raw") == 0
    assert capsys.readouterr().out == "old\n"


def test_a_spool_is_read_while_it_is_written(tmp_path: Path) -> None:
    """What an agent on this machine has not shipped yet: nothing twice, and no half line."""
    spool = Spool(str(tmp_path / "spool"), 1 << 20)
    try:
        source = SpoolSource(str(tmp_path / "spool"))
        spool.append("stdout", b"one\ntwo, h")
        assert spool.flush(time.monotonic() + 10)
        [found] = find_runs(source)
        log = LogReader(source, found)
        assert [item.text for item in log.more()] == ["one"]
        assert list(log.more()) == []
        spool.append("stdout", b"alf\nthree\n")
        spool.seal()
        assert spool.flush(time.monotonic() + 10)
        assert [item.text for item in log.more()] == ["two, half", "three"]
        spool.append("stdout", b"four\n")
        assert spool.flush(time.monotonic() + 10)
        assert [item.text for item in log.more()] == ["four"]
        assert log.last_number == 1
        assert os.path.exists(f"{spool.run}/000002{runs.OPEN}")
        assert objects.name(spool.segments()[0], "ndjson").startswith("000001-")
    finally:
        spool.close(time.monotonic() + 10)


def test_following_goes_on_until_the_end(store: Path) -> None:
    """New segments are printed as they come; exit.json ends it."""
    command = [sys.executable, "-m", "agent", "logs", "-f", "--url", str(store), "--raw"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"again \x1b[31mred\x07\n"
        put(store, {f"{AGAIN}/000008-20250102T000010.000Z.ndjson.zst": packed(line("more"))})
        assert follower.stdout.readline() == b"more\n"
        put(store, {f"{AGAIN}/000010-20250102T000010.000Z.ndjson.zst": packed(line("last"))})
        put(store, {f"{AGAIN}/exit.json": {"cause": "clean"}})
        out, err = follower.communicate(timeout=30)
    assert out == b"last\n"
    assert b"segment 9 of the log: not in the store" in err
    assert follower.returncode == 0


def test_an_exit_json_that_is_none_is_said(store: Path) -> None:
    """Somebody edited it."""
    (store / OLD / "exit.json").write_text("{")
    source = open_source(str(store), {})
    with pytest.raises(SourceError, match=r"it is no JSON"):
        document(source, find_runs(source)[0])

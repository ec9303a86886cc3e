"""What is left to read afterwards: `exit.json`, the spool, and both where `AGENT_LOG_URL` wants them."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakePlatform
from tests.process.harness import Launcher, Mode, Run, eventually, game
from tests.variants import one_fast


def with_store(launch: Launcher) -> tuple[Path, dict[str, str]]:
    """A directory as a store, and the setting that makes it one."""
    store = launch.files / "store"
    return store, {"AGENT_LOG_URL": store.as_uri()}


def story_in(store: Path) -> dict[str, Any]:
    """The one `exit.json` below a directory."""
    (path,) = store.rglob("exit.json")
    story: dict[str, Any] = json.loads(path.read_text())
    return story


def logs_in(store: Path) -> bytes:
    """All that was delivered besides `exit.json`, unpacked."""
    found = b""
    for path in sorted(store.rglob("*")):
        if path.is_file() and path.name != "exit.json":
            data = path.read_bytes()
            if path.suffix == ".zst":
                import zstandard  # noqa: PLC0415 - only where it is shipped that way

                data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
            found += data
    return found


def moments(value: object) -> list[datetime]:
    """Every time stamp with a date in some JSON."""
    stamps = re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^\"]*", json.dumps(value))
    return [datetime.fromisoformat(stamp) for stamp in stamps]


def test_the_story_of_a_stop_by_the_game(launch: Launcher, platform: FakePlatform, mode: Mode) -> None:
    """Reason, who asked, cause, code, times, the plan and what happened, and the log: all delivered before the hold."""
    store, setting = with_store(launch)
    run = launch(game("polite", "5"), mode=mode, env={**platform.environment(), **setting})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    run.http("POST", "/v1/ready")
    run.http("POST", "/v1/stop", {"reason": "match over"})
    platform.wait_for_calls(1)
    story = story_in(store)
    assert run.stop().code == 5
    text = json.dumps(story)
    assert "match over" in text
    assert '"game"' in text, "who asked"
    assert story["reason"]
    assert story["cause"]
    assert story["code"] == 5
    assert story.get("signal") is None
    assert story["plan"]
    assert len(moments(story)) >= 2, "times"
    assert moments(story) == [moment for moment in moments(story) if moment.tzinfo], "with their zone"
    assert platform.deployment_id in text
    delivered = logs_in(store)
    assert b"ready" in delivered
    assert b"bye" in delivered


def test_the_story_of_a_death_by_signal(launch: Launcher) -> None:
    """A crash names the signal; nobody asked for it."""
    store, setting = with_store(launch)
    done = launch(game("dies_of_signal", "SIGSEGV"), env=setting).finish()
    assert done.code == 139
    story = story_in(store)
    assert "SEGV" in json.dumps(story["signal"]) or story["signal"] == 11
    assert "signal" in json.dumps(story["cause"])


@pytest.mark.slow
def test_the_story_of_a_game_that_just_ends(launch: Launcher) -> None:
    """Exit 0 by itself is a clean end."""
    store, setting = with_store(launch)
    assert launch(game("exits", "0"), env=setting).finish().code == 0
    story = story_in(store)
    assert story["code"] == 0
    assert "clean" in json.dumps(story["cause"])


def test_without_a_store_the_story_is_local(launch: Launcher) -> None:
    """Where nothing is shipped, `exit.json` and the log lie in the spool directory."""
    assert launch(game("exits", "3")).finish().code == 3
    spool = launch.files / "spool"
    assert story_in(spool)["code"] == 3
    assert b"ready" in logs_in(spool)


SECRET_KEY = "5ec2e7-5ec2e7-5ec2e7"


def s3_at(port: int) -> dict[str, str]:
    """Settings for an S3-compatible store on this machine."""
    endpoint = f"http://127.0.0.1:{port}"
    return {
        "AGENT_LOG_URL": "s3://bucket/prefix",
        "AWS_ENDPOINT": endpoint,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AGENT_GRACE_SECONDS": "5",
    }


@pytest.fixture(params=one_fast("hangs", "refuses"))
def bad_store(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Settings for a store that refuses connections, or takes them and never says a word."""
    with socket.socket() as store:
        store.bind(("127.0.0.1", 0))
        if request.param == "hangs":
            store.listen(100)
        yield s3_at(store.getsockname()[1])


def test_a_store_that_cannot_be_reached(launch: Launcher, bad_store: dict[str, str]) -> None:
    """A store that refuses or hangs costs no more than its share of the grace: the code is right, the loss is said."""
    run = launch(game("polite", "8"), env=bad_store)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 8
    assert done.seconds <= 5.0
    assert "cannot" in done.stderr
    assert SECRET_KEY not in done.stderr
    assert "Traceback" not in done.stderr
    assert story_in(launch.files / "spool")["code"] == 8


def test_sigterm_ends_an_hour_of_shipping(launch: Launcher, bad_store: dict[str, str]) -> None:
    """The game is gone, the store does not answer, an hour is allowed for it: the platform's SIGTERM still counts."""
    run = launch(game("polite", "8"), env={**bad_store, "AGENT_SHIP_SECONDS": "3600"})
    run.wait_for("ready")
    run.http("POST", "/v1/stop")
    eventually(lambda: run.http("GET", "/v1/status").json()["phase"] == "flushing", "the rest is shipped")
    done = run.stop()
    assert done.code == 8
    assert done.seconds <= 5.0


def test_a_spool_that_cannot_be_written(launch: Launcher) -> None:
    """A spool directory that cannot be made costs the spool, not the game: its output passes all the same."""
    (launch.files / "file").write_text("not a directory")
    done = launch(game("exits", "6"), env={"AGENT_SPOOL_DIR": str(launch.files / "file" / "spool")}).finish()
    assert done.code == 6
    assert done.stdout == b"ready\n"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_lives_in_one_directory(launch: Launcher) -> None:
    """A second run with the same spool and store replaces nothing of the first one's story."""
    store, setting = with_store(launch)
    for code in ("11", "12"):
        assert launch(game("exits", code), env=setting).finish().code == int(code)
    codes = sorted(json.loads(path.read_text())["code"] for path in store.rglob("exit.json"))
    assert codes == [11, 12]


@pytest.mark.parametrize("megabytes", [20])
def test_the_end_of_a_long_log_is_kept(launch: Launcher, megabytes: int) -> None:
    """What does not fit is dropped oldest first and said in numbers: the last line is there, the spool is bounded."""
    store, setting = with_store(launch)
    run: Run = launch(
        ["sh", "-c", '"$@"; echo the very last line', "sh", *game("floods_stdout", str(megabytes))],
        env={**setting, "AGENT_SPOOL_MAX": "1MiB"},
        stdout=subprocess.DEVNULL,
    )
    assert run.finish().code == 0
    assert b"the very last line" in logs_in(store)
    assert re.search(r'"\w*drop\w*"', json.dumps(story_in(store)))

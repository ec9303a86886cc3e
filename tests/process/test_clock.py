"""The machine's clock is set in the middle of a life, by years, forwards and back: nothing ends sooner or later."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.fakes import FakePlatform, Reply
from tests.process.harness import PYTHON, Launcher, Run

SOURCE = Path(__file__).parent.parent / "clients" / "clock.c"
YEARS = 10 * 365 * 86400
GAME = """
import os, pathlib, signal, sys, time
def leave(*_):
    os.write(1, b"bye\\n")
    sys.exit(4)
signal.signal(signal.SIGTERM, leave)
os.write(1, b"ready\\n")
until = time.monotonic() + 60
while abs(time.time() - float(sys.argv[1])) < 1e8 and time.monotonic() < until:
    time.sleep(0.01)
os.write(1, b"the clock was set\\n")
pathlib.Path("late").write_text("a file of a later time\\n")
os.utime("late", (time.time(), time.time()))  # as the kernel would, whose clock is the machine's
os.rename("late", "late.log")
time.sleep(600)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, for what moves the clock"),
]
Start = Callable[..., Run]


@pytest.fixture
def start(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a game whose clock, and the agent's, can be set by `set_clock`."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    command = [*PYTHON, "-c", GAME, str(time.time())]

    def begin(**environment: str) -> Run:
        moved = {"LD_PRELOAD": str(library), "CLOCK_JUMP": str(launch.files / "jump")}
        run = launch(command, env={**environment, **moved})
        run.wait_for("ready")
        assert run.is_ready_to_answer()
        return run

    return begin


def set_clock(run: Run, seconds: int) -> None:
    """All at once, for the agent's processes and the game."""
    part = run.files / "jump.part"
    part.write_text(str(seconds))
    part.rename(run.files / "jump")
    run.wait_for("the clock was set")


def moments(document: dict[str, Any]) -> list[datetime]:
    """When the game was started, was told to stop, and had ended, which has to be the order."""
    found = [datetime.fromisoformat(document["times"][name]) for name in ("started", "stop_requested", "ended")]
    assert found == sorted(found)
    return found


def stored(store: Path) -> list[dict[str, Any]]:
    """The lines in a store, in order."""
    segments = sorted(store.rglob("*.ndjson.zst"))
    text = b"".join(zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()) for path in segments)
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("jump", [YEARS, -YEARS], ids=["forwards", "back"])
def test_nothing_ends_because_of_it(
    start: Start, launch: Launcher, jump: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Timeouts of an hour are not over, the self-stop is tried again, and all log is shipped with the time of then."""
    store = tmp_path_factory.mktemp("store")
    policies = ("HEALTH_TIMEOUT", "READY_TIMEOUT", "MAX_DURATION", "FIRST_PLAYER_TIMEOUT", "EMPTY_TIMEOUT")
    with FakePlatform([Reply(503)]) as platform:
        run = start(
            **platform.environment(),
            **{f"AGENT_{name}": "1h" for name in policies},
            AGENT_LOG_URL=f"file://{store}",
            AGENT_LOG_FILES=str(launch.files / "*.log"),
        )
        for call in ("ready", "health"):
            assert run.http("POST", f"/v1/{call}").status == 200
        began = datetime.now(UTC)
        set_clock(run, jump)
        assert run.http("POST", "/v1/health").status == 200
        assert run.http("GET", "/v1/status").json()["phase"] == "ready"
        assert run.http("POST", "/v1/stop").status == 202
        platform.wait_for_calls(2)
        done = run.stop()
    assert done.code == 4
    assert done.stdout.endswith(b"bye\n")
    document = run.story()
    assert (document["reason"], document["exit_code"]) == ("requested", 4)
    assert all(abs((moment - began).total_seconds()) < 3600 for moment in moments(document))
    lines = {line.get("line"): line for line in stored(store)}
    late = datetime.fromisoformat(lines["the clock was set"]["ts"])
    assert abs((late - began).total_seconds() - jump) < 3600
    assert {"ready", "bye", "a file of a later time"} <= set(lines)


@pytest.mark.parametrize("jump", [YEARS, -YEARS], ids=["forwards", "back"])
def test_what_is_due_comes_all_the_same(start: Start, jump: int) -> None:
    """A policy's time runs on."""
    run = start(AGENT_MAX_DURATION="3s")
    set_clock(run, jump)
    done = run.finish()
    assert done.code == 4
    document = run.story()
    assert document["reason"] == "max_duration"
    first, _, last = moments(document)
    assert (last - first).total_seconds() < 3600


def test_a_hold_of_another_hosts_sdk_lasts(start: Start) -> None:
    """It was over by the clock, but not in the policy."""
    run = start(AGENT_COMPAT="multiplay")
    config = json.loads((run.files / "server.json").read_text())
    path = f"/v1/servers/{config['serverID']}/hold"
    held = run.http("POST", path, {"timeout": "1h"}, url=config["localProxyUrl"]).json()
    set_clock(run, YEARS)
    assert run.http("GET", path, url=config["localProxyUrl"]).json() == held
    run.stop()

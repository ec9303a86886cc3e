"""Heartbeats and the stop beside every abuse of `tests/chaos/abuses.py`: the figures of docs/reliability.md.

Nothing is measured against a bound of the aim's size, since how long anything takes depends on the machine: the table
is printed. What fails is an agent that does not answer at all, is lost, or does not hear its stop.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos.abuses import ABUSES
from tests.process.harness import Launcher, Run, game

SECONDS = float(os.environ.get("ABUSE_SECONDS", "1"))  # `make chaos` asks for five
NO_ANSWER = 10.0
"""Seconds after which a heartbeat counts as not answered."""


def heartbeat(connection: http.client.HTTPConnection) -> float:
    """How many seconds one takes."""
    began = time.monotonic()
    connection.request("POST", "/v1/health")
    response = connection.getresponse()
    response.read()
    assert response.status == 200, response.status
    return time.monotonic() - began


@dataclass
class Outcome:
    """What became of heartbeats and the stop beside one abuse.

    Attributes:
        kept, new: seconds that heartbeats took on a kept connection, and on a new one each.
        turned_away: how many of the latter got no answer, or another one.
        asked: when the agent had its SIGTERM, in seconds of the monotonic clock.
    """

    kept: list[float]
    new: list[float]
    turned_away: int
    asked: float


def beside(run: Run, abuse: str) -> Outcome:
    """Lets a program do its worst, and measures."""
    address = urlsplit(run.game_environment["AGENT_URL"]).netloc
    kept_connection = http.client.HTTPConnection(address, timeout=NO_ANSWER)
    heartbeat(kept_connection)
    kept: list[float] = []
    new: list[float] = []
    turned_away = 0
    names = ("AGENT_URL", "AGENT_SOCKET", "NOTIFY_SOCKET")
    environment = {**os.environ, **{name: run.game_environment[name] for name in names}}
    command = [sys.executable, "-m", "tests.chaos.abuses", abuse]
    with (
        contextlib.closing(kept_connection),
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as at_it,
    ):
        assert at_it.stdout
        assert at_it.stdout.readline() == b"at work\n"
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            kept.append(heartbeat(kept_connection))
            with contextlib.closing(http.client.HTTPConnection(address, timeout=NO_ANSWER)) as connection:
                try:
                    new.append(heartbeat(connection))
                except (AssertionError, ConnectionError, http.client.HTTPException):
                    turned_away += 1
            time.sleep(0.02)
        assert at_it.poll() is None, "the abuse went on to the end"
        asked = time.monotonic()
        done = run.stop()
        at_it.kill()
    assert done.code == 0, done.stderr
    assert "restarting the agent" not in done.stderr
    return Outcome(kept, new, turned_away, asked)


def shown(times: list[float]) -> str:
    """Median and worst in milliseconds."""
    return (
        f"{statistics.median(times) * 1000:6.1f} / {max(times) * 1000:6.1f} ms of {len(times):>3}" if times else "none"
    )


@pytest.mark.slow
@pytest.mark.parametrize("abuse", ABUSES)
def test_heartbeats_and_the_stop_beside(abuse: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each heartbeat is answered, the agent's process stays, and the game hears its stop."""
    with Launcher(tmp_path) as launch:
        run = launch(game("lives_a_life", str(tmp_path / "notes")), mode="subreaper")
        run.wait_for("000000000 ")
        outcome = beside(run, abuse)
    heard = json.loads((tmp_path / "notes").read_text())["heard"] - outcome.asked
    with capsys.disabled():
        print(
            f"\n  {abuse.replace('_', ' '):<26} heartbeats {shown(outcome.kept)}, on new connections "
            f"{shown(outcome.new)}, {outcome.turned_away} turned away; stop heard after {heard * 1000:.1f} ms",
            end="",
        )
    assert not outcome.turned_away

"""Limits that container engines set, each with a whole life in it: little memory, few processes, a sliver of a CPU."""

from __future__ import annotations

import subprocess

import pytest

from tests.cgroups import cgroup, enter
from tests.fakes import FakePlatform
from tests.process.harness import PYTHON, Launcher, eventually, game

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

KEEPS_50_MB = """
import os, signal, sys, time
world = bytearray(os.urandom(1024)) * (50 * 1024)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for number in range(1_000_000):
    os.write(1, b"%09d what happens in this tick of the world\\n" % number)
    time.sleep(0.0005)
"""


def test_a_game_and_its_agent_in_128_megabytes(
    launch: Launcher, platform: FakePlatform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A game of 50 MB that logs 2,000 lines a second, shipped to a store: nothing is killed."""
    store = tmp_path_factory.mktemp("store")
    with cgroup("memory", memory__limit_in_bytes="128M") as group:
        env = {
            **platform.environment(),
            "AGENT_LOG_URL": f"file://{store}",
            "AGENT_SHIP_INTERVAL": "0.5",
            "AGENT_GRACE_SECONDS": "5",
        }
        run = launch([*PYTHON, "-c", KEEPS_50_MB], mode="subreaper", env=env, preexec=lambda: enter(group))
        eventually(lambda: list(store.glob("**/*.ndjson.zst")), "a first segment is in the store")
        assert run.http("GET", "/v1/status").status == 200
        done = run.stop()
        assert done.code == 0, done.stderr
        assert run.story()["agent_starts"] == 1
        assert "oom_kill 0" in (group / "memory.oom_control").read_text()


def test_a_game_that_floods_its_log_in_48_megabytes(launch: Launcher, platform: FakePlatform) -> None:
    """The kernel may kill the agent's process, or even the game: what happened is told."""
    with cgroup("memory", memory__limit_in_bytes="48M") as group:
        run = launch(
            game("floods_stdout", "400"),
            mode="subreaper",
            env=platform.environment(),
            stdout=subprocess.DEVNULL,
            preexec=lambda: enter(group),
        )
        platform.wait_for_calls(1, 120)
        run.stop()
    document = run.story()
    assert (document["exit_code"], document["cause"]) in {(0, "clean"), (137, "out_of_memory")}, document
    assert len([call for call in platform.calls if call.method == "DELETE"]) >= 1


EATS_WHEN_TOLD = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.write(1, b"ready\\n")
sys.stdin.readline()
world = []
while True:
    world.append(os.urandom(1 << 20))
"""


def test_a_game_that_takes_all_of_40_megabytes(launch: Launcher, platform: FakePlatform) -> None:
    """The agent's own process hardly fits in beside it; the kernel kills the game, which is written down and told."""
    with cgroup("memory", memory__limit_in_bytes="40M") as group:
        run = launch(
            [*PYTHON, "-c", EATS_WHEN_TOLD],
            mode="subreaper",
            env=platform.environment(),
            stdin=-1,
            preexec=lambda: enter(group),
        )
        run.wait_for("ready")
        assert run.is_ready_to_answer()
        run.say(b"\n")
        platform.wait_for_calls(1, 120)
        assert run.stop().code == 137
        assert "oom_kill 0" not in (group / "memory.oom_control").read_text()
    document = run.story()
    assert (document["exit_code"], document["cause"]) == (137, "out_of_memory"), document
    assert document["memory"]["limit_bytes"] == 40 << 20


def test_five_processes(launch: Launcher, platform: FakePlatform) -> None:
    """Threads count as well, so that the agent's own process finds no room: the end is written down and told."""
    with cgroup("pids", pids__max=5) as group:
        run = launch(
            [*PYTHON, "-c", "import time; print('ready', flush=True); time.sleep(3); raise SystemExit(7)"],
            mode="subreaper",
            env=platform.environment(),
            preexec=lambda: enter(group),
        )
        run.wait_for("ready")
        platform.wait_for_calls(1, 60)
        run.stop()
    document = run.story()
    assert document["exit_code"] == 7
    assert document["reason"] == "game_crashed"


def test_two_processes(launch: Launcher) -> None:
    """The game and PID 1, which has no thread then: output, stop signal, exit code and `exit.json` are as ever."""
    with cgroup("pids", pids__max=2) as group:
        run = launch(game("polite", "4"), mode="subreaper", preexec=lambda: enter(group))
        run.wait_for("ready")
        done = run.stop()
    assert done.stdout == b"ready\nbye\n"
    assert done.code == 4
    assert "cannot start the agent's process" in done.stderr
    assert run.story()["reason"] == "platform_stop"


def test_a_twentieth_of_a_cpu(launch: Launcher) -> None:
    """SIGTERM in the middle of the agent's start: the game hears it, and all is over in time."""
    with cgroup("cpu", cpu__cfs_period_us=100_000, cpu__cfs_quota_us=5_000) as group:
        run = launch(game("polite"), mode="subreaper", env={"AGENT_GRACE_SECONDS": "10"}, preexec=lambda: enter(group))
        run.wait_for("ready")
        done = run.stop()
        assert done.stdout.endswith(b"bye\n")
        assert done.code == 0
        assert done.seconds < 10.0
        assert run.story()["reason"] == "platform_stop"

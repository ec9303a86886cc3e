"""The agent's process is killed, suspended, blocked or out of memory at random moments: the game never notices.

Every stop is heard, ends inside the grace, the deployment is stopped, `exit.json` is there, and no line of the log is
lost. The table of what was measured is printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from agent.logs import frames
from tests.cgroups import cgroup
from tests.fakes import FakePlatform
from tests.process.harness import AGENT_NAME, Launcher, Run, agent_process, game, status_of

RUNS = int(os.environ.get("AGENT_LOSS_RUNS", "10"))  # `make chaos` asks for a hundred
AT_ONCE = 3
GRACE = 5.0
FAULTS = ["killed", "suspended", "blocked for 10 s", "out of memory"]


@dataclass
class Outcome:
    """One run: seconds from the stop until the game heard it and until the end, and the longest write of a line."""

    platform_stop: bool
    heard: float
    total: float
    worst_write: float
    starts: int


def hurt(fault: str, run: Run, little_memory: Path | None) -> None:
    """Does something bad to the agent's process, where there is one."""
    pid = agent_process(run.pid)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        match fault:
            case "killed":
                os.kill(pid, signal.SIGKILL)
            case "suspended":
                os.kill(pid, signal.SIGSTOP)
            case "blocked for 10 s":
                os.kill(pid, signal.SIGSTOP)
                threading.Timer(10.0, lambda: _continue(pid)).start()
            case _:
                assert little_memory
                (little_memory / "cgroup.procs").write_text(str(pid))


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if status_of(pid).get("Name") == AGENT_NAME:
            os.kill(pid, signal.SIGCONT)


def lines_of(directory: Path) -> list[int]:
    """The line numbers in a store directory and in the spool, sorted."""
    found = []
    for path in directory.glob("store/**/*.ndjson.zst"):
        text = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        found += [json.loads(line) for line in text.splitlines()]
    rest = [item["line"] for item in found if item["stream"] == "stdout"]
    for path in [*directory.glob("spool/*/*.seg"), *directory.glob("spool/*/*.open")]:
        data = b"".join(
            body
            for kind, _, stream, body in frames.parse(frames.read_file(str(path)))
            if kind == frames.DATA and stream == "stdout"
        )
        rest += data.decode().splitlines()
    return sorted(int(line[:9]) for line in rest if line[:9].isdigit())


def one_run(fault: str, number: int, directory: Path) -> Outcome:
    """A life with a fault and an end, each at a random moment."""
    dice = random.Random(f"{fault} {number}")
    files = directory / str(number)
    files.mkdir()
    platform_stop = dice.random() < 0.6
    with contextlib.ExitStack() as stack:
        platform, launch = stack.enter_context(FakePlatform()), stack.enter_context(Launcher(files))
        memory = cgroup("memory", memory__limit_in_bytes="1M") if fault == "out of memory" else None
        little_memory = stack.enter_context(memory) if memory else None
        env = {
            **platform.environment(),
            "AGENT_GRACE_SECONDS": str(GRACE),
            "AGENT_LOG_URL": f"file://{files}/store",
            "AGENT_SHIP_INTERVAL": "0.3",
            "AGENT_SHIP_SECONDS": "8",
            "AGENT_HEALTH_TIMEOUT": "2s",
        }
        life = [] if platform_stop else [str(dice.uniform(1.0, 4.0))]
        run = launch(game("lives_a_life", str(files / "notes"), *life), mode="subreaper", env=env)
        run.wait_for("000000000 ")
        time.sleep(dice.uniform(0.0, 3.0))  # the random moment is the point
        hurt(fault, run, little_memory)
        time.sleep(dice.uniform(0.0, 1.5))
        if platform_stop:
            asked = time.monotonic()
            done = run.stop()
        else:
            platform.wait_for_calls(1, 60)
            asked = time.monotonic()
            done = run.stop()
        calls = len([call for call in platform.calls if call.method == "DELETE"])
    notes = json.loads((files / "notes").read_text())
    assert done.code == 0, done.stderr
    assert done.seconds <= GRACE, done.stderr
    assert calls >= (0 if platform_stop else 1)
    [document] = [json.loads(path.read_text()) for path in files.glob("spool/*/exit.json")]
    assert document["reason"] == ("platform_stop" if platform_stop else "game_exited"), document["reason"]
    assert document["players"]["count"] in (0, 3)
    lines = lines_of(files)
    assert set(lines) == set(range(notes["lines"])), (notes["lines"], len(lines), done.stderr)
    heard = notes["heard"] - asked if platform_stop else 0.0
    return Outcome(platform_stop, heard, done.seconds, notes["worst"], document["agent_starts"])


def print_row(fault: str, outcomes: list[Outcome]) -> None:
    """One row of the table."""
    heard = [one.heard * 1000 for one in outcomes if one.platform_stop] or [0.0]
    total = [one.total for one in outcomes if one.platform_stop] or [0.0]
    writes = [one.worst_write * 1000 for one in outcomes]
    print(
        f"  agent {fault:<17} {len(outcomes):>4} runs; stop heard after {statistics.median(heard):6.1f} ms (median), "
        f"{max(heard):6.1f} ms (worst); ended {max(total):4.2f} s after it at the latest; longest write of the game "
        f"{statistics.median(writes):5.1f} ms (median), {max(writes):5.1f} ms (worst)"
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_game_does_not_notice_in_many_lives(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table, kept in docs/reliability.md."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda number: one_run(fault, number, tmp_path), range(RUNS)))
    with capsys.disabled():
        print()
        print_row(fault, outcomes)

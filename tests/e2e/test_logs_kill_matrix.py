"""SIGKILL at random moments: what was confirmed is complete, and what is lost is little."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from tests.process.harness import Launcher, Run, game
from tests.stores import BUCKET, S3Server, s3_server

RUNS = 100
AT_ONCE = 2
SEGMENT = 4 * 1024 * 1024  # the size of a segment; smaller ones are closed by age


@dataclass
class Outcome:
    """What one run of the matrix came to, in lines.

    Attributes:
        width: bytes of a line.
        written: what the game had written when it was killed.
        confirmed: what the store had then.
        adopted: what it has after the next agent shipped what was left.
        waiting: segments that the spool still held when it was killed.
    """

    width: int
    written: int
    confirmed: int
    adopted: int
    waiting: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all runs."""
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def numbers_in(server: S3Server, deployment: str) -> list[int]:
    """The line numbers in the store, put together again in the order of the keys."""
    keys = {key: data for key, data in server.objects().items() if f"-{deployment}-1/" in key}
    found = []
    rest = ""
    for key in sorted(keys):
        if key.endswith(".ndjson.zst"):
            for text in zstandard.ZstdDecompressor().decompressobj().decompress(keys[key]).splitlines():
                item = json.loads(text)
                assert "dropped_bytes" not in item, "nothing was dropped: the spool is large enough"
                if item["stream"] == "stdout":
                    rest += item["line"]
                    if not item.get("partial"):
                        found.append(int(rest[:9]))
                        rest = ""
    return found


def settings(server: S3Server, deployment: str) -> dict[str, str]:
    """What both agents of a run get."""
    return {
        **server.environ(),
        "AGENT_LOG_URL": f"s3://{BUCKET}/matrix",
        "AGENT_SHIP_INTERVAL": "0.1",
        "AGENT_SPOOL_MAX": "1GiB",
        "AGENT_ON_EXIT": "exit",
        "ARBITRIUM_REQUEST_ID": deployment,
    }


def kill(run: Run) -> None:
    """SIGKILL of agent and game, in either order, as when a machine or a container goes."""
    pids = [run.pid, run.game_pid]
    random.shuffle(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.process.wait()


def held(spool: Path) -> int:
    """How many segments there are in a spool directory, while agents work on it."""
    return sum(name.endswith((".seg", ".open")) for _, _, names in os.walk(spool) for name in names)


def one_run(number: int, directory: Path, server: S3Server) -> Outcome:
    """Kills one game and its agent, looks, and lets a second agent find what was left."""
    dice = random.Random(number)
    files = directory / str(number)
    files.mkdir()
    deployment = f"{number:012x}"
    width = dice.choice([40, 120, 1000])
    rate = dice.choice([100, 5_000, 20_000 if width < 1000 else 5_000])
    note = files / "written"
    # Only an agent of the same deployment and the same command adopts what another one left.
    script = 'if [ -e second ]; then while [ ! -e done ]; do sleep 0.05; done; else exec "$@"; fi'
    command = ["sh", "-c", script, "sh", *game("numbers_lines", str(note), str(rate), str(width))]
    with Launcher(files) as launch:
        run = launch(command, mode="subreaper", env=settings(server, deployment))
        assert run.stdout is not None
        run.wait_for("000000000 ")
        time.sleep(dice.uniform(0.0, 2.5))  # the random moment is the point
        kill(run)
    written = int.from_bytes(note.read_bytes(), "little")
    confirmed = numbers_in(server, deployment)
    assert confirmed == list(range(len(confirmed))), "a confirmed line is missing, doubled or out of order"
    waiting = held(files / "spool")
    (files / "second").touch()
    with Launcher(files) as launch:
        second = launch(command, mode="subreaper", env=settings(server, deployment))
        until = time.monotonic() + 60
        while held(files / "spool"):
            assert time.monotonic() < until, f"what was left was not shipped: {second.stderr.text}"
            time.sleep(0.02)
        (files / "done").touch()
        assert second.finish(60).code == 0, second.stderr.text
    adopted = numbers_in(server, deployment)
    assert adopted == list(range(len(adopted))), "a line is missing, doubled or out of order after reassembly"
    assert len(adopted) >= len(confirmed)
    return Outcome(width, written, len(confirmed), len(adopted), waiting)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_confirmed_is_lost_or_doubled_over_a_hundred_kills(
    tmp_path: Path, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is missing is at most the last segment; the figures are printed.

    How much waits to be shipped at that moment depends on how busy the machine is.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda number: one_run(number, tmp_path, server), range(RUNS)))
    lost = [max(0, one.written - one.adopted) * one.width for one in outcomes]
    without = [max(0, one.written - one.confirmed) * one.width for one in outcomes]
    with capsys.disabled():
        print(
            f"\nkill matrix: {len(outcomes)} runs, {sum(one.written for one in outcomes)} lines, "
            f"{sum(one.written * one.width for one in outcomes) / 1e6:.1f} MB written\n"
            f"  confirmed when killed: {sum(one.confirmed for one in outcomes)} lines, none missing or doubled; "
            f"not yet in the store: median {sorted(without)[len(without) // 2]} bytes, worst {max(without)} bytes, "
            f"at most {max(one.waiting for one in outcomes)} segments\n"
            f"  after the next agent shipped the rest: {sum(one.adopted for one in outcomes)} lines, none missing or "
            f"doubled; {sum(size > 0 for size in lost)} runs lost anything, worst {max(lost)} bytes"
        )
    assert max(lost) <= SEGMENT

"""What a scrape costs, in files of the kernel that are read: a count that no busy machine changes."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.config.injected import parse
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.transition import initial
from agent.metrics.registry import Metrics
from tests.rules import default_rules


@contextmanager
def processes(count: int) -> Iterator[set[int]]:
    """So many processes of a game."""
    running = [subprocess.Popen(["sleep", "60"]) for _ in range(count)]
    try:
        yield {process.pid for process in running}
    finally:
        for process in running:
            process.kill()
            process.wait()


async def test_a_scrape_reads_each_file_once_and_three_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost does not grow faster than the game; nothing of the container's is looked for again."""
    metrics = Metrics(
        version="0",
        deployment=parse(os.environ).deployment,
        state=lambda: initial(default_rules(), 0.0),
        report=GameReport(),
        root=os.getpid,
    )
    read: Counter[str] = Counter()
    really_open = os.open

    def counted(path: str, *arguments: int) -> int:
        if path.startswith(("/proc/", "/sys/fs/cgroup")):
            read[path] += 1
        return really_open(path, *arguments)

    await metrics.expose()
    counts = []
    for number in (1, 6):
        with processes(number) as pids:
            await metrics.expose()
            read.clear()
            with monkeypatch.context() as patched:
                patched.setattr(os, "open", counted)
                await metrics.expose()
        assert {path: times for path, times in read.items() if times > 1} == {}
        # Processes of others that have just begun are looked at once: they are not counted.
        ours = {str(pid) for pid in (*pids, os.getpid())}
        counts.append(sum(not (part := path.split("/")[2]).isdigit() or part in ours for path in read))
    assert counts[1] - counts[0] == 3 * 5
    assert counts[0] <= 40

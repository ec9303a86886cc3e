"""What a scrape costs, in files of the kernel that are read: a count that no busy machine changes."""

from __future__ import annotations

import os
import re
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


async def test_a_scrape_opens_three_files_a_process_and_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost does not grow faster than the game. The container's files stay open, and are read once each."""
    metrics = Metrics(
        version="0",
        deployment=parse(os.environ).deployment,
        state=lambda: initial(default_rules(), 0.0),
        report=GameReport(),
        root=os.getpid,
    )
    opened: Counter[str] = Counter()
    read: Counter[int] = Counter()
    really_open, really_read = os.open, os.pread

    def counted(path: str, *arguments: int) -> int:
        if path.startswith(("/proc/", "/sys/fs/cgroup")):
            opened[path] += 1
        return really_open(path, *arguments)

    def counted_read(file: int, size: int, offset: int) -> bytes:
        read[file] += offset == 0
        return really_read(file, size, offset)

    first = last = await metrics.expose()
    counts = []
    for number in (1, 6):
        with processes(number) as pids:
            await metrics.expose()
            opened.clear()
            read.clear()
            with monkeypatch.context() as patched:
                patched.setattr(os, "open", counted)
                patched.setattr(os, "pread", counted_read)
                last = await metrics.expose()
        assert {path: times for path, times in opened.items() if times > 1} == {}
        assert {file: times for file, times in read.items() if times > 1} == {}
        assert 0 < len(read) <= 30
        # Processes of others that have just begun are looked at once: they are not counted.
        ours = {str(pid) for pid in (*pids, os.getpid())}
        counts.append(sum(not (part := path.split("/")[2]).isdigit() or part in ours for path in opened))
    assert counts[1] - counts[0] == 3 * 5
    assert counts[0] <= 6
    # What cannot change does not: a start that moved by a microsecond would be another start.
    start = re.compile(r"^arbitrium_agent_process_start_time_seconds.*$", re.MULTILINE)
    assert start.findall(first[0].decode()) == start.findall(last[0].decode()) != []

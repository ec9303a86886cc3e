"""A fleet's history as a store has it: lives with the `exit.json` that the agent writes, made by its own code."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard

from agent.game.autopsy import Evidence, examine
from agent.game.cgroup import CgroupReading
from agent.game.exit_report import build_report, last_line

PLACES = [("Montreal", "Canada"), ("Paris", "France"), ("Tokyo", "Japan"), ("Chicago", "United States of America")]
LAYOUT = "application={application}/version={version}/date={date}"
DEFAULT_LAYOUT = "{application}/{version}"


def document(
    *,
    ended: datetime,
    seconds: float = 600.0,
    code: int | None = 0,
    signal: int | None = None,
    oom_kills: int = 0,
    place: tuple[str, str] = PLACES[0],
    deployment: str = "23c01225b99d",
    dropped: int = 0,
    tail: bytes = b"player joined\nmatch over\n",
    attempt: int = 1,
) -> dict[str, Any]:
    """The content of an `exit.json`, as `agent.logs.ending` ships it."""
    before, after = CgroupReading(version=2, oom_kills=0), CgroupReading(version=2, oom_kills=oom_kills, memory_peak=1)
    verdict = examine(
        Evidence(code=code, signal=signal, core_dumped=False, before=before, after=after, last_line=last_line(tail))
    )
    start = ended.timestamp() - seconds
    report = build_report(
        autopsy=verdict,
        reason="game_exited" if code == 0 else "game_crashed",
        exit_code=code if code is not None else 128 + (signal or 0),
        code=code,
        signal=signal,
        wall_offset=start,
        started_at=0.0,
        ready_at=1.5,
        ended_at=seconds,
        phases=[("starting", 0.0), ("ready", 1.5), ("flushing", seconds)],
        tail=tail,
        players={"count": 3, "capacity": 8, "ids": []},
        before=before,
        after=after,
        attempt=attempt,
        deployment={
            "request_id": deployment,
            "location": {"city": place[0], "country": place[1], "continent": "", "latitude": 1.0},
            "tags": ["ranked"],
            "host_id": "host-1",
        },
        command=["/game/server", "-batchmode"],
        agent_version="1.0",
    )
    shipping = {"complete": True, "shipped": ["exit.json"], "not_shipped": [], "spool": {"bytes_dropped": dropped}}
    return {**report, "shipping": shipping, "bundle": {}}


def put(
    root: Path,
    content: dict[str, Any] | bytes | None,
    *,
    started: datetime,
    deployment: str = "23c01225b99d",
    attempt: int = 1,
    application: str = "arena",
    version: str = "v1",
    layout: str = LAYOUT,
    lines: tuple[str, ...] = (),
) -> str:
    """Puts a life into a directory that is a store; returns its key there. None for one without `exit.json`."""
    above = layout.format(application=application, version=version, date=f"{started:%Y-%m-%d}")
    key = f"{above}/{started:%Y%m%dT%H%M%SZ}-{deployment}-{attempt}"
    directory = root / key
    directory.mkdir(parents=True)
    (directory / "run.json").write_text("{}\n")
    if content is not None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode() + b"\n"
        (directory / "exit.json").write_bytes(data)
    if lines:
        text = "".join(
            json.dumps({"ts": f"{started:%Y-%m-%dT%H:%M:%S}.000001Z", "stream": "stdout", "line": line}) + "\n"
            for line in lines
        )
        name = f"000001-{started:%Y%m%dT%H%M%S}.000Z.ndjson.zst"
        (directory / name).write_bytes(zstandard.compress(text.encode()))
    return key


def fleet(
    count: int, *, until: datetime | None = None, tail_bytes: int = 2048, seed: int = 1
) -> Iterator[dict[str, Any]]:
    """Arguments of `put` for so many lives over a week: mostly clean, some not, of two versions in four places."""
    dice = random.Random(seed)
    until = until or datetime.now(UTC)
    tail = (b"tick 12345 players 3 rooms 1\n" * (tail_bytes // 29 + 1))[:tail_bytes]
    for number in range(count):
        version = dice.choice(["v1", "v2"])
        seconds = dice.uniform(60, 3600)
        ended = until - timedelta(seconds=dice.uniform(1, 7 * 86400 - 7200))
        deployment = f"{dice.getrandbits(48):012x}"
        fate = dice.random()
        how: dict[str, Any] = {}
        if fate < 0.04 and version == "v2":
            how = {"code": None, "signal": 9, "oom_kills": 1}
        elif fate < 0.06:
            how = {"code": None, "signal": 11}
        elif fate < 0.08:
            how = {"code": dice.choice([1, 3])}
        content = document(
            ended=ended,
            seconds=seconds,
            place=dice.choice(PLACES),
            deployment=deployment,
            dropped=1000 if number % 50 == 0 else 0,
            tail=tail + f"\nlast word {number}\n".encode(),
            **how,
        )
        yield {
            "content": content,
            "started": ended - timedelta(seconds=seconds),
            "deployment": deployment,
            "version": version,
        }


def write(root: Path, count: int, **more: Any) -> None:
    """Writes a whole fleet below a directory."""
    for life in fleet(count, **more):
        put(root, **life)
    os.sync()

"""The agent's background tasks."""

from __future__ import annotations

import asyncio

import pytest

from agent import log
from agent.runtime.tasks import Tasks


async def test_a_task_that_fails_is_told_of_by_what_it_was_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """None dies unheard, and what is cancelled at the end has not failed."""
    faults: list[str] = []
    monkeypatch.setattr(log, "fault", lambda doing, problem: faults.append(f"{doing}: {problem}"))
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("no such tag")

    failing = tasks.start(fail(), "adding tags")
    waiting = tasks.start(asyncio.sleep(600), "waiting")
    await asyncio.wait([failing])
    await tasks.close()
    assert waiting.cancelled()
    assert faults == ["cannot go on with adding tags: no such tag"]

"""Background tasks whose exceptions are logged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from agent import log


class Tasks:
    """Owns tasks: logs their exceptions, and cancels all of them when it is closed."""

    def __init__(self) -> None:
        """Owns none yet."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Starts a task.

        Args:
            work: what it does.
            name: what it is for; used in the message "cannot go on with NAME".
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancels all tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.fault(f"cannot go on with {task.get_name()}", problem)

"""A daemon thread for blocking work: it neither blocks the event loop nor delays the agent's exit.

`asyncio.to_thread` cannot be used, because the interpreter joins its threads at exit: a thread that hangs in a read
from a dead disk would keep the agent from exiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """One thread that executes calls in order."""

    def __init__(self, name: str) -> None:
        """Starts no thread until there is work."""
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def do(self, function: Callable[..., T], *args: Any) -> T:
        """Calls `function(*args)` in the thread and returns what it returns, or raises what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, problem: BaseException | None) -> None:
            if future.cancelled():
                return
            if problem is not None:
                future.set_exception(problem)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only where T allows it

        def job() -> None:
            if future.cancelled():
                return
            result: T | None = None
            problem: BaseException | None = None
            try:
                result = function(*args)
            except BaseException as raised:
                problem = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: the result is not needed any more
                loop.call_soon_threadsafe(settle, result, problem)

        if self._thread is None:
            self._thread = threading.Thread(target=_run, args=(self._jobs,), name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return await future

    async def within(self, seconds: float, function: Callable[..., T], *args: Any) -> T | None:
        """As `do`, but gives up after a number of seconds (returns None) and executes later calls in a new thread."""
        try:
            async with asyncio.timeout(seconds):
                return await self.do(function, *args)
        except TimeoutError:
            self.end()
            return None

    def end(self) -> None:
        """Ends the thread after the queued calls; later calls get a new one."""
        self._jobs.put(None)
        self._jobs, self._thread = queue.SimpleQueue(), None


def _run(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()

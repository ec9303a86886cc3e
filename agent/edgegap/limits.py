"""The client-side rate limiter: stays below the platform's limits for an organisation, so that 429 is rare."""

import asyncio
import enum
import time
from collections import deque
from collections.abc import Awaitable, Callable

WINDOW = 1.05
"""Seconds. A little more than one, because requests that leave a second apart can arrive closer together."""


class Limit(enum.Enum):
    """The calls that the platform limits, with how many it takes a second."""

    DEPLOY = 40
    STATUS = 20
    LIST = 10


class SlidingWindow:
    """At most `count` passes in any `window` seconds, first come, first served.

    A token bucket would let twice as many through in its first second (the full bucket, and what flows in), and the
    platform counts.

    Args:
        count: passes in one window.
        window: length in seconds.
        monotonic: clock in seconds.
        sleep: how to wait.
    """

    def __init__(
        self,
        count: int,
        window: float = WINDOW,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Start with a free window."""
        self._window = window
        self._monotonic = monotonic
        self._sleep = sleep
        self._passed: deque[float] = deque(maxlen=count)
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Return when a request may leave."""
        async with self._turn:  # asyncio.Lock wakes its waiters in order
            if len(self._passed) == self._passed.maxlen:
                while (remaining := self._passed[0] + self._window - self._monotonic()) > 0:
                    await self._sleep(remaining)
            self._passed.append(self._monotonic())


class Limiter:
    """One window for each limited kind of call; shared by all tasks that use one client."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Start with free windows."""
        self._windows = {limit: SlidingWindow(limit.value, monotonic=monotonic, sleep=sleep) for limit in Limit}

    async def wait(self, limit: Limit | None) -> None:
        """Return when a call of that kind may leave; at once for a kind that has no limit (None)."""
        if limit is not None:
            await self._windows[limit].wait()

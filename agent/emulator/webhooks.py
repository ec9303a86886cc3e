"""Webhooks: notify a backend of a deployment's state."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

import aiohttp

from agent.retry import RetryPolicy

log = logging.getLogger(__name__)
TIMEOUT_SECONDS = 5.0
TRIES = 3
PAUSES = RetryPolicy(first=0.5, least=0.8)
CLOSING_SECONDS = 3.0
"""How long closing the emulator waits for webhooks that are under way."""


class Webhooks:
    """Sends webhooks in the background; owns their tasks."""

    def __init__(self) -> None:
        """Nothing is opened before the first one."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random()  # noqa: S311 - jitter, no secret

    def send(self, url: str, body: Mapping[str, Any]) -> None:
        """POST a JSON body, with `TRIES` tries in all."""
        task = asyncio.create_task(self._send(url, body), name=f"webhook {url}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, url: str, body: Mapping[str, Any]) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
            trouble = ""
            for attempt in range(TRIES):
                if attempt:
                    await asyncio.sleep(PAUSES.wait(attempt - 1, self._random))
                try:
                    async with session.post(url, json=body) as response:
                        if response.status < 500:
                            return
                        trouble = f"status {response.status}"
                except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                    trouble = str(error) or type(error).__name__
        log.warning("cannot deliver the webhook to %s after %d tries: %s", url, TRIES, trouble)

    async def close(self) -> None:
        """Wait a little for those under way, then give up on them."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

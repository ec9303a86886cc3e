"""The story that a game server leaves behind: what is kept while it runs, and what is told when it is gone."""

from __future__ import annotations

from collections.abc import Mapping

from agent.boot import Boot
from agent.deployment import Deployment
from agent.hands import Deadline
from agent.metrics.registry import LogCounts
from agent.report import GameReport
from agent.settings import Settings
from agent.states import State


class Farewell:
    """Ships the log while the game runs; finds the cause of death and ships the rest afterwards."""

    def __init__(self, boot: Boot, settings: Settings, deployment: Deployment, report: GameReport) -> None:
        self._boot = boot

    def begin(self) -> None:
        """Starts."""

    def log_counts(self) -> Mapping[str, LogCounts]:
        """By stream."""
        return {}

    async def flush(self, state: State, deadline: Deadline) -> None:
        """Ends."""
        import asyncio

        if self._boot.capture is not None:
            await asyncio.to_thread(self._boot.capture.drain, deadline.at)

    async def close(self) -> None:
        """Ends."""

"""Lists the organisation's deployments periodically, within the platform's limits, and keeps the last good list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent import log
from agent.discover.targets import Group, Wanted, groups, port_of
from agent.edgegap.client import EdgegapClient
from agent.edgegap.errors import BadRequestError, EdgegapError, GoneError, NotFoundError
from agent.edgegap.filters import Query
from agent.edgegap.limits import SlidingWindow
from agent.edgegap.models import DeploymentListItem, DeploymentStatus

STATUS_RATE = 5
"""Status calls a second: the platform takes 20 for a whole organisation, and its backend needs them more than we do."""


class Watcher:
    """The targets, as they were when the platform answered last.

    A list item says nothing of application, version and place; these are asked for once in a deployment's life, because
    they do not change in it.

    Attributes:
        groups: the target groups; None until the platform has answered once.
        succeeded_at: when it answered last, in Unix time; None before.
        failures: refreshes that did not succeed.
    """

    def __init__(
        self,
        platform: EdgegapClient,
        wanted: Wanted,
        query: Query | None = None,
        *,
        wall: Callable[[], float] = time.time,
        status_window: SlidingWindow | None = None,
    ) -> None:
        """Asks nothing yet.

        Args:
            platform: an open client.
            wanted: which port, and how it is scraped.
            query: which deployments; None for all.
            wall: Unix time in seconds.
            status_window: keeps to `STATUS_RATE`.
        """
        self.groups: list[Group] | None = None
        self.succeeded_at: float | None = None
        self.failures = 0
        self._platform = platform
        self._wanted = wanted
        self._query = query
        self._wall = wall
        self._window = status_window or SlidingWindow(STATUS_RATE)
        self._facts: dict[str, DeploymentStatus | None] = {}
        self._failing = False

    async def refresh(self) -> list[Group]:
        """Asks the platform.

        Returns:
            The target groups as they are now.

        Raises:
            EdgegapError: the list could not be had; the last one stays.
        """
        try:
            items = await self._platform.list_deployments(self._query).first()
        except EdgegapError:
            self.failures += 1
            raise
        # Only what can be scraped is worth a call.
        found = {item.request_id: item for item in items if port_of(item.ports, self._wanted.ports) is not None}
        self._facts = {name: facts for name, facts in self._facts.items() if name in found}
        await self._learn(found)
        self.groups = groups(found.values(), self._facts, self._wanted)
        self.succeeded_at = self._wall()
        return self.groups

    async def _learn(self, found: dict[str, DeploymentListItem]) -> None:
        for deployment_id in [name for name in found if self._facts.get(name) is None]:
            await self._window.wait()
            try:
                self._facts[deployment_id] = await self._platform.get_deployment(deployment_id)
            except (GoneError, NotFoundError, BadRequestError):
                del found[deployment_id]  # it ended between the two calls
            except EdgegapError as problem:
                # A target without a version is better than none; it is asked for again the next time.
                self._facts[deployment_id] = None
                log.warning(f"{problem}; its labels come later")

    async def run(self, interval: float, on_change: Callable[[list[Group]], None] = lambda _: None) -> None:
        """Refreshes until it is cancelled; a platform that does not answer is said once, until it does again.

        Args:
            interval: seconds between two refreshes.
            on_change: called with the groups after each refresh that changed them.
        """
        while True:
            before = self.groups
            try:
                after = await self.refresh()
            except EdgegapError as problem:
                if not self._failing:
                    log.warning(f"{problem}; the last list is kept")
                self._failing = True
            else:
                if self._failing:
                    log.info("the platform answers again")
                self._failing = False
                if after != before:
                    log.info(f"{len(after)} target{'' if len(after) == 1 else 's'}")
                    on_change(after)
            await asyncio.sleep(interval)

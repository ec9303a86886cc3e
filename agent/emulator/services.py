"""The parts of the platform that a deployment's runner uses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agent.emulator.catalogue import Catalogue
from agent.emulator.deployment import Deployment
from agent.emulator.engine import find_engine
from agent.emulator.fleets import Hosts
from agent.emulator.models import Webhook
from agent.emulator.ports import PortBook
from agent.emulator.settings import EmulatorSettings
from agent.emulator.webhooks import Webhooks

log = logging.getLogger(__name__)
MOST_WARNINGS = 50
"""How many different ones are kept for the page."""


class Services:
    """What there is once, and all deployments share.

    Args:
        settings: how the platform behaves.

    Attributes:
        url: the emulator's own URL, known once it listens.
        tls_port: of HTTPS, None where it is not served.
        tls_authority: the file with the certificate that clients have to trust then.
        closing: set when the emulator closes: nothing new begins.
        hurry: set when it closes without waiting for any grace.
        warnings: what somebody sent and the emulator does nothing with, for its log and page.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        """See the class."""
        self.settings = settings
        self.url = ""
        self.tls_port: int | None = None
        self.tls_authority = ""
        self.catalogue = Catalogue()
        self.hosts = Hosts(settings.public_ip)
        self.port_book = PortBook(settings.public_ip, settings.external_ports)
        self.engine = find_engine(settings.engine)
        self.closing = asyncio.Event()
        self.hurry = asyncio.Event()
        self.webhooks = Webhooks()
        self.warnings: list[str] = []
        self._watchers: set[Callable[[Deployment], None]] = set()

    def tell(self, deployment: Deployment, webhook: Webhook | None) -> None:
        """Send a deployment's status to a webhook, if there is one."""
        if webhook is not None:
            self.webhooks.send(webhook.url, deployment.status_json(self.settings.minute_seconds))

    def warn(self, text: str) -> None:
        """Say something in the log and on the page, once."""
        if text in self.warnings:
            return
        log.warning("%s", text)
        self.warnings = [*self.warnings[-MOST_WARNINGS + 1 :], text]
        self.catalogue.changed()

    def watch(self, call: Callable[[Deployment], None]) -> Callable[[], None]:
        """Have something called after every change of a deployment; returns what ends that."""
        self._watchers.add(call)
        return lambda: self._watchers.discard(call)

    def notify(self, deployment: Deployment) -> None:
        """Tell watchers that a deployment has changed."""
        for call in list(self._watchers):
            call(deployment)

    async def pause(self, seconds: float) -> None:
        """Wait, unless the emulator is being closed."""
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            return

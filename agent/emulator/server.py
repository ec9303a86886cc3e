"""The emulator as one object: `async with Emulator(EmulatorSettings()) as emulator: ...`."""

from __future__ import annotations

import asyncio
import errno
import socket
from types import TracebackType
from typing import Self

from aiohttp import web

from agent.emulator import (
    api_catalogue,
    api_deployments,
    api_emulator,
    api_inside,
    api_page,
    api_places,
    api_registry,
    api_relays,
    api_storages,
    api_tags,
)
from agent.emulator.faults import Faults
from agent.emulator.platform import Platform
from agent.emulator.reading import MOST_BODY_BYTES, STRICT
from agent.emulator.records import Records
from agent.emulator.sampler import Sampler
from agent.emulator.settings import EmulatorSettings
from agent.emulator.state import keep_in, use_versions_file
from agent.emulator.tls import default_directory, prepare
from agent.emulator.web import (
    FAULTS,
    LIMITS,
    PLATFORM,
    RECORDS,
    RateLimits,
    as_documents,
    operation_middleware,
    recorded,
    with_any_slashes,
)
from agent.errors import AgentError

OPERATIONS = (
    *api_deployments.OPERATIONS,
    *api_tags.OPERATIONS,
    *api_inside.OPERATIONS,
    *api_catalogue.OPERATIONS,
    *api_storages.OPERATIONS,
    *api_places.OPERATIONS,
    *api_relays.OPERATIONS,
    *api_registry.OPERATIONS,
)
"""Every operation of the contract."""
SHUTDOWN_SECONDS = 2.0
"""How long open connections may take when the server closes; by then nothing is left to be said on them."""


class Emulator:
    """The emulated platform, listening.

    Args:
        settings: how it behaves; the defaults suit a test.

    Attributes:
        platform: what exists on it.
        records: what was called.
    """

    def __init__(self, settings: EmulatorSettings | None = None) -> None:
        """See the class."""
        self.settings = settings or EmulatorSettings()
        self._runner: web.AppRunner | None = None
        self._sampler: Sampler | None = None
        self.platform: Platform
        self.records = Records()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return self.platform.url

    @property
    def token(self) -> str:
        """The organisation's token, without its prefix."""
        return self.settings.token

    @property
    def authorization(self) -> dict[str, str]:
        """The header of an organisation's call."""
        return {"Authorization": f"token {self.token}"}

    async def start(self) -> None:
        """Listen.

        Raises:
            AgentError: it cannot listen there.
            ValueError: a file of the settings has mistakes.
        """
        self.platform = platform = Platform(self.settings)
        if self.settings.state_file:
            keep_in(platform, self.settings.state_file)
        if self.settings.versions_file:
            use_versions_file(platform, self.settings.versions_file)
        if self.settings.fleets_file:
            platform.hosts.load(self.settings.fleets_file)
        tls = None
        if self.settings.tls_port is not None:
            tls = prepare(self.settings.tls_directory or default_directory())
        app = web.Application(
            middlewares=[
                recorded,
                as_documents,
                operation_middleware(OPERATIONS),
            ],
            client_max_size=MOST_BODY_BYTES,
        )
        app[PLATFORM] = platform
        app[STRICT] = self.settings.strict
        app[FAULTS] = Faults(platform.closing)
        app[RECORDS] = self.records
        app[LIMITS] = RateLimits(self.settings.rate_limits)
        for operation in OPERATIONS:
            app.router.add_route(
                operation.method, with_any_slashes(operation.pattern or operation.path), operation.handler
            )
        api_emulator.add_routes(app)
        api_page.add_routes(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.settings.host, self.settings.port)
            await _listen(site, self.settings.host, self.settings.port, "--port")
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        host, port = runner.addresses[0][:2]
        platform.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if tls is not None:
            secure = web.TCPSite(runner, self.settings.host, self.settings.tls_port, ssl_context=tls.context)
            try:
                await _listen(secure, self.settings.host, self.settings.tls_port or 0, "--tls")
            except BaseException:
                await runner.cleanup()
                self._runner = None
                raise
            platform.tls_port = runner.addresses[-1][1]
            platform.tls_authority = tls.authority_file
        self._sampler = Sampler(platform)
        self._sampler.start()

    async def close(self) -> None:
        """Stop every deployment, as the platform would, and listen no more; nothing is left afterwards.

        The API answers until the last deployment has ended, since a game may call it while it stops.
        """
        await self.platform.close()
        if self._sampler:
            await self._sampler.close()
        if self._runner:
            await self._runner.cleanup()

    def hurry(self) -> None:
        """Have `close` not wait for any grace: SIGKILL now."""
        self.platform.closing.set()
        self.platform.hurry.set()

    async def __aenter__(self) -> Self:
        """Listen; see `start`."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, and do not leave before it is done, even when cancelled meanwhile."""
        closing = asyncio.create_task(self.close(), name="close the emulator")
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            self.hurry()
            await closing
            raise


async def _listen(site: web.TCPSite, host: str, port: int, option: str) -> None:
    """Listens; only what that raises is a problem of the address."""
    try:
        await site.start()
    except (OSError, UnicodeError) as problem:  # UnicodeError: a name that DNS cannot have
        number = problem.errno if isinstance(problem, OSError) else None
        if number is None or isinstance(problem, socket.gaierror) or number == errno.EADDRNOTAVAIL:
            instead = "choose an address of this machine with --host"
        else:
            instead = f"choose another with {option}"
        if number == errno.EACCES:
            instead += ", run as root, or lower net.ipv4.ip_unprivileged_port_start (see docs/emulator.md)"
        why = getattr(problem, "strerror", None) or problem
        raise AgentError(f"cannot listen on {host} port {port}: {why}; {instead}") from None

"""The HTTP side: `/targets` for Prometheus, `/metrics` about the discovery itself, `/healthz`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from agent import __version__
from agent.discover.watcher import Watcher
from agent.errors import AgentError
from agent.tokens import bears, same

STALE_SECONDS = 300.0
"""How old the last list may be. Later `/targets` fails: Prometheus keeps what it has, and counts that as a failure."""


@asynccontextmanager
async def serving(watcher: Watcher, host: str, port: int, token: str = "") -> AsyncIterator[int]:
    """Serves while the block runs.

    Args:
        watcher: has the targets.
        host: address to listen on.
        port: 0 for any free one.
        token: see `application`.

    Yields:
        The port.

    Raises:
        AgentError: it cannot listen there.
    """
    runner = web.AppRunner(application(watcher, token), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as problem:
            raise AgentError(f"cannot listen on {host}:{port}: {problem.strerror}; choose another --listen") from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def application(
    watcher: Watcher, token: str = "", *, stale: float = STALE_SECONDS, wall: Callable[[], float] = time.time
) -> web.Application:
    """The server's routes.

    Args:
        watcher: has the targets.
        token: that a request for them must bear; "" for none.
        stale: seconds; see `STALE_SECONDS`.
        wall: Unix time in seconds.
    """

    async def targets(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        # Prometheus 2.42 (Debian 12) leaves "Bearer" out in http_sd_configs unless `type: Bearer` is set there.
        if token and not (bears(given, token) or same(given, token)):
            return web.Response(
                status=401,
                text="cannot list the targets: the bearer token is missing or wrong; set "
                "authorization.credentials_file in http_sd_configs\n",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if watcher.groups is None or watcher.succeeded_at is None:
            return _not_now("the platform has not answered yet")
        if (age := wall() - watcher.succeeded_at) > stale:
            return _not_now(f"the platform has not answered for {age:.0f} s")
        return web.Response(body=json.dumps(watcher.groups).encode(), content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            text=_metrics(watcher), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def index(_: web.Request) -> web.Response:
        return web.Response(
            text=f"arbitrium-agent {__version__} discover: Prometheus reads /targets (http_sd_configs) and /metrics.\n"
        )

    app = web.Application()
    app.add_routes(
        [
            web.get("/", index),
            web.get("/targets", targets),
            web.get("/metrics", metrics),
            web.get("/healthz", healthy),
        ]
    )
    return app


def _not_now(why: str) -> web.Response:
    return web.Response(status=503, text=f"cannot list the targets: {why}; see the log of arbitrium-agent discover\n")


def _metrics(watcher: Watcher) -> str:
    rows: list[tuple[str, str, str, float | None]] = [
        (
            "arbitrium_discover_targets",
            "gauge",
            "Deployments that Prometheus is told to scrape.",
            len(watcher.groups or ()),
        ),
        (
            "arbitrium_discover_refresh_failures_total",
            "counter",
            "Refreshes for which the platform could not list the deployments.",
            watcher.failures,
        ),
        (
            "arbitrium_discover_last_success_timestamp_seconds",
            "gauge",
            "When the platform listed the deployments last, in Unix time.",
            watcher.succeeded_at,
        ),
    ]
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {float(value)!r}\n"
        for name, kind, text, value in rows
        if value is not None
    )

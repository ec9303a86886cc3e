"""`/metrics` over HTTP, on a listener of its own, so that it can be reached from outside without exposing control."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from agent import log

_METHODS = ("GET", "HEAD")
# Whoever reaches this port must not be able to use up the agent's descriptors: the game's logs and the stop need them.
_CONNECTIONS = 64
_KEEPALIVE_SECONDS = 30.0


class _Capped(web.Server):
    """Closes what is one connection too many, at once."""

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """As in the library, which calls it."""
        super().connection_made(handler, transport)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()


class MetricsServer:
    """A running server."""

    def __init__(self, runner: web.ServerRunner) -> None:
        """Takes what runs it."""
        self._runner = runner

    @classmethod
    async def start(
        cls, listening: socket.socket, expose: Callable[[str], Awaitable[tuple[bytes, str]]], version: str
    ) -> MetricsServer:
        """Begins to serve.

        Args:
            listening: a socket that is bound; it is closed with the server.
            expose: gives body and content type for an `Accept` header.
            version: of the agent, for the page at `/`.
        """

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if request.method not in _METHODS:
                return web.Response(
                    status=405,
                    text=f"cannot {request.method} {request.path}: it is there to be read; use GET\n",
                    headers={"Allow": ", ".join(_METHODS)},
                )
            if request.path == "/metrics":
                try:
                    return _compressed(request, *await expose(request.headers.get("Accept", "")))
                except Exception as problem:
                    log.error(f"cannot measure ({type(problem).__name__}: {problem}); the scrape is answered with 500")
                    return web.Response(status=500, text="cannot measure; look at the agent's log\n")
            if request.path == "/":
                return web.Response(text=_page(version), content_type="text/html", charset="utf-8")
            return web.Response(status=404, text=f"cannot find {request.path}: the metrics are at /metrics\n")

        server = _Capped(answer, access_log=None, keepalive_timeout=_KEEPALIVE_SECONDS)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        return cls(runner)

    async def close(self) -> None:
        """Ends the server: answers under way get a second, idle connections are closed."""
        await self._runner.cleanup()


def _compressed(request: web.BaseRequest, body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding", "Cache-Control": "no-store"}
    if _takes_gzip(request.headers.get("Accept-Encoding", "")):
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, compresslevel=6, mtime=0)
    return web.Response(body=body, headers=headers)


def _takes_gzip(accept_encoding: str) -> bool:
    for coding in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in coding.split(";"))
        if name == "gzip":
            return not any(
                parameter.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for parameter in parameters
            )
    return False


def _page(version: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>arbitrium-agent</title>'
        f'<p>arbitrium-agent {version}: Prometheus reads <a href="/metrics">/metrics</a>.</p></html>\n'
    )

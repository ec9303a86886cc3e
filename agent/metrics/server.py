"""`/metrics` over HTTP, on a separate listener, so that it can be reached from outside without exposing the API."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from agent import log, web
from agent.connections import AT_ONCE, Listener, OpenConnections, Pace, connections_limit
from agent.tokens import bears

if TYPE_CHECKING:
    from ssl import SSLContext

_METHODS = ("GET", "HEAD")
# Clients of this port must not be able to use up the agent's descriptors: the game's logs and the stop need them.
CONNECTIONS = 64
DESCRIPTORS_SHARE = 1 / 16
_KEEPALIVE_SECONDS = 30.0
_HANDSHAKE_SECONDS = 5.0
# A handshake costs a millisecond or two of CPU, and anybody who reaches the port can start one.
_HANDSHAKES = Pace(1, 0.02)
_CLOSE_SECONDS = 0.1


class _Bounded(web.Server):
    """Limits the connections. A new one is never refused, because it may be Prometheus."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.open: OpenConnections[web.RequestHandler] = OpenConnections(
            lambda: connections_limit(CONNECTIONS, DESCRIPTORS_SHARE), lambda _: True
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """As in the library, which calls it."""
        super().connection_made(handler, transport)
        self.open.came(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """As in the library, which calls it."""
        super().connection_lost(handler, exc)
        self.open.left(handler)

    def asked(self, handler: web.RequestHandler) -> None:
        """This connection has just sent a request."""
        self.open.asked(handler)


class MetricsServer:
    """A running server."""

    def __init__(self, server: web.Server, listener: Listener[web.RequestHandler]) -> None:
        """Takes what runs it."""
        self._server = server
        self._listener = listener

    @classmethod
    async def start(
        cls,
        listening: socket.socket,
        expose: Callable[[str], Awaitable[tuple[bytes, str]]],
        version: str,
        *,
        token: str = "",
        tls: SSLContext | None = None,
    ) -> MetricsServer:
        """Starts serving.

        Args:
            listening: a socket that is bound; it is closed with the server.
            expose: returns body and content type for an `Accept` header.
            version: of the agent, for the page at `/`.
            token: that a scrape must send; "" for none.
            tls: the TLS context; None for plain HTTP.
        """

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            server.asked(request.protocol)
            if token and not bears(request.headers.get("Authorization", ""), token):
                return web.Response(
                    status=401,
                    text="cannot show the metrics: the bearer token is missing or wrong; set authorization.credentials "
                    "in Prometheus' scrape config to AGENT_METRICS_TOKEN\n",
                    headers={"WWW-Authenticate": "Bearer"},
                )
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
                    log.error(f"cannot read the metrics ({type(problem).__name__}: {problem}); answered 500")
                    return web.Response(status=500, text="cannot read the metrics; see the agent's log\n")
            if request.path == "/":
                return web.Response(text=_page(version), content_type="text/html", charset="utf-8")
            return web.Response(status=404, text=f"cannot find {request.path}: the metrics are at /metrics\n")

        server = _Bounded(answer, access_log=None, keepalive_timeout=_KEEPALIVE_SECONDS)
        listener = Listener(
            listening,
            server,
            server.open,
            begun=web.has_asked if tls is None else bool,
            silent_seconds=_KEEPALIVE_SECONDS,
            pace=AT_ONCE if tls is None else _HANDSHAKES,
            tls=tls,
            handshake_seconds=None if tls is None else _HANDSHAKE_SECONDS,
        )
        return cls(server, listener)

    async def close(self) -> None:
        """Ends the server: answers under way get a moment, idle connections are closed."""
        self._listener.close()
        self._server.pre_shutdown()
        await self._server.shutdown(_CLOSE_SECONDS)


def _compressed(request: web.BaseRequest, body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding", "Cache-Control": "no-store"}
    if _takes_gzip(request.headers.get("Accept-Encoding", "")):
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, compresslevel=1, mtime=0)
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

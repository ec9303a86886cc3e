"""The status page at `/`: one HTML file, a stream of updates, and a stop button.

Protection: it listens on loopback only, and the checks of `http_input` refuse a `Host` or an `Origin` of another
machine, as for every request. The page's content security policy permits only the content of the file, and no other
page may frame it. Reading needs no token, because any process here can get the same data from the API. Stopping needs a
token, because people open the page, also over forwarded ports, and a click is easier than a call: the token is in the
address in the agent's log (after the `#`, which browsers do not send), or is AGENT_PAGE_TOKEN.

Nothing is measured while no page is open.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel

from agent import web
from agent.api.contracts import Caller
from agent.api.http_input import read_body
from agent.api.models import Nothing
from agent.api.operations import Operations
from agent.api.problems import Kind, OperationError
from agent.api.table import BY_NAME
from agent.lifecycle.states import Source
from agent.tokens import same

_T = TypeVar("_T")
Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
MaybeAwaitable: TypeAlias = "_T | Awaitable[_T]"

LOOK_SECONDS = 0.5
"""Seconds between two checks of the status for a page."""
SAMPLE_SECONDS = 2.0
"""Seconds between two measurements for the charts."""
OUTPUT_BYTES = 16 * 1024
"""How many bytes of the last output a page gets."""
VIEWERS = 16
"""The most pages that are served at the same time."""

_CALLER = Caller("http", Source.OPERATOR)
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class Stream(web.StreamResponse):
    """Server-sent events: a response that is counted when it begins, because it stays open."""


@cache
def _html() -> tuple[bytes, str]:
    """The file, and the content security policy that permits only its own script and style."""
    from importlib import resources  # noqa: PLC0415 - only when the page is looked at

    text = (resources.files("agent.api") / "page.html").read_text(encoding="utf-8")
    hashes = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for kind, content in _INLINE.findall(text)
    }
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def _new_token() -> str:
    """As `secrets.token_urlsafe` makes it; that module imports OpenSSL's hashes as well."""
    return base64.urlsafe_b64encode(os.urandom(12)).decode()


class StatusPage:
    """The routes of the status page.

    Attributes:
        token: the token for the stop button.
        routes: method, path, name (for metrics) and handler of each of its routes.
    """

    def __init__(
        self,
        operations: Operations,
        *,
        metrics: Callable[[], Awaitable[tuple[bytes, str]]],
        output: Callable[[], MaybeAwaitable[bytes]] = lambda: b"",
        settings: Mapping[str, str] | None = None,
        token: str = "",
        made_up: str = "",
    ) -> None:
        """Serves nothing yet.

        Args:
            operations: used for the data of the page.
            metrics: a scrape in Prometheus's text format, the data of the charts.
            output: the last output of the game, without secrets.
            settings: the effective settings as text, without secrets.
            token: the token for the stop button; generated if it is "".
            made_up: the token that was generated before, or "".
        """
        self._operations = operations
        self._metrics = metrics
        self._output = output
        self._settings = dict(settings or {})
        self._own_token = not token
        self.token = token or made_up or _new_token()
        self._viewers = 0
        self._sampled: tuple[float, str] = (float("-inf"), "")
        self._sampling = asyncio.Lock()
        self.routes: tuple[tuple[str, str, str, Handler], ...] = (
            ("GET", "/", "page", self._page),
            ("GET", "/page/stream", "page.stream", self._stream),
            ("POST", "/page/stop", "page.stop", self._stop),
        )

    def address(self, api: str) -> str:
        """The address of the page: with the token if it was generated."""
        return f"{api}/#token={self.token}" if self._own_token else f"{api}/"

    async def _page(self, _request: web.BaseRequest) -> web.Response:
        body, policy = _html()
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-cache",
        }
        return web.Response(body=body, headers=headers)

    async def _stop(self, request: web.BaseRequest) -> web.Response:
        """As `POST /v1/stop`, for a person with the token."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not same(given, self.token):
            where = "the agent's log names it" if self._own_token else "it is AGENT_PAGE_TOKEN"
            raise OperationError(
                Kind.UNAUTHORIZED, f"cannot stop from the page: the token is missing or wrong; {where}"
            )
        operation = BY_NAME["stop"]
        wanted: Any = operation.parse(await read_body(operation, request))
        result: Any = await _have(self._operations.stop(wanted, _CALLER))
        return web.Response(status=202, body=_json(result), headers={"Content-Type": "application/json"})

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        """Streams the page's data: the status on changes and every second, charts and output less often."""
        if self._viewers >= VIEWERS:
            raise OperationError(Kind.UNAVAILABLE, f"cannot show this page: {VIEWERS} are open; close one")
        stream = Stream(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await stream.prepare(request)
        if request.method == "HEAD":
            return stream
        self._viewers += 1
        gone = asyncio.Event()
        connection: Any = request.protocol  # from `agent.api.http`, which calls this when the browser has left
        connection.gone = gone.set
        try:
            await self._tell(stream, gone)
        finally:
            connection.gone = None
            self._viewers -= 1
        return stream

    async def _tell(self, stream: Stream, gone: asyncio.Event) -> None:
        """Sends updates until the page is closed.

        It does not subscribe to events: a subscriber counts as a listener for the stop, and a page is not the game.
        """
        clock = asyncio.get_running_loop().time
        await _send(stream, "deployment", _json(await _have(self._operations.deployment(Nothing(), _CALLER))))
        await _send(stream, "settings", json.dumps(self._settings).encode())
        shown, sampled = b"", float("-inf")
        while not gone.is_set():
            if clock() >= sampled + SAMPLE_SECONDS:
                sampled = clock()
                await _send(stream, "metrics", json.dumps({"at": sampled, "text": await self._sample()}).encode())
            await _send(stream, "status", _json(await _have(self._operations.status(Nothing(), _CALLER))))
            output = (await _have(self._output()))[-OUTPUT_BYTES:]
            if output != shown:
                shown = output
                # An incomplete first line is not shown.
                whole = output.partition(b"\n")[2] if len(output) == OUTPUT_BYTES else output
                await _send(stream, "output", json.dumps(whole.decode("utf-8", "replace")).encode())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await gone.wait()

    async def _sample(self) -> str:
        """One scrape for all open pages; "" if it fails, which is logged elsewhere."""
        async with self._sampling:
            now = asyncio.get_running_loop().time()
            if now >= self._sampled[0] + SAMPLE_SECONDS / 2:
                try:
                    body, _ = await self._metrics()
                except Exception:
                    body = b""  # whatever the error, a page without charts is better than none
                self._sampled = (now, body.decode("utf-8", "replace"))
            return self._sampled[1]


async def _have(value: MaybeAwaitable[_T]) -> _T:
    """The result of an operation, synchronous or not."""
    if isinstance(value, Awaitable):
        return await value
    return value


def _json(model: BaseModel) -> bytes:
    return model.__pydantic_serializer__.to_json(model)


async def _send(stream: Stream, event: str, data: bytes) -> None:
    await stream.write(b"event: " + event.encode() + b"\ndata: " + data + b"\n\n")

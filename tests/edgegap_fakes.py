"""Fakes of the platform at the edge: canned answers (aioresponses), and a real server that misbehaves on demand."""

import asyncio
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

from aiohttp import ClientResponse, web
from aioresponses import aioresponses

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class MockedResponse(ClientResponse):
    """A response as aioresponses builds it, completed for aiohttp 3.14.

    aioresponses 0.7.9 does not pass `stream_writer`, which aiohttp 3.14 insists on
    (https://github.com/pnuckowski/aioresponses/issues/289).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


class CannedAnswers(aioresponses):
    """aioresponses, with responses that aiohttp 3.14 accepts."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Register an answer, as in aioresponses."""
        kwargs.setdefault("response_class", MockedResponse)
        super().add(*args, **kwargs)


class FakeSleep:
    """Waits that take no time, are remembered, and move a clock of their own; a loop that never ends is caught."""

    def __init__(self, limit: int = 200) -> None:
        self.waits: list[float] = []
        self.now = 0.0
        self._limit = limit

    async def __call__(self, seconds: float) -> None:
        """Pretend to wait."""
        self.waits.append(seconds)
        self.now += seconds
        if len(self.waits) > self._limit:
            raise AssertionError(f"more than {self._limit} waits: {self.waits[-5:]}")
        await asyncio.sleep(0)

    def monotonic(self) -> float:
        """The time that was waited, in seconds."""
        return self.now


@asynccontextmanager
async def serving(*handlers: Handler) -> AsyncIterator[str]:
    """Serve one handler a request, the last one for all that follow; gives the base URL, without a slash at its end."""
    following = itertools.chain(handlers, itertools.repeat(handlers[-1]))

    async def dispatch(request: web.Request) -> web.StreamResponse:
        return await next(following)(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", dispatch)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def reset(request: web.Request) -> web.StreamResponse:
    """Break the connection with RST before any answer."""
    assert request.transport is not None
    sock = request.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def answers(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Handler:
    """Give a handler that answers with a status, a JSON body and headers."""

    async def answer(_: web.Request) -> web.StreamResponse:
        if body is None:
            return web.Response(status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return answer

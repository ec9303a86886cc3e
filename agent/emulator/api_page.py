"""The page at `/`: its files, its streams, its two buttons."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from agent.emulator.deployment import Deployment, StopRequest
from agent.emulator.errors import ApiError
from agent.emulator.models import DeploymentCreate, User, UserData
from agent.emulator.places import PLACES
from agent.emulator.platform import Platform
from agent.emulator.reading import read_body
from agent.emulator.storage import read_logs
from agent.emulator.watching import Feed
from agent.emulator.web import PLATFORM, answer

FILES = {
    "/": ("index.html", "text/html"),
    "/emulator/page.css": ("page.css", "text/css"),
    "/emulator/page.js": ("page.js", "text/javascript"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
    "/favicon.ico": ("favicon.svg", "image/svg+xml"),
}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
BEAT_SECONDS = 10.0
"""Longest silence of a stream, so that one whose reader is gone is noticed."""
PAUSE_SECONDS = 0.1
"""Shortest time between two messages: what changes faster is told at once."""
ENDED: web.AppKey[asyncio.Event] = web.AppKey("ended", asyncio.Event)
"""Set when the server closes: streams end then."""
FEEDS: web.AppKey[set[Feed]] = web.AppKey("feeds", set)
"""Those that readers are waiting for."""


class DeployButton(BaseModel):
    """`POST /emulator/deployments`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    application: str
    version: str
    city: str = PLACES[0].city


def _file(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that serves one file of the page."""
    content = (resources.files("agent.emulator") / "page" / name).read_bytes()

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=SECURITY)

    return serve


class Stream:
    """Server-sent events to one reader.

    Args:
        request: whom to send them.
    """

    def __init__(self, request: web.Request) -> None:
        """See the class."""
        self._request = request
        self._response = web.StreamResponse(headers={**SECURITY, "Content-Type": "text/event-stream"})

    @property
    def open(self) -> bool:
        """Whether the reader is there and the server is not closing."""
        gone = self._request.transport is None or self._request.transport.is_closing()
        return not gone and not self._request.app[ENDED].is_set()

    async def begin(self) -> web.StreamResponse:
        """Send the head."""
        await self._response.prepare(self._request)
        return self._response

    async def say(self, event: str, data: Any) -> None:
        """Send one event."""
        await self._response.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

    async def beat(self) -> None:
        """Send a comment, which readers ignore."""
        await self._response.write(b":\n\n")


async def stream(request: web.Request) -> web.StreamResponse:
    """`GET /emulator/stream`: what can be deployed, every deployment, then whatever changes."""
    events = Stream(request)
    response = await events.begin()
    with Feed(request.app[PLATFORM]) as feed, _rung_at_the_end(request.app, feed):
        while events.open:
            told = feed.take()
            for name, data in told:
                await events.say(name, data)
            if not told:
                await events.beat()
            await _pause(request, PAUSE_SECONDS)
            await feed.wait(BEAT_SECONDS)
    return response


@contextmanager
def _rung_at_the_end(app: web.Application, feed: Feed) -> Iterator[None]:
    """Have a feed stop waiting when the server closes."""
    app[FEEDS].add(feed)
    try:
        yield
    finally:
        app[FEEDS].discard(feed)


async def logs(request: web.Request) -> web.StreamResponse:
    """`GET /emulator/deployments/{deployment_id}/logs`: what was written so far, then what is, until the end."""
    deployment = _deployment(request)
    events = Stream(request)
    response = await events.begin()
    position = 0
    while events.open:
        # In this order: what is written between the two is in the next round, or there is none.
        active = deployment.active
        chunks, position = deployment.container_log.since(position)
        for chunk in chunks:
            await events.say("log", {"stream": chunk.stream, "text": chunk.data.decode(errors="replace")})
        if not active:
            await events.say("end", {"note": await _say_kept(events, deployment, told=position > 0)})
            break
        await _pause(request, PAUSE_SECONDS)
    return response


async def _say_kept(events: Stream, deployment: Deployment, *, told: bool) -> str:
    """After the end: the logs that a storage kept, and a sentence about where they are."""
    kept = deployment.kept_logs
    if kept is None:
        return "The deployment has ended. Nobody kept its logs: its version names no endpoint storage."
    if not told:
        await events.say("log", {"stream": "stdout", "text": (await read_logs(kept))[0] or ""})
    return f"The deployment has ended. Its logs are kept: {kept.link}"


async def _pause(request: web.Request, seconds: float) -> None:
    """Wait, unless the server closes."""
    try:
        async with asyncio.timeout(seconds):
            await request.app[ENDED].wait()
    except TimeoutError:
        return


async def deploy(request: web.Request) -> web.Response:
    """`POST /emulator/deployments`: the page's button."""
    body = await read_body(request, DeployButton)
    place = next((each for each in PLACES if each.city == body.city), None)
    if place is None:
        raise ApiError(400, f"cannot find the city {body.city}; choose one of the page's list")
    where = UserData(latitude=place.latitude, longitude=place.longitude)
    users = [User(user_type="geo_coordinates", user_data=where)]
    wanted = DeploymentCreate(application=body.application, version=body.version, users=users)
    return answer({"request_id": request.app[PLATFORM].deploy(wanted).id}, 202)


async def stop(request: web.Request) -> web.Response:
    """`POST /emulator/deployments/{deployment_id}/stop`: the page's other button."""
    platform: Platform = request.app[PLATFORM]
    deployment = _deployment(request)
    return answer({"request_id": deployment.id}, platform.stop(deployment, StopRequest("page")))


def _deployment(request: web.Request) -> Deployment:
    return request.app[PLATFORM].deployment(request.match_info["deployment_id"])


def add_routes(app: web.Application) -> None:
    """Add the page's routes, and end its streams when the server closes."""
    app[ENDED] = asyncio.Event()
    app[FEEDS] = set()

    async def end_streams(app: web.Application) -> None:
        app[ENDED].set()
        for feed in app[FEEDS]:
            feed.ring()

    app.on_shutdown.append(end_streams)
    for path, (name, kind) in FILES.items():
        app.router.add_route("GET", path, _file(name, kind))
    app.router.add_route("GET", "/emulator/stream", stream)
    app.router.add_route("POST", "/emulator/deployments", deploy)
    app.router.add_route("POST", "/emulator/deployments/{deployment_id}/stop", stop)
    app.router.add_route("GET", "/emulator/deployments/{deployment_id}/logs", logs)

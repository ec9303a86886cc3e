"""The emulator's own API: faults on demand, and the record of calls."""

from __future__ import annotations

from aiohttp import web

from agent.emulator.faults import FaultsBody
from agent.emulator.reading import one, read_body
from agent.emulator.web import FAULTS, RECORDS, answer


async def put_faults(request: web.Request) -> web.Response:
    """`PUT /emulator/faults`."""
    body = await read_body(request, FaultsBody)
    request.app[FAULTS].set(body.faults)
    return answer(request.app[FAULTS].as_json())


async def get_faults(request: web.Request) -> web.Response:
    """`GET /emulator/faults`."""
    return answer(request.app[FAULTS].as_json())


async def delete_faults(request: web.Request) -> web.Response:
    """`DELETE /emulator/faults`."""
    request.app[FAULTS].set([])
    return web.Response(status=204)


async def get_requests(request: web.Request) -> web.Response:
    """`GET /emulator/requests`, all or those of `?operation=`."""
    return answer({"requests": request.app[RECORDS].all(one(request, "operation"))})


async def delete_requests(request: web.Request) -> web.Response:
    """`DELETE /emulator/requests`."""
    request.app[RECORDS].clear()
    return web.Response(status=204)


def add_routes(app: web.Application) -> None:
    """Add them."""
    app.router.add_route("PUT", "/emulator/faults", put_faults)
    app.router.add_route("GET", "/emulator/faults", get_faults)
    app.router.add_route("DELETE", "/emulator/faults", delete_faults)
    app.router.add_route("GET", "/emulator/requests", get_requests)
    app.router.add_route("DELETE", "/emulator/requests", delete_requests)

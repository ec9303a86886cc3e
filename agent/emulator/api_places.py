"""Locations, beacons, and the caller's address."""

from __future__ import annotations

import math

from aiohttp import web

from agent.emulator.errors import ApiError, CannotPlace
from agent.emulator.places import PLACES
from agent.emulator.reading import DEFAULT_PAGE, note_ignored, number, one, paged
from agent.emulator.web import PAGED, PLATFORM, Operation, answer


async def get_public_ip(request: web.Request) -> web.Response:
    """`GET /v1/ip`: the address the caller has from here."""
    return answer({"public_ip": request.remote or request.app[PLATFORM].settings.public_ip})


async def list_locations(request: web.Request) -> web.Response:
    """`GET /v1/locations`; with `app` and `version`, those with room for it."""
    platform = request.app[PLATFORM]
    app, version = one(request, "app"), one(request, "version")
    note_ignored(
        request, [f"the query's {each} (without effect here)" for each in ("type", "tags") if one(request, each)]
    )
    places, messages = list(PLACES), []
    if (app is None) != (version is None):
        raise ApiError(400, "cannot choose locations by app or version alone; send both, or neither")
    if app is not None and version is not None:
        try:
            wanted = platform.catalogue.version(app, version).body
        except ApiError as error:
            raise ApiError(400, error.message) from None
        if not platform.hosts.has_room(wanted):
            places, messages = [], [f"the cloud has no room for {app} {version}"]
    locations = [{**place.as_json(), "type": "cloud", "tags": []} for place in places]
    return answer({**paged(request, locations, "locations"), "messages": messages})


async def list_beacons(request: web.Request) -> web.Response:
    """`GET /v1/locations/beacons`: paged by its query, without a word about pages in the answer."""
    try:
        beacons = await request.app[PLATFORM].beacons.all()
    except CannotPlace as error:
        raise ApiError(500, str(error)) from None
    page, limit = number(request, "page") or 1, number(request, "limit") or max(DEFAULT_PAGE, len(beacons))
    if page > math.ceil(len(beacons) / limit):
        return answer({"locations": [], "count": 0})
    shown = [beacon.as_json() for beacon in beacons[(page - 1) * limit : page * limit]]
    return answer({"locations": shown, "count": len(shown)})


OPERATIONS = (
    Operation("GET", "/v1/ip", "getPublicIp", get_public_ip),
    Operation(
        "GET", "/v1/locations", "listLocations", list_locations, query=(*PAGED, "app", "version", "type", "tags")
    ),
    Operation("GET", "/v1/locations/beacons", "listBeacons", list_beacons, query=PAGED),
)

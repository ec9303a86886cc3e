"""Endpoint storages, and their pull profiles.

Pull profiles are kept and linked, and nothing is pulled: a process game runs on the developer's own machine, and the
destination of a profile would be a path there.
"""

from __future__ import annotations

from aiohttp import web

from agent.emulator.catalogue import PullProfile, Storage, now, stamp
from agent.emulator.errors import ApiError
from agent.emulator.models import PullProfileBody, PullProfileUpdate, StorageBody, StorageUpdate
from agent.emulator.reading import paged, read_body
from agent.emulator.web import PAGED, PLATFORM, Operation, answer


def _storage(request: web.Request) -> Storage:
    return request.app[PLATFORM].catalogue.storage(request.match_info["endpoint_name"])


def _profile(request: web.Request) -> PullProfile:
    return _storage(request).profile(request.match_info["pull_profile_name"])


async def create_storage(request: web.Request) -> web.Response:
    """`POST /v1/storage/endpoint`."""
    body = await read_body(request, StorageBody)
    return answer(request.app[PLATFORM].catalogue.add_storage(body).as_json())


async def list_storages(request: web.Request) -> web.Response:
    """`GET /v1/storage/endpoints`: the contract has no `total_count` here."""
    storages = request.app[PLATFORM].catalogue.storages.values()
    body = paged(request, [each.as_json() for each in storages], "endpoints")
    del body["total_count"]
    return answer(body)


async def get_storage(request: web.Request) -> web.Response:
    """`GET /v1/storage/endpoint/{endpoint_name}`."""
    return answer(_storage(request).as_json())


async def update_storage(request: web.Request) -> web.Response:
    """`PATCH /v1/storage/endpoint/{endpoint_name}`."""
    name = _storage(request).body.name
    update = await read_body(request, StorageUpdate)
    return answer(request.app[PLATFORM].catalogue.update_storage(name, update).as_json())


async def delete_storage(request: web.Request) -> web.Response:
    """`DELETE /v1/storage/endpoint/{endpoint_name}`."""
    request.app[PLATFORM].catalogue.delete_storage(request.match_info["endpoint_name"])
    return web.Response(status=204)


async def create_profile(request: web.Request) -> web.Response:
    """`POST …/pull-profile`."""
    platform, storage = request.app[PLATFORM], _storage(request)
    body = await read_body(request, PullProfileBody)
    profile = platform.catalogue.add_profile(storage.body.name, body)
    platform.warn(
        f"pull profile {body.name}: kept and linked, but nothing is pulled here; put the files there yourself"
    )
    return answer(profile.as_json())


async def list_profiles(request: web.Request) -> web.Response:
    """`GET …/pull-profiles`."""
    return answer(paged(request, [each.as_json() for each in _storage(request).profiles.values()], "pull_profiles"))


async def get_profile(request: web.Request) -> web.Response:
    """`GET …/pull-profile/{pull_profile_name}`."""
    return answer(_profile(request).as_json())


async def update_profile(request: web.Request) -> web.Response:
    """`PATCH …/pull-profile/{pull_profile_name}`."""
    storage, name = _storage(request), _profile(request).body.name
    update = await read_body(request, PullProfileUpdate)
    return answer(request.app[PLATFORM].catalogue.update_profile(storage.body.name, name, update).as_json())


async def delete_profile(request: web.Request) -> web.Response:
    """`DELETE …/pull-profile/{pull_profile_name}`."""
    del _storage(request).profiles[_profile(request).body.name]
    return web.Response(status=204)


async def link_profile(request: web.Request) -> web.Response:
    """`PUT …/pull-profile/{pull_profile_name}/app/{app_name}/version/{version_name}`; a second time changes nothing."""
    storage, profile = _storage(request), _profile(request)
    names = (request.match_info["app_name"], request.match_info["version_name"])
    request.app[PLATFORM].catalogue.version(*names)
    made = profile.links.setdefault(names, now())
    link = {"app": names[0], "app_version": names[1], "endpoint": storage.body.name, "pull_profile": profile.body.name}
    return answer({**link, "create_time": stamp(made), "last_updated": stamp(made)})


async def unlink_profile(request: web.Request) -> web.Response:
    """`DELETE …/pull-profile/{pull_profile_name}/app/{app_name}/version/{version_name}`."""
    profile, names = _profile(request), (request.match_info["app_name"], request.match_info["version_name"])
    if profile.links.pop(names, None) is None:
        raise ApiError(404, f"cannot unlink {names[0]} {names[1]}: it is not linked to {profile.body.name}")
    return web.Response(status=204)


STORAGE = "/v1/storage/endpoint/{endpoint_name}"
PROFILE = f"{STORAGE}/pull-profile/{{pull_profile_name}}"
LINK = f"{PROFILE}/app/{{app_name}}/version/{{version_name}}"
OPERATIONS = (
    Operation("POST", "/v1/storage/endpoint", "createStorage", create_storage),
    Operation("GET", "/v1/storage/endpoints", "listStorages", list_storages, query=PAGED),
    Operation("GET", STORAGE, "getStorage", get_storage),
    Operation("PATCH", STORAGE, "updateStorage", update_storage),
    Operation("DELETE", STORAGE, "deleteStorage", delete_storage),
    Operation("POST", f"{STORAGE}/pull-profile", "createPullProfile", create_profile),
    Operation("GET", f"{STORAGE}/pull-profiles", "listPullProfiles", list_profiles, query=PAGED),
    Operation("GET", PROFILE, "getPullProfile", get_profile),
    Operation("PATCH", PROFILE, "updatePullProfile", update_profile),
    Operation("DELETE", PROFILE, "deletePullProfile", delete_profile),
    Operation("PUT", LINK, "linkPullProfile", link_profile),
    Operation("DELETE", LINK, "unlinkPullProfile", unlink_profile),
)

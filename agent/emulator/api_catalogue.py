"""Applications, versions, storages."""

from __future__ import annotations

from aiohttp import web

from agent.emulator.models import ApplicationBody, StorageBody, VersionBody
from agent.emulator.reading import paged, read_body
from agent.emulator.web import PLATFORM, Operation, answer


async def create_application(request: web.Request) -> web.Response:
    """`POST /v1/app`."""
    body = await read_body(request, ApplicationBody)
    return answer(request.app[PLATFORM].add_application(body).as_json())


async def list_applications(request: web.Request) -> web.Response:
    """`GET /v1/apps`."""
    applications = [each.as_json() for each in request.app[PLATFORM].applications.values()]
    return answer(paged(request, applications, "applications"))


async def create_version(request: web.Request) -> web.Response:
    """`POST /v1/app/{app_name}/version`."""
    application = request.app[PLATFORM].application(request.match_info["app_name"])
    body = await read_body(request, VersionBody)
    version = request.app[PLATFORM].add_version(application.body.name, body)
    return answer({"success": True, "version": version.as_json()})


async def list_versions(request: web.Request) -> web.Response:
    """`GET /v1/app/{app_name}/versions`."""
    application = request.app[PLATFORM].application(request.match_info["app_name"])
    return answer(paged(request, [each.as_json() for each in application.versions.values()], "versions"))


async def create_storage(request: web.Request) -> web.Response:
    """`POST /v1/storage/endpoint`."""
    body = await read_body(request, StorageBody)
    return answer(request.app[PLATFORM].add_storage(body).as_json())


async def list_storages(request: web.Request) -> web.Response:
    """`GET /v1/storage/endpoints`."""
    return answer(paged(request, [each.as_json() for each in request.app[PLATFORM].storages.values()], "endpoints"))


OPERATIONS = (
    Operation("POST", "/v1/app", "createApplication", create_application),
    Operation("GET", "/v1/apps", "listApplications", list_applications),
    Operation("POST", "/v1/app/{app_name}/version", "createVersion", create_version),
    Operation("GET", "/v1/app/{app_name}/versions", "listVersions", list_versions),
    Operation("POST", "/v1/storage/endpoint", "createStorage", create_storage),
    Operation("GET", "/v1/storage/endpoints", "listStorages", list_storages),
)

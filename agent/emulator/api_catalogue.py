"""Applications and versions."""

from __future__ import annotations

from aiohttp import web

from agent.emulator.models import ApplicationBody, ApplicationUpdate, VersionBody, VersionUpdate
from agent.emulator.reading import paged, read_body
from agent.emulator.web import PAGED, PLATFORM, Operation, answer


async def create_application(request: web.Request) -> web.Response:
    """`POST /v1/app`."""
    body = await read_body(request, ApplicationBody)
    return answer(request.app[PLATFORM].catalogue.add_application(body).as_json())


async def list_applications(request: web.Request) -> web.Response:
    """`GET /v1/apps`."""
    applications = [each.as_json() for each in request.app[PLATFORM].catalogue.applications.values()]
    return answer(paged(request, applications, "applications"))


async def get_application(request: web.Request) -> web.Response:
    """`GET /v1/app/{app_name}`."""
    return answer(request.app[PLATFORM].catalogue.application(request.match_info["app_name"]).as_json())


async def update_application(request: web.Request) -> web.Response:
    """`PATCH /v1/app/{app_name}`."""
    catalogue, name = request.app[PLATFORM].catalogue, request.match_info["app_name"]
    catalogue.application(name)
    update = await read_body(request, ApplicationUpdate)
    return answer(catalogue.update_application(name, update).as_json())


async def delete_application(request: web.Request) -> web.Response:
    """`DELETE /v1/app/{app_name}`: 200 without a body."""
    request.app[PLATFORM].catalogue.delete_application(request.match_info["app_name"])
    return web.Response(status=200)


async def create_version(request: web.Request) -> web.Response:
    """`POST /v1/app/{app_name}/version`."""
    catalogue, name = request.app[PLATFORM].catalogue, request.match_info["app_name"]
    catalogue.application(name)
    body = await read_body(request, VersionBody)
    return answer({"success": True, "version": catalogue.add_version(name, body).as_json()})


async def list_versions(request: web.Request) -> web.Response:
    """`GET /v1/app/{app_name}/versions`."""
    application = request.app[PLATFORM].catalogue.application(request.match_info["app_name"])
    return answer(paged(request, [each.as_json() for each in application.versions.values()], "versions"))


async def get_version(request: web.Request) -> web.Response:
    """`GET /v1/app/{app_name}/version/{version_name}`: the bare version, unlike create and change."""
    return answer(request.app[PLATFORM].catalogue.version(*_names(request)).as_json())


async def update_version(request: web.Request) -> web.Response:
    """`PATCH /v1/app/{app_name}/version/{version_name}`."""
    catalogue, names = request.app[PLATFORM].catalogue, _names(request)
    catalogue.version(*names)
    update = await read_body(request, VersionUpdate)
    return answer({"success": True, "version": catalogue.update_version(*names, update).as_json()})


async def delete_version(request: web.Request) -> web.Response:
    """`DELETE /v1/app/{app_name}/version/{version_name}`."""
    application, version = _names(request)
    request.app[PLATFORM].catalogue.delete_version(application, version)
    return answer({"success": True, "message": f"version {version} of application {application} was deleted"})


def _names(request: web.Request) -> tuple[str, str]:
    return request.match_info["app_name"], request.match_info["version_name"]


APPLICATION = "/v1/app/{app_name}"
VERSION = f"{APPLICATION}/version/{{version_name}}"
OPERATIONS = (
    Operation("POST", "/v1/app", "createApplication", create_application),
    Operation("GET", "/v1/apps", "listApplications", list_applications, query=PAGED),
    Operation("GET", APPLICATION, "getApplication", get_application),
    Operation("PATCH", APPLICATION, "updateApplication", update_application),
    Operation("DELETE", APPLICATION, "deleteApplication", delete_application),
    Operation("POST", f"{APPLICATION}/version", "createVersion", create_version),
    Operation("GET", f"{APPLICATION}/versions", "listVersions", list_versions, query=PAGED),
    Operation("GET", VERSION, "getVersion", get_version),
    Operation("PATCH", VERSION, "updateVersion", update_version),
    Operation("DELETE", VERSION, "deleteVersion", delete_version),
)

"""The sign-in of engine plugins, and the container registry."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.emulator.errors import ApiError
from agent.emulator.models import ImageTags, QuickStart
from agent.emulator.reading import paged, read_body
from agent.emulator.registry import CREDENTIALS
from agent.emulator.web import PAGED, PLATFORM, Operation, answer


async def init_quick_start(request: web.Request) -> web.Response:
    """`POST /v1/wizard/init-quick-start`."""
    await read_body(request, QuickStart)
    request.app[PLATFORM].registry.signed_in = True
    return web.Response(status=204)


async def get_registry_credentials(request: web.Request) -> web.Response:
    """`GET /v1/wizard/registry-credentials`: made-up ones, that say so."""
    if not request.app[PLATFORM].registry.signed_in:
        raise ApiError(404, "cannot find a registry project: no plugin has signed in; POST /v1/wizard/init-quick-start")
    return answer(CREDENTIALS)


async def list_images(request: web.Request) -> web.Response:
    """`GET /v1/container-registry/images`."""
    registry = request.app[PLATFORM].registry
    names = sorted({image.name for image in await registry.images()})
    return answer({**paged(request, [{"image_name": name} for name in names], "data"), "messages": registry.messages})


async def list_tags(request: web.Request) -> web.Response:
    """`GET /v1/container-registry/images/{image_name}/tags`: pages without a `pagination`, as the contract has it."""
    platform = request.app[PLATFORM]
    tags = await platform.registry.tags_json(request.match_info["image_name"])
    for message in platform.registry.messages:  # why there are none; this list has no place for it
        platform.warn(message)
    body = paged(request, tags, "data")
    return answer({name: body[name] for name in ("data", "total_count")})


async def delete_tag(request: web.Request) -> web.Response:
    """`DELETE /v1/container-registry/images/{image_name}/tags/{tag_name}`."""
    registry, names = request.app[PLATFORM].registry, request.match_info
    return answer(await registry.delete(names["image_name"], names["tag_name"]))


async def delete_tags(request: web.Request) -> web.Response:
    """`POST /v1/container-registry/images/{image_name}/tags/bulk-delete`: each tag for itself."""
    registry, name = request.app[PLATFORM].registry, request.match_info["image_name"]
    body = await read_body(request, ImageTags)
    await registry.tags(name)
    results: list[dict[str, Any]] = []
    for tag in body.tags:
        try:
            await registry.delete(name, tag)
        except ApiError as error:
            results.append({"tag": tag, "status": error.status, "message": error.message})
        else:
            results.append({"tag": tag, "status": 204, "message": "deleted"})
    deleted = sum(result["status"] == 204 for result in results)
    summary = {"total": len(results), "success": deleted, "failed": len(results) - deleted}
    return answer({"results": results, "summary": summary}, 207)


IMAGES = "/v1/container-registry/images"
TAGS, TAGS_PATTERN = f"{IMAGES}/{{image_name}}/tags", f"{IMAGES}/{{image_name:.+}}/tags"
OPERATIONS = (
    Operation("POST", "/v1/wizard/init-quick-start", "initQuickStart", init_quick_start),
    Operation(
        "GET",
        "/v1/wizard/registry-credentials",
        "getRegistryCredentials",
        get_registry_credentials,
        query=("source",),
    ),
    Operation("GET", IMAGES, "listImages", list_images, query=PAGED),
    Operation("GET", TAGS, "listImageTags", list_tags, query=PAGED, pattern=TAGS_PATTERN),
    Operation("POST", f"{TAGS}/bulk-delete", "deleteImageTags", delete_tags, pattern=f"{TAGS_PATTERN}/bulk-delete"),
    Operation("DELETE", f"{TAGS}/{{tag_name}}", "deleteImageTag", delete_tag, pattern=f"{TAGS_PATTERN}/{{tag_name}}"),
)

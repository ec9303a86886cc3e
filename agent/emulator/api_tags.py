"""Tags of a deployment, called from a backend; from inside, `api_inside` uses the same functions."""

from __future__ import annotations

from aiohttp import web

from agent.emulator.catalogue import now
from agent.emulator.deployment import Deployment, TagRecord
from agent.emulator.errors import ApiError
from agent.emulator.models import TagBody
from agent.emulator.reading import paged, read_body
from agent.emulator.web import PAGED, PLATFORM, Operation, answer


def _tag(request: web.Request, deployment: Deployment) -> TagRecord:
    """The tag that a request names.

    Raises:
        ApiError: 404.
    """
    name = request.match_info["tag_name"]
    if name not in deployment.tags:
        raise ApiError(404, f"cannot find tag {name} of deployment {deployment.id}; list its tags")
    return deployment.tags[name]


async def add_tag(request: web.Request, deployment: Deployment) -> web.Response:
    """Add a tag; 409 when it is there."""
    body = await read_body(request, TagBody)
    if body.name in deployment.tags:
        raise ApiError(409, f"cannot add tag {body.name}: deployment {deployment.id} has it; nothing is to be done")
    deployment.tags[body.name] = TagRecord(body.name)
    deployment.note_change()
    return answer(deployment.tags[body.name].as_json())


def remove_tag(request: web.Request, deployment: Deployment) -> web.Response:
    """Delete a tag; 204."""
    del deployment.tags[_tag(request, deployment).name]
    deployment.note_change()
    return web.Response(status=204)


def _deployment(request: web.Request) -> Deployment:
    return request.app[PLATFORM].deployment(request.match_info["deployment_id"])


async def create_tag(request: web.Request) -> web.Response:
    """`POST /v1/deployments/{deployment_id}/tags`."""
    return await add_tag(request, _deployment(request))


async def list_tags(request: web.Request) -> web.Response:
    """`GET /v1/deployments/{deployment_id}/tags`."""
    return answer(paged(request, [tag.as_json() for tag in _deployment(request).tags.values()], "tags"))


async def get_tag(request: web.Request) -> web.Response:
    """`GET /v1/deployments/{deployment_id}/tags/{tag_name}`."""
    return answer(_tag(request, _deployment(request)).as_json())


async def update_tag(request: web.Request) -> web.Response:
    """`PATCH /v1/deployments/{deployment_id}/tags/{tag_name}`: its place in the list stays."""
    deployment = _deployment(request)
    tag = _tag(request, deployment)
    body = await read_body(request, TagBody)
    if body.name != tag.name and body.name in deployment.tags:
        raise ApiError(409, f"cannot rename tag {tag.name}: deployment {deployment.id} has {body.name}; delete one")
    tag.name, tag.updated = body.name, now()
    deployment.tags = {each.name: each for each in deployment.tags.values()}
    deployment.note_change()
    return answer(tag.as_json())


async def delete_tag(request: web.Request) -> web.Response:
    """`DELETE /v1/deployments/{deployment_id}/tags/{tag_name}`."""
    return remove_tag(request, _deployment(request))


TAGS = "/v1/deployments/{deployment_id}/tags"
OPERATIONS = (
    Operation("POST", TAGS, "createTag", create_tag),
    Operation("GET", TAGS, "listTags", list_tags, query=PAGED),
    Operation("GET", f"{TAGS}/{{tag_name}}", "getTag", get_tag),
    Operation("PATCH", f"{TAGS}/{{tag_name}}", "updateTag", update_tag),
    Operation("DELETE", f"{TAGS}/{{tag_name}}", "deleteTag", delete_tag),
)

"""The API for a deployment itself, with its injected tokens: self-stop (DELETE), context, its tags."""

from __future__ import annotations

from aiohttp import web

from agent.emulator.api_deployments import stop_answer
from agent.emulator.api_tags import add_tag, remove_tag
from agent.emulator.deployment import Deployment, StopRequest
from agent.emulator.errors import ApiError
from agent.emulator.reading import one
from agent.emulator.web import PLATFORM, Operation, answer
from agent.tokens import same


def _given(request: web.Request) -> str:
    """The bare token of the authorization header.

    Raises:
        ApiError: 401, there is none.
    """
    given = request.headers.get("Authorization", "")
    if not given:
        raise ApiError(401, "cannot tell who asks: the authorization header is missing; send the injected token, bare")
    return given


async def self_stop(request: web.Request) -> web.Response:
    """`DELETE /v1/self/stop/{deployment_id}/{stop_key}`: 401 for an unknown token, 403 for another deployment's."""
    platform, given = request.app[PLATFORM], _given(request)
    deployment = platform.deployment(request.match_info["deployment_id"])
    if not same(given, deployment.delete_token):
        if any(same(given, other.delete_token) for other in platform.deployments.values()):
            raise ApiError(403, f"cannot stop {deployment.id}: this is another deployment's token; use its own")
        raise ApiError(401, f"cannot stop {deployment.id}: wrong token; send ARBITRIUM_DELETE_TOKEN, bare")
    if not same(request.match_info["stop_key"], deployment.stop_key):
        raise ApiError(403, f"cannot stop {deployment.id}: wrong stop key; call ARBITRIUM_DELETE_URL as it is")
    platform.stop(deployment, StopRequest("self", one(request, "container_log_storage")))
    return answer(stop_answer(deployment, platform), 202)


def _deployment_of_context(request: web.Request) -> Deployment:
    """The deployment whose context is asked for.

    Raises:
        ApiError: 401 for a wrong token or number, 404 for an unknown deployment.
    """
    given = _given(request)
    deployment = request.app[PLATFORM].deployment(request.match_info["deployment_id"])
    right = same(given, deployment.context_token)
    if not (same(request.match_info["security_number"], deployment.security_number) and right):
        raise ApiError(401, f"cannot show {deployment.id}: wrong token; send ARBITRIUM_CONTEXT_TOKEN, bare, to its URL")
    return deployment


async def get_context(request: web.Request) -> web.Response:
    """`GET /v1/context/{deployment_id}/{security_number}`."""
    return answer(_deployment_of_context(request).context_json())


async def create_context_tag(request: web.Request) -> web.Response:
    """`POST /v1/context/{deployment_id}/{security_number}/tags`."""
    return await add_tag(request, _deployment_of_context(request))


async def delete_context_tag(request: web.Request) -> web.Response:
    """`DELETE /v1/context/{deployment_id}/{security_number}/tags/{tag_name}`."""
    return remove_tag(request, _deployment_of_context(request))


CONTEXT = "/v1/context/{deployment_id}/{security_number}"
OPERATIONS = (
    Operation(
        "DELETE",
        "/v1/self/stop/{deployment_id}/{stop_key}",
        "selfStop",
        self_stop,
        inside=True,
        query=("container_log_storage",),
    ),
    Operation("GET", CONTEXT, "getContext", get_context, inside=True),
    Operation("POST", f"{CONTEXT}/tags", "createContextTag", create_context_tag, inside=True),
    Operation("DELETE", f"{CONTEXT}/tags/{{tag_name}}", "deleteContextTag", delete_context_tag, inside=True),
)

"""Relay sessions: create, get, list, delete; authorise and revoke a user."""

from __future__ import annotations

from aiohttp import web

from agent.emulator.models import RelayAuthorize, RelayRevoke, RelaySessionCreate
from agent.emulator.reading import paged, read_body
from agent.emulator.web import PLATFORM, Operation, answer


async def create_session(request: web.Request) -> web.Response:
    """`POST /v1/relays/sessions`."""
    body = await read_body(request, RelaySessionCreate)
    return answer(request.app[PLATFORM].relays.create(body).as_json())


async def list_sessions(request: web.Request) -> web.Response:
    """`GET /v1/relays/sessions`."""
    sessions = request.app[PLATFORM].relays.sessions.values()
    return answer(paged(request, [each.as_json() for each in sessions], "sessions"))


async def get_session(request: web.Request) -> web.Response:
    """`GET /v1/relays/sessions/{session_id}`."""
    return answer(request.app[PLATFORM].relays.session(request.match_info["session_id"]).as_json())


async def delete_session(request: web.Request) -> web.Response:
    """`DELETE /v1/relays/sessions/{session_id}`."""
    await request.app[PLATFORM].relays.delete(request.match_info["session_id"])
    return web.Response(status=204)


async def authorize_user(request: web.Request) -> web.Response:
    """`POST /v1/relays/sessions:authorize-user`: the session, with the new user alone."""
    body = await read_body(request, RelayAuthorize)
    session, user = request.app[PLATFORM].relays.authorize(body.session_id, body.user_ip)
    shown = session.as_json()
    del shown["session_users"]
    return answer({**shown, "session_user": user.as_json()})


async def revoke_user(request: web.Request) -> web.Response:
    """`POST /v1/relays/sessions:revoke-user`: 200 with the session, which a kit wants to read."""
    body = await read_body(request, RelayRevoke)
    session = request.app[PLATFORM].relays.session(body.session_id)
    session.revoke(body.authorization_token)
    return answer(session.as_json())


SESSIONS = "/v1/relays/sessions"
OPERATIONS = (
    Operation("POST", SESSIONS, "createRelaySession", create_session),
    Operation("GET", SESSIONS, "listRelaySessions", list_sessions, query=("page", "limit")),
    Operation("GET", f"{SESSIONS}/{{session_id}}", "getRelaySession", get_session),
    Operation("DELETE", f"{SESSIONS}/{{session_id}}", "deleteRelaySession", delete_session),
    Operation("POST", f"{SESSIONS}:authorize-user", "authorizeRelayUser", authorize_user),
    Operation("POST", f"{SESSIONS}:revoke-user", "revokeRelayUser", revoke_user),
)

"""PlayFab: answers the heartbeats of a game server with the GSDK, like PlayFab's VM agent.

Source: PlayFab's own GSDK clients (C++, C#, Unreal, Java). The terms are those of its protocol.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from agent import log, web
from agent.api.models import AckInput, Nothing, PlayerInput, PlayersInput
from agent.api.problems import OperationError
from agent.compat import http
from agent.compat.contracts import ENDING, Closable, Link, game, settled
from agent.lifecycle.game_report import MAX_ID_LENGTH, MAX_PLAYERS
from agent.lifecycle.states import Phase

Json = dict[str, Any]

HEALTH_SECONDS = 60.0
"""How long a game may send no heartbeat, or say that it is unhealthy, where AGENT_HEALTH_TIMEOUT does not say it."""
INTERVAL_MS = 1000
"""How often a game is to send heartbeats."""
_HEARD_SECONDS = 10.0
_CALLER = game("playfab")


class PlayFab:
    """The VM agent; see `agent.compat.contracts.Host`."""

    name = "playfab"

    def __init__(self, link: Link) -> None:
        """Nothing is served yet."""
        self.listeners: Mapping[str, Callable[[Any], Awaitable[Closable]]] = {"playfab": self._serve}
        self._link = link
        self._began = link.wall()
        self._armed = False
        self._healthy = False  # whether the game ever said so: before that, unhealthy means nothing
        self._ready = False
        self._active = False
        self._terminate = False
        self._heard_at = float("-inf")
        self._said: set[str] = set()

    async def heartbeat(self, given: Mapping[str, Any]) -> Json:
        """One heartbeat: what the game says becomes operations, what is to be done is the answer."""
        state = str(_member(given, "CurrentGameState") or "")
        self._heard_at = self._link.wall()
        await self._take_health(str(_member(given, "CurrentGameHealth") or ""))
        if self._link.phase() is Phase.STARTING:
            # The game was started again: its session begins again as well.
            self._active = self._active and state == "Active"
        if state in ("StandingBy", "Active") and not self._ready:
            self._ready = True
            await self._call(self._link.operations.ready, Nothing())
            self._link.changed()
        if state == "Active" and not self._active:
            self._active = True
            self._link.changed()
        if state in ("Terminating", "Terminated"):
            await self._ending(state)
        else:
            await self._take_players(_member(given, "CurrentPlayers"))
        return self._answer(state)

    async def _take_health(self, health: str) -> None:
        if not self._armed:
            self._armed = True
            self._link.limit_health(HEALTH_SECONDS)
        self._healthy = self._healthy or health == "Healthy"
        # C# says Unhealthy for as long as the game has set no callback: that it speaks at all is its heartbeat then.
        if health == "Healthy" or not self._healthy:
            await self._call(self._link.operations.health, Nothing())
        else:
            self._say_once("the game says that it is unhealthy: no heartbeat until it is healthy again")

    async def _take_players(self, players: Any) -> None:
        if not isinstance(players, list):
            return
        ids = [str(_member(player, "PlayerId") or "") for player in players if isinstance(player, dict)]
        now = {player for player in ids if player and len(player) <= MAX_ID_LENGTH and player.isprintable()}
        known = set(self._link.report.ids)
        for player in known - now:
            await self._call(self._link.operations.players_leave, PlayerInput(id=player))
        for player in (player for player in dict.fromkeys(ids) if player in now - known):
            await self._call(self._link.operations.players_join, PlayerInput(id=player))
        if not now and not known and not self._link.report.players_known and self._active:
            await self._call(self._link.operations.players_set, PlayersInput(count=0))
        elif len(now) < len(ids) <= MAX_PLAYERS:
            # Ids that cannot be ids still play.
            await self._call(self._link.operations.players_set, PlayersInput(count=len(ids)))

    async def _ending(self, state: str) -> None:
        """The game ends: as its answer to Terminate, which acknowledges it, or by itself."""
        if self._link.phase() in (Phase.DRAINING, Phase.STOPPING):
            await self._call(self._link.operations.stop_ack, AckInput())
        elif self._link.phase() not in ENDING:
            await self._call(lambda _given, caller: self._link.operations.ending(f"GSDK: {state}", caller), Nothing())

    async def _call(self, operation: Callable[[Any, Any], Any], given: Any) -> None:
        """Calls an operation; what it cannot do is said, for this protocol has no word for it."""
        try:
            await settled(operation(given, _CALLER))
        except OperationError as problem:
            self._say_once(str(problem))

    def _answer(self, state: str) -> Json:
        operation = "Continue"
        if self._terminate or self._link.phase() in ENDING:
            operation = "Terminate"
        elif state == "StandingBy":
            operation = "Active"
        answer: Json = {"operation": operation, "nextHeartbeatIntervalMs": INTERVAL_MS}
        if state in ("StandingBy", "Active"):
            answer["sessionConfig"] = self.session()
        if self._link.settings.max_duration:
            end = datetime.fromtimestamp(self._began + self._link.settings.max_duration, UTC)
            answer["nextScheduledMaintenanceUtc"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        return answer

    def session(self) -> Json:
        """The session that this deployment was made for."""
        match = self._link.deployment.match
        cookie = self._link.settings.playfab_session_cookie
        if cookie is None:
            cookie = match.profile if isinstance(match.profile, str) else json.dumps(match.profile or {})
        metadata = {f"ticket-{name}": json.dumps(ticket) for name, ticket in match.tickets.items()}
        if match.match_id:
            metadata["matchId"] = match.match_id
        return {
            "sessionId": _guid(match.match_id) or self._link.ids["session"],
            "sessionCookie": cookie,
            "initialPlayers": list(match.ticket_ids),
            "metadata": metadata,
        }

    # The lifecycle, the other way -------------------------------------------------------------------------------------

    def on_change(self) -> None:
        """The next heartbeat's answer says it; a game that was started again is not ready."""
        if self._link.phase() is Phase.STARTING and self._ready:
            self._ready = self._active = self._terminate = False
            self._link.changed()

    def ask_to_stop(self, seconds: float) -> str:
        """`Terminate`, with the answer to the next heartbeat."""
        self._terminate = True
        self._link.changed()
        silent = self._link.wall() - self._heard_at
        return "" if silent < _HEARD_SECONDS else "the game sends no heartbeats to PlayFab's endpoint"

    def snapshot(self) -> Json:
        """See `Host`."""
        return {
            "began": self._began,
            "healthy": self._healthy,
            "ready": self._ready,
            "active": self._active,
            "terminate": self._terminate,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See `Host`."""
        self._began = saved["began"]
        self._healthy, self._ready = saved["healthy"], saved["ready"]
        self._active, self._terminate = saved["active"], saved["terminate"]

    async def close(self) -> None:
        """See `Host`."""

    async def _serve(self, sock: Any) -> Closable:
        server = http.Server("playfab", _problem, self._link.on_request)
        server.route("POST", "/v1/metrics/{id}/gsdkinfo", self._on_info)
        for path in ("/v1/sessionHosts/{id}", "/v1/sessionHosts/{id}/heartbeats"):
            for method in ("PATCH", "POST"):
                server.route(method, path, self._on_heartbeat)
        return await server.start(sock)

    async def _on_info(self, request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._check(fields)
        given = await http.read_object(request, _bad_request)
        log.debug(f"the game has PlayFab's GSDK: {_member(given, 'Flavor')} {_member(given, 'Version')}")
        return http.json_response({})

    async def _on_heartbeat(self, request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._check(fields)
        return http.json_response(await self.heartbeat(await http.read_object(request, _bad_request)))

    def _check(self, fields: Mapping[str, str]) -> None:
        if fields["id"] != self._link.ids["session_host"]:
            raise http.WrongError(_answer(404, "cannot find this session host; use sessionHostId of GSDK_CONFIG_FILE"))

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said and len(self._said) < 100:
            self._said.add(sentence)
            log.warning(f"{sentence} (playfab)")


def _member(given: Mapping[str, Any], name: str) -> Any:
    """A member in the spelling of the SDK, or with a small first letter, as some write it."""
    return given[name] if name in given else given.get(name[:1].lower() + name[1:])


def _guid(text: str | None) -> str | None:
    try:
        return str(UUID(text)) if text else None
    except ValueError:
        return None


def _answer(status: int, sentence: str) -> web.StreamResponse:
    return http.json_response({"error": sentence}, status)


def _problem(problem: OperationError) -> web.StreamResponse:
    return _answer(problem.kind.status, str(problem))


def _bad_request(sentence: str) -> http.WrongError:
    return http.WrongError(_answer(400, sentence))

"""Multiplay (Unity Game Server Hosting): maps the calls of its local daemon to our operations.

Allocation and deallocation are sent to the game as WebSocket events and written to `server.json`; readiness, the
payload and holds use REST. Sources: Unity's Go SDK, and its Unity and Unreal plugins.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from agent import log, web
from agent.api.models import AckInput, Nothing
from agent.api.problems import OperationError
from agent.compat import http
from agent.compat.centrifuge import PING_SECONDS, ProtocolError, Session
from agent.compat.contracts import ENDING, Closable, Link, Tasks, game, settled
from agent.compat.prepare import write_json
from agent.game.files import open_regular
from agent.lifecycle.states import Phase

if TYPE_CHECKING:
    from aiohttp.web_ws import WebSocketResponse

Json = dict[str, Any]

ALLOCATE_AFTER = 10.0
"""Seconds after which the server is allocated where nobody has subscribed."""
SEND_SECONDS = 5.0
"""How long a client may take to read an event before it is closed."""
_GOING_AWAY = 1001
"""RFC 6455, section 7.4.1."""
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[hms])+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([hms])")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_LONGEST_HOLD = 7 * 86400.0
_CALLER = game("multiplay")


class Multiplay:
    """The daemon; see `agent.compat.contracts.Host`."""

    name = "multiplay"

    def __init__(self, link: Link) -> None:
        """Nothing is served yet."""
        self.listeners: Mapping[str, Callable[[Any], Awaitable[Closable]]] = {"multiplay": self._serve}
        self._link = link
        self._server = link.ids["multiplay_server"]
        self._allocation = link.ids["allocation"]
        self._allocated = link.settings.multiplay_allocate == "start"
        self._confirmed = False  # whether the game acted on its allocation, so that it need not be told again
        self._deallocated = ""  # id of the event, once it was sent
        self._held_until = 0.0
        self._clients: set[_Client] = set()
        self._tasks = Tasks()
        self._tasks.start(self._allocate_soon(), "multiplay allocation")

    # Allocation -------------------------------------------------------------------------------------------------------

    @property
    def _may_allocate(self) -> bool:
        match = self._link.deployment.match
        wanted = self._link.settings.multiplay_allocate != "match" or bool(match.match_id or match.ticket_ids)
        return wanted and self._link.phase() not in (Phase.DRAINING, *ENDING)

    async def _allocate_soon(self) -> None:
        """A game that listens for no events finds its allocation in `server.json`."""
        await asyncio.sleep(ALLOCATE_AFTER)
        self._allocate()

    def _allocate(self) -> None:
        """The server is allocated, which it is once: the file says so, then an event."""
        if self._allocated or not self._may_allocate:
            return
        self._allocated = True
        self._link.changed()
        self._rewrite(self._allocation)
        self._publish(self._event("AllocateEventType", self._link.ids["allocation_event"]))

    def _deallocate(self) -> None:
        if self._deallocated or not self._allocated:
            return
        self._deallocated = str(uuid4())
        self._link.changed()
        self._publish(self._event("DeallocateEventType", self._deallocated))
        self._rewrite("")

    def _event(self, kind: str, identity: str) -> Json:
        return {
            "EventType": kind,
            "EventID": identity,
            "ServerID": int(self._server),
            "AllocationID": self._allocation,
        }

    def _rewrite(self, allocation: str) -> None:
        """Changes the allocation in `server.json`, where the agent has written it and it still is what it was."""
        path = self._link.files.get("server.json")
        if path is None:
            return
        try:
            with open(open_regular(path, self._link.user), encoding="utf-8") as file:
                content = json.load(file)
            write_json(path, content | {"allocatedUUID": allocation}, self._link.user)
        except (OSError, ValueError, TypeError) as problem:
            log.warning(f"cannot rewrite {path}: {problem}; a game that reads its allocation there will not find it")

    # Events -----------------------------------------------------------------------------------------------------------

    @property
    def channel(self) -> str:
        """The channel of this server's events."""
        return f"server#{self._server}"

    def subscribed(self, client: _Client) -> None:
        """A client listens from now on. One that comes late is told what it needs, before all else."""
        if self._deallocated:
            client.send(self.channel, self._event("DeallocateEventType", self._deallocated))
        elif not self._allocated:
            self._allocate()
        elif not self._confirmed:
            client.send(self.channel, self._event("AllocateEventType", self._link.ids["allocation_event"]))

    def _publish(self, event: Json) -> None:
        for client in tuple(self._clients):
            client.send(self.channel, event)

    def on_change(self) -> None:
        """See `Host`."""
        phase = self._link.phase()
        if phase in ENDING:
            self._deallocate()
        elif phase is Phase.STARTING and self._confirmed:
            # The game was started again: it has to be told of its allocation again.
            self._confirmed = False
            self._link.changed()

    def ask_to_stop(self, seconds: float) -> str:
        """The deallocation event; the game has its share of the time to react."""
        self._deallocate()
        heard = any(self.channel in client.session.channels for client in self._clients)
        if not self._allocated:
            return "the server was not allocated"
        return "" if heard else "nobody is subscribed to the server's events"

    # REST -------------------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """The game is ready for players: its allocation has arrived."""
        self._allocate()
        self._confirmed = True
        self._link.changed()
        await settled(self._link.operations.ready(Nothing(), _CALLER))

    async def unready(self) -> None:
        """The game takes no players any more. There is no way back from ready; in a stop it is the answer to it."""
        if self._link.phase() in (Phase.DRAINING, Phase.STOPPING):
            with contextlib.suppress(OperationError):
                await settled(self._link.operations.stop_ack(AckInput(), _CALLER))

    def payload(self) -> bytes | None:
        """What came with the allocation: the setting as it is, or what the matchmaker injected, as Unity's had it."""
        if self._link.settings.multiplay_payload is not None:
            return self._link.settings.multiplay_payload.encode()
        match = self._link.deployment.match
        if not (match.match_id or match.ticket_ids):
            return None
        players = [{"Id": name, "CustomData": match.tickets.get(name) or {}} for name in match.ticket_ids]
        result = {
            "MatchId": match.match_id or self._allocation,
            "QueueName": match.profile if isinstance(match.profile, str) else "",
            "PoolName": "",
            "GeneratorName": "",
            "EnvironmentId": "",
            "BackfillTicketId": "",
            "MatchProperties": {
                "Players": players,
                "Teams": [{"TeamName": "players", "TeamId": "", "PlayerIds": list(match.ticket_ids)}],
                "Region": "",
                "BackfillTicketId": "",
            },
        }
        return json.dumps(result).encode()

    def token(self) -> str:
        """A token that is worth nothing, in the form of one: SDKs ask for it before the payload, and send it along."""
        parts = ({"alg": "none", "typ": "JWT"}, {"sub": self._server, "aud": "arbitrium-agent"})
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        return ".".join([*encoded, ""])

    def hold(self, seconds: float) -> Json:
        """No stop for want of players for so many seconds."""
        self._held_until = self._link.wall() + seconds
        self._link.hold(seconds)
        self._link.changed()
        return self.held()

    def held(self) -> Json:
        """Whether it is held, and until when."""
        held = self._held_until > self._link.wall()
        return {"expiresAt": int(self._held_until) if held else 0, "held": held}

    def release(self) -> None:
        """Ends the hold."""
        self._held_until = 0.0
        self._link.hold(None)
        self._link.changed()

    # State, and serving -----------------------------------------------------------------------------------------------

    def snapshot(self) -> Json:
        """See `Host`."""
        return {
            "allocated": self._allocated,
            "confirmed": self._confirmed,
            "deallocated": self._deallocated,
            "held_until": self._held_until,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See `Host`."""
        self._allocated, self._confirmed = saved["allocated"], saved["confirmed"]
        self._deallocated, self._held_until = saved["deallocated"], saved["held_until"]
        if self._held_until > self._link.wall():
            self._link.hold(self._held_until - self._link.wall())

    async def close(self) -> None:
        """See `Host`."""
        await self._tasks.close()

    async def _serve(self, sock: Any) -> Closable:
        server = http.Server("multiplay", _problem, self._link.on_request)
        rest = _Rest(self)
        route = server.route
        route("GET", "/v1/connection/websocket", self._on_websocket, lasts=True)
        route("POST", "/v1/server/{id}/allocation/{allocation}/ready-for-players", rest.ready)
        route("PATCH", "/v1/servers/{id}/allocations/{allocation}", rest.patch_allocation)
        route("POST", "/v1/server/{id}/ready", rest.ready)
        route("POST", "/v1/server/{id}/unready", rest.unready)
        route("GET", "/payload/token", rest.token)
        route("GET", "/token", rest.token)
        route("GET", "/payload/{allocation}", rest.payload)
        route("GET", "/v1/servers/{id}/hold", rest.held)
        route("POST", "/v1/servers/{id}/hold", rest.hold)
        route("DELETE", "/v1/servers/{id}/hold", rest.release)
        route("POST", "/v1/servers/{id}/reservations", rest.reserve)
        route("DELETE", "/v1/servers/{id}/reservations", rest.unreserve)
        return await server.start(sock)

    async def _on_websocket(self, request: web.BaseRequest, _fields: dict[str, str]) -> web.StreamResponse:
        # Imported for the game that wants it: it takes longer than all the rest of this module.
        from aiohttp.http import WSCloseCode, WSMsgType  # noqa: PLC0415
        from aiohttp.web_exceptions import HTTPException  # noqa: PLC0415
        from aiohttp.web_ws import WebSocketResponse  # noqa: PLC0415

        socket = WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=http.BODY_LIMIT, compress=False)
        try:
            await socket.prepare(request)
        except HTTPException as wrong:
            raise _wrong(wrong.status, "cannot open a WebSocket: the request is no handshake for one") from None
        client = _Client(socket, Session(lambda channel: channel == self.channel))
        self._clients.add(client)
        sending = asyncio.get_running_loop().create_task(client.keep_sending(), name="multiplay client")
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"JSON only")
                    break
                answers, subscribed = client.session.take(message.data)
                client.put("\n".join(answers))
                if subscribed:
                    self.subscribed(client)
        except ProtocolError as wrong:
            await socket.close(code=3501, message=str(wrong).encode())  # Centrifuge's "bad request", do not reconnect
        finally:
            self._clients.discard(client)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return socket

    def check(self, fields: Mapping[str, str]) -> None:
        """Refuses calls about another server or allocation.

        Raises:
            WrongError: it is another.
        """
        if fields.get("id", self._server) != self._server:
            raise _wrong(404, f"cannot find server {fields['id'][:40]}: this one is {self._server}")
        if fields.get("allocation", self._allocation) != self._allocation:
            raise _wrong(404, f"cannot find allocation {fields['allocation'][:40]}: this one's is {self._allocation}")

    @property
    def reservation(self) -> Json:
        """What a reservation is answered with: this deployment is reserved by being there."""
        ports = list(self._link.deployment.ports.values())
        return {
            "buildConfigurationID": 0,
            "created": "1970-01-01T00:00:00Z",
            "fulfilled": "1970-01-01T00:00:00Z",
            "requested": "1970-01-01T00:00:00Z",
            "gamePort": (ports[0].external or ports[0].internal) if ports else 0,
            "ipv4": self._link.deployment.public_ip or "127.0.0.1",
            "ipv6": None,
            "machineID": 0,
            "reservationID": self._allocation,
        }


class _Client:
    """A WebSocket client. What is sent waits in a queue, so that a slow one holds up nobody."""

    def __init__(self, socket: WebSocketResponse, session: Session) -> None:
        self.session = session
        self._socket = socket
        self._queue: asyncio.Queue[str] = asyncio.Queue(maxsize=256)

    def send(self, channel: str, event: Json) -> None:
        """Sends an event, where the client is subscribed."""
        if channel in self.session.channels:
            self.put(self.session.push(channel, event))

    def put(self, text: str) -> None:
        """Sends a message."""
        if text and not self._queue.full():
            self._queue.put_nowait(text)

    async def keep_sending(self) -> None:
        """Sends what waits, and pings where the protocol has its own."""
        while not self._socket.closed:
            text: str | None
            try:
                async with asyncio.timeout(PING_SECONDS):
                    text = await self._queue.get()
            except TimeoutError:
                text = self.session.ping
            if text is None:
                continue
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._socket.send_str(text)
            except (TimeoutError, ConnectionError):
                await self._socket.close(code=_GOING_AWAY)
                return


class _Rest:
    """The daemon's REST."""

    def __init__(self, multiplay: Multiplay) -> None:
        self._multiplay = multiplay

    async def ready(self, _request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        await self._multiplay.ready()
        return web.Response(status=200)

    async def patch_allocation(self, request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        given = await http.read_object(request, _bad_request)
        if given.get("ready") is True:
            await self._multiplay.ready()
        else:
            await self._multiplay.unready()
        return web.Response(status=204)

    async def unready(self, _request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        await self._multiplay.unready()
        return web.Response(status=200)

    async def token(self, _request: web.BaseRequest, _fields: dict[str, str]) -> web.StreamResponse:
        return http.json_response({"token": self._multiplay.token(), "error": ""})

    async def payload(self, _request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        found = self._multiplay.payload()
        if found is None:
            raise _wrong(404, "cannot find a payload: set AGENT_MULTIPLAY_PAYLOAD, or deploy through the matchmaker")
        return web.Response(body=found, content_type="application/json")

    async def held(self, _request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        return http.json_response(self._multiplay.held())

    async def hold(self, request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        given = await http.read_object(request, _bad_request)
        return http.json_response(self._multiplay.hold(hold_seconds(given.get("timeout"))))

    async def release(self, _request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        self._multiplay.release()
        return web.Response(status=204)

    async def reserve(self, _request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        return http.json_response(self._multiplay.reservation)

    async def unreserve(self, _request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
        self._multiplay.check(fields)
        return web.Response(status=204)


def hold_seconds(text: Any) -> float:
    """Go's way to write a duration: `10m`, `1h30m`, `90s`.

    Raises:
        WrongError: it is none, or longer than a week.
    """
    if isinstance(text, str) and _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        if 0 < seconds <= _LONGEST_HOLD:
            return seconds
    raise _wrong(400, f"cannot hold: timeout got {str(text)[:40]!r} and takes a duration such as 10m, at most a week")


def _wrong(status: int, sentence: str) -> http.WrongError:
    return http.WrongError(_answer(status, sentence))


def _answer(status: int, sentence: str) -> web.StreamResponse:
    title = sentence.partition(":")[0]
    return http.json_response({"status": status, "title": title, "detail": sentence, "requestId": str(uuid4())}, status)


def _problem(problem: OperationError) -> web.StreamResponse:
    return _answer(problem.kind.status, str(problem))


def _bad_request(sentence: str) -> http.WrongError:
    return _wrong(400, sentence)

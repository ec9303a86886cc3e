"""Agones over gRPC: its three services on 9357. Needs `grpclib` (pure Python) and `protobuf`.

Messages are converted to and from the same dictionaries as in REST; the calls themselves are implemented only in
`agent.compat.agones`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict, ParseDict
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from agent.api.problems import OperationError, internal
from agent.compat.agones import CODES, Agones, AgonesError, Json, failure, int64
from agent.compat.agones_messages import MESSAGES
from agent.compat.grpc_limits import LimitedServer, Receiver
from agent.init.sockets import BACKLOG

if TYPE_CHECKING:
    import socket

    from agent.api.contracts import OnRequest

_SDK, _ALPHA, _BETA = "agones.dev.sdk", "agones.dev.sdk.alpha", "agones.dev.sdk.beta"
_CLOSE_SECONDS = 0.2
_ACCEPTED_AT_ONCE = 4
_MESSAGE_CHARACTERS = 1000

Call = Callable[[Json], Awaitable[Json]]


class _Services:
    """All three services as grpclib wants them: handlers by path."""

    def __init__(self, agones: Agones, on_request: OnRequest | None) -> None:
        self._agones = agones
        self._on_request = on_request
        self._receiver = Receiver()

    def __mapping__(self) -> dict[str, Handler]:
        agones = self._agones
        mapping: dict[str, Handler] = {}

        def unary(package: str, method: str, takes: str, gives: str, call: Call) -> None:
            path = f"/{package}.SDK/{method}"
            handler = self._unary(path, call, MESSAGES[f"{package}.{gives}"])
            mapping[path] = Handler(
                handler, Cardinality.UNARY_UNARY, MESSAGES[f"{package}.{takes}"], MESSAGES[f"{package}.{gives}"]
            )

        async def nothing(call: Awaitable[None]) -> Json:
            await call
            return {}

        async def value(found: Json) -> Json:
            return found

        async def metadata(kind: str, given: Json) -> Json:
            agones.set_metadata(kind, given.get("key", ""), given.get("value", ""))
            return {}

        async def boolean(call: Awaitable[bool]) -> Json:
            return {"bool": await call}

        async def is_connected(given: Json) -> Json:
            return {"bool": given.get("playerID", "") in agones.players()}

        unary(_SDK, "Ready", "Empty", "Empty", lambda _: nothing(agones.ready()))
        unary(_SDK, "Allocate", "Empty", "Empty", lambda _: nothing(agones.allocate()))
        unary(_SDK, "Shutdown", "Empty", "Empty", lambda _: nothing(agones.shutdown()))
        unary(_SDK, "Reserve", "Duration", "Empty", lambda g: nothing(agones.reserve(int64(g, "seconds", 0))))
        unary(_SDK, "GetGameServer", "Empty", "GameServer", lambda _: value(agones.gameserver()))
        unary(_SDK, "SetLabel", "KeyValue", "Empty", lambda g: metadata("label", g))
        unary(_SDK, "SetAnnotation", "KeyValue", "Empty", lambda g: metadata("annotation", g))
        mapping[f"/{_SDK}.SDK/Health"] = Handler(
            self._health, Cardinality.STREAM_UNARY, MESSAGES[f"{_SDK}.Empty"], MESSAGES[f"{_SDK}.Empty"]
        )
        mapping[f"/{_SDK}.SDK/WatchGameServer"] = Handler(
            self._watch, Cardinality.UNARY_STREAM, MESSAGES[f"{_SDK}.Empty"], MESSAGES[f"{_SDK}.GameServer"]
        )
        player = "PlayerID"
        unary(_ALPHA, "PlayerConnect", player, "Bool", lambda g: boolean(agones.connect(g.get("playerID", ""))))
        unary(_ALPHA, "PlayerDisconnect", player, "Bool", lambda g: boolean(agones.disconnect(g.get("playerID", ""))))
        unary(_ALPHA, "IsPlayerConnected", player, "Bool", is_connected)
        unary(
            _ALPHA, "SetPlayerCapacity", "Count", "Empty", lambda g: nothing(agones.set_capacity(int64(g, "count", 0)))
        )
        unary(_ALPHA, "GetPlayerCapacity", "Empty", "Count", lambda _: value({"count": agones.capacity()}))
        unary(_ALPHA, "GetPlayerCount", "Empty", "Count", lambda _: value({"count": len(agones.players())}))
        unary(_ALPHA, "GetConnectedPlayers", "Empty", "PlayerIDList", lambda _: value({"list": agones.players()}))
        self._lists(unary)
        return mapping

    def _lists(self, unary: Callable[[str, str, str, str, Call], None]) -> None:
        agones = self._agones

        async def counter(given: Json) -> Json:
            return agones.counter(given.get("name", ""))

        async def update_counter(given: Json) -> Json:
            update = given.get("counterUpdateRequest", {})
            return await agones.update_counter(update.get("name", ""), update)

        async def get_list(given: Json) -> Json:
            return agones.list(given.get("name", ""))

        async def update_list(given: Json) -> Json:
            wanted = given.get("list", {})
            fields = {part for part in str(given.get("update_mask", "")).split(",") if part}
            return await agones.update_list(wanted.get("name", ""), wanted, fields or set(wanted) - {"name"})

        async def add_value(given: Json) -> Json:
            return await agones.add_value(given.get("name", ""), given.get("value", ""))

        async def remove_value(given: Json) -> Json:
            return await agones.remove_value(given.get("name", ""), given.get("value", ""))

        unary(_BETA, "GetCounter", "GetCounterRequest", "Counter", counter)
        unary(_BETA, "UpdateCounter", "UpdateCounterRequest", "Counter", update_counter)
        unary(_BETA, "GetList", "GetListRequest", "List", get_list)
        unary(_BETA, "UpdateList", "UpdateListRequest", "List", update_list)
        unary(_BETA, "AddListValue", "AddListValueRequest", "List", add_value)
        unary(_BETA, "RemoveListValue", "RemoveListValueRequest", "List", remove_value)

    def _unary(self, path: str, call: Call, gives: Any) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def handle(stream: Stream[Any, Any]) -> None:
            began, status = time.perf_counter(), "OK"
            self._agones.heard()
            try:
                request = await self._receiver.receive(stream)
                given = MessageToDict(request, preserving_proto_field_name=True) if request is not None else {}
                result = await call(given)
                await stream.send_message(ParseDict(result, gives()))
            except Exception as problem:
                error = _grpc_error(path, problem)
                status = error.status.name
                raise error from None
            finally:
                if self._on_request is not None:
                    self._on_request("agones-grpc", path, status, time.perf_counter() - began)

        return handle

    async def _health(self, stream: Stream[Any, Any]) -> None:
        """A stream of heartbeats, for as long as the game lives."""
        self._agones.heard()
        while await self._receiver.receive(stream) is not None:
            await self._agones.health()
        await stream.send_message(MESSAGES[f"{_SDK}.Empty"]())

    async def _watch(self, stream: Stream[Any, Any]) -> None:
        self._agones.heard()
        await self._receiver.receive(stream)
        async with contextlib.aclosing(self._agones.watch()) as shown:
            async for gameserver in shown:
                await stream.send_message(ParseDict(gameserver, MESSAGES[f"{_SDK}.GameServer"]()))


def _grpc_error(path: str, problem: Exception) -> GRPCError:
    if isinstance(problem, GRPCError):
        return problem
    if not isinstance(problem, AgonesError | OperationError):
        problem = internal(f"Agones {path}", problem)
    name, message = failure(problem)
    # It travels as a header, and hpack takes 0.6 s for one of 64 KiB, 10 s for four times that.
    shown = message if len(message) <= _MESSAGE_CHARACTERS else message[:_MESSAGE_CHARACTERS] + "…"
    return GRPCError(Status(CODES[name][0]), shown)


class GrpcServer:
    """The running server; made by `serve`."""

    def __init__(self, server: Server) -> None:
        """Takes one that was started."""
        self._server = server

    async def close(self) -> None:
        """Stops accepting and ends all calls; streams would wait for their clients."""
        self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._server.wait_closed()


async def serve(agones: Agones, sock: socket.socket, on_request: OnRequest | None) -> GrpcServer:
    """Serves the three services on a socket that is bound and listening."""
    server = LimitedServer([_Services(agones, on_request)])
    await server.start(sock=sock, backlog=_ACCEPTED_AT_ONCE)
    sock.listen(BACKLOG)  # asyncio has set it to the number of accepts in one round of the loop
    return GrpcServer(server)

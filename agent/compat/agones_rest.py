"""Agones over REST: the routes and the JSON of grpc-gateway, which its sidecar serves on port 9358."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent import web
from agent.api.problems import OperationError
from agent.compat import http
from agent.compat.agones import CODES, Agones, AgonesError, Json, failure, int64
from agent.compat.contracts import Link


def server(agones: Agones, link: Link) -> http.Server:
    """The routes of grpc-gateway, as the `.proto` files have them."""
    routes = http.Server("agones", _gateway_error, link.on_request)
    call = _Rest(agones)
    for path in ("ready", "allocate", "shutdown", "health", "reserve"):
        routes.route("POST", f"/{path}", call.wrap(getattr(call, path)))
    routes.route("GET", "/gameserver", call.wrap(call.gameserver))
    routes.route("GET", "/watch/gameserver", call.watch, lasts=True)
    for kind in ("label", "annotation"):
        routes.route("PUT", f"/metadata/{kind}", call.wrap(getattr(call, kind)))
    routes.route("GET", "/alpha/player/capacity", call.wrap(call.get_capacity))
    routes.route("PUT", "/alpha/player/capacity", call.wrap(call.set_capacity))
    routes.route("POST", "/alpha/player/connect", call.wrap(call.connect))
    routes.route("POST", "/alpha/player/disconnect", call.wrap(call.disconnect))
    routes.route("GET", "/alpha/player/connected", call.wrap(call.connected))
    routes.route("GET", "/alpha/player/connected/{playerID}", call.wrap(call.is_connected))
    routes.route("GET", "/alpha/player/count", call.wrap(call.count))
    for version in ("v1beta1", "v1alpha1"):
        routes.route("GET", f"/{version}/counters/{{name}}", call.wrap(call.counter))
        routes.route("PATCH", f"/{version}/counters/{{name}}", call.wrap(call.update_counter))
        routes.route("GET", f"/{version}/lists/{{name}}", call.wrap(call.list))
        routes.route("PATCH", f"/{version}/lists/{{name}}", call.wrap(call.update_list))
        routes.route("POST", f"/{version}/lists/{{name}}", call.wrap(call.change_list))
    return routes


class _Rest:
    """The calls as grpc-gateway has them: input from path and body, output as JSON."""

    def __init__(self, agones: Agones) -> None:
        self._agones = agones

    def wrap(self, call: Callable[[Json], Awaitable[Json]]) -> http.Handler:
        """A handler that reads the input, calls, and writes what it returns."""

        async def handle(request: web.BaseRequest, fields: dict[str, str]) -> web.StreamResponse:
            self._agones.heard()
            given: Json = {}
            # Health is a stream: one connection may send many values, and each is worth one answer at its end.
            if request.can_read_body and request.rel_url.raw_path != "/health":
                given = await http.read_object(request, _bad_request)
            try:
                return http.json_response(await call(given | fields))
            except AgonesError as wrong:
                return _gateway_error(wrong)

        return handle

    async def ready(self, _given: Json) -> Json:
        await self._agones.ready()
        return {}

    async def allocate(self, _given: Json) -> Json:
        await self._agones.allocate()
        return {}

    async def shutdown(self, _given: Json) -> Json:
        await self._agones.shutdown()
        return {}

    async def health(self, _given: Json) -> Json:
        await self._agones.health()
        return {}

    async def reserve(self, given: Json) -> Json:
        await self._agones.reserve(int64(given, "seconds", 0))
        return {}

    async def gameserver(self, _given: Json) -> Json:
        return self._agones.gameserver()

    async def label(self, given: Json) -> Json:
        self._agones.set_metadata("label", _text(given, "key"), _text(given, "value"))
        return {}

    async def annotation(self, given: Json) -> Json:
        self._agones.set_metadata("annotation", _text(given, "key"), _text(given, "value"))
        return {}

    async def get_capacity(self, _given: Json) -> Json:
        return {"count": str(self._agones.capacity())}

    async def set_capacity(self, given: Json) -> Json:
        await self._agones.set_capacity(int64(given, "count", 0))
        return {}

    async def connect(self, given: Json) -> Json:
        return {"bool": await self._agones.connect(_text(given, "playerID", "player_id"))}

    async def disconnect(self, given: Json) -> Json:
        return {"bool": await self._agones.disconnect(_text(given, "playerID", "player_id"))}

    async def connected(self, _given: Json) -> Json:
        return {"list": self._agones.players()}

    async def is_connected(self, given: Json) -> Json:
        return {"bool": given["playerID"] in self._agones.players()}

    async def count(self, _given: Json) -> Json:
        return {"count": str(len(self._agones.players()))}

    async def counter(self, given: Json) -> Json:
        return self._agones.counter(given["name"])

    async def update_counter(self, given: Json) -> Json:
        return await self._agones.update_counter(given["name"], given)

    async def list(self, given: Json) -> Json:
        return self._agones.list(given["name"])

    async def update_list(self, given: Json) -> Json:
        return await self._agones.update_list(given["name"], given, set(given) - {"name"})

    async def change_list(self, given: Json) -> Json:
        name, _, verb = given["name"].rpartition(":")
        if verb == "addValue":
            return await self._agones.add_value(name, _text(given, "value"))
        if verb == "removeValue":
            return await self._agones.remove_value(name, _text(given, "value"))
        raise AgonesError("NOT_FOUND", "cannot change a list: its path ends in :addValue or :removeValue")

    async def watch(self, request: web.BaseRequest, _fields: dict[str, str]) -> web.StreamResponse:
        """One JSON object a line, for as long as the game reads."""
        self._agones.heard()
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        stream.enable_chunked_encoding()
        await stream.prepare(request)
        async for shown in self._agones.watch():
            await stream.write(json.dumps({"result": shown}).encode() + b"\n")
        return stream


def _gateway_error(problem: OperationError | AgonesError) -> web.StreamResponse:
    """An error as grpc-gateway has it."""
    name, message = failure(problem)
    code, status = CODES[name]
    return http.json_response({"code": code, "message": message, "details": []}, status)


def _bad_request(sentence: str) -> http.WrongError:
    return http.WrongError(_gateway_error(AgonesError("INVALID_ARGUMENT", sentence)))


def _text(given: Mapping[str, Any], *names: str) -> str:
    value = next((given[name] for name in names if name in given), "")
    if not isinstance(value, str):
        raise AgonesError("INVALID_ARGUMENT", f"cannot read {names[0]}: it takes text")
    return value

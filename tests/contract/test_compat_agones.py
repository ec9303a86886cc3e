"""Agones' sidecar, as its SDKs see it: REST and gRPC, state, players, counters and lists."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError

from agent.compat import http
from agent.compat.agones_messages import MESSAGES
from agent.compat.grpc_limits import MESSAGE_LIMIT, UNFINISHED_LIMIT
from agent.compat.http import CONNECTIONS
from agent.errors import SettingsError
from agent.lifecycle.states import Phase, Reason
from tests.api_fakes import DEADLINE, eventually
from tests.compat_fakes import Served, serving

REST = "agones-http"
LISTS: dict[str, Any] = {"agones_counters": "rooms=1/10", "agones_lists": "items=a|b/3"}


async def state(served: Served) -> str:
    """The state that the game reads."""
    answer = await served.call(REST, "GET", "/gameserver")
    return str(answer.body["status"]["state"])


def figure(served: Served, metric: str, name: str) -> float:
    """A counter's or list's number, as Prometheus gets it."""
    return served.agent.report.metrics[metric].series[(("name", name),)].value


async def test_the_game_server_is_the_deployment(tmp_path: Path) -> None:
    """Name, address and ports are those that players use; numbers of 64 bits are text."""
    async with serving(tmp_path, "agones", match=True, **LISTS) as served:
        answer = await served.call(REST, "GET", "/gameserver")
        assert answer.status == 200
        meta, spec, status = (answer.body[part] for part in ("object_meta", "spec", "status"))
        assert meta["name"] == "23c01225b99d"
        assert meta["uid"] == served.prepared.ids["agones_uid"]
        assert int(meta["creation_timestamp"]) > 1_700_000_000
        assert isinstance(meta["creation_timestamp"], str)
        assert meta["annotations"]["edgegap.com/match-profile"] == "duel"
        assert json.loads(meta["annotations"]["edgegap.com/ticket-ids"]) == ["ada", "grace"]
        health = {"disabled": False, "period_seconds": 5, "failure_threshold": 3, "initial_delay_seconds": 5}
        assert spec["health"] == health
        assert status["state"] == "Starting"
        assert status["address"] == "172.236.117.196"
        assert {"type": "ExternalDNS", "address": "23c01225b99d.pr.edgegap.net"} in status["addresses"]
        assert status["ports"] == [{"name": "gameport", "port": 32013}, {"name": "query", "port": 32014}]
        assert status["counters"] == {"rooms": {"count": "1", "capacity": "10"}}
        assert status["lists"] == {"items": {"capacity": "3", "values": ["a", "b"]}}


async def test_ready_is_our_ready_and_allocated_follows(tmp_path: Path) -> None:
    """A deployment is made for one match: it is allocated when it is ready, once."""
    async with serving(tmp_path, "agones") as served:
        assert (await served.call(REST, "POST", "/ready", {})).body == {}
        assert served.phase() is Phase.READY
        assert await state(served) == "Allocated"
        assert (
            "agones.dev/last-allocated"
            in (await served.call(REST, "GET", "/gameserver")).body["object_meta"]["annotations"]
        )
        await served.call(REST, "POST", "/ready", {})
        assert await state(served) == "Ready"  # a game that has had its match is not given another


async def test_where_the_setting_says_so_a_game_allocates_itself(tmp_path: Path) -> None:
    """Ready stays Ready until the game says Allocate, and Reserved goes back to Ready by itself."""
    async with serving(tmp_path, "agones", agones_allocate="off") as served:
        await served.call(REST, "POST", "/ready", {})
        assert await state(served) == "Ready"
        await served.call(REST, "POST", "/reserve", {"seconds": "1"})
        assert await state(served) == "Reserved"
        await served.call(REST, "POST", "/allocate", {})
        assert await state(served) == "Allocated"
        await served.call(REST, "POST", "/reserve", {"seconds": 1})
        until = asyncio.get_running_loop().time() + DEADLINE
        while await state(served) != "Ready":
            assert asyncio.get_running_loop().time() < until, "a reservation ends"
            await asyncio.sleep(0.05)


async def test_shutdown_is_our_stop_and_shows_in_the_state(tmp_path: Path) -> None:
    """The stop request is the game's own, and so is its reason."""
    async with serving(tmp_path, "agones") as served:
        await served.call(REST, "POST", "/ready", {})
        assert (await served.call(REST, "POST", "/shutdown", {})).body == {}
        stop = served.agent.driver.state.stop
        assert stop is not None
        assert (stop.source, stop.reason, stop.message) == ("game", "requested", "Agones SDK: Shutdown")
        assert await state(served) == "Shutdown"


async def test_a_stop_for_want_of_health_is_unhealthy(tmp_path: Path) -> None:
    """As Agones has it, with its own period and threshold as the limit; the first call counts as the first beat."""
    async with serving(tmp_path, "agones", agones_health_period="2", agones_health_threshold="4") as served:
        await served.call(REST, "POST", "/ready", {})
        await eventually(lambda: served.agent.report.heartbeats == 1, "the first call is a heartbeat")
        assert served.health_limits == [8.0]
        await served.call(REST, "POST", "/health", {})
        assert served.agent.report.heartbeats == 2
        served.stop(Reason.HEARTBEAT_LOST)
        assert await state(served) == "Unhealthy"


async def test_health_that_is_switched_off_limits_nothing(tmp_path: Path) -> None:
    """A period of 0 is Agones' `disabled`."""
    async with serving(tmp_path, "agones", agones_health_period="0") as served:
        answer = await served.call(REST, "GET", "/gameserver")
        assert answer.body["spec"]["health"]["disabled"] is True
        assert served.health_limits == []


async def test_a_watch_tells_every_change_until_its_reader_goes(tmp_path: Path) -> None:
    """One JSON object a line, the present one first."""
    async with (
        serving(tmp_path, "agones") as served,
        served.session.get(f"http://localhost:{served.port(REST)}/watch/gameserver") as stream,
    ):

        async def next_one() -> Any:
            async with asyncio.timeout(DEADLINE):
                return json.loads(await stream.content.readline())["result"]

        assert (await next_one())["status"]["state"] == "Starting"
        await served.call(REST, "PUT", "/metadata/label", {"key": "mode", "value": "duel"})
        assert (await next_one())["object_meta"]["labels"] == {"agones.dev/sdk-mode": "duel"}
        await served.call(REST, "POST", "/ready", {})
        shown = await next_one()
        while shown["status"]["state"] != "Allocated":
            shown = await next_one()
        assert served.compat.ask_to_stop("agones", 5.0) == ""
        served.stop()
        while shown["status"]["state"] != "Shutdown":
            shown = await next_one()


async def test_a_stop_that_nobody_can_hear_says_so(tmp_path: Path) -> None:
    """Then the next stop method has its turn."""
    async with serving(tmp_path, "agones") as served:
        assert "has not used it" in served.compat.ask_to_stop("agones", 5.0)
        await served.call(REST, "POST", "/ready", {})
        assert "nobody watches" in served.compat.ask_to_stop("agones", 5.0)
        assert "AGENT_COMPAT does not have playfab" in served.compat.ask_to_stop("playfab", 5.0)


async def test_players_are_our_players(tmp_path: Path) -> None:
    """Tracking by ids; beyond the capacity it is an error, as in Agones."""
    async with serving(tmp_path, "agones") as served:
        assert (await served.call(REST, "GET", "/alpha/player/capacity")).body == {"count": "0"}
        await served.call(REST, "PUT", "/alpha/player/capacity", {"count": "2"})
        assert (await served.call(REST, "GET", "/alpha/player/capacity")).body == {"count": "2"}
        connect = "/alpha/player/connect"
        assert (await served.call(REST, "POST", connect, {"playerID": "ada"})).body == {"bool": True}
        assert (await served.call(REST, "POST", connect, {"playerID": "ada"})).body == {"bool": False}
        await served.call(REST, "POST", connect, {"playerID": "a/b c"})
        assert (await served.call(REST, "POST", connect, {"playerID": "linus"})).status == 500
        assert (await served.call(REST, "GET", "/alpha/player/connected")).body == {"list": ["ada", "a/b c"]}
        assert (await served.call(REST, "GET", "/alpha/player/connected/a%2Fb%20c")).body == {"bool": True}
        assert (await served.call(REST, "GET", "/alpha/player/count")).body == {"count": "2"}
        assert (served.agent.report.count, served.agent.report.capacity) == (2, 2)
        gone = await served.call(REST, "POST", "/alpha/player/disconnect", {"playerID": "ada"})
        assert gone.body == {"bool": True}
        assert (await served.call(REST, "GET", "/alpha/player/connected/ada")).body == {"bool": False}


async def test_a_capacity_of_0_is_one_that_somebody_said(tmp_path: Path) -> None:
    """No player, nothing counted, no value; and less than there are lets nobody in, and nobody out."""
    async with serving(tmp_path, "agones", agones_counters="none=0/0,rooms=2/9", agones_lists="empty=/0") as served:
        connect, capacity = "/alpha/player/connect", "/alpha/player/capacity"
        assert (await served.call(REST, "PUT", capacity, {"count": 0})).status == 200
        assert (await served.call(REST, "POST", connect, {"playerID": "ada"})).status == 500
        await served.call(REST, "PUT", capacity, {"count": "1"})
        assert (await served.call(REST, "POST", connect, {"playerID": "ada"})).body == {"bool": True}
        assert (await served.call(REST, "PUT", capacity, {"count": "0"})).status == 200
        assert (await served.call(REST, "GET", capacity)).body == {"count": "0"}
        assert (await served.call(REST, "POST", connect, {"playerID": "linus"})).status == 500
        shown = (await served.call(REST, "GET", "/gameserver")).body["status"]
        assert shown["players"] == {"count": "1", "capacity": "0", "ids": ["ada"]}
        assert shown["counters"]["none"] == {"count": "0", "capacity": "0"}
        assert shown["lists"] == {"empty": {"capacity": "0", "values": []}}
        assert (await served.call(REST, "PATCH", "/v1beta1/counters/none", {"countDiff": 1})).status == 400
        assert (await served.call(REST, "PATCH", "/v1beta1/counters/rooms", {"capacity": 0})).body["count"] == "0"
        assert (await served.call(REST, "POST", "/v1beta1/lists/empty:addValue", {"value": "x"})).status == 400
        for wrong in ({"count": -1}, {"count": "x"}, {"count": 2**63}):
            assert (await served.call(REST, "PUT", capacity, wrong)).status == 400


@pytest.mark.parametrize("version", ["v1beta1", "v1alpha1"])
async def test_counters_count_and_are_metrics(tmp_path: Path, version: str) -> None:
    """Numbers come as text or as numbers; what is out of range changes nothing."""
    path = f"/{version}/counters/rooms"
    async with serving(tmp_path, "agones", **LISTS) as served:
        assert (await served.call(REST, "GET", path)).body == {"name": "rooms", "count": "1", "capacity": "10"}
        assert (await served.call(REST, "PATCH", path, {"countDiff": "3"})).body["count"] == "4"
        assert (await served.call(REST, "PATCH", path, {"countDiff": -1})).body["count"] == "3"
        assert (await served.call(REST, "PATCH", path, {"count": 9, "capacity": "12"})).body["capacity"] == "12"
        for wrong in ({"count": "13"}, {"countDiff": "-10"}, {"count": -1}, {"capacity": "-1"}, {"count": 2**63}):
            refused = await served.call(REST, "PATCH", path, wrong)
            assert refused.status == 400, wrong
            assert refused.body["code"] in (3, 11)
        assert (await served.call(REST, "GET", path)).body["count"] == "9"
        missing = await served.call(REST, "GET", f"/{version}/counters/nix")
        assert (missing.status, missing.body["code"]) == (404, 5)
        assert figure(served, "agones_counter", "rooms") == 9
        assert figure(served, "agones_counter_capacity", "rooms") == 12


@pytest.mark.parametrize("version", ["v1beta1", "v1alpha1"])
async def test_lists_hold_different_texts(tmp_path: Path, version: str) -> None:
    """What is there is 409, what is not 404, what has no room 400."""
    path = f"/{version}/lists/items"
    async with serving(tmp_path, "agones", **LISTS) as served:
        assert (await served.call(REST, "GET", path)).body["values"] == ["a", "b"]
        assert (await served.call(REST, "POST", path + ":addValue", {"value": "c"})).body["values"] == ["a", "b", "c"]
        assert (await served.call(REST, "POST", path + ":addValue", {"value": "c"})).status == 409
        assert (await served.call(REST, "POST", path + ":addValue", {"value": "d"})).status == 400
        assert (await served.call(REST, "POST", path + ":removeValue", {"value": "x"})).status == 404
        assert (await served.call(REST, "POST", path + ":removeValue", {"value": "a"})).body["values"] == ["b", "c"]
        changed = await served.call(REST, "PATCH", path, {"capacity": "1"})
        assert changed.body == {"name": "items", "capacity": "1", "values": ["b"]}
        assert (await served.call(REST, "PATCH", path, {"values": ["x", "x"]})).body["values"] == ["x"]
        assert (await served.call(REST, "PATCH", path, {"capacity": 1001})).status == 400
        assert (await served.call(REST, "GET", f"/{version}/lists/nix")).status == 404
        assert figure(served, "agones_list", "items") == 1


async def test_a_list_called_players_says_how_many_play(tmp_path: Path) -> None:
    """Newer games keep their players in a list: policies and metrics see them."""
    async with serving(tmp_path, "agones", agones_lists="players=/4") as served:
        await served.call(REST, "POST", "/v1beta1/lists/players:addValue", {"value": "ada"})
        await eventually(lambda: served.agent.report.count == 1, "the list's values play")
        assert served.agent.report.capacity == 4


async def test_a_gameserver_yaml_says_what_there_is_at_the_start(tmp_path: Path) -> None:
    """The file that people have, with a Fleet around it or not; settings win over it."""
    file = tmp_path / "fleet.yaml"
    file.write_text(
        """
apiVersion: v1
kind: ConfigMap
---
apiVersion: agones.dev/v1
kind: Fleet
spec:
  template:
    metadata: {labels: {mode: duel}, annotations: {region: 7}}
    spec:
      health: {periodSeconds: 7, failureThreshold: 2, initialDelaySeconds: 1}
      counters: {rooms: {count: 2, capacity: 8}, other: {}}
      lists: {items: {values: [x], capacity: 5}}
      players: {initialCapacity: 6}
"""
    )
    async with serving(
        tmp_path, "agones", agones_config=str(file), agones_counters="rooms=3/9", agones_health_threshold="4"
    ) as served:
        shown = (await served.call(REST, "GET", "/gameserver")).body
        assert shown["object_meta"]["labels"] == {"mode": "duel"}
        assert shown["object_meta"]["annotations"]["region"] == "7"
        assert shown["spec"]["health"]["period_seconds"] == 7
        assert shown["spec"]["health"]["failure_threshold"] == 4
        assert shown["status"]["counters"] == {
            "rooms": {"count": "3", "capacity": "9"},
            "other": {"count": "0", "capacity": "1000"},
        }
        assert shown["status"]["lists"] == {"items": {"capacity": "5", "values": ["x"]}}
        assert shown["status"]["players"]["capacity"] == "6"


async def test_a_file_that_says_what_cannot_be_is_named(tmp_path: Path) -> None:
    """At the start, as every wrong setting."""
    file = tmp_path / "gameserver.json"
    file.write_text('{"kind": "GameServer", "spec": {"counters": {"rooms": {"count": 9, "capacity": 8}}}}')
    with pytest.raises(SettingsError, match="counter rooms has a count of 9"):
        async with serving(tmp_path, "agones", agones_config=str(file)):
            pass


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/reserve", {"seconds": -1}, 400),
        ("POST", "/reserve", {"seconds": "soon"}, 400),
        ("POST", "/ready", b"{", 400),
        ("POST", "/ready", b"[]", 400),
        ("PUT", "/metadata/label", {"key": 1, "value": "x"}, 400),
        ("POST", "/alpha/player/connect", {"playerID": ""}, 400),
        ("POST", "/v1beta1/lists/items:nix", {"value": "x"}, 404),
        ("PATCH", "/v1beta1/lists/items", {"nix": "x"}, 400),
        ("PATCH", "/v1beta1/lists/items", {"values": [1]}, 400),
        ("GET", "/nix", None, 404),
        ("DELETE", "/ready", None, 501),
        ("PUT", "/metadata/label", b'{"key": "' + b"x" * 70_000 + b'"}', 400),
    ],
)
async def test_what_cannot_be_is_refused_in_agones_own_words(
    tmp_path: Path, method: str, path: str, body: Any, status: int
) -> None:
    """A code, a message and details, as grpc-gateway has them."""
    async with serving(tmp_path, "agones", **LISTS) as served:
        answer = await served.call(REST, method, path, body)
        assert answer.status == status
        assert set(answer.body) == {"code", "message", "details"}
        assert answer.body["message"].startswith("cannot ")


async def test_another_machine_is_refused(tmp_path: Path) -> None:
    """A name that leads here from a web page is none of this machine's."""
    async with serving(tmp_path, "agones") as served:
        answer = await served.call(REST, "POST", "/shutdown", {}, headers={"Host": "evil.example"})
        assert answer.status == 403
        assert served.agent.driver.state.stop is None


async def test_an_agent_that_was_restarted_goes_on(tmp_path: Path) -> None:
    """Labels, counters, lists and the state are kept by the init as JSON, and the sockets stay bound."""
    async with serving(tmp_path, "agones", **LISTS) as served:
        await served.call(REST, "POST", "/ready", {})
        await served.call(REST, "PUT", "/metadata/label", {"key": "mode", "value": "duel"})
        await served.call(REST, "PATCH", "/v1beta1/counters/rooms", {"count": 5})
        before = (await served.call(REST, "GET", "/gameserver")).body
        await eventually(lambda: served.saved and served.saved[-1] == served.compat.snapshot(), "it is saved")
        saved = json.loads(json.dumps(served.saved[-1]))
        await served.compat.close()
        async with serving(tmp_path, "agones", saved=saved, prepared=served.prepared, **LISTS) as again:
            again.agent.report.set_players(0.0, 0)
            shown = (await again.call(REST, "GET", "/gameserver")).body
            for same in ("labels", "annotations", "uid", "creation_timestamp"):
                assert shown["object_meta"][same] == before["object_meta"][same]
            assert shown["status"]["counters"] == before["status"]["counters"]


@pytest.mark.parametrize(
    ("host", "listener"),
    [("agones", REST), ("agones", "agones-grpc"), ("multiplay", "multiplay"), ("playfab", "playfab")],
)
async def test_forgotten_connections_shut_nobody_out(tmp_path: Path, host: str, listener: str) -> None:
    """Half-open ones count, on every host's listener: the longest silent is closed, and the others go on."""
    async with serving(tmp_path, host) as served:
        opened = [await asyncio.open_connection("127.0.0.1", served.port(listener)) for _ in range(CONNECTIONS + 1)]
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                await opened[0][0].read()
            assert await _answers(served, listener)
        assert not opened[-1][0].at_eof()
        for _, writer in opened:
            writer.close()


@pytest.mark.parametrize(
    ("host", "listener", "beginning"),
    [
        ("agones", REST, b"GET /gameserver HTTP/1.1\r\n"),
        ("agones", "agones-grpc", b"PRI * HTTP/2.0\r\n"),
        ("multiplay", "multiplay", b""),
        ("playfab", "playfab", b""),
    ],
)
async def test_a_client_that_says_nothing_whole_is_closed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, listener: str, beginning: bytes
) -> None:
    """One that has begun and stopped counts as well; one that has spoken may be silent from then on."""
    monkeypatch.setattr(http, "FIRST_SECONDS", 0.1)
    async with serving(tmp_path, host) as served, asyncio.timeout(DEADLINE):
        other: Grpc | None = None
        if listener == "agones-grpc":
            other = Grpc(served.port(listener))
            await other.call("", "GetGameServer", "Empty", "GameServer")
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port(listener))
        writer.write(beginning)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass  # gRPC's server begins with its settings
        writer.close()
        if other is not None:
            await other.call("", "GetGameServer", "Empty", "GameServer")
            assert other.connections == 1, "the connection that has spoken was closed"
            other.channel.close()


async def _answers(served: Served, listener: str) -> bool:
    """Whether a new client is answered."""
    if listener == "agones-grpc":
        client = Grpc(served.port(listener))
        try:
            await client.call("", "GetGameServer", "Empty", "GameServer")
        except (OSError, GRPCError, StreamTerminatedError):
            return False
        finally:
            client.channel.close()
        return True
    try:
        return (await served.call(listener, "GET", "/nothing/here")).status == 404
    except aiohttp.ClientError:
        return False


class Grpc:
    """A client of the three services, with messages by name."""

    def __init__(self, port: int) -> None:
        self.channel = Channel("127.0.0.1", port)
        self.connections = 0
        connect = self.channel._create_connection

        async def counted() -> Any:
            self.connections += 1
            return await connect()

        self.channel._create_connection = counted  # type: ignore[method-assign]

    async def raw(self, content: bytes, *, end: bool = False) -> Any:
        """A call of SetLabel with these bytes in place of a message, and its answer."""
        empty = MESSAGES["agones.dev.sdk.Empty"]
        path = "/agones.dev.sdk.SDK/SetLabel"
        async with self.channel.request(path, Cardinality.UNARY_UNARY, empty, empty) as stream:
            await stream.send_request()
            await stream._stream.send_data(content, end_stream=end)
            return await stream.recv_message()

    async def call(self, service: str, method: str, takes: str, gives: str, **fields: Any) -> Any:
        """A call with one message each way."""
        package = f"agones.dev.sdk{service}"
        request = MESSAGES[f"{package}.{takes}"](**fields)
        reply = MESSAGES[f"{package}.{gives}"]
        path = f"/{package}.SDK/{method}"
        async with self.channel.request(path, Cardinality.UNARY_UNARY, type(request), reply) as stream:
            await stream.send_message(request, end=True)
            return await stream.recv_message()


async def test_grpc_does_what_rest_does(tmp_path: Path) -> None:
    """The three services, with their own error codes; both transports show the same state."""
    async with serving(tmp_path, "agones", **LISTS) as served:
        client = Grpc(served.port("agones-grpc"))
        try:
            await client.call("", "Ready", "Empty", "Empty")
            assert served.phase() is Phase.READY
            await client.call("", "SetLabel", "KeyValue", "Empty", key="mode", value="duel")
            shown = await client.call("", "GetGameServer", "Empty", "GameServer")
            assert shown.status.state == "Allocated"
            assert dict(shown.object_meta.labels) == {"agones.dev/sdk-mode": "duel"}
            assert shown.status.ports[0].port == 32013
            await client.call(".alpha", "SetPlayerCapacity", "Count", "Empty", count=1)
            assert (await client.call(".alpha", "PlayerConnect", "PlayerID", "Bool", playerID="ada")).bool
            with pytest.raises(GRPCError, match="UNKNOWN"):
                await client.call(".alpha", "PlayerConnect", "PlayerID", "Bool", playerID="linus")
            assert (await client.call(".alpha", "GetPlayerCount", "Empty", "Count")).count == 1
            update = MESSAGES["agones.dev.sdk.beta.CounterUpdateRequest"](name="rooms", countDiff=4)
            counter = await client.call(
                ".beta", "UpdateCounter", "UpdateCounterRequest", "Counter", counterUpdateRequest=update
            )
            assert (counter.count, counter.capacity) == (5, 10)
            found = await client.call(".beta", "AddListValue", "AddListValueRequest", "List", name="items", value="c")
            assert list(found.values) == ["a", "b", "c"]
            for method, value, code in (("AddListValue", "c", "ALREADY_EXISTS"), ("RemoveListValue", "x", "NOT_FOUND")):
                with pytest.raises(GRPCError, match=code):
                    await client.call(".beta", method, f"{method}Request", "List", name="items", value=value)
            rest = (await served.call(REST, "GET", "/gameserver")).body
            assert rest["status"]["counters"]["rooms"]["count"] == "5"
            await client.call("", "Shutdown", "Empty", "Empty")
            assert served.phase() is Phase.STOPPING
        finally:
            client.channel.close()


def announced(length: int, *, compressed: bool = False) -> bytes:
    """The beginning of a message, as gRPC has it."""
    return struct.pack(">?I", compressed, length)


@pytest.mark.parametrize(
    ("content", "end", "answer"),
    [
        (announced(MESSAGE_LIMIT + 1), False, "RESOURCE_EXHAUSTED.*4194305 bytes: it may have 4194304"),
        (announced(2**32 - 1), False, "RESOURCE_EXHAUSTED"),
        (announced(3, compressed=True), False, "UNIMPLEMENTED.*without compression"),
        (announced(9) + b"x", True, "INTERNAL.*ended in the middle"),
        (announced(9)[:3], True, "INTERNAL.*ended in the middle"),
        (announced(2) + b"\xff\xff", True, "INTERNAL.*cannot read the message"),
        (announced(9) + b"x", False, "DEADLINE_EXCEEDED.*9 bytes did not come within 0.2 s"),
    ],
)
async def test_what_grpc_cannot_take_is_refused_and_the_connection_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
    end: bool,
    answer: str,
) -> None:
    """By what is announced, before it comes; no fault of the agent's is told of."""
    monkeypatch.setattr(http, "BODY_SECONDS", 0.2)
    async with serving(tmp_path, "agones") as served, asyncio.timeout(DEADLINE):
        client = Grpc(served.port("agones-grpc"))
        try:
            with pytest.raises(GRPCError, match=answer):
                await client.raw(content, end=end)
            await client.call("", "SetLabel", "KeyValue", "Empty", key="mode", value="duel")
            assert client.connections == 1
        finally:
            client.channel.close()
    assert not caplog.records


async def test_grpc_takes_few_large_messages_at_once(tmp_path: Path) -> None:
    """Of all connections together, so that many clients cannot fill the memory; a whole one has no part in it."""
    async with serving(tmp_path, "agones") as served, asyncio.timeout(DEADLINE):
        clients = [Grpc(served.port("agones-grpc")) for _ in range(UNFINISHED_LIMIT // MESSAGE_LIMIT + 1)]
        try:
            with pytest.raises(GRPCError, match="NOT_FOUND"):
                await clients[0].call(".beta", "GetList", "GetListRequest", "List", name="x" * (MESSAGE_LIMIT - 5))
            held = [asyncio.create_task(client.raw(announced(MESSAGE_LIMIT))) for client in clients[:-1]]
            while True:
                try:
                    await clients[-1].call(".beta", "GetList", "GetListRequest", "List", name="x")
                except GRPCError as refused:
                    if "try again" in str(refused):
                        break
                await asyncio.sleep(0.01)
            await cancelled(*held)
            while True:
                try:
                    await clients[-1].call("", "SetLabel", "KeyValue", "Empty", key="mode", value="duel")
                except GRPCError as refused:
                    assert "try again" in str(refused)  # noqa: PT017 - until the end of the others has come
                    await asyncio.sleep(0.01)
                else:
                    break
        finally:
            for client in clients:
                client.channel.close()


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Ends tasks."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_health_and_watch_are_streams_over_grpc(tmp_path: Path) -> None:
    """Each message of the one is a heartbeat, each of the other the whole game server."""
    empty, gameserver = MESSAGES["agones.dev.sdk.Empty"], MESSAGES["agones.dev.sdk.GameServer"]
    async with serving(tmp_path, "agones", agones_health_delay="60") as served:
        channel = Channel("127.0.0.1", served.port("agones-grpc"))
        try:
            path = "/agones.dev.sdk.SDK/WatchGameServer"
            async with channel.request(path, Cardinality.UNARY_STREAM, empty, gameserver) as watch:
                await watch.send_message(empty(), end=True)
                first = await watch.recv_message()
                assert first is not None
                assert first.status.state == "Starting"
                path = "/agones.dev.sdk.SDK/Health"
                async with channel.request(path, Cardinality.STREAM_UNARY, empty, empty) as health:
                    for _ in range(3):
                        await health.send_message(empty())
                    await health.end()
                    assert await health.recv_message() is not None
                assert served.agent.report.heartbeats == 4  # with the first call
                served.stop()
                async with asyncio.timeout(DEADLINE):
                    while (shown := await watch.recv_message()) is not None and shown.status.state != "Shutdown":
                        pass
                await watch.cancel()  # it would go on for ever
        finally:
            channel.close()

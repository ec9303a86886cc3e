"""The pure pieces of the local API: the event queues, the routes, the hosts, what problems say, what people read."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.access import allowed_users, is_loopback, is_loopback_origin, peer_of
from agent.api.contracts import DropIn
from agent.api.events import Event, EventBus
from agent.api.models import GapEvent, TextEvent
from agent.api.problems import Kind, OperationError
from agent.api.render import duration, event_line, status_text
from agent.api.routes import Router
from agent.api.table import OPERATIONS, Operation
from agent.tokens import bears

NOW = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)


def text(number: int) -> TextEvent:
    """An event's data that can be told from others."""
    return TextEvent(at=NOW, text=str(number))


class TestEventBus:
    """Bounded queues that nobody waits for."""

    def test_renderings(self) -> None:
        """One event, three forms, each complete in itself and on as many lines as its form wants."""
        event = Event(7, "text", TextEvent(at=NOW, text="a\nb\u2028c"))
        data = {"at": "2026-03-01T12:34:56Z", "text": "a\nb\u2028c"}
        assert json.loads(event.json) == data
        assert event.sse.splitlines()[:2] == [b"id: 7", b"event: text"]
        assert event.sse.count(b"\n") == 4
        assert event.sse.endswith(b"\n\n")
        assert b"\n" not in event.notification
        message = json.loads(event.notification)
        assert message == {"jsonrpc": "2.0", "method": "event", "params": {"id": 7, "type": "text", "data": data}}

    async def test_order_and_ids(self) -> None:
        """Everybody gets every event since they came, in order, with the same ids."""
        bus = EventBus()
        early = bus.subscribe()
        bus.publish("text", text(1))
        late = bus.subscribe([Event(bus.last_id, "state", text(0))])
        bus.publish("text", text(2))
        bus.close()
        assert [(event.id, event.type) async for event in early] == [(1, "text"), (2, "text")]
        assert [(event.id, event.type) async for event in late] == [(1, "state"), (2, "text")]
        assert bus.subscribers == 0

    @given(limit=st.integers(1, 8), steps=st.lists(st.booleans(), max_size=60))
    def test_what_is_lost_is_counted(self, limit: int, steps: list[bool]) -> None:
        """However publishing and reading are mixed: what was read plus what was missed is all, and order is kept."""
        bus = EventBus(limit)
        subscription = bus.subscribe()
        published = received = missed = last = 0

        def read() -> bool:
            nonlocal received, missed, last
            event = subscription.take()
            if event is None:
                return False
            if isinstance(event.data, GapEvent):
                missed += event.data.missed
                assert event.id == last + event.data.missed
            else:
                assert event.id == last + 1 or missed
                received += 1
            assert event.id > last
            last = event.id
            return True

        for publish in steps:
            if publish:
                bus.publish("text", text(published))
                published += 1
                assert subscription.waiting <= limit + 1
            else:
                read()
        while read():
            pass
        assert received + missed == published
        assert last == published

    async def test_waiting(self) -> None:
        """A reader is woken by an event, by the end of time, and by the end of the subscription."""
        bus = EventBus()
        subscription = bus.subscribe()
        assert await subscription.next(0.001) is None
        waiting = asyncio.ensure_future(subscription.next(10))
        await asyncio.sleep(0)
        bus.publish("text", text(1))
        bus.publish("text", text(2))
        event = await waiting
        assert event is not None
        assert event.id == 1
        assert (await subscription.next()) is not None
        waiting = asyncio.ensure_future(subscription.next())
        await asyncio.sleep(0)
        subscription.close()
        subscription.close()
        assert await waiting is None
        bus.publish("text", text(3))
        assert subscription.take() is None

    async def test_cancelling_a_reader_loses_nothing(self) -> None:
        """Who was cancelled while waiting finds the event the next time."""
        bus = EventBus()
        subscription = bus.subscribe()
        waiting = asyncio.ensure_future(subscription.next())
        await asyncio.sleep(0)
        bus.publish("text", text(1))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        event = await subscription.next(1)
        assert event is not None
        assert event.id == 1

    async def test_subscribing_to_a_closed_bus(self) -> None:
        """Gets the current state and the end."""
        bus = EventBus()
        bus.close()
        assert [event.id async for event in bus.subscribe([Event(0, "state", text(0))])] == [0]

    async def test_who_listens_is_told(self) -> None:
        """A stop method that speaks to listeners has to know whether there are any."""
        bus, told = EventBus(), list[bool]()
        bus.on_listeners(lambda: told.append(bus.subscribers > 0))
        first = bus.subscribe()
        second = bus.subscribe()
        first.close()
        second.close()
        assert told == [True, True, True, False]
        assert bus.listened, "a long poll begins again within a second"


class TestRouter:
    """Paths, and what is wrong with them."""

    @pytest.fixture
    def router(self) -> Router[str]:
        """A few routes."""
        router: Router[str] = Router()
        for method, path in (
            ("GET", "/a"),
            ("PUT", "/a"),
            ("GET", "/a/{x}"),
            ("DELETE", "/a/{x}"),
            ("POST", "/b/{x}/c/{y}"),
        ):
            router.add(method, path, f"{method} {path}")
        return router

    def test_found(self, router: Router[str]) -> None:
        """Exact paths, paths with fields, HEAD for GET."""
        assert router.find("GET", "/a") == ("GET /a", {})
        assert router.find("HEAD", "/a") == ("GET /a", {})
        assert router.find("PUT", "/a/") == ("PUT /a", {})
        assert router.find("GET", "/a/b/") == ("GET /a/{x}", {"x": "b"})
        assert router.find("DELETE", "/a/b%2Fc%20%C3%A4%25") == ("DELETE /a/{x}", {"x": "b/c ä%"})
        assert router.find("POST", "/b/1/c/2") == ("POST /b/{x}/c/{y}", {"x": "1", "y": "2"})

    @pytest.mark.parametrize(
        ("method", "path", "kind", "allowed"),
        [
            ("GET", "/", Kind.NOT_FOUND, None),
            ("GET", "/a//", Kind.NOT_FOUND, None),
            ("GET", "/a/b/c", Kind.NOT_FOUND, None),
            ("GET", "/%61", Kind.NOT_FOUND, None),
            ("GET", "/a/%FF", Kind.BAD_REQUEST, None),
            ("POST", "/a", Kind.WRONG_METHOD, "GET, HEAD, PUT"),
            ("PUT", "/a/b", Kind.WRONG_METHOD, "DELETE, GET, HEAD"),
            ("GET", "/b/1/c/2", Kind.WRONG_METHOD, "POST"),
        ],
    )
    def test_not_found(self, router: Router[str], method: str, path: str, kind: Kind, allowed: str | None) -> None:
        """Says which: no such path, or another method."""
        with pytest.raises(OperationError, match="cannot") as caught:
            router.find(method, path)
        assert caught.value.kind is kind
        assert caught.value.headers.get("Allow") == allowed


class TestAccess:
    """Who is here and who is not."""

    @given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535))
    def test_the_whole_of_127(self, b: int, c: int, d: int, port: int) -> None:
        """Every address of 127.0.0.0/8, with any port, is this machine; next door is not."""
        assert is_loopback(f"127.{b}.{c}.{d}:{port}")
        assert not is_loopback(f"126.{b}.{c}.{d}:{port}")
        assert not is_loopback(f"128.{b}.{c}.{d}")

    @given(st.text())
    def test_anything(self, host: str) -> None:
        """No header makes it fail."""
        assert is_loopback(host) in (True, False)
        assert is_loopback_origin(host) in (True, False)

    @pytest.mark.parametrize("origin", ["http://127.0.0.1", "https://localhost:8443", "http://[::1]:1"])
    def test_origins_of_this_machine(self, origin: str) -> None:
        """With scheme and port."""
        assert is_loopback_origin(origin)

    @pytest.mark.parametrize(
        "origin", ["", "null", "localhost", "ftp://localhost", "http://localhost.evil.example", "http://"]
    )
    def test_origins_of_others(self, origin: str) -> None:
        """Everything else."""
        assert not is_loopback_origin(origin)

    def test_the_peer(self) -> None:
        """The kernel says who is at the other end."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            peer = peer_of(ours)
        assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())

    def test_who_is_allowed(self) -> None:
        """Root, the agent's user, and whoever is named."""
        assert allowed_users(1234) == {0, os.geteuid(), 1234}

    def test_secrets_are_not_in_a_repr(self) -> None:
        """Neither the stop key nor a token."""
        shown = repr(DropIn("id", "463660", ("c0ffee",)))
        assert "463660" not in shown
        assert "c0ffee" not in shown


def attempt(read: Callable[[Any], Any], value: Any) -> Any:
    """What an operation reads from a value, or the problem that it has with it."""
    try:
        return read(value)
    except OperationError as wrong:
        return wrong


NAMES = st.sampled_from(["count", "capacity", "reason", "grace_seconds", "id", "path", "value"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(), inner, max_size=4),
    max_leaves=8,
)


class TestParsing:
    """Any bytes are an input or a problem."""

    @given(st.sampled_from(OPERATIONS), st.binary(max_size=200))
    def test_bytes(self, operation: Operation, body: bytes) -> None:
        """Never another exception."""
        outcome = attempt(operation.parse, body)
        if isinstance(outcome, OperationError):
            assert outcome.kind in (Kind.NOT_JSON, Kind.BAD_INPUT)
            json.dumps(outcome.document(), allow_nan=False)
        else:
            assert isinstance(outcome, operation.takes)

    @given(st.sampled_from(OPERATIONS), JSON)
    def test_json(self, operation: Operation, value: Any) -> None:
        """Nor for any JSON, as bytes and as an object; both ways agree on what is right."""
        from_bytes = attempt(operation.parse, json.dumps(value).encode())
        from_object = attempt(operation.take, value)
        if not isinstance(from_bytes, OperationError):
            assert from_bytes == from_object
            return
        for wrong in (from_bytes, from_object):
            assert isinstance(wrong, OperationError)
            assert wrong.fields
            assert str(wrong).startswith("cannot ")
            json.dumps(wrong.document(), allow_nan=False)


class TestRendering:
    """What people read."""

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0, "0.0 s"), (3.24, "3.2 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")],
    )
    def test_durations(self, seconds: float, said: str) -> None:
        """In the units that people use."""
        assert duration(seconds) == said

    def test_status(self) -> None:
        """The table has what is known and leaves out what is not there."""
        status: dict[str, Any] = {
            "phase": "ready",
            "attempt": 1,
            "restarts": 0,
            "uptime_seconds": 75.0,
            "game": {"pid": 12, "started_at": None, "uptime_seconds": 74.0},
            "players": {"count": 5, "capacity": 16, "ids": []},
            "heartbeat": {"count": 0, "last_at": None, "age_seconds": None},
            "text": "",
            "metrics": {},
            "stop": None,
            "exit": None,
            "urls": {"api": "http://127.0.0.1:9370"},
        }
        lines = status_text(status).splitlines()
        assert lines[0].split() == ["phase", "ready", "(no", "restarts)"]
        assert any(line.endswith("5 of 16") for line in lines)
        assert any(line.endswith("none yet") for line in lines)
        assert not any(line.startswith(("text", "stop")) for line in lines)
        status |= {
            "text": "map de_dust",
            "restarts": 2,
            "attempt": 3,
            "metrics": {"load": 0.5},
            "exit": {"code": None, "signal": 11, "core_dumped": True, "exit_code": 139},
            "stop": {
                "source": "operator",
                "reason": "requested",
                "message": "match over",
                "game_seconds_left": 2.0,
                "seconds_left": 3.0,
            },
        }
        said = status_text(status)
        for part in ("attempt 3, 2 restarts", "map de_dust", "0.5", "signal 11", "operator", "match over", "2.0 s"):
            assert part in said

    @pytest.mark.parametrize(
        ("kind", "data", "said"),
        [
            ("state", {"phase": "ready", "previous": "starting", "reason": None}, "ready (was starting)"),
            ("players", {"count": 2, "capacity": 4, "joined": "a", "left": None}, "2 of 4, a joined"),
            ("players", {"count": 2, "capacity": None, "joined": None, "left": "a"}, "2, a left"),
            ("text", {"text": "hello"}, "hello"),
            ("tags", {"added": "a", "removed": None}, "added a"),
            ("tags", {"added": None, "removed": "a"}, "removed a"),
            ("upload", {"path": "/a", "kept_as": "file:///b"}, "/a is kept as file:///b"),
            ("gap", {"missed": 3}, "3 events were missed"),
            (
                "stop",
                {"source": "game", "reason": "requested", "message": "over", "deadline": "2026-03-01T12:35:01Z"},
                "asked for by the game, requested: over, deadline 12:35:01",
            ),
        ],
    )
    def test_events(self, kind: str, data: dict[str, Any], said: str) -> None:
        """One line each, with its time of day."""
        line = event_line({"id": 1, "type": kind, "data": {"at": "2026-03-01T12:34:56Z", **data}})
        assert line == f"12:34:56 {kind:<8}{said}"


@pytest.mark.parametrize("given", ["", "hush", "bearer hush", "Bearer hus", "Bearer hush ", "Bearer \udcff"])
def test_only_the_token_itself_is_taken(given: str) -> None:
    """Whatever else a header holds is wrong, and no fault."""
    assert not bears(given, "hush")
    assert bears("Bearer hush", "hush")
    assert bears("Bearer \udcff", "\udcff"), "one that is no UTF-8 itself"

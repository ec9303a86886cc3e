"""A crowd of connections costs little until they ask, and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator

import pytest

from agent import connections, web
from agent.connections import Lasting, Listener, OpenConnections, connections_limit
from tests.api_fakes import eventually

SECONDS = 5.0
"""As long as a test waits for anything."""


@pytest.mark.parametrize(
    ("soft", "limit"),
    [(3, 2), (64, 2), (112, 4), (1024, 61), (2048, 64), (resource.RLIM_INFINITY, 64)],
)
def test_connections_leave_descriptors_for_other_things(monkeypatch: pytest.MonkeyPatch, soft: int, limit: int) -> None:
    """A sixteenth of what is not kept for logs and the stop, 64 at most, and 2 however few there are."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert connections_limit(64, 1 / 16) == limit


class Echo(asyncio.Protocol):
    """Answers with what comes."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        assert isinstance(transport, asyncio.Transport)
        self.crowd.made += 1
        self.transport = transport
        if not self.crowd.open.came(self, transport):
            transport.write(b"full")
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Answers."""
        self.crowd.open.asked(self)
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.crowd.open.left(self)


class Crowd:
    """A listener and its clients.

    Attributes:
        made: how many protocols it has made.
    """

    def __init__(self, most: int, *, silent_seconds: float = 60.0, lasting: Lasting | None = None) -> None:
        self.made = 0
        self.waiting: set[Echo] = set()
        self.open: OpenConnections[Echo] = OpenConnections(lambda: most, lambda one: one not in self.waiting)
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener = Listener(
            self.sock, lambda: Echo(self), self.open, begun=web.has_asked, silent_seconds=silent_seconds,
            lasting=lasting,
        )  # fmt: skip
        self.clients: list[socket.socket] = []

    def client(self, sends: bytes = b"") -> socket.socket:
        """A new one; what it sends is on its way before the listener has a turn."""
        client = socket.create_connection(self.sock.getsockname(), timeout=SECONDS)
        client.sendall(sends)
        client.setblocking(False)
        self.clients.append(client)
        return client

    def close(self) -> None:
        """Ends it."""
        self.listener.close()
        for client in self.clients:
            client.close()


@pytest.fixture
async def crowds() -> AsyncIterator[list[Crowd]]:
    """Those that a test makes."""
    made: list[Crowd] = []
    yield made
    for crowd in made:
        crowd.close()


async def read(client: socket.socket) -> bytes:
    """What comes next; b"" where the connection was closed."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1000), SECONDS)
    return b""


async def test_who_asks_is_served_in_a_crowd_of_those_who_do_not(crowds: list[Crowd]) -> None:
    """More than wait in asyncio's backlog; none that has not asked for anything whole costs a protocol."""
    crowds.append(crowd := Crowd(64))
    silent = [crowd.client() for _ in range(100)]
    half = [crowd.client(b"POST /v1/health HTTP/1.1\r\nHost: a\r\n") for _ in range(100)]
    asks = crowd.client(b"GET / HTTP/1.1\r\n\r\n")
    assert await read(asks) == b"GET / HTTP/1.1\r\n\r\n"
    assert (crowd.made, len(crowd.open)) == (1, 64)
    assert await read(silent[0]) == b"", "the longest silent one was closed"
    half[-1].sendall(b"\r\n")
    assert (await read(half[-1])).endswith(b"a\r\n\r\n"), "one that goes on is served"
    half[-2].shutdown(socket.SHUT_WR)
    assert await read(half[-2]) == b"", "one that cannot go on is closed"
    asks.sendall(b"once more")
    assert await read(asks) == b"once more", "one that has asked before them all was kept"
    crowd.listener.close()
    assert await read(half[-3]) == b"", "none is left open"


async def test_who_waits_for_an_answer_is_not_closed_for_another_one(crowds: list[Crowd]) -> None:
    """Where all do, one more gets a protocol, which says so."""
    crowds.append(crowd := Crowd(2))
    both = [crowd.client(b"GET / HTTP/1.1\r\n\r\n") for _ in range(2)]
    for client in both:
        assert await read(client)
    crowd.waiting.update(crowd.open._known)
    assert await read(crowd.client()) == b"full"
    both[0].close()
    crowd.waiting.clear()
    assert await read(crowd.client(b"now\n\n")) == b"now\n\n"


async def test_silence_is_limited_in_time(crowds: list[Crowd]) -> None:
    """Whether nothing or a half request came; what has nothing to do with requests is passed on at once."""
    crowds.append(crowd := Crowd(8, silent_seconds=0.05))
    for sent in (b"", b"GET / HT"):
        assert await read(crowd.client(sent)) == b""
    assert not crowd.made
    assert await read(crowd.client(b"\x16\x03\x01")) == b"\x16\x03\x01"


async def test_answers_that_last_let_others_go_first(crowds: list[Crowd]) -> None:
    """Hardly more than may be held are begun; the others are told so without a protocol."""
    crowds.append(crowd := Crowd(16, lasting=Lasting(lambda data: data.startswith(b"GET /v1/events"), lambda: b"no")))
    lasting = [crowd.client(b"GET /v1/events HTTP/1.1\r\n\r\n") for _ in range(14)]
    asks = crowd.client(b"GET / HTTP/1.1\r\n\r\n")
    assert await read(asks)
    answers = [await read(client) for client in lasting]
    assert answers.count(b"no") in (9, 10), "a quarter of 16 may last, and one more may be on its way"
    assert crowd.made == 15 - answers.count(b"no")


async def test_no_descriptor_left_pauses_accepting(crowds: list[Crowd], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once a pause, and who waits is served after it."""
    monkeypatch.setattr(connections, "_RETRY_SECONDS", 0.05)
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    crowds.append(crowd := Crowd(8))
    client = crowd.client(b"now\n\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
    try:
        await eventually(lambda: bool(said), "it is said")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await read(client) == b"now\n\n"
    assert len(said) == 1

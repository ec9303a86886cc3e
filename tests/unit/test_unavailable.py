"""What callers are told while the agent's process cannot be started."""

import json
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

import pytest

from agent.init.sockets import Port, Sockets
from agent.init.unavailable import AFTER_STARTS, Unavailable


class World:
    """The init's loop and the agent's process, as far as they are asked here."""

    def __init__(self) -> None:
        self.failed_starts = 0
        self.readers: dict[int, Callable[[], object]] = {}
        self.later: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self.up: Callable[[], object] = lambda: None
        self.down: Callable[[], object] = lambda: None

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """As the loop's."""
        self.readers[fd] = callback

    def answer(self, port: Port) -> None:
        """A connection waits at this port."""
        self.readers[port.sock.fileno()]()

    def remove_reader(self, fd: int) -> None:
        """As the loop's."""
        self.readers.pop(fd, None)

    def call_later(self, _seconds: float, callback: Callable[..., object], *args: object) -> None:
        """As the loop's; never called here unless the test does."""
        self.later.append((callback, args))

    def on_up(self, callback: Callable[[], object]) -> None:
        """As the agent's."""
        self.up = callback

    def on_down(self, callback: Callable[[], object]) -> None:
        """As the agent's."""
        self.down = callback


@pytest.mark.parametrize("tls", [False, True])
def test_no_call_hangs(tls: bool) -> None:
    """HTTP gets 503 with a problem; a client that speaks TLS to the metrics port is told in TLS."""
    world = World()
    with socket.create_server(("127.0.0.1", 0)) as control, socket.create_server(("127.0.0.1", 0)) as metrics:
        sockets = Sockets()
        sockets.control, sockets.metrics = Port(control.dup()), Port(metrics.dup())
        Unavailable(cast("Any", world), sockets, cast("Any", world), metrics_tls=tls)
        world.down()
        assert not world.readers, "it may be there in a moment"
        world.failed_starts = AFTER_STARTS
        world.down()
        with socket.create_connection(control.getsockname(), 5) as client:
            world.answer(sockets.control)
            head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert "cannot answer" in json.loads(body)["detail"]
        with socket.create_connection(metrics.getsockname(), 5) as client:
            world.answer(sockets.metrics)
            if tls:
                with pytest.raises(ssl.SSLError, match=r"(?i)alert internal error"):
                    ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
            else:
                assert client.recv(100).startswith(b"HTTP/1.1 503 ")
        for callback, args in world.later:
            callback(*args)
        world.up()
        assert not world.readers
        for port in (sockets.control, sockets.metrics):
            port.sock.close()

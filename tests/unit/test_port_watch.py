"""A server that is gone while its start script goes on."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from agent.init.port_watch import PortWatch


class Loop:
    """Timers that are fired by hand."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        """Keeps it."""
        self.waiting.append(callback)

    def fire(self) -> None:
        """Fires what waits."""
        for callback in [self.waiting.pop() for _ in self.waiting[:]]:
            callback()


def test_a_port_that_nobody_listens_on_any_more_is_told_of_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Not before somebody has, not for a moment without, and not when the game is being stopped."""
    loop = Loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        PortWatch(loop, [port], lambda: True)  # type: ignore[arg-type]  # as much of a loop as it needs
        loop.fire()
    for _ in range(2):
        loop.fire()
    assert capfd.readouterr().err == ""
    loop.fire()
    assert "set AGENT_MAIN=port" in capfd.readouterr().err
    assert not loop.waiting


def test_a_port_that_nobody_listened_on_yet_is_no_news(capfd: pytest.CaptureFixture[str]) -> None:
    """A server may load for minutes."""
    loop = Loop()
    PortWatch(loop, [1], lambda: True)  # type: ignore[arg-type]  # as above
    for _ in range(4):
        loop.fire()
    assert capfd.readouterr().err == ""

"""The init's loop where the kernel refuses what it needs."""

from __future__ import annotations

import errno
import os

import pytest

from agent.init.loop import Loop


class Refusing:
    """A poll() for which the kernel has no memory."""

    def poll(self, _timeout: float | None) -> list[tuple[int, int]]:
        """Refuses."""
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_signals_and_timers_go_on_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PID 1 that ends for that would take the game with it."""
    loop = Loop()
    monkeypatch.setattr(loop, "_poll", Refusing())
    seen: list[int] = []
    loop.on_signal(lambda number, _at: seen.append(number))
    loop.call_later(0.01, loop.note_signal, 15, 0.0)
    loop.call_later(0.1, loop.stop, 7)
    assert loop.run() == 7
    assert seen == [15]

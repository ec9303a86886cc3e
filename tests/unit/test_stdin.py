"""The game's stdin, where a stop method writes to it."""

from __future__ import annotations

import os
import threading

import pytest

from agent.game.process import GameProcess
from agent.game.reaper import Reaper
from agent.game.stdin import StdinPipe


def test_a_line_to_a_game_that_has_closed_its_stdin_is_not_written() -> None:
    """Only the game holds the end that is read: the stop method has no effect, and its time goes to the next one."""
    pipe = StdinPipe()
    read_end = pipe.renew()
    assert pipe.write_line("stop") == ""
    assert os.read(read_end, 100) == b"stop\n"
    os.close(read_end)
    assert pipe.write_line("stop").startswith("the game has closed its stdin")
    os.close(pipe._write_end)


def test_input_that_waits_for_one_game_is_not_the_next_ones() -> None:
    """A restart while another thread waits to write: neither the old pipe's number nor the new pipe gets the rest."""
    pipe = StdinPipe()
    first = pipe.renew()
    writer = threading.Thread(target=pipe._write_all, args=(memoryview(b"x" * (1 << 20)),))
    writer.start()
    assert os.read(first, 1) == b"x"
    second = pipe.renew()
    writer.join(10)
    assert not writer.is_alive()
    assert pipe.unread() == 0
    for descriptor in (first, second, pipe._write_end):
        os.close(descriptor)


def test_a_start_for_which_no_pipe_can_be_made_is_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a restart: the lifecycle goes on with an exit code, and does not wait for a game that never was."""
    process = GameProcess(["/bin/true"], Reaper())
    process.stdin = StdinPipe()

    def no_pipe(*_: object) -> None:
        raise OSError(24, "Too many open files")

    for name in ("pipe", "pipe2"):
        monkeypatch.setattr(os, name, no_pipe)
    process.start()
    assert process.game is None
    assert process.failure is not None
    assert process.failure.exit_code == 126
    assert "too many open files" in str(process.failure)
    process.stdin = None
    process.start()
    assert process.failure is not None, "nor for the game's output"

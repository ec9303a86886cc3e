"""A stop signal that arrives before the init can plan a stop."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.init import early_stop
from agent.lifecycle.stop_methods import parse

HEARS_LATE = "import os, signal, time; time.sleep(0.1); signal.signal(15, lambda *_: os._exit(7)); signal.pause()"


def _game(pid: int) -> SimpleNamespace:
    return SimpleNamespace(main_pid=pid, signalled_early={})


def test_a_game_that_was_just_executed_is_given_time_to_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when there is a handler; before, it would have killed the game."""
    monkeypatch.setattr(early_stop, "_LOOKS", 10_000)
    with subprocess.Popen([sys.executable, "-S", "-E", "-c", HEARS_LATE]) as process:
        given = _game(process.pid)
        early_stop.signal_early(given, parse("SIGNAL:TERM"), 0.0)  # type: ignore[arg-type]  # as much as it needs
        assert process.wait(30) == 7
    assert given.signalled_early == {process.pid: signal.SIGTERM}


@pytest.mark.parametrize(
    ("stop", "drain"),
    [("signal:TERM:group", 0.0), ("stdin:stop", 0.0), ("notify,signal:TERM", 0.0), ("signal:TERM", 1.0)],
)
def test_a_stop_that_begins_otherwise_is_left_to_its_plan(stop: str, drain: float) -> None:
    """No process is looked at: there is none."""
    given = SimpleNamespace(signalled_early={})
    early_stop.signal_early(given, parse(stop), drain)  # type: ignore[arg-type]
    assert not given.signalled_early


def test_a_game_without_a_handler_is_left_to_the_plan() -> None:
    """It may have one later, or pass the signal on to one that has."""
    with subprocess.Popen(["sleep", "60"]) as process:
        given = _game(process.pid)
        early_stop.signal_early(given, parse("signal:TERM"), 0.0)  # type: ignore[arg-type]
        assert process.poll() is None
        process.kill()
    assert not given.signalled_early


def test_a_start_script_is_left_to_the_plan() -> None:
    """A stop first takes note of the servers behind it, whose end the script may hide."""
    script = "trap 'exit 7' TERM; echo trapped; sleep 60 & wait"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        given = _game(process.pid)
        early_stop.signal_early(given, parse("signal:TERM"), 0.0)  # type: ignore[arg-type]
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    assert not given.signalled_early


def test_a_game_that_has_ended_is_no_fault() -> None:
    """Its process id says nothing any more, and whatever cannot be read neither."""
    given = _game(int(Path("/proc/sys/kernel/pid_max").read_text()) - 1)
    early_stop.signal_early(given, parse("signal:TERM"), 0.0)  # type: ignore[arg-type]
    assert not given.signalled_early

"""What is left of the init if it breaks; with whole processes in tests/process/test_fail_open.py."""

from __future__ import annotations

import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from agent.init.last_resort import LastResort


@pytest.mark.parametrize("kept", [False, True])
def test_a_stop_signal_that_the_broken_init_had_taken_is_not_lost(kept: bool) -> None:
    """The game is asked, once, whether the signal still waited to be passed on or not."""
    at = time.monotonic()
    counts = ["sh", "-c", "trap 'n=x$n' TERM; echo ready; read go; read line; echo $n"]
    with subprocess.Popen(counts, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as game:
        assert game.stdin is not None
        assert game.stdout is not None
        assert game.stdout.readline() == b"ready\n"
        rest = LastResort(
            SimpleNamespace(main_pid=game.pid, forward=None, signalled_early={}),  # type: ignore[arg-type]  # as much as it needs
            SimpleNamespace(setting=lambda _name: 5.0),  # type: ignore[arg-type]
            SimpleNamespace(  # type: ignore[arg-type]
                give_to=lambda take: take(int(signal.SIGTERM), at) if kept else None, stop_at=at
            ),
            SimpleNamespace(close=lambda: None),  # type: ignore[arg-type]
        )
        rest._handle_signals()
        assert game.communicate(b"\n\n", timeout=10)[0] == b"x\n"

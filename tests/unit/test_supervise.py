"""The bare init takes over a game as it finds it; in a process of its own, because it reaps every child there is."""

from __future__ import annotations

import subprocess
import sys

TAKES_OVER = """
import os, time
from agent.init.main import Boot
from agent.game.spawn import spawn
from agent.init.fallback import supervise

boot = Boot(["sh"], {}, {"PATH": os.environ["PATH"], "AGENT_ON_CRASH": "exit"})
boot.game = spawn(["sh", "-c", "exit 42"], boot.environ, capture=False)
deadline = time.monotonic() + 20
while boot.game.status is None and time.monotonic() < deadline:
    boot.game.status = boot.reaper.reap()[0].get(boot.game.pid)
    time.sleep(0.005)
raise SystemExit(supervise(boot))
"""


def test_a_game_that_was_reaped_before_keeps_its_code() -> None:
    """The game may have ended before what fails does: its code counts all the same, and is not taken for SIGKILL."""
    done = subprocess.run([sys.executable, "-c", TAKES_OVER], capture_output=True, timeout=50, check=False)
    assert done.returncode == 42, done.stderr

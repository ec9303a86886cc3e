"""Which processes are the game's, by two ways of looking."""

import os
import subprocess

from agent.game.tree import descendants, is_below
from tests.process.harness import eventually


def test_both_ways_of_looking_agree() -> None:
    """All of /proc, or the line of parents of one process: with a grandchild, a subtree left out, and strangers."""
    with (
        subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000 & wait"], process_group=0) as one,
        subprocess.Popen(["sleep", "1000"]) as other,
    ):
        try:
            eventually(lambda: len(descendants(one.pid)) == 2, "both children are there")
            for root, without in (
                (os.getpid(), frozenset[int]()),
                (os.getpid(), frozenset({one.pid})),
                (one.pid, frozenset()),
            ):
                below = set(descendants(root, without))
                asked = {*below, one.pid, other.pid, *descendants(one.pid), os.getpid(), os.getppid(), 1}
                assert {pid for pid in asked if is_below(pid, root, without)} == below
        finally:
            os.killpg(one.pid, 9)
            other.kill()
    assert not is_below(other.pid, os.getpid()), "it is gone"

"""Whether the game would hear its stop."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.game.signal_handling import Judgement, Listener, advice, judge, listeners, unclear

TERM, INT = (1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT))
GO = 0xFFFFFFFD7FC1FEFF  # SigCgt of a Go program that asks for no signal


def process(name: str = "server", caught: int = 0, ignored: int = 0) -> Listener:
    """A process of the game."""
    return Listener(name, caught, ignored)


@pytest.mark.parametrize(
    ("processes", "how"),
    [
        ([process(caught=TERM)], "handled"),
        ([process(), process(caught=TERM)], "handled"),
        ([process(ignored=TERM)], "ignored"),
        ([process(), process(ignored=TERM)], "ignored"),
        ([process(caught=INT)], "default"),
        ([], "unknown"),
        ([process("bash"), process(caught=TERM)], "handled"),
        ([process("bash", caught=TERM), process()], "script"),
        ([process("bash", caught=TERM)], "handled"),
        ([process("bash", ignored=TERM), process()], "default"),
        ([process(), process("Xvfb", caught=TERM)], "default"),
        ([process("tini", caught=TERM), process(caught=TERM)], "handled"),
        ([process("tail")], "default"),
        ([process(caught=GO)], "runtime"),
        ([process("node", caught=TERM | INT)], "runtime"),
        ([process("node", caught=TERM), process("java", caught=TERM)], "handled"),
        ([process("wine64-preloader", caught=TERM)], "runtime"),
        ([process("tmux", caught=TERM), process()], "default"),
    ],
)
def test_how_a_game_takes_a_signal(processes: list[Listener], how: str) -> None:
    """The server counts, not the shell or the helper beside it; a language's own handler tells nothing."""
    assert judge(processes, signal.SIGTERM).how == how


def test_the_advice_says_what_to_set_and_what_would_be_heard() -> None:
    """Where all is well, or nothing is known, nothing is said."""
    assert advice(Judgement("handled"), signal.SIGTERM) == advice(Judgement("unknown"), signal.SIGTERM) == ""
    found = advice(judge([process(caught=INT)], signal.SIGTERM), signal.SIGTERM)
    assert "the game does not handle SIGTERM (it does handle SIGINT)" in found
    assert "AGENT_STOP" in found
    assert "ignores it" in advice(judge([process(ignored=TERM)], signal.SIGTERM), signal.SIGTERM)
    assert "Node.js" in unclear(judge([process("node", caught=TERM)], signal.SIGTERM), signal.SIGTERM)
    assert "start script" in unclear(judge([process("sh", caught=TERM), process()], signal.SIGTERM), signal.SIGTERM)


HANDLES = "import signal, time; signal.signal(15, print); print('ready', flush=True); time.sleep(60)"
PLAIN = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ([sys.executable, "-c", HANDLES], "handled"),
        ([sys.executable, "-c", PLAIN], "default"),
        (["bash", "-c", f'{sys.executable} -c "{HANDLES}"; true'], "handled"),
        (["bash", "-c", f'trap : TERM; {sys.executable} -c "{PLAIN}" & wait'], "script"),
        (["node", "-e", "console.log('ready'); setTimeout(() => {}, 60000)"], "runtime"),
    ],
)
def test_real_programs_are_judged(command: list[str], how: str) -> None:
    """What the kernel, the shell and the runtimes really do."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        found = judge(listeners([child.pid, *map(int, below)]), signal.SIGTERM)
        os.killpg(child.pid, signal.SIGKILL)
    assert found.how == how


def test_a_real_process_is_read() -> None:
    """Its program, its handlers; one that is gone is left out."""
    code = "import signal; signal.signal(signal.SIGUSR2, print); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (found,) = listeners([child.pid, 2**22 + 1])
        child.communicate(b"\n")
    assert found.name == os.path.basename(os.path.realpath(sys.executable))
    assert found.handles(signal.SIGUSR2)
    assert not found.handles(signal.SIGTERM)

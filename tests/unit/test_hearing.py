"""Whether the game would hear its stop."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.game.signal_handling import advice, unclear
from agent.game.stop_signal import Judgement, judge
from agent.game.tree import Process, look
from agent.record import replace

TERM, INT = (1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT))
GO = 0xFFFFFFFD7FC1FEFF  # SigCgt of a Go program that asks for no signal


def process(name: str = "server", caught: int = 0, ignored: int = 0, parent: int = 1, started: int = 0) -> Process:
    """A process of the game; which one it is says `tree`."""
    return Process(0, parent, caught=caught, ignored=ignored, file=name, started=started)


def tree(*processes: Process) -> list[Process]:
    """Processes 1, 2, ...: the first is the main one, and the parent of all that do not say another."""
    return [replace(one, pid=pid, parent=one.parent if pid > 1 else 0) for pid, one in enumerate(processes, 1)]


@pytest.mark.parametrize(
    ("processes", "how", "asked"),
    [
        ([process(caught=TERM)], "handled", [1]),
        ([process(), process(caught=TERM)], "handled", [2]),
        ([process(ignored=TERM)], "ignored", [1]),
        ([process(), process(ignored=TERM)], "ignored", [1, 2]),
        ([process(caught=INT)], "default", [1]),
        ([], "unknown", []),
        ([process("bash"), process(caught=TERM)], "handled", [2]),
        ([process("bash", caught=TERM), process()], "script", [1]),
        ([process("bash", caught=TERM), process(caught=TERM)], "handled", [1]),
        ([process("bash", caught=TERM)], "handled", [1]),
        ([process("bash", ignored=TERM), process()], "default", [1, 2]),
        # What stands beside a server is no server: it is asked with all the others, or after them.
        ([process(), process("Xvfb", caught=TERM)], "default", [1, 2]),
        ([process("bash"), process("Xvfb", caught=TERM), process()], "default", [1, 2, 3]),
        ([process("bash"), process(caught=TERM, started=1), process("Xvfb", caught=TERM, started=2)], "handled", [2]),
        ([process("Xvfb", caught=TERM)], "handled", [1]),
        ([process("tini", caught=TERM), process(caught=TERM)], "handled", [1]),
        ([process("su", caught=TERM), process(caught=TERM)], "handled", [2]),
        ([process("tail")], "default", [1]),
        ([process(caught=GO)], "runtime", [1]),
        ([process("node", caught=TERM | INT)], "runtime", [1]),
        ([process("node", caught=TERM), process("java", caught=TERM)], "handled", [1]),
        ([process("wine64-preloader", caught=TERM)], "runtime", [1]),
        ([process("tmux", caught=TERM), process()], "default", [1, 2]),
        # Of several servers the one that was started last; how the others take it does not matter then.
        ([process("bash"), process("a", caught=TERM, started=1), process("b", caught=TERM, started=2)], "handled", [3]),
        ([process("bash"), process("a", ignored=TERM), process("b", caught=TERM)], "handled", [3]),
        # A daemon, whose parent is the init.
        ([process("bash"), process(caught=TERM, parent=0)], "handled", [2]),
    ],
)
def test_whom_a_signal_reaches_and_how_the_game_takes_it(processes: list[Process], how: str, asked: list[int]) -> None:
    """The server counts, not the shell or the helper beside it; a language's own handler tells nothing."""
    found = judge(tree(*processes), 1, signal.SIGTERM)
    assert (found.how, found.asked) == (how, asked)


def test_a_target_says_who_is_asked() -> None:
    """The main process, all of them, or who owns the port; another port's owner does not count."""
    processes = tree(process("bash"), process("a", caught=TERM), process("b", caught=TERM, started=9))
    asked = [
        judge(processes, 1, signal.SIGTERM, owners=[2], target=target).asked for target in ("main", "group", "port")
    ]
    assert asked == [[1], [1, 2, 3], [2]]
    assert judge(processes, 1, signal.SIGTERM, owners=[2]).asked == [2]


def test_the_advice_says_what_to_set_and_what_would_be_heard() -> None:
    """Where all is well, or nothing is known, nothing is said."""
    assert advice(Judgement([1], "handled"), signal.SIGTERM) == advice(Judgement([], "unknown"), signal.SIGTERM) == ""
    found = advice(judge(tree(process(caught=INT)), 1, signal.SIGTERM), signal.SIGTERM)
    assert "the game does not handle SIGTERM (it does handle SIGINT)" in found
    assert "AGENT_STOP" in found
    assert "ignores it" in advice(judge(tree(process(ignored=TERM)), 1, signal.SIGTERM), signal.SIGTERM)
    assert "Node.js" in unclear(judge(tree(process("node", caught=TERM)), 1, signal.SIGTERM), signal.SIGTERM)
    assert "start script" in unclear(
        judge(tree(process("sh", caught=TERM), process()), 1, signal.SIGTERM), signal.SIGTERM
    )


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
        found = judge(look([child.pid, *map(int, below)]), child.pid, signal.SIGTERM)
        os.killpg(child.pid, signal.SIGKILL)
    assert found.how == how


def test_a_real_process_is_read() -> None:
    """Its program, its handlers; one that is gone is left out."""
    code = "import signal; signal.signal(signal.SIGUSR2, print); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (found,) = look([child.pid, 2**22 + 1])
        child.communicate(b"\n")
    assert found.program == os.path.basename(os.path.realpath(sys.executable))
    assert found.handles(signal.SIGUSR2)
    assert not found.handles(signal.SIGTERM)

"""Whether the game would hear its stop: of the processes that count, and past what runtimes do by themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.game.signal_handling import Hearing, Process, judge, read, servers

TERM, INT = (1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT))


def process(pid: int, name: str, parent: int = 1, caught: int = 0, ignored: int = 0, runtime: str = "") -> Process:
    """One that was seen."""
    return Process(pid, parent, name, caught, ignored, runtime)


@pytest.mark.parametrize(
    ("processes", "how"),
    [
        ([process(7, "server", caught=TERM)], "handled"),
        ([process(7, "bash"), process(8, "server", 7, caught=TERM)], "handled"),
        ([process(7, "server", ignored=TERM)], "ignored"),
        ([process(7, "server"), process(8, "worker", 7, ignored=TERM)], "ignored"),
        ([process(7, "server", caught=2)], "default"),
        # Who stands beside the server, or in front of it, does not answer for it.
        ([process(7, "server"), process(8, "Xvfb", 7, caught=TERM), process(9, "tee", 7, caught=TERM)], "default"),
        ([process(7, "tini", caught=TERM), process(8, "server", 7)], "script"),
        ([process(7, "bash", caught=TERM), process(8, "server", 7)], "script"),
        ([process(7, "bash", caught=TERM)], "handled"),
        ([process(7, "bash", caught=TERM), process(8, "sleep", 7)], "handled"),
        ([process(7, "bash"), process(8, "bash", 7, caught=TERM)], "handled"),
        # A runtime's own handler is none of the program's.
        ([process(7, "node", caught=TERM | INT, runtime="node")], "runtime"),
        ([process(7, "server", caught=-1, runtime="go")], "runtime"),
        ([process(7, "Server.exe", caught=TERM, runtime="wine")], "runtime"),
        ([process(7, "node", runtime="node"), process(8, "server", 7, caught=TERM)], "handled"),
        ([], "unknown"),
    ],
)
def test_how_a_game_takes_a_signal(processes: list[Process], how: str) -> None:
    """One process with a handler is enough: the signal reaches all of them."""
    assert judge(processes, signal.SIGTERM).how == how


def test_helpers_and_launchers_do_not_count_where_there_is_a_server() -> None:
    """Without one, the innermost shell does the work."""
    bash, server, tee = process(7, "bash"), process(8, "server", 7), process(9, "tee", 7)
    assert servers([bash, server, tee]) == [server]
    inner = process(8, "sh", 7)
    assert servers([bash, inner]) == [inner]
    assert servers([tee]) == [tee]


def test_the_advice_says_what_to_set() -> None:
    """Where all is well, or nothing is known, nothing is said; signals that the game does handle are named."""
    assert judge([process(7, "server", caught=TERM)], signal.SIGTERM).advice == ""
    assert Hearing(signal.SIGTERM, "unknown").advice == ""
    default = judge([process(7, "server", caught=INT)], signal.SIGTERM)
    assert default.verdict.startswith("the game does not handle SIGTERM: a stop ends server (process 7) at once")
    assert "Set AGENT_STOP=signal:SIGINT, which it handles" in default.advice
    ignored = judge([process(7, "server", ignored=TERM)], signal.SIGTERM)
    assert "ignores it" in ignored.advice
    assert "AGENT_STOP" in ignored.advice
    node = judge([process(7, "node", caught=TERM | INT, runtime="node")], signal.SIGTERM)
    assert not node.is_wrong
    assert "cannot be seen whether the game handles SIGTERM: Node.js catches" in node.verdict
    assert node.handles == ()


@contextmanager
def running(*command: str, ready: str = "ready") -> Iterator[list[Process]]:
    """What /proc says of a program that has said that it is ready, and of its children."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        try:
            while (line := child.stdout.readline()) and ready not in line:
                pass
            below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            yield read([child.pid, *map(int, below)])
        finally:
            os.killpg(child.pid, signal.SIGKILL)


PYTHON_HANDLER = "import signal, time; signal.signal(15, print); print('ready', flush=True); time.sleep(60)"
PYTHON_PLAIN = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ((sys.executable, "-c", PYTHON_HANDLER), "handled"),
        ((sys.executable, "-c", PYTHON_PLAIN), "default"),
        (("bash", "-c", f'{sys.executable} -c "{PYTHON_HANDLER}"; true'), "handled"),
        (("bash", "-c", f'trap : TERM; {sys.executable} -c "{PYTHON_PLAIN}" & wait'), "script"),
        (("node", "-e", "console.log('ready'); setTimeout(() => {}, 60000)"), "runtime"),
    ],
)
def test_real_programs_are_judged(command: tuple[str, ...], how: str) -> None:
    """What the kernel and the runtimes really do."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with running(*command) as processes:
        hearing = judge(processes, signal.SIGTERM)
    assert hearing.how == how
    if command[0] == sys.executable:
        assert "SIGINT" in hearing.handles
        assert hearing.who.startswith("python")


def test_a_go_program_is_known_by_its_linkers_note(tmp_path: Path) -> None:
    """Whatever it is called."""
    proc = tmp_path / "7"
    proc.mkdir()
    (proc / "status").write_text(f"Name:\tgame\nState:\tS\nPPid:\t1\nSigIgn:\t0\nSigCgt:\t{TERM:x}\n")
    (proc / "cmdline").write_bytes(b"/srv/game\0")
    (proc / "exe").write_bytes(b"\x7fELF" + bytes(4000) + b"\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0abc")
    (found,) = read([7, 8], str(tmp_path))
    assert (found.runtime, found.name) == ("go", "game")
    (proc / "status").write_text("Name:\tgame\nState:\tZ (zombie)\nPPid:\t1\n")
    assert read([7], str(tmp_path)) == []

"""Which process is the game, where others start it and wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import pytest

from agent.game import main_process
from agent.game.main_process import MainProcess, exit_status
from agent.lifecycle.states import ExitStatus

if TYPE_CHECKING:
    from agent.game.follow import Follow
    from agent.game.spawn import Game

# Of the start script; no such process can be (the largest id is 2^22).
EXECUTED = 1 << 23


class Script:
    """A start that is only a start script."""

    pid = main_pid = EXECUTED


class Says:
    """Stands for what AGENT_MAIN says."""

    setting = "port"
    at_once = True

    def __init__(self) -> None:
        self.pid: int | None = None
        self.once: int | None = None

    def find(self, _pids: list[int]) -> int | None:
        """The process that was put there; one of them is found once."""
        once, self.once = self.once, None
        return once or self.pid


class Watcher:
    """A clock that is moved by hand, and what waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.readers: dict[int, Callable[[], object]] = {}

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Keeps it."""
        self.timers.append((self.now + seconds, callback))

    def time(self) -> float:
        """The moment that it was moved to."""
        return self.now

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Keeps it."""
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        """Forgets it."""
        del self.readers[fd]

    def run(self, seconds: float) -> None:
        """Fires what is due until then, in order."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = end

    def ends(self) -> None:
        """The process that is watched has ended."""
        [callback] = self.readers.values()
        callback()


class Start:
    """One start of the game, with all around it that its main process needs."""

    def __init__(self, *, follow: bool = True) -> None:
        self.watcher = Watcher()
        self.says = Says()
        self.game = Script()
        self.processes: list[int] = []
        self.reaped: dict[int, int] = {}
        self.how: ExitStatus | None = None
        self.main = MainProcess(
            cast("Game", self.game),
            self.watcher,
            pids=lambda: self.processes,
            look=self.look,
            follow=cast("Follow", self.says) if follow else None,
        )

    def look(self, *, left: bool = True) -> None:
        """Takes what was reaped since."""
        ended, self.reaped = self.reaped, {}
        self.how = self.main.take(ended, left=left) or self.how

    def reap(self, pid: int, status: int, *, left: bool = True) -> None:
        """A child has ended."""
        self.reaped[pid] = status
        self.look(left=left)

    def follow(self, pid: int) -> None:
        """The process that AGENT_MAIN means is there, and is seen."""
        self.says.pid = pid
        self.processes.append(pid)
        self.watcher.run(1.0)
        assert self.game.main_pid == pid

    def server_ends(self, server: subprocess.Popen[bytes]) -> None:
        """Its own parent waits for it."""
        self.says.pid = None
        server.kill()
        server.wait()
        self.processes.remove(server.pid)


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-S", "-E", "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def code(number: int) -> int:
    """The wait status of an exit code."""
    return number << 8


@pytest.fixture(params=[None, 9])
def told(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ExitStatus:
    """What is known of a process that its own parent waited for: nothing, or what newer kernels tell."""
    monkeypatch.setattr(main_process, "wait_status", lambda _: request.param)
    return exit_status(request.param)


def test_a_server_below_a_script_that_goes_on_behind_a_launcher_that_left(
    server: subprocess.Popen[bytes], told: ExitStatus
) -> None:
    """The launcher has left with 0, and what waited for the server sleeps on: over, and that 0 is not the server's."""
    start = Start()
    start.reap(EXECUTED, code(0))
    start.follow(server.pid)
    start.server_ends(server)
    start.watcher.ends()
    assert start.how is None, "its successor is looked for"
    start.watcher.run(10.0)
    assert start.main.over
    assert start.how == told


def test_its_successor_is_followed_all_the_same(server: subprocess.Popen[bytes]) -> None:
    """The script that goes on starts the server again."""
    start = Start()
    start.reap(EXECUTED, code(0))
    start.follow(server.pid)
    start.server_ends(server)
    start.watcher.ends()
    start.follow(os.getpid())
    start.reap(os.getpid(), code(3), left=False)
    assert start.how == ExitStatus(code=3)


def test_the_script_that_waited_ends_at_once(server: subprocess.Popen[bytes], told: ExitStatus) -> None:
    """Nothing is left before anybody has looked: the launcher's 0 is not the server's either."""
    start = Start()
    start.reap(EXECUTED, code(0))
    start.follow(server.pid)
    start.server_ends(server)
    start.reap(EXECUTED + 1, code(139), left=False)
    assert start.how == told


@pytest.mark.parametrize("helper", [False, True])
def test_a_launcher_that_waited_passes_its_code_on(server: subprocess.Popen[bytes], helper: bool) -> None:
    """Whichever end is seen first, and whether a helper is left or not."""
    start = Start()
    start.follow(server.pid)
    start.server_ends(server)
    start.reap(EXECUTED, code(7), left=helper)
    if helper:
        start.watcher.ends()
        start.watcher.run(10.0)
    assert start.how == ExitStatus(code=7)


def test_a_launcher_that_waited_ends_while_a_successor_is_looked_for(server: subprocess.Popen[bytes]) -> None:
    """Its code is the game's where none is found."""
    start = Start()
    start.follow(server.pid)
    start.server_ends(server)
    start.watcher.ends()
    start.reap(EXECUTED, code(7))
    assert start.how is None
    start.watcher.run(10.0)
    assert start.how == ExitStatus(code=7)


def test_a_launcher_that_leaves_and_no_server() -> None:
    """Then its own code is all there is."""
    start = Start()
    start.reap(EXECUTED, code(4))
    start.watcher.run(10.0)
    assert start.how == ExitStatus(code=4)


def test_a_process_that_is_gone_when_it_names_itself(server: subprocess.Popen[bytes]) -> None:
    """It was there in the listing only: the launcher is the game as before."""
    start = Start(follow=False)
    server.kill()
    server.wait()
    start.processes.append(server.pid)
    start.main.name(server.pid)
    start.watcher.run(1.0)
    assert start.game.main_pid == EXECUTED
    start.reap(EXECUTED, code(5), left=False)
    assert start.how == ExitStatus(code=5)


@pytest.mark.parametrize("listed", [True, False])
def test_a_process_that_is_gone_when_it_is_found(server: subprocess.Popen[bytes], listed: bool) -> None:
    """Whether another listing has it or not: the search goes on, and ends."""
    start = Start()
    start.reap(EXECUTED, code(0))
    server.kill()
    server.wait()
    if listed:
        start.processes.append(server.pid)
    start.says.once = server.pid
    start.watcher.run(10.0)
    assert start.main.over
    assert start.how == ExitStatus()


@pytest.mark.parametrize("follow", [False, True])
def test_one_that_was_named_ends_and_its_launcher_goes_on(
    server: subprocess.Popen[bytes], told: ExitStatus, follow: bool
) -> None:
    """Its end is the game's, as systemd has it: a launcher that sleeps on would be billed for ever."""
    start = Start(follow=follow)
    start.processes.append(server.pid)
    start.main.name(server.pid)
    start.server_ends(server)
    start.watcher.ends()
    over = []
    for seconds in (4.0, 2.0):
        start.watcher.run(seconds)
        over.append(start.main.over)
    assert over == [False, True], "the launcher may pass its code on, and a successor may name itself"
    assert start.how == told


def test_a_successor_names_itself(server: subprocess.Popen[bytes]) -> None:
    """While one is searched for: the search ends, whatever AGENT_MAIN would find."""
    start = Start()
    start.processes.append(server.pid)
    start.main.name(server.pid)
    start.server_ends(server)
    start.watcher.ends()
    start.processes.append(os.getpid())
    start.main.name(os.getpid())
    start.says.pid = EXECUTED
    start.watcher.run(20.0)
    start.look()
    assert not start.main.over
    assert start.game.main_pid == os.getpid()


def test_a_name_for_what_is_no_process_of_the_game() -> None:
    """Is refused."""
    start = Start()
    with pytest.raises(ValueError, match="MAINPID=1 is no process of the game"):
        start.main.name(1)


def test_wait_statuses() -> None:
    """A code, a signal, a core, and what nobody knows."""
    assert exit_status(code(3)) == ExitStatus(code=3)
    assert exit_status(9) == ExitStatus(signal=9)
    assert exit_status(11 | 0x80) == ExitStatus(signal=11, core_dumped=True)
    assert exit_status(None) == ExitStatus()

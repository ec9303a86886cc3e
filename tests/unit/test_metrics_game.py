"""What the game's processes use, measured on real small processes: nothing is lost when one ends, nothing counts twice.

Each of these programs says on its stdout when it has done its part, and then waits for a line on its stdin.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from agent.metrics.game import (
    Cpu,
    GameProcesses,
    ProcessTable,
    Reaped,
    Stats,
    Switches,
    _ignores_children,
    below,
    stats_of,
)

BURN = """
import os, sys, time
def burn(seconds):
    end = sum(os.times()[:2]) + seconds
    while sum(os.times()[:2]) < end: pass
def say(word):
    print(word, flush=True)
    sys.stdin.readline()
"""
SECONDS = 0.15
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Program:
    """A running program that is told line by line to go on."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def heard(self) -> str:
        """Waits for the next word it says."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        """Lets it continue."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finished(self) -> bool:
        """Whether it has said anything since, without waiting for it."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def end(self) -> None:
        """Lets it end, and reaps it."""
        self.go_on()
        assert self._process.wait(10) == 0


@contextmanager
def running(code: str) -> Iterator[Program]:
    """Runs Python code, after the helpers in `BURN`."""
    with subprocess.Popen(
        [sys.executable, "-c", BURN + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


def family(pid: int) -> Callable[[], Stats]:
    """Reads the process and all below it, parents first."""
    return lambda: stats_of([pid]) | below(ProcessTable().read(pid), pid)


def alone(*pids: int) -> Callable[[], Stats]:
    """Reads these processes."""
    return lambda: stats_of(pids)


def nothing_reaped() -> Reaped:
    """As if the agent had reaped nothing, so that only what was seen counts."""
    return Reaped()


def total(cpu: Cpu) -> float:
    """User and system time together."""
    return cpu.user + cpu.system


def test_a_running_game_is_described() -> None:
    """Memory, threads, processes, files and CPU time of a process are those that psutil reads."""
    with running(f"burn({SECONDS}); say('burnt')") as game:
        assert game.heard() == "burnt"
        usage = GameProcesses().sample(alone(game.pid))
        truth = psutil.Process(game.pid)
        assert usage.processes == 1
        assert usage.threads == truth.num_threads()
        assert usage.open_files == truth.num_fds()
        assert usage.resident_bytes == pytest.approx(truth.memory_info().rss, rel=0.2)
        assert total(usage.cpu) >= SECONDS - 2 * TICK
        assert usage.io is not None
        assert usage.io.read_calls > 0


def test_what_the_agent_has_reaped_stays_counted_though_it_was_never_seen() -> None:
    """A whole life between two scrapes is in RUSAGE_CHILDREN."""
    processes = GameProcesses()
    with running(f"burn({SECONDS}); say('burnt')") as game:
        assert game.heard() == "burnt"
        game.end()
    usage = processes.sample(alone())
    assert total(usage.cpu) >= SECONDS - 2 * TICK
    assert usage.switches.voluntary > 0
    assert usage.processes == 0
    assert usage.resident_bytes == 0


def test_what_was_reaped_before_does_not_count() -> None:
    """Children that the agent's process had before (as an entrypoint script, say) are not the game."""
    with running(f"burn({SECONDS}); say('burnt')") as other:
        other.heard()
        other.end()
    assert total(GameProcesses().sample(alone()).cpu) == 0


def test_a_child_that_its_parent_has_waited_for_counts_once() -> None:
    """Its CPU time and I/O are in the parent's numbers then, and are not kept beside them."""
    code = f"""
child = os.fork()
if not child:
    os.write(os.open(os.devnull, os.O_WRONLY), b'x' * 100_000)
    burn({SECONDS})
    say('burnt')
    os._exit(0)
os.waitpid(child, 0)
say('waited')
"""
    processes = GameProcesses(nothing_reaped)
    with running(code) as game:
        assert game.heard() == "burnt"
        before = processes.sample(family(game.pid))
        game.go_on()
        assert game.heard() == "waited"
        after = processes.sample(family(game.pid))
    assert (before.processes, after.processes) == (2, 1)
    assert before.io is not None
    assert after.io is not None
    assert 100_000 <= before.io.written_bytes <= after.io.written_bytes < 200_000
    assert total(before.cpu) <= total(after.cpu) < total(before.cpu) + SECONDS / 2


def test_a_child_that_nobody_waits_for_is_kept() -> None:
    """Where the parent ignores SIGCHLD the kernel discards the numbers; what was seen of them stays."""
    code = f"""
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = os.fork()
if not child:
    os.write(os.open(os.devnull, os.O_WRONLY), b'x' * 100_000)
    burn({SECONDS})
    say('burnt')
    os._exit(0)
try: os.waitpid(child, 0)
except ChildProcessError: pass
say('gone')
"""
    processes = GameProcesses(nothing_reaped)
    with running(code) as game:
        assert game.heard() == "burnt"
        before = processes.sample(family(game.pid))
        game.go_on()
        assert game.heard() == "gone"
        after = processes.sample(family(game.pid))
    assert before.io is not None
    assert after.io is not None
    assert after.io.written_bytes >= before.io.written_bytes >= 100_000
    assert total(after.cpu) >= total(before.cpu) >= SECONDS - 2 * TICK


def test_a_game_that_ended_keeps_its_io_and_the_next_one_adds_to_it() -> None:
    """After a restart the counters go on from where they were."""
    processes = GameProcesses(nothing_reaped)
    written = []
    for _ in range(2):
        with running("os.write(os.open(os.devnull, os.O_WRONLY), b'x' * 100_000); say('written')") as game:
            assert game.heard() == "written"
            usage = processes.sample(alone(game.pid))
            game.end()
        assert usage.io is not None
        written.append(usage.io.written_bytes)
        ended = processes.sample(alone())
        assert ended.io == usage.io
        assert ended.cpu == usage.cpu
    assert 100_000 <= written[0] < 200_000 <= written[1] < 300_000


def test_context_switches_of_all_threads_count_also_of_those_that_ended() -> None:
    """A thread takes its number with it when it ends; it was seen, so it stays."""
    code = """
import threading
def wait():
    for _ in range(300): time.sleep(0.001)
    ready.set()
    leave.wait()
ready, leave = threading.Event(), threading.Event()
thread = threading.Thread(target=wait)
thread.start()
ready.wait()
say('waited')
leave.set()
thread.join()
say('joined')
"""
    processes = GameProcesses(nothing_reaped)
    with running(code) as game:
        assert game.heard() == "waited"
        first = processes.sample(alone(game.pid))
        assert first.switches.voluntary >= 200
        assert psutil.Process(game.pid).num_ctx_switches().voluntary < 200
        game.go_on()
        assert game.heard() == "joined"
        second = processes.sample(alone(game.pid))
        end = time.monotonic() + 10
        while second.threads != first.threads - 1:  # the kernel lets go of it a moment after it was joined
            assert time.monotonic() < end
            second = processes.sample(alone(game.pid))
        assert second.switches.voluntary >= first.switches.voluntary


def test_processes_that_are_not_there_are_no_problem() -> None:
    """A pid that is gone, and a zombie: nothing runs; what the zombie used is known until it is reaped."""
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        usage = GameProcesses(nothing_reaped).sample(alone(2**22 + 1, zombie.pid))
    finally:
        zombie.wait()
    assert usage.processes == 0
    assert usage.threads == 0
    assert usage.resident_bytes == 0
    assert usage.io is not None
    assert usage.io.read_calls > 0


def test_counters_never_go_backwards_while_processes_come_and_go() -> None:
    """Many short processes below a parent that waits for some, ignores others and leaves orphans."""
    code = """
import random, signal
random.seed(7)
for number in range(60):
    if number == 30: signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if not os.fork():
        if random.random() < 0.3 and os.fork(): os._exit(0)
        os.write(os.open(os.devnull, os.O_WRONLY), b'x' * 1000)
        burn(0.005)
        os._exit(0)
    if number % 3:
        try: os.wait()
        except ChildProcessError: pass
say('done')
"""
    processes = GameProcesses()
    with running(code) as game:
        last = processes.sample(family(game.pid))
        looks = 0
        while not game.finished():
            usage = processes.sample(family(game.pid))
            for name in ("cpu", "switches", "io"):
                before, now = getattr(last, name), getattr(usage, name)
                assert before is None or all(a <= b for a, b in zip(before, now, strict=True)), name
            last = usage
            looks += 1
        assert looks > 3


def test_what_the_reaper_says_is_taken_as_a_difference() -> None:
    """The higher of both sums counts: what was reaped since the start, or what was seen."""
    reaped = [Reaped(Cpu(10.0, 1.0), Switches(100, 10)), Reaped(Cpu(12.5, 1.0), Switches(130, 10))]
    processes = GameProcesses(lambda: reaped.pop(0))
    usage = processes.sample(alone())
    assert usage.cpu == Cpu(2.5, 0.0)
    assert usage.switches == Switches(30, 0)
    assert usage.io is None


def test_this_machine_can_tell_who_ignores_its_children() -> None:
    """SigIgn is read as the kernel writes it: a mask in hexadecimal, the first signal in the lowest bit."""
    with running("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); say('ignored')") as game:
        assert game.heard() == "ignored"
        assert _ignores_children(game.pid)
    assert not _ignores_children(os.getpid())
    assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN


def test_processes_beside_the_game_are_read_once_and_new_ones_of_the_game_are_found() -> None:
    """A process that is not below the init never gets there; one that is started later, or below a new one, does."""
    table = ProcessTable()
    with (
        running("say('up')") as beside,
        running(
            "say('up'); child = os.fork(); say('forked') if child else time.sleep(60); os.kill(child, 9); os.wait()"
        ) as game,
    ):
        beside.heard(), game.heard()
        first = table.read(game.pid)
        assert {beside.pid, game.pid} <= set(first)
        game.go_on()
        assert game.heard() == "forked"
        second = table.read(game.pid)
        assert beside.pid not in second
        assert len(below(second, game.pid)) == 1
        game.end()

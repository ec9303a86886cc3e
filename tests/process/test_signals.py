"""Signals: all of them reach the whole group, and the one that means stop is obeyed at any moment."""

import signal
import time
from pathlib import Path

import pytest

from tests.process.harness import (
    PYTHON,
    Launcher,
    Mode,
    agent_catches,
    agent_process,
    children,
    environment_of,
    eventually,
    game,
    state_of,
    status_of,
)
from tests.variants import one_fast

STOPPING = {signal.SIGTERM, signal.SIGINT}
SUSPENDING = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
NOT_FOR_FORWARDING = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
# What the kernel raises for the agent's own writes and faults: taken for the game's, it would be a lie or a loop.
NOT_FOR_FORWARDING |= {signal.SIGPIPE, signal.SIGXFSZ}
NOT_FOR_FORWARDING |= {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
FORWARDED = sorted(set(signal.valid_signals()) - STOPPING - SUSPENDING - NOT_FOR_FORWARDING)


def test_signals_are_forwarded_to_the_game(launch: Launcher, mode: Mode) -> None:
    """Every signal that means something reaches the game, SIGABRT and real-time signals too; the agent survives all."""
    run = launch(game("prints_signals"), mode=mode)
    run.wait_for("ready")
    assert run.stdout
    expected = b"ready\n"
    for signum in FORWARDED:
        run.signal(signum)
        expected += b"%d\n" % signum
        run.wait_for(expected)
    assert run.is_ready_to_answer()
    assert run.stdout.data == expected


def test_signals_are_forwarded_before_the_agent_has_finished_starting(launch: Launcher) -> None:
    """A signal in the first moments of the game, while the agent still imports, is not lost."""
    run = launch(game("prints_signals"))
    run.wait_for("ready")
    run.signal(signal.SIGUSR1)
    run.signal(signal.SIGHUP)
    run.wait_for("\n10\n", "\n1\n")


def test_job_control_signals_do_not_end_the_agent(launch: Launcher) -> None:
    """SIGTSTP, SIGTTIN and SIGTTOU suspend the game or are handed to it; SIGCONT brings everything back."""
    run = launch(game("prints_signals"), mode="subreaper")
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    for signum in sorted(SUSPENDING):
        run.signal(signum)
        eventually(
            lambda number=signum: f"\n{number:d}\n" in run.stdout.text or state_of(run.game_pid) == "T",  # type: ignore[misc,union-attr]
            "the signal had an effect",
        )
        run.signal(signal.SIGCONT)
        eventually(lambda: "T" not in {state_of(run.pid), state_of(run.game_pid)}, "everything runs again")
    run.signal(signal.SIGUSR2)
    run.wait_for("\n12\n")
    assert run.is_ready_to_answer()


def test_a_signal_reaches_the_whole_group(launch: Launcher) -> None:
    """Behind a shell that stays in front of it, the game hears the signal as well as the shell."""
    run = launch(["sh", "-c", 'trap "echo shell heard" USR1; "$@" & wait; wait', "sh", *game("prints_signals")])
    run.wait_for("ready")
    run.signal(signal.SIGUSR1)
    run.wait_for("shell heard\n", "\n10\n")


@pytest.mark.parametrize("signum", one_fast(*sorted(STOPPING, reverse=True)))
def test_sigterm_and_sigint_stop_a_polite_game(launch: Launcher, mode: Mode, signum: int) -> None:
    """Both are a stop: the game is told with SIGTERM, its own exit code is passed on, and no grace is waited for."""
    run = launch(game("polite", "9"), mode=mode, env={"AGENT_GRACE_SECONDS": "3600"})
    run.wait_for("ready")
    run.signal(signum)
    done = run.finish()
    assert done.code == 9
    assert done.stdout == b"ready\nbye\n"


@pytest.mark.parametrize("signum", one_fast(*sorted(STOPPING)))
def test_a_second_signal_skips_what_waits(launch: Launcher, signum: int) -> None:
    """With an hour of grace and a deaf game, the second SIGTERM or SIGINT ends it with SIGKILL, at once."""
    run = launch(game("ignores_sigterm"), env={"AGENT_GRACE_SECONDS": "3600"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    run.signal(signum)
    eventually(lambda: run.http("GET", "/v1/status").json()["phase"] in {"draining", "stopping"}, "the stop has begun")
    assert state_of(run.game_pid) != "gone"
    run.signal(signum)
    assert run.finish().code == 137


@pytest.mark.parametrize("moment", one_fast(0.15, 0.0, 0.05, 0.3, 0.5))
def test_sigterm_during_start_up_stops_the_game(launch: Launcher, moment: float) -> None:
    """At any moment of the first half second of the game's life SIGTERM is obeyed, and nothing hangs or is left."""
    run = launch(game("polite"))
    run.wait_for("ready")
    born = time.monotonic()
    eventually(lambda: time.monotonic() >= born + moment, "the moment has come")
    run.signal(signal.SIGTERM)
    done = run.finish()
    assert done.code == 0
    assert done.stdout == b"ready\nbye\n"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_sigterm_as_early_as_it_can_be_heard(launch: Launcher, mode: Mode) -> None:
    """SIGTERM that arrives with the first handler, around the fork of the game, still ends everything in time."""
    run = launch(game("ignores_sigterm"), mode=mode, env={"AGENT_GRACE_SECONDS": "5"})
    eventually(lambda: agent_catches(run.pid, signal.SIGTERM), "the agent listens to SIGTERM")
    run.signal(signal.SIGTERM)
    done = run.finish()
    assert done.code in {137, 143}, "killed by the escalation, or terminated before the game could ignore it"
    assert done.seconds <= 5.0
    assert "Traceback" not in done.stderr


def test_many_signals_at_once(launch: Launcher) -> None:
    """A burst of different signals, some of them twice, neither loses the stop nor brings the agent down."""
    run = launch(game("polite"), mode="subreaper")
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    for signum in (signal.SIGWINCH, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD, signal.SIGTERM):
        run.signal(signum)
    done = run.finish()
    assert done.code == 0
    assert "Traceback" not in done.stderr


def test_a_game_that_stopped_itself_is_ended(launch: Launcher) -> None:
    """A game frozen by SIGSTOP cannot run its handler; the stop ends it all the same, inside the grace."""
    run = launch(game("freezes"), env={"AGENT_GRACE_SECONDS": "5"})
    run.wait_for("ready")
    eventually(lambda: state_of(run.game_pid) == "T", "the game is frozen")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.seconds <= 5.0
    assert done.code in {0, 137}


def test_the_agent_executes_nothing_but_the_game(launch: Launcher) -> None:
    """While a game runs there is the agent's own process beside it, and no other helper that could be left."""
    run = launch(game("polite"))
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert set(children(run.pid)) == {run.game_pid, agent_process(run.pid)}
    assert environment_of(run.game_pid)


def ignore_children() -> None:
    """As some supervisors start what they start: the kernel then reaps children by itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def block_stop_signals() -> None:
    """As a program starts another one that forgot to undo its own signal mask."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})


def test_started_with_sigchld_ignored(launch: Launcher, mode: Mode) -> None:
    """A parent that ignores SIGCHLD passes that on; the exit code is not lost for it."""
    assert launch(game("exits", "42"), mode=mode, preexec=ignore_children).finish().code == 42
    run = launch(game("leaves_orphans", "5"), mode=mode, preexec=ignore_children)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert run.stop().code == 0


def test_started_with_stop_signals_blocked(launch: Launcher, mode: Mode) -> None:
    """A parent that left SIGTERM and SIGCHLD blocked does not make the agent deaf: it still stops the game."""
    run = launch(game("polite"), mode=mode, preexec=block_stop_signals, env={"AGENT_GRACE_SECONDS": "5"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code in {0, 137}, "the game inherits the mask, as through any exec, so it may have to be killed"
    assert done.seconds <= 5.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_at_any_moment_of_many_starts(launch: Launcher, mode: Mode) -> None:
    """SIGTERM at a hundred different moments of the first 900 ms is obeyed every time."""
    for moment in range(0, 900, 9):
        run = launch(game("polite"), mode=mode)
        eventually(lambda run=run: agent_catches(run.pid, signal.SIGTERM), "the agent listens")  # type: ignore[misc]
        born = time.monotonic()
        eventually(lambda born=born, moment=moment: time.monotonic() >= born + moment / 1000, "the moment")  # type: ignore[misc]
        done = run.stop()
        assert done.code in {0, 143}, (moment, done)
        assert done.seconds <= 5.0, (moment, done)
        assert "Traceback" not in done.stderr, (moment, done)
        run.clean_up()


# In place of a module that the init imports after the game's exec: its import lasts until the game has heard a signal.
WAITS_FOR_THE_GAME = """
import os, sys, time
open({imports!r}, "w").close()
until = time.monotonic() + 30
while not os.path.exists({heard!r}) and time.monotonic() < until:
    time.sleep(0.01)
sys.path.remove({modules!r})
del sys.modules["heapq"]
import heapq
"""
HEARS = """
import os, signal, sys
def hear(*_):
    with open({heard!r}, "a") as file:
        file.write("heard\\n")
    if {leaves}:
        os._exit(0)
signal.signal(signal.SIGTERM, hear)
while not os.path.exists({leave!r}):
    signal.sigtimedwait((), 0.01)
os._exit(0)
"""


def hears_sigterm(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    return bool(int(status_of(pid).get("SigCgt", "0"), 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("leaves", one_fast(False, True), ids=["stays", "leaves at once"])
def test_a_signal_waits_for_no_import(launch: Launcher, tmp_path: Path, leaves: bool) -> None:
    """While the init imports what it plans a stop with, the game hears SIGTERM at once, and only once."""
    modules, imports, heard, leave = (tmp_path / name for name in ("modules", "imports", "heard", "leave"))
    modules.mkdir()
    text = WAITS_FOR_THE_GAME.format(imports=str(imports), heard=str(heard), modules=str(modules))
    (modules / "heapq.py").write_text(text)
    code = HEARS.format(heard=str(heard), leaves=leaves, leave=str(leave))
    run = launch([*PYTHON, "-c", code], env={"PYTHONPATH": str(modules), "AGENT_LOG_LEVEL": "debug"})
    eventually(imports.exists, "the init imports")
    eventually(lambda: hears_sigterm(run.game_pid), "the game has a handler")
    run.signal(signal.SIGTERM)
    run.stderr.wait_for("stop method signal:SIGTERM")
    leave.touch()
    done = run.finish()
    assert heard.read_text() == "heard\n"
    assert done.code == 0
    turns = [step for step in run.story()["happened"] if "method" in step]
    assert [turn["method"] for turn in turns] == ["signal:SIGTERM"]
    assert [asked.split()[0] for asked in turns[0]["asked"]] == [Path(PYTHON[0]).name[:15]]


@pytest.mark.parametrize(
    "env", one_fast({"AGENT_DRAIN_SECONDS": "1"}, {"AGENT_STOP": "stdin:stop"}, {"AGENT_STOP": "signal:SIGTERM:group"})
)
def test_another_beginning_of_the_stop_waits_for_its_plan(
    launch: Launcher, tmp_path: Path, env: dict[str, str]
) -> None:
    """With a drain, or a first method that is no signal to the main process, no signal comes before it."""
    modules, imports, sent, leave = (tmp_path / name for name in ("modules", "imports", "sent", "leave"))
    heard = tmp_path / "heard"
    modules.mkdir()
    text = WAITS_FOR_THE_GAME.format(imports=str(imports), heard=str(sent), modules=str(modules))
    (modules / "heapq.py").write_text(text)
    code = HEARS.format(heard=str(heard), leaves=False, leave=str(leave))
    run = launch([*PYTHON, "-c", code], env={"PYTHONPATH": str(modules), "AGENT_GRACE_SECONDS": "5"} | env)
    eventually(imports.exists, "the init imports")
    eventually(lambda: hears_sigterm(run.game_pid), "the game has a handler")
    run.signal(signal.SIGTERM)
    time.sleep(0.1)
    assert not heard.exists()
    sent.touch()
    run.stderr.wait_for("stopping:")
    leave.touch()
    assert run.finish().code == 0


def test_a_method_of_the_agents_process_waits_for_it(launch: Launcher, tmp_path: Path) -> None:
    """A stop that is there before the agent's process is forked: the method is tried by it all the same."""
    modules, imports, sent = (tmp_path / name for name in ("modules", "imports", "sent"))
    modules.mkdir()
    text = WAITS_FOR_THE_GAME.format(imports=str(imports), heard=str(sent), modules=str(modules))
    (modules / "heapq.py").write_text(text)
    env = {"AGENT_STOP": "rcon:stop", "AGENT_RCON_ADDRESS": "127.0.0.1:1", "AGENT_GRACE_SECONDS": "60"}
    run = launch(game("polite", "4"), env={"PYTHONPATH": str(modules)} | env)
    eventually(imports.exists, "the init imports")
    eventually(lambda: hears_sigterm(run.game_pid), "the game has a handler")
    run.signal(signal.SIGTERM)
    sent.touch()
    done = run.finish()
    assert done.code == 4, "SIGTERM is the last method"
    assert "cannot connect to 127.0.0.1:1" in done.stderr, "said by the agent's process"

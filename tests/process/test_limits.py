"""What is scarce or stands still: descriptors, processes, memory, time. The game's end is what it would have been."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.cgroups import cgroup
from tests.fakes import FakePlatform
from tests.process.harness import Launcher, agent_process, children, eventually, game, state_of
from tests.variants import one_fast


def test_few_descriptors(launch: Launcher, platform: FakePlatform) -> None:
    """64, and all that clients can take is taken: one line says so, and the game's end is told, kept and confirmed."""
    run = launch(
        game("exits", "3", "when-told"),
        mode="subreaper",
        env=platform.environment(),
        stdin=-1,
        preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    host, _, port = run.game_environment["AGENT_URL"].removeprefix("http://").partition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection((host, int(port))))
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(run.game_environment["AGENT_SOCKET"])
        run.say(b"\n")
        platform.wait_for_calls(1)
        done = run.stop()
    assert done.code == 3
    assert run.story()["exit_code"] == 3
    assert done.stderr.count("\n") < 40, done.stderr[:4000]


@pytest.mark.parametrize("for_good", [False, True])
def test_a_game_that_lowers_the_limits_of_the_agent(launch: Launcher, *, for_good: bool) -> None:
    """One of the same user may (man 2 prlimit): it hears its stop, and the end is written down.

    An orphan that ends meanwhile makes the agent look for who is left: a game that it cannot see has not ended.
    """
    go = launch.files / "go"
    orphan = f"( (until [ -e {go} ]; do :; done; echo gone) & )"
    command = ["sh", "-c", f'{orphan}; exec "$@"', "sh", *game("polite")]
    run = launch(command, mode="subreaper", env={"AGENT_GRACE_SECONDS": "2"})
    run.wait_for("ready")
    _, hard = resource.prlimit(run.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (3, 3 if for_good else hard))
    go.touch()
    run.wait_for("gone")
    done = run.stop()
    assert done.code == 0
    assert b"bye" in done.stdout, done.stderr
    assert run.story()["exit_code"] == 0


@pytest.mark.slow  # the agent tries again after 5 s before it leaves the call to PID 1
def test_a_game_that_takes_all_descriptors_from_the_agent_too(launch: Launcher, platform: FakePlatform) -> None:
    """Of both processes, for good: its end is written down, and the deployment is stopped all the same."""
    run = launch(game("exits", "3", "when-told"), mode="subreaper", env=platform.environment(), stdin=-1)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    agent = agent_process(run.pid)
    assert agent is not None
    for pid in (run.pid, agent):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))
    run.say(b"\n")
    platform.wait_for_calls(1)
    assert run.stop().code == 3
    assert run.story()["exit_code"] == 3


@pytest.mark.slow  # an agent's process has 15 s to answer, and 5 s to end
def test_an_agent_that_waits_in_the_kernel(launch: Launcher, platform: FakePlatform) -> None:
    """For a disk or a volume that hangs, where not even SIGKILL ends it: the deployment is stopped all the same.

    A frozen process (cgroup v1) is in the same state, `D`.
    """
    with cgroup("freezer") as group:
        run = launch(game("exits", "3", "when-told"), mode="subreaper", env=platform.environment(), stdin=-1)
        run.wait_for("ready")
        assert run.is_ready_to_answer()
        agent = agent_process(run.pid)
        assert agent is not None
        (group / "cgroup.procs").write_text(str(agent))
        (group / "freezer.state").write_text("FROZEN")
        try:
            eventually(lambda: state_of(agent) == "D", "it stands still")
            run.say(b"\n")
            platform.wait_for_calls(1, 120)
            run.signal(signal.SIGTERM)
            assert run.process.wait(30) == 3
            assert run.stderr.text.count("ending it") == 1
        finally:
            (group / "freezer.state").write_text("THAWED")
        run.finish()
    assert run.story()["exit_code"] == 3


def test_everything_stands_still_after_the_stop_signal(launch: Launcher) -> None:
    """A container that is paused right after SIGTERM until its grace is over: there is an `exit.json` all the same."""
    run = launch(game("polite"), mode="subreaper", env={"AGENT_GRACE_SECONDS": "1"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    agent = agent_process(run.pid)
    assert agent is not None
    everybody = (run.game_pid, agent, run.pid)
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    run.signal(signal.SIGTERM)
    time.sleep(1.2)  # the pause is the point
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    run.finish()
    assert run.story()["reason"] == "platform_stop"


@pytest.mark.slow
def test_a_game_that_forks_without_end(launch: Launcher) -> None:
    """All of it is gone in time, where the agent is not PID 1 and the kernel would take the rest."""
    with cgroup("pids", pids__max=60) as group:
        run = launch(game("forks_without_end", str(group)), mode="subreaper", env={"AGENT_GRACE_SECONDS": "2"})
        run.wait_for("ready")
        eventually(lambda: int((group / "pids.current").read_text()) >= 60, "the limit is reached")
        done = run.stop()
        assert done.code == 137
        assert done.seconds < 5.0, "2 s where nothing else runs"
        assert run.story()["exit_code"] == 137


def test_the_kernel_takes_the_game_first(launch: Launcher) -> None:
    """When memory runs out the game is what is killed: the agent can tell of it, and nobody could tell of the agent."""
    run = launch(game("polite"))
    run.wait_for("ready")
    scores = {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in [run.pid, *children(run.pid)]}
    game_score = scores.pop(run.game_pid)
    assert all(score < game_score for score in scores.values()), (game_score, scores)


def test_a_spool_that_is_removed(launch: Launcher) -> None:
    """Somebody tidies up `/tmp` in mid-life: the next bytes and `exit.json` are kept in a new directory."""
    run = launch(game("polite"), mode="subreaper")
    run.wait_for("ready")
    shutil.rmtree(run.spool)
    run.stop()
    assert run.story()["exit_code"] == 0


def test_an_agent_that_is_suspended_hears_the_heartbeats_that_came_meanwhile(launch: Launcher) -> None:
    """Its silence is not the game's: nothing is stopped that sent its heartbeats in time."""
    run = launch(game("polite"), env={"AGENT_HEALTH_TIMEOUT": "1s"})
    run.wait_for("ready")
    assert run.http("POST", "/v1/ready").status < 300
    agent = agent_process(run.pid)
    assert agent is not None
    message = b'{"jsonrpc": "2.0", "method": "health"}\n'
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(run.game_environment["AGENT_SOCKET"])
        for moment in range(20):
            connection.sendall(message)
            if moment in (3, 15):
                os.kill(agent, signal.SIGSTOP if moment == 3 else signal.SIGCONT)
            time.sleep(0.1)  # a game's heartbeat
    assert run.stop().code == 0
    assert run.story()["reason"] == "platform_stop"


@pytest.mark.parametrize(("count", "code"), [(6, 126), (8, 126), (16, 4)])
def test_next_to_no_descriptors(launch: Launcher, count: int, code: int) -> None:
    """The game cannot be started, which is said; or it is, and hears its stop signal without the rest of the agent."""
    prefix = ["sh", "-c", f'ulimit -n {count}; exec "$@"', "sh"]
    run = launch(game("polite", "4"), prefix=prefix)
    if code == 126:
        done = run.finish()
        assert "cannot start" in done.stderr
        assert "raise the container's limits" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        run.wait_for("ready")
        done = run.stop()
        assert done.stdout == b"ready\nbye\n"
    assert done.code == code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may unmount /proc")
@pytest.mark.parametrize("mounted", one_fast("another namespace's", "none"))
def test_without_a_proc_of_its_own(launch: Launcher, mounted: str) -> None:
    """A game whose processes cannot be listed is not taken for one that has ended, and hears its stop signal."""
    unmount = "umount -l /proc && umount -l /proc" if mounted == "none" else "umount -l /proc"
    run = launch(game("polite", "4"), prefix=["sh", "-c", f'{unmount} && exec "$@"', "sh"])
    run.stderr.wait_for("status page")
    done = run.stop()
    assert done.stdout == b"ready\nbye\n"
    assert done.code == 4

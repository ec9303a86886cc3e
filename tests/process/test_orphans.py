"""One reaper: orphans are adopted and reaped, and when the container ends nothing of the game is left."""

import os
import signal

import pytest

from tests.process.harness import Launcher, Mode, descendants, eventually, game, state_of

# The grace itself is another file's subject; here it only has to be shorter than the five seconds that are allowed.
SHORT = {"AGENT_GRACE_SECONDS": "2"}


def test_orphans_are_adopted_and_reaped(launch: Launcher, mode: Mode) -> None:
    """Forty grandchildren without a parent become the agent's, and no zombie of them stays."""
    run = launch(game("leaves_orphans", "40"), mode=mode)
    run.wait_for("ready")
    eventually(lambda: descendants(run.pid) == [run.game_pid], "only the game is left below the agent")
    assert run.is_ready_to_answer()
    assert run.stop().code == 0


def test_orphans_that_die_later_are_reaped(launch: Launcher, mode: Mode) -> None:
    """An orphan adopted at the start and ended much later, while the agent is busy serving, leaves no zombie either."""
    run = launch(["sh", "-c", "(sleep 1000 & echo $! >&2; echo started); exec sleep 1001"], mode=mode)
    run.wait_for("started")
    assert run.is_ready_to_answer()
    orphan = eventually(lambda: [pid for pid in descendants(run.pid) if pid != run.game_pid], "there is an orphan")[0]
    os.kill(orphan, signal.SIGKILL)
    eventually(lambda: state_of(orphan) == "gone", "the orphan is reaped")
    assert state_of(run.game_pid) != "gone"
    assert run.stop().code == 143


def test_the_games_code_wins_over_its_orphans(launch: Launcher, mode: Mode) -> None:
    """Orphans that exit 7 at the moment the game exits 42 do not lend it their code."""
    assert launch(game("leaves_orphans", "20", "and-exits", "42"), mode=mode).finish().code == 42


def test_a_daemon_that_left_the_group_is_ended(launch: Launcher, mode: Mode) -> None:
    """A daemon in a session of its own, deaf to SIGTERM, is gone after the stop, which keeps inside the grace."""
    run = launch(game("forks_a_daemon"), mode=mode, env=SHORT)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert len(descendants(run.pid)) == 2
    done = run.stop()
    assert done.code == 0
    assert done.seconds <= 5.0


def test_a_daemon_that_outlives_the_game_does_not_keep_the_container(launch: Launcher, mode: Mode) -> None:
    """The game exits 42 and leaves a daemon that holds its stdout open: the container still ends, with 42."""
    done = launch(game("forks_a_daemon", "and-exits", "42"), mode=mode).finish()
    assert done.code == 42
    assert done.stdout.startswith(b"ready ")


def test_what_stays_in_the_group_is_killed(launch: Launcher, mode: Mode) -> None:
    """The game obeys, its helpers ignore SIGTERM: the escalation waits for the whole group, then ends it."""
    run = launch(game("forks_helpers"), mode=mode, env=SHORT)
    run.wait_for("ready")
    eventually(lambda: run.stdout and run.stdout.data.count(b"helper\n") == 3, "the helpers are there")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 0
    assert done.seconds <= 5.0


def test_a_game_that_forks_on_sigterm_is_killed(launch: Launcher, mode: Mode) -> None:
    """A process that only came to be after the stop signal was sent does not escape the escalation."""
    run = launch(game("forks_on_sigterm"), mode=mode, env=SHORT)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 0
    assert done.seconds <= 5.0


@pytest.mark.slow
def test_a_wrapper_shell_does_not_cost_the_game_its_last_second(launch: Launcher, mode: Mode) -> None:
    """The shell in front dies of SIGTERM at once; the game behind it still saves its world before any kill."""
    run = launch(game("wrapper.sh", *game("slow_on_sigterm", "1")), mode=mode)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert b"saved" in done.stdout
    assert done.code in {0, 143}, "the shell died of SIGTERM, or waited for the game and passed its code on"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_game_in_a_command_line_string(launch: Launcher, shell: str) -> None:
    """`CMD ["/bin/bash", "-c", "/game/server $ARGS"]`, as the vendor's images have it, is stopped properly."""
    line = " ".join(game("polite", "6"))
    run = launch([shell, "-c", f"{line}; exit $?"])
    run.wait_for("ready")
    done = run.stop()
    assert b"bye" in done.stdout
    assert done.code in {6, 143}


def test_the_end_of_a_wrapper_ends_its_background_jobs(launch: Launcher, mode: Mode) -> None:
    """A start script that puts the game into the background and ends takes the container with it, nothing is left."""
    done = launch(["sh", "-c", '"$@" & sleep 0; exit 3', "sh", *game("polite")], mode=mode).finish()
    assert done.code == 3


@pytest.mark.slow
def test_a_process_that_keeps_running_away_is_caught(launch: Launcher, mode: Mode) -> None:
    """A process that forks into a new session again and again, faster than one can look, is gone after the stop."""
    run = launch(["sh", "-c", '"$@" & exec sleep 1000', "sh", *game("runs_away")], mode=mode, env=SHORT)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 143
    assert done.seconds <= 5.0

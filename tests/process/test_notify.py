"""`sd_notify`: games and tools made for systemd speak to the agent as they are."""

import shutil
import socket
import tempfile

import pytest

from tests.process.harness import PYTHON, Launcher, Mode, Run, eventually, game
from tests.variants import one_fast


def phase(run: Run) -> str:
    """Where the deployment is."""
    return str(run.http("GET", "/v1/status").json()["phase"])


def test_a_game_made_for_systemd_is_ready_and_lives(launch: Launcher, mode: Mode) -> None:
    """Sent in its first moment, before the agent can read: nothing is lost."""
    run = launch(game("notifies", "READY=1\\nSTATUS=warming up", "WATCHDOG=1", "WATCHDOG=1"), mode=mode)
    run.wait_for("sent")
    eventually(lambda: phase(run) == "ready", "it is ready")
    status = run.http("GET", "/v1/status").json()
    assert status["text"] == "warming up"
    assert status["heartbeat"]["count"] == 2
    assert run.stop().code == 0


def test_a_barrier_says_that_everything_was_taken_in(launch: Launcher) -> None:
    """When the descriptor is closed, READY=1 has had its effect; no process forked meanwhile keeps it open."""
    run = launch(game("notifies", "READY=1", *["BARRIER"] * 100))
    eventually(lambda: run.stdout is not None and run.stdout.text.count("barrier") == 100, "each barrier is passed")
    assert phase(run) == "ready"
    run.stop()


def test_stopping_is_a_stop_request(launch: Launcher) -> None:
    """As every other way to ask for it."""
    run = launch(game("notifies", "READY=1", "STOPPING=1"))
    assert run.finish().code == 0
    assert "game asked, requested" in run.stderr.text


def test_the_watchdog_is_given_and_watched(launch: Launcher) -> None:
    """WATCHDOG_USEC is the health timeout; a game that sends no more is hung."""
    run = launch(game("notifies", "WATCHDOG=1"), env={"AGENT_HEALTH_TIMEOUT": "700ms"})
    run.wait_for("sent 700000")
    run.finish()
    assert "no heartbeat for 0.7 s" in run.stderr.text


def test_the_watchdogs_alarm(launch: Launcher) -> None:
    """WATCHDOG=trigger ends a game that found itself broken."""
    run = launch(game("notifies", "WATCHDOG=trigger"))
    run.finish()
    assert "watchdog gave the alarm" in run.stderr.text


@pytest.mark.parametrize(("launcher", "code"), one_fast(("waits", 10), ("leaves", 9)))
def test_a_launcher_names_the_real_server(launch: Launcher, mode: Mode, launcher: str, code: int) -> None:
    """MAINPID: the end of that process is the game's end; the code of a launcher that waits for it counts."""
    run = launch(game("hands_over", launcher), mode=mode)
    run.wait_for("serving")
    eventually(lambda: phase(run) == "ready", "it is ready")
    if mode == "subreaper":
        named = int(run.wait_for("\n").split()[1])
        assert run.http("GET", "/v1/status").json()["game"]["pid"] == named
    done = run.stop()
    assert done.code == code
    assert "is the game's main one now" in done.stderr


def test_a_game_that_ends_by_itself_is_not_interrupted(launch: Launcher) -> None:
    """STOPPING=1 gives it half of the grace before SIGTERM, which would end it at once."""
    source = (
        "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'STOPPING=1'); time.sleep(1.5); print('saved', flush=True)"
    )
    done = launch([*PYTHON, "-c", source], env={"AGENT_GRACE_SECONDS": "10"}).finish()
    assert done.stdout == b"saved\n"
    assert done.code == 0
    assert "asking by itself" in done.stderr


def test_what_has_no_effect_is_ignored_or_said(launch: Launcher) -> None:
    """Unknown assignments, bytes that are no text, another's MAINPID, more time without a stop, another sender."""
    nonsense = ["X_SOMETHING=1\\nFDSTORE=1", "nonsense", "=", "READY=yes"]
    wrong = ["MAINPID=1", "MAINPID=x", "EXTEND_TIMEOUT_USEC=1000000"]
    run = launch(game("notifies", *nonsense, *wrong, "STATUS=fine", "BARRIER"))
    run.wait_for("barrier")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"STATUS=not mine", run.game_environment["NOTIFY_SOCKET"])
    eventually(lambda: "is not part of the game" in run.stderr.text, "who is not of the game is refused")
    assert run.http("GET", "/v1/status").json()["text"] == "fine"
    assert phase(run) == "starting"
    assert run.stop().code == 0
    assert "MAINPID=1 is no process of the game" in run.stderr.text
    assert "none is under way" in run.stderr.text


def test_systemds_own_tool(launch: Launcher) -> None:
    """`systemd-notify` of Debian's package systemd."""
    if shutil.which("systemd-notify") is None:
        pytest.skip("systemd-notify is not installed (Debian: systemd)")
    script = 'systemd-notify --ready --status="from a script" && exec "$@"'
    run = launch(["sh", "-c", script, "sh", *game("polite")], mode="subreaper")
    run.wait_for("ready")
    eventually(lambda: phase(run) == "ready", "it is ready")
    assert run.http("GET", "/v1/status").json()["text"] == "from a script"
    run.stop()


def test_variables_are_hidden_from_the_game(launch: Launcher) -> None:
    """AGENT_ENV_HIDE, by name and by beginning; an outer NOTIFY_SOCKET is not passed on either."""
    hidden = {"SECRET_A": "1", "LICENCE_KEY": "2", "NOTIFY_SOCKET": "/x"}
    run = launch(game("polite"), env={"AGENT_ENV_HIDE": "SECRET_A,LICENCE_*", "KEPT": "3", **hidden})
    run.wait_for("ready")
    seen = run.game_environment
    assert "SECRET_A" not in seen
    assert "LICENCE_KEY" not in seen
    assert seen["KEPT"] == "3"
    assert seen["NOTIFY_SOCKET"] != "/x"
    run.stop()


def test_a_socket_that_cannot_be_made_is_said(launch: Launcher) -> None:
    """The control socket's path just fits, and the one beside it does not: no NOTIFY_SOCKET, and it is said why."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/".ljust(102, "a") + ".sock"
        run = launch(game("polite"), env={"AGENT_SOCKET_PATH": path})
        run.wait_for("ready")
        assert "NOTIFY_SOCKET" not in run.game_environment
        assert run.stop().code == 0
    assert "cannot make the socket for sd_notify" in run.stderr.text

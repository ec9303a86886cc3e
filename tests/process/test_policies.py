"""Policies, each with a real process: the deployment ends when nobody needs it, and its story says why."""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakePlatform
from tests.free_ports import free_port
from tests.process.harness import Launcher, Run, eventually, game
from tests.variants import one_fast

LISTENS = (
    "import socket, time, sys; print('up', flush=True); time.sleep(0.3); "
    "s = socket.socket(socket.AF_INET, {kind}); s.bind(('127.0.0.1', int(sys.argv[1]))); "
    "{listen}print('bound', flush=True); time.sleep(600)"
)


def ended_for(run: Run, reason: str) -> dict[str, Any]:
    """Waits for the end, and looks at its reason."""
    run.finish()
    document = run.story()
    assert document["reason"] == reason
    assert document["stop"]["source"] == "policy"
    assert document["stop"]["message"]
    return document


def test_a_game_that_is_never_ready(launch: Launcher) -> None:
    """AGENT_READY_TIMEOUT."""
    run = launch(game("polite"), env={"AGENT_READY_TIMEOUT": "800ms"})
    run.wait_for("bye")
    ended_for(run, "not_ready")


@pytest.mark.slow
def test_a_game_that_is_ready_in_time(launch: Launcher) -> None:
    """Is left alone."""
    run = launch(game("polite"), env={"AGENT_READY_TIMEOUT": "60s"})
    run.wait_for("ready")
    assert run.http("POST", "/v1/ready").status == 200
    assert run.stop().code == 0
    assert run.story()["reason"] == "platform_stop"


def test_nobody_joins(launch: Launcher) -> None:
    """AGENT_FIRST_PLAYER_TIMEOUT; how many were expected is told."""
    env = {"AGENT_FIRST_PLAYER_TIMEOUT": "300ms", "MM_TICKET_IDS": '["a", "b"]'}
    run = launch(game("polite"), env=env)
    run.wait_for("ready")
    assert run.http("GET", "/v1/status").json()["players"]["expected"] == 2
    run.http("POST", "/v1/ready")
    assert "none of the 2 expected" in ended_for(run, "first_player_timeout")["stop"]["message"]


def test_everybody_has_left(launch: Launcher, platform: FakePlatform) -> None:
    """AGENT_EMPTY_TIMEOUT, and the deployment is stopped with it."""
    run = launch(game("polite"), env={"AGENT_EMPTY_TIMEOUT": "300ms", **platform.environment()})
    run.wait_for("ready")
    run.http("POST", "/v1/ready")
    run.http("PUT", "/v1/players/ada")
    run.http("DELETE", "/v1/players/ada")
    platform.wait_for_calls(1)
    run.stop()
    assert run.story()["reason"] == "empty"


def test_a_heartbeat_is_lost(launch: Launcher) -> None:
    """AGENT_HEALTH_TIMEOUT: SIGABRT first, so that there is something to read; the autopsy names the cause."""
    run = launch(game("ignores_sigterm"), env={"AGENT_HEALTH_TIMEOUT": "500ms", "AGENT_GRACE_SECONDS": "2"})
    run.wait_for("ready")
    run.http("POST", "/v1/health")
    document = ended_for(run, "heartbeat_lost")
    assert document["cause"] == "heartbeat_lost"
    assert document["signal"] == "SIGABRT"


def test_what_the_hung_threads_wait_for(launch: Launcher) -> None:
    """AGENT_ON_HANG=stack puts it into the log, and the game is stopped as usual."""
    run = launch(game("polite"), env={"AGENT_HEALTH_TIMEOUT": "500ms", "AGENT_ON_HANG": "stack"})
    run.wait_for("ready")
    run.http("POST", "/v1/health")
    ended_for(run, "heartbeat_lost")
    assert "hung: process" in run.stderr.text


def test_the_maximum_duration(launch: Launcher) -> None:
    """The game is told before, then stopped in time."""
    env = {"AGENT_MAX_DURATION": "4s", "AGENT_MAX_DURATION_WARNINGS": "1s", "AGENT_GRACE_SECONDS": "1"}
    run = launch(game("polite"), env=env)
    run.wait_for("ready")
    document = ended_for(run, "max_duration")
    assert document["uptime_seconds"] < 4.0
    assert "the maximum duration is over in 1 s" in run.stderr.text


@pytest.mark.parametrize("kind", one_fast("SOCK_DGRAM", "SOCK_STREAM"))
def test_ready_when_a_port_of_the_mapping_listens(launch: Launcher, kind: str) -> None:
    """TCP that listens, UDP that is bound."""
    port = free_port()
    mapping = {"ports": {"gameport": {"name": "gameport", "internal": port, "external": 32000, "protocol": "X"}}}
    source = LISTENS.format(kind=f"socket.{kind}", listen="s.listen(); " if kind == "SOCK_STREAM" else "")
    env = {"AGENT_READY_WHEN": "port:gameport", "ARBITRIUM_PORTS_MAPPING": json.dumps(mapping)}
    run = launch([sys.executable, "-c", source, str(port)], env=env)
    run.wait_for("bound")
    eventually(lambda: run.http("GET", "/readyz").status == 200, "it is seen ready")
    run.stop()


@pytest.mark.slow
def test_somebody_elses_port_is_not_the_games(launch: Launcher) -> None:
    """The socket has to belong to the game."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        run = launch(game("polite"), env={"AGENT_READY_WHEN": f"port:{other.getsockname()[1]}"}, mode="subreaper")
        run.wait_for("ready")
        assert run.is_ready_to_answer()
        # The port is looked at every 200 ms; three requests later it would long have been seen.
        for _ in range(3):
            assert run.http("GET", "/readyz").status == 503
        run.stop()


@pytest.mark.slow
def test_ready_when_a_line_of_output_says_so(launch: Launcher) -> None:
    """Also where the line comes in pieces."""
    source = (
        "import sys, time; sys.stdout.write('Server sta'); sys.stdout.flush(); time.sleep(0.2); print('rted on 7777', "
        "flush=True); time.sleep(600)"
    )
    run = launch([sys.executable, "-c", source], env={"AGENT_READY_WHEN": r"output:^Server started on \d+"})
    run.wait_for("7777")
    eventually(lambda: run.http("GET", "/readyz").status == 200, "it is seen ready")
    run.stop()


def test_players_are_counted_by_connections(launch: Launcher) -> None:
    """AGENT_PLAYERS_FROM=tcp: who is connected plays, but for the game itself."""
    port = free_port()
    itself = "s.listen(); own = socket.create_connection(s.getsockname()); "
    source = LISTENS.format(kind="socket.SOCK_STREAM", listen=itself)
    env = {"AGENT_PLAYERS_FROM": f"tcp:{port}", "AGENT_PLAYERS_INTERVAL": "100ms"}
    run = launch([sys.executable, "-c", source, str(port)], env=env, mode="subreaper")
    run.wait_for("bound")

    def players() -> int:
        return int(run.http("GET", "/v1/players").json()["count"])

    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        # Both ends of a connection on this machine have the port; only the server's has it as its own.
        eventually(lambda: players() == 2, "both are counted")
    eventually(lambda: players() == 0, "the game's connection to itself is none")
    run.stop()


@pytest.mark.parametrize("stays", one_fast(False, True))
def test_a_port_probe_does_not_arm_the_empty_timeout(launch: Launcher, stays: bool) -> None:
    """A health check that connects and leaves is nobody who played; who stayed is."""
    port = free_port()
    source = LISTENS.format(kind="socket.SOCK_STREAM", listen="s.listen(); ")
    env = {
        "AGENT_PLAYERS_FROM": f"tcp:{port}",
        "AGENT_PLAYERS_INTERVAL": "50ms",
        "AGENT_PLAYERS_MIN_STAY": "300ms" if stays else "60s",
        "AGENT_EMPTY_TIMEOUT": "300ms",
        "AGENT_READY_WHEN": f"port:{port}",
    }
    run = launch([sys.executable, "-c", source, str(port)], env=env, mode="subreaper")
    run.wait_for("bound")
    eventually(lambda: run.http("GET", "/readyz").status == 200, "it is seen ready")

    def players() -> int:
        return int(run.http("GET", "/v1/players").json()["count"])

    with socket.create_connection(("127.0.0.1", port)):
        eventually(lambda: players() == 1, "it is counted")
        if stays:
            time.sleep(0.6)
    if stays:
        ended_for(run, "empty")
        return
    eventually(lambda: players() == 0, "it has left")
    time.sleep(1.0)  # three times the timeout: there is nothing to wait for
    assert run.http("GET", "/v1/status").json()["phase"] == "ready"
    run.stop()


@pytest.mark.slow
def test_a_game_on_the_wrong_port_is_told_of(launch: Launcher) -> None:
    """A port that is one off is the commonest reason why a game is never seen ready."""
    port, expected = free_port(), free_port()
    source = LISTENS.format(kind="socket.SOCK_DGRAM", listen="")
    env = {"AGENT_READY_WHEN": f"port:{expected}", "AGENT_READY_TIMEOUT": "6s"}
    run = launch([sys.executable, "-c", source, str(port)], env=env, mode="subreaper")
    done = ended_for(run, "not_ready")
    assert done["cause"] in ("signal", "stopped_as_asked")
    assert f"the game was not seen ready: it listens on UDP {port}, not on {expected}" in run.stderr.text


def test_a_line_is_found_wherever_it_stands(launch: Launcher) -> None:
    """In one write with others, at once, in colour, before a CRLF, on the stream that it comes on."""
    source = (
        "import sys, time; sys.stdout.write('err'); sys.stdout.flush(); "
        "sys.stderr.write('loading\\r\\n\\x1b[32mServer started\\x1b[0m\\r\\nbye\\r\\n'); sys.stderr.flush(); "
        "time.sleep(600)"
    )
    run = launch([sys.executable, "-c", source], env={"AGENT_READY_WHEN": "output:^Server started$"})
    eventually(lambda: run.http("GET", "/readyz").status == 200, "its line is found")
    run.stop()


def test_a_game_whose_line_never_came_is_told_of(launch: Launcher) -> None:
    """With what it printed instead."""
    source = "import time; print('one\\ntwo\\nServer up', flush=True); time.sleep(600)"
    env = {"AGENT_READY_WHEN": "output:^Server started", "AGENT_READY_TIMEOUT": "2s"}
    run = launch([sys.executable, "-c", source], env=env)
    ended_for(run, "not_ready")
    said = 'the game was not seen ready: no line matched; the last ones were "one", "two", "Server up"'
    assert said in run.stderr.text


@pytest.mark.parametrize("protocol", ["palworld", "nonsense"])
def test_a_query_that_cannot_count_is_refused_before_the_game_starts(launch: Launcher, protocol: str) -> None:
    """With what can; it sent the agent into its fallback."""
    run = launch(game("polite"), env={"AGENT_PLAYERS_FROM": f"query:{protocol}://127.0.0.1:7777"})
    done = run.finish()
    assert done.code == 78
    assert "AGENT_PLAYERS_FROM: " in done.stderr
    assert f"cannot count players by {protocol}, which" in done.stderr
    assert "a2s" in done.stderr
    assert done.stdout == b""


def test_restarts_and_the_crash_loop(launch: Launcher, tmp_path: Path) -> None:
    """AGENT_ON_CRASH=restart: each attempt has its own story, the API lives on, and it ends somewhere."""
    logs = tmp_path / "shipped"
    env = {
        "AGENT_ON_CRASH": "restart",
        "AGENT_RESTART_LIMIT": "2",
        "AGENT_RESTART_BACKOFF": "300ms",
        "AGENT_LOG_URL": f"file://{logs}",
    }
    run = launch(game("exits", "42"), env=env)
    eventually(lambda: run.http("GET", "/v1/status").json()["phase"] == "restarting", "it waits, and the API answers")
    done = run.finish()
    assert done.code == 42
    assert done.stdout == b"ready\n" * 3
    stories = [json.loads(path.read_text()) for path in logs.glob("**/exit.json")]
    assert sorted(story["attempt"] for story in stories) == [1, 2, 3]
    assert {story["reason"] for story in stories} == {"game_crashed", "crash_loop"}

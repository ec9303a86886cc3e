"""Stopping: the platform tells, the game asks, and every way ends inside one deadline."""

import json
import re
import signal
import socket
import time

import pytest

from tests.fakes import TOKEN, FakePlatform
from tests.process.harness import Launcher, Mode, eventually, game, state_of
from tests.variants import one_fast


def test_the_whole_stop_fits_into_the_grace(launch: Launcher, platform: FakePlatform, mode: Mode) -> None:
    """SIGTERM to a deaf game, 5 s of grace: killed, written down, shipped and exited before the platform would kill."""
    store = launch.files / "store"
    store.mkdir()
    run = launch(
        game("ignores_sigterm"),
        mode=mode,
        env={**platform.environment(), "AGENT_GRACE_SECONDS": "5", "AGENT_LOG_URL": store.as_uri()},
    )
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 137
    assert done.seconds <= 5.0
    assert done.seconds > 4.4, "the game got nearly all of the grace"
    (document,) = [json.loads(path.read_text()) for path in store.rglob("exit.json")]
    assert (document["cause"], document["signal"]) == ("killed_by_agent", "SIGKILL")
    assert document["stop"]["source"] == "platform"
    assert not platform.calls, "who stops us need not be asked to stop us"


@pytest.mark.slow
def test_the_default_grace_is_five_seconds(launch: Launcher) -> None:
    """Nothing says what the platform's grace is, so the agent assumes five seconds, all of them."""
    run = launch(game("ignores_sigterm"))
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 137
    assert 2.0 < done.seconds <= 5.0


def test_a_game_that_saves_its_world_has_the_time_for_it(launch: Launcher, mode: Mode) -> None:
    """A JVM's hook that needs 3.5 of the five seconds, with somewhere to ship to: not killed, its own exit code."""
    store = launch.files / "store"
    store.mkdir()
    env = {"AGENT_GRACE_SECONDS": "5", "AGENT_LOG_URL": store.as_uri()}
    run = launch(game("slow_on_sigterm", "3.5"), mode=mode, env=env)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 0
    assert done.stdout == b"ready\nsaving\nsaved\n"
    assert done.seconds <= 5.0


@pytest.mark.slow
def test_a_longer_grace_is_given_to_the_game(launch: Launcher) -> None:
    """With `AGENT_GRACE_SECONDS=30` a game that saves for six seconds ends by itself."""
    run = launch(game("slow_on_sigterm", "6"), env={"AGENT_GRACE_SECONDS": "30"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert b"saved" in run.stop().stdout


def test_a_hundred_stops_at_once_are_one(launch: Launcher, platform: FakePlatform, mode: Mode) -> None:
    """A hundred stop requests over HTTP and the socket: one answer for all of them, one call to the platform."""
    env = {**platform.environment(), "AGENT_GRACE_SECONDS": "60"}
    run = launch(game("stops_a_hundred_times"), mode=mode, env=env)
    run.wait_for("count 100\n")
    platform.wait_for_calls(1)
    assert run.stdout
    eventually(lambda: run.stdout and run.stdout.text.count("answer ") >= 2, "both answers are printed")
    answers = [json.loads(line.removeprefix("answer ")) for line in run.stdout.text.splitlines() if "answer " in line]
    assert len(answers) == 2, f"HTTP and the socket each have one answer: {answers}"
    by_transport = {answer[0]: answer for answer in answers}
    assert by_transport["http"][1] == 202
    assert by_transport["socket"][1] is None
    assert by_transport["http"][2] == by_transport["socket"][2], "and it is the same"
    assert run.stop().code == 0
    assert len(platform.calls) == 1


def test_asking_again_later_gets_the_same_answer(launch: Launcher) -> None:
    """A stop request long after the first one, with another reason, changes nothing and is answered like the first."""
    run = launch(game("ignores_sigterm"), env={"AGENT_GRACE_SECONDS": "3600"})
    run.wait_for("ready")
    first = run.http("POST", "/v1/stop", {"reason": "match over"})
    assert first.status == 202
    second = run.http("POST", "/v1/stop", {"reason": "another reason"})
    assert (second.status, second.json()) == (first.status, first.json())
    with run.rpc() as rpc:
        assert rpc.call("stop")["result"] == first.json()
    assert state_of(run.game_pid) != "gone"


def test_a_request_names_its_own_grace(launch: Launcher) -> None:
    """`grace_seconds` of a stop request is the time that the game gets, in place of an hour, ready or not."""
    run = launch(game("ignores_sigterm"), env={"AGENT_GRACE_SECONDS": "3600"})
    run.wait_for("ready")
    assert run.http("POST", "/v1/stop", {"reason": "match over", "grace_seconds": 1}).status == 202
    assert run.finish().code == 137


def test_the_platforms_deadline_replaces_the_games(launch: Launcher) -> None:
    """SIGTERM in the middle of a stop that the game asked for an hour for: the platform's five seconds count now."""
    run = launch(game("ignores_sigterm"), env={"AGENT_GRACE_SECONDS": "5"})
    run.wait_for("ready")
    assert run.http("POST", "/v1/stop", {"grace_seconds": 3600}).status == 202
    eventually(lambda: run.http("GET", "/v1/status").json()["phase"] == "stopping", "the stop has begun")
    done = run.stop()
    assert done.code == 137
    assert done.seconds <= 5.0


def test_open_connections_do_not_delay_the_end(launch: Launcher) -> None:
    """Somebody who listens to events, somebody who sent half a request and somebody idle are all hung up on."""
    run = launch(game("polite"), env={"AGENT_GRACE_SECONDS": "5"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    port = int(run.game_environment["AGENT_URL"].rpartition(":")[2].strip("/"))
    with (
        socket.create_connection(("127.0.0.1", port)) as listener,
        socket.create_connection(("127.0.0.1", port)) as half,
        socket.create_connection(("127.0.0.1", port)) as idle,
        run.rpc() as subscriber,
        run.rpc() as silent,
    ):
        listener.settimeout(30)
        listener.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert listener.recv(10)
        half.sendall(b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        idle.sendall(b"")
        assert "result" in subscriber.call("subscribe")
        done = run.stop()
        assert silent.receive() is None
    assert done.code == 0
    assert done.seconds <= 5.0
    assert "Traceback" not in done.stderr
    plans = [line for line in done.stderr.splitlines() if re.search(r"\b5(\.0)? s\b.*\bstop\b.*\bkill\b", line)]
    assert plans, "the deadline and its shares are said at the start of a stop"


@pytest.mark.parametrize("asks", one_fast("POST", "DELETE"))
def test_the_game_may_already_be_gone(launch: Launcher, platform: FakePlatform, asks: str) -> None:
    """A stop request during the hold, when the game is gone and the platform was told, is answered, not an error."""
    run = launch(game("exits", "0", "when-told"), env=platform.environment(), stdin=-1)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    run.say(b"\n")
    platform.wait_for_calls(1)
    eventually(lambda: state_of(run.game_pid) == "gone", "the game is gone")
    path = "/v1/stop" if asks == "POST" else f"/v1/self/stop/{platform.deployment_id}/{platform.stop_key}"
    assert run.http(asks, path, headers={"authorization": TOKEN}).status in {200, 202, 410}
    assert run.stop().code == 0
    assert len(platform.calls) == 1


def test_a_stop_is_never_early(launch: Launcher) -> None:
    """With a grace of 20 s a deaf game is still alive well after the time in which 5 s would have killed it."""
    run = launch(game("ignores_sigterm"), env={"AGENT_GRACE_SECONDS": "20"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    run.signal(signal.SIGTERM)
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 6, "six seconds have passed")
    assert state_of(run.game_pid) != "gone"
    run.signal(signal.SIGTERM)
    assert run.finish().code == 137


def test_players_may_finish(launch: Launcher) -> None:
    """With `AGENT_DRAIN_SECONDS` the game is not signalled while somebody plays, and at once when the last one left."""
    run = launch(game("polite"), env={"AGENT_GRACE_SECONDS": "3600", "AGENT_DRAIN_SECONDS": "1000"})
    run.wait_for("ready")
    run.http("POST", "/v1/ready")
    run.http("PUT", "/v1/players/alice")
    assert run.http("POST", "/v1/stop", {"reason": "match over"}).status == 202
    assert run.http("GET", "/v1/status").json()["phase"] == "draining"
    assert run.stdout
    assert b"bye" not in run.stdout.data
    run.http("DELETE", "/v1/players/alice")
    assert run.finish().code == 0


def test_a_crash_may_start_the_game_again(launch: Launcher) -> None:
    """With `AGENT_ON_CRASH=restart` a crashed game is started again, told in the status, and stopped like any other."""
    script = "test -e crashed || { touch crashed; echo crashing; exit 3; }; echo again; exec sleep 1000"
    run = launch(["sh", "-c", script], env={"AGENT_ON_CRASH": "restart"})
    run.wait_for("crashing\n", "again\n")
    assert run.http("GET", "/v1/status").json()["restarts"] == 1
    assert run.stop().code == 143

"""Stop methods, each with a real game that understands nothing else."""

import asyncio
import json
import threading
from typing import Any

import pytest

from tests.process.harness import Finished, Launcher, Mode, Run, game
from tests.unit.test_methods import RconServer
from tests.variants import one_fast


def turns(run: Run) -> list[dict[str, Any]]:
    """The methods that had their turn."""
    return [step for step in run.story()["happened"] if "method" in step]


def blocks(done: Finished) -> int:
    """The last block that the world had."""
    return int([line for line in done.stdout.splitlines() if line.isdigit()][-1])


def test_a_console_game_loses_nothing_of_its_world(launch: Launcher, mode: Mode) -> None:
    """Stopped by a line on stdin it saves all its blocks, though it ignores SIGTERM."""
    world = launch.files / "world"
    run = launch(game("console_world", str(world)), mode=mode, env={"AGENT_STOP": "stdin:stop"})
    run.wait_for("ready", "\n20\n")
    done = run.stop()
    assert done.code == 0
    assert int(world.read_text()) == blocks(done)
    assert done.stdout.endswith(b"saved\n")


def test_the_same_game_under_sigkill_loses_its_world(launch: Launcher) -> None:
    """Without the line nothing is saved: the test above can fail."""
    world = launch.files / "world"
    run = launch(game("console_world", str(world)), env={"AGENT_GRACE_SECONDS": "0.5"})
    run.wait_for("ready", "\n20\n")
    done = run.stop()
    assert done.code == 137
    assert not world.exists()


def test_what_comes_on_stdin_is_passed_on(launch: Launcher) -> None:
    """The pipe in between changes nothing, and its end does not end the game."""
    run = launch(game("console_world", str(launch.files / "world")), env={"AGENT_STOP": "stdin:stop"}, stdin=-1)
    run.wait_for("ready")
    run.say(b"stop\n")
    assert run.finish().code == 0


def test_half_a_command_does_not_spoil_the_line(launch: Launcher) -> None:
    """Somebody was typing when the stop came: the line is one of its own all the same."""
    world = launch.files / "world"
    run = launch(game("console_world", str(world)), env={"AGENT_STOP": "stdin:stop"}, stdin=-1)
    run.wait_for("ready")
    run.say(b"say hel")
    run.wait_for("heard 7 bytes")
    assert run.stop().code == 0
    assert world.exists()


@pytest.mark.parametrize("hears", one_fast("long poll", "sse", "socket"))
def test_the_stop_event_is_heard(launch: Launcher, hears: str) -> None:
    """`notify`: the game hears of the stop on its own terms, and leaves before anything else is done to it."""
    run = launch(game("hears_stop_event", "leave"), env={"AGENT_STOP": "notify,signal:SIGINT", "HEARS": hears})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    answer = run.http("POST", "/v1/stop", {"reason": "match over"})
    assert answer.status == 202
    done = run.finish()
    assert done.code == 3
    assert b"heard requested" in done.stdout
    assert [turn["method"] for turn in turns(run)] == ["notify"]


def test_a_game_may_ask_for_more_time_once(launch: Launcher) -> None:
    """Inside the deadline it gets what it asks for; the second time it is a conflict."""
    env = {"AGENT_STOP": "notify@10%,signal:SIGINT", "AGENT_GRACE_SECONDS": "10"}
    run = launch(game("hears_stop_event", "ask", "2"), env=env)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert run.http("POST", "/v1/stop").status == 202
    done = run.finish()
    assert done.code == 3, "SIGINT after a tenth of the grace would have ended it"
    (turn,) = turns(run)
    assert turn["acknowledged"] is True
    assert turn["more_seconds"] == pytest.approx(2.0)


@pytest.mark.slow
def test_asking_for_more_time_twice_is_a_conflict(launch: Launcher) -> None:
    """Once is for an honest estimate; a game that always asks again would never be stopped in time."""
    run = launch(game("hears_stop_event", "twice"), env={"AGENT_STOP": "notify"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert run.http("POST", "/v1/stop").status == 202
    assert [line for line in run.finish().stdout.splitlines() if line.startswith(b"answer")] == [
        b"answer 200",
        b"answer 409",
    ]


@pytest.mark.slow
def test_a_game_that_acknowledges_and_hangs_is_killed_in_time(launch: Launcher) -> None:
    """Its word buys it the share, not the deadline."""
    run = launch(game("hears_stop_event", "hang"), env={"AGENT_STOP": "notify,signal:SIGTERM"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 137
    assert done.seconds <= 5.0
    assert [turn["method"] for turn in turns(run)] == ["notify", "signal:SIGTERM"]


@pytest.mark.slow
def test_an_acknowledgement_without_a_stop_is_a_conflict(launch: Launcher) -> None:
    """There is nothing to acknowledge."""
    run = launch(game("polite"))
    run.wait_for("ready")
    assert run.http("POST", "/v1/stop/ack").status == 409
    assert run.http("GET", "/v1/events/stop?wait=0").status == 204
    wrong = run.http("GET", "/v1/events/stop?wait=soon")
    assert wrong.status == 400
    assert wrong.json()["errors"][0]["field"] == "wait"


def test_a_hook_is_told_why_and_until_when(launch: Launcher) -> None:
    """The command finds reason, source, deadline and phase in its environment; its output is in the log."""
    hook = launch.files / "hook.sh"
    hook.write_text('#!/bin/sh\nenv | grep ^AGENT_ | sort > "$0.env"\necho hooked\nkill -INT "$AGENT_GAME_PID"\n')
    hook.chmod(0o755)
    run = launch(game("prints_signals"), env={"AGENT_STOP": f"command:{hook}"})
    run.wait_for("ready")
    run.http("POST", "/v1/stop", {"reason": "match over"})
    run.wait_for("\n2\n")
    told = (launch.files / "hook.sh.env").read_text()
    assert "AGENT_STOP_REASON=requested\n" in told
    assert "AGENT_STOP_MESSAGE=match over\n" in told
    assert "AGENT_PHASE=stopping\n" in told
    run.signal(15)
    run.signal(15)
    run.finish()


def test_a_hook_that_hangs_has_its_share_only(launch: Launcher) -> None:
    """Then it is killed, with all it started, and the next method has its turn."""
    run = launch(game("polite", "4"), env={"AGENT_STOP": "command:sh -c 'sleep 600 & sleep 600'@20%,signal:SIGTERM"})
    run.wait_for("ready")
    done = run.stop()
    assert done.code == 4
    assert done.seconds <= 5.0
    assert [turn["method"].split(":")[0] for turn in turns(run)] == ["command", "signal"]


def test_rcon_stops_a_game(launch: Launcher) -> None:
    """The command arrives with the right password, which is in no output and no file."""
    server, loop = RconServer("hunter2-secret"), asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(server.serve, "127.0.0.1", 0))
    port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        env = {
            "AGENT_STOP": "rcon:save and quit@20%",
            "AGENT_RCON_ADDRESS": f"127.0.0.1:{port}",
            "AGENT_RCON_PASSWORD": "hunter2-secret",
        }
        run = launch(game("polite", "4"), env=env)
        run.wait_for("ready")
        assert "AGENT_RCON_PASSWORD" not in run.game_environment
        assert run.is_ready_to_answer()
        done = run.stop()
    finally:
        loop.call_soon_threadsafe(listening.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(listening.wait_closed())
        for task in asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()
    assert done.code == 4
    assert server.commands == ["save and quit"]
    assert "hunter2" not in done.stderr
    assert "hunter2" not in json.dumps(run.story())


def test_a_method_that_cannot_work_gives_its_time_away(launch: Launcher) -> None:
    """Nobody listens, no rcon answers: SIGTERM has its turn at once, and it is said why."""
    env = {"AGENT_STOP": "notify,rcon:stop", "AGENT_RCON_ADDRESS": "127.0.0.1:1"}
    run = launch(game("polite", "4"), env=env)
    run.wait_for("ready")
    done = run.stop()
    assert done.code == 4
    assert "no client is subscribed to events" in done.stderr
    assert "cannot connect to 127.0.0.1:1" in done.stderr


def test_rcon_without_an_address_is_a_wrong_setting(launch: Launcher) -> None:
    """Found at the start, not at the first stop."""
    done = launch(game("polite"), env={"AGENT_STOP": "rcon:stop"}).finish()
    assert done.code == 78
    assert "AGENT_STOP" in done.stderr
    assert "AGENT_RCON_ADDRESS" in done.stderr


def test_nobody_joins_what_is_ending(launch: Launcher) -> None:
    """While players drain, a join is a conflict; when the last one leaves, the game is stopped."""
    run = launch(game("polite"), env={"AGENT_DRAIN_SECONDS": "60", "AGENT_GRACE_SECONDS": "300"})
    run.wait_for("ready")
    assert run.http("PUT", "/v1/players/ada").status == 200
    assert run.http("POST", "/v1/stop").status == 202
    assert run.http("GET", "/v1/status").json()["phase"] == "draining"
    assert run.http("PUT", "/v1/players/grace").status == 409
    assert run.http("DELETE", "/v1/players/ada").status == 200
    assert run.finish().code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("forgets_sigterm", True),
        *one_fast(("console_world", False), ("ignores_sigterm", True), ("polite", False)),
    ],
)
def test_a_game_that_would_not_hear_its_stop_is_told_of(launch: Launcher, name: str, said: bool) -> None:
    """When the game says that it is ready there is still time to mend it; a game with another stop method is fine."""
    env = {"AGENT_STOP": "stdin:stop"} if name == "console_world" else {}
    arguments = [str(launch.files / "world")] if name == "console_world" else []
    command = ["sh", "-c", "echo ready; sleep 600; true"] if name == "forgets_sigterm" else game(name, *arguments)
    run = launch(command, env={"AGENT_GRACE_SECONDS": "0.5", **env})
    run.wait_for("ready")
    assert run.http("POST", "/v1/ready").status == 200
    done = run.stop()
    assert ("the game does not handle SIGTERM" in done.stderr) is said

"""Fail open: a game that runs keeps running, whatever breaks in the agent behind it."""

import shlex
from pathlib import Path

import pytest

from tests.fakes import TOKEN, FakePlatform, Reply
from tests.process.harness import Launcher, Mode, descendants, eventually, game
from tests.variants import one_fast

NEEDED_TO_START = ["aiohttp", "pydantic"]
NEEDED_LATER = ["prometheus_client", "psutil"]


def broken_installation(files: Path, module: str) -> dict[str, str]:
    """An environment in which importing a module fails, as after a bad layer in an image or on a full disk."""
    folder = files / "broken"
    folder.mkdir()
    (folder / f"{module}.py").write_text("raise OSError(5, 'Input/output error')\n")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("broken", NEEDED_TO_START)
def test_the_game_lives_on_and_its_code_counts(launch: Launcher, broken: str) -> None:
    """The game runs to its own end, its output passes, its exit code is passed on, and it is said what is missing."""
    run = launch(game("exits", "42", "when-told"), env=broken_installation(launch.files, broken), stdin=-1)
    run.wait_for("ready")
    run.stderr.wait_for("cannot")
    assert run.process.poll() is None
    run.say(b"\n")
    done = run.finish()
    assert done.code == 42
    assert done.stdout == b"ready\n"


@pytest.mark.parametrize("broken", one_fast(*NEEDED_LATER))
def test_what_is_needed_later_breaks_alone(launch: Launcher, mode: Mode, broken: str) -> None:
    """Where only the measuring is broken, a scrape may fail, but the API answers and a stop is a stop."""
    run = launch(game("polite", "42"), mode=mode, env=broken_installation(launch.files, broken))
    run.wait_for("ready")
    assert run.http("POST", "/v1/ready").status < 300
    assert run.http("GET", "/metrics", url=run.game_environment["AGENT_METRICS_URL"]).status < 600
    assert run.http("POST", "/v1/stop").status == 202
    done = run.finish()
    assert done.code == 42
    assert "Traceback" not in done.stderr


def test_the_platform_can_still_stop_it(launch: Launcher, mode: Mode) -> None:
    """SIGTERM reaches the game, orphans are reaped, and its code is passed on."""
    env = broken_installation(launch.files, "aiohttp")
    run = launch(["sh", "-c", 'sleep 0 & "$@"', "sh", *game("polite", "4")], mode=mode, env=env)
    run.wait_for("ready")
    run.stderr.wait_for("cannot")
    done = run.stop()
    assert b"bye" in done.stdout
    assert done.code in {4, 143}


def test_a_console_game_still_saves_its_world(launch: Launcher) -> None:
    """What AGENT_STOP begins with is done without the rest of the agent; SIGTERM means nothing to this game."""
    world = launch.files / "world"
    env = broken_installation(launch.files, "aiohttp") | {"AGENT_STOP": "stdin:stop"}
    run = launch(game("console_world", str(world)), env=env)
    run.wait_for("ready", "\n20\n")
    run.stderr.wait_for("cannot")
    assert run.stop().code == 0
    assert world.exists()


def test_a_deaf_game_is_still_killed_in_time(launch: Launcher, mode: Mode) -> None:
    """The escalation works without the rest of the agent, daemons out of the group included."""
    env = broken_installation(launch.files, "aiohttp") | {"AGENT_GRACE_SECONDS": "2"}
    daemon, deaf = (shlex.join(game(name)) for name in ("forks_a_daemon", "ignores_sigterm"))
    run = launch(["sh", "-c", f"{daemon} & exec {deaf}"], mode=mode, env=env)
    eventually(lambda: run.stdout and run.stdout.text.count("ready") == 2, "both have begun")
    run.stderr.wait_for("cannot")
    done = run.stop()
    assert done.code == 137
    assert done.seconds <= 5.0


@pytest.mark.slow
def test_orphans_are_still_reaped(launch: Launcher, mode: Mode) -> None:
    """The reaper needs nothing that could break."""
    run = launch(game("leaves_orphans", "20"), mode=mode, env=broken_installation(launch.files, "aiohttp"))
    run.wait_for("ready")
    run.stderr.wait_for("cannot")
    eventually(lambda: descendants(run.pid) == [run.game_pid], "only the game is left below the agent")
    assert run.stop().code == 0


def test_a_call_of_the_game_does_not_hang(launch: Launcher) -> None:
    """With nobody left to answer, the game's calls, the waiting ones too, end in an error that it can get over."""
    run = launch(game("asks_at_once"), env=broken_installation(launch.files, "aiohttp"))
    run.wait_for("asked\n")
    assert "answered 0 of 60" in run.wait_for("answered")
    assert "timed out" not in run.wait_for("answered")
    assert run.stop().code == 0


def test_a_wrong_setting_is_no_reason_to_fail_open(launch: Launcher) -> None:
    """Fail open is for what breaks, not for what is wrong: a mistake in the settings still ends with 78."""
    done = launch(game("ignores_sigterm"), env={"AGENT_ON_EXIT": "explode"}).finish()
    assert done.code == 78


def test_the_deployment_is_stopped_all_the_same(launch: Launcher) -> None:
    """A game that ends is not started again and billed: the platform is asked until it answers, then it is held."""
    with FakePlatform([Reply(503), Reply(200, body="<html>Please log in</html>")]) as platform:
        env = {**broken_installation(launch.files, "aiohttp"), **platform.environment()}
        run = launch(game("exits", "42"), env=env)
        platform.wait_for_calls(3)
        assert run.process.poll() is None, "it holds until the platform stops it"
        done = run.stop()
    assert done.code == 42
    assert TOKEN not in done.stderr


NEEDED_BY_THE_INIT = "heapq"


def test_a_broken_init_still_stops_the_game(launch: Launcher) -> None:
    """A module of PID 1's own cannot be read once the game runs: SIGTERM, output and exit code are passed on."""
    run = launch(game("polite", "4"), env=broken_installation(launch.files, NEEDED_BY_THE_INIT))
    run.wait_for("ready")
    run.stderr.wait_for("cannot look after the game as usual")
    done = run.stop()
    assert done.code == 4
    assert done.stdout == b"ready\nbye\n"


def test_a_broken_init_still_calls_the_self_stop(launch: Launcher) -> None:
    """At the game's end: asked until it is confirmed, held until the platform's signal; no process is left behind."""
    with FakePlatform([Reply(manner="reset"), Reply(202)]) as platform:
        env = broken_installation(launch.files, NEEDED_BY_THE_INIT) | platform.environment()
        run = launch(["sh", "-c", 'sleep 60 & "$@"', "sh", *game("exits", "42")], env=env)
        calls = platform.wait_for_calls(2)
        assert run.process.poll() is None
        assert run.stop().code == 42
    assert [call.authorization for call in calls] == [TOKEN, TOKEN]

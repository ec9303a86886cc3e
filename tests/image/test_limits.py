"""What the platform does to a container: memory and CPU limits, restart policies, no network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fakes import FakePlatform
from tests.image.engine import AGENT, PYTHON, Engine, eventually
from tests.image.test_every_base import game, kept, story

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]


def test_an_oom_kill_of_the_game_is_named(engine: Engine, game_image: str, tmp_path: Path) -> None:
    """The kernel kills the game and not the agent, which tells so, although the engine itself may not."""
    container = engine.run(
        game_image, *game("eats_memory"), options=["--memory=160m", "--env=AGENT_ON_CRASH=exit", *kept(tmp_path)]
    )
    assert container.wait() == 137
    told = story(tmp_path)
    assert told["cause"] == "out_of_memory"
    assert told["signal"] in {9, "SIGKILL"}


def test_throttling_shows_in_the_metrics(engine: Engine, debian_game: str) -> None:
    """A tenth of a core for a game that wants all of one."""
    container = engine.run(debian_game, *game("burns_cpu"), options=["--cpus=0.2"])
    container.said("ready")

    def throttled() -> bool:
        text = container.python(
            "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
        )
        found = re.search(r"^\w*throttled_seconds_total\S* (\S+)$", text, re.MULTILINE)
        return found is not None and float(found[1]) > 0

    eventually(lambda: throttled() or None, "throttled seconds in /metrics")


def test_a_restart_policy_does_not_start_a_stopped_deployment_again(
    engine: Engine, debian_game: str, tmp_path: Path
) -> None:
    """`always`, as the platform has it: the agent stops the deployment, then holds, so nothing is to be restarted."""
    tmp_path.chmod(0o777)
    with FakePlatform() as platform:
        injected = [f"--env={name}={value}" for name, value in platform.environment().items()]
        # The fake platform is on this machine's loopback; ports are free ones, since it is shared then.
        ports = ["--network=host", "--env=AGENT_CONTROL_PORT=0", "--env=AGENT_METRICS_PORT=0"]
        container = engine.run(
            debian_game,
            *game("counts_starts"),
            options=["--restart=always", f"--volume={tmp_path}:/state", *ports, *injected],
        )
        platform.wait_for_calls(1)
        eventually(lambda: "hold" in container.output() or None, "the agent holds")
        container.stop(20)
        container.wait()
        assert (tmp_path / "starts").read_text() == "started\n"
        assert len(platform.calls) == 1


def test_a_restart_policy_starts_a_game_again_that_may_exit(engine: Engine, debian_game: str, tmp_path: Path) -> None:
    """With AGENT_ON_CRASH=exit the agent ends with the game, and the policy does what it is there for."""
    tmp_path.chmod(0o777)
    options = ["--restart=on-failure:2", "--env=AGENT_ON_CRASH=exit", f"--volume={tmp_path}:/state"]
    container = engine.run(debian_game, *game("counts_starts"), options=options)
    starts = tmp_path / "starts"
    eventually(lambda: (starts.exists() and starts.read_text().count("started") == 3) or None, "two restarts")
    assert container.wait() == 3


def test_nothing_needs_a_network(engine: Engine, debian_game: str) -> None:
    """Without one, with a platform that cannot be reached: the game lives, and a stop ends it all the same."""
    options = [
        "--network=none",
        "--env=ARBITRIUM_REQUEST_ID=23c01225b99d",
        "--env=ARBITRIUM_DELETE_URL=http://192.0.2.1/v1/self/stop/23c01225b99d/463660",
        "--env=ARBITRIUM_DELETE_TOKEN=0123456789abcdef0123456789abcdef",
    ]
    container = engine.run(debian_game, *game("polite"), options=options)
    container.said("ready")
    container.execute(AGENT, "healthcheck")
    container.stop(20)
    assert container.wait() == 0
    output = container.output()
    assert "bye" in output
    assert "0123456789abcdef0123456789abcdef" not in output


def test_the_interpreter_runs_programs_and_modules(engine: Engine, debian_game: str) -> None:
    """`bin/python` is one that can be used in a game image, and finds itself again."""
    container = engine.run(debian_game)
    container.said("ready")
    code = "import sys, subprocess as s; print(sys.executable, flush=True); s.run([sys.executable, '-c', 'print(42)'])"
    assert container.python(code).split() == [PYTHON, "42"]
    assert "usage" in container.execute(PYTHON, "-m", "agent", "--help").stdout

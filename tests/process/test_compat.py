"""Games made for Agones, Multiplay and PlayFab, run as they are: a whole life of each, seen from outside."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.free_ports import free_port
from tests.process.harness import Launcher, Mode, Run, agent_process, eventually, game
from tests.variants import one_fast

HOSTS = ("agones", "multiplay", "playfab")
PORTS = {f"AGENT_{listener}_PORT": "0" for listener in ("AGONES_HTTP", "AGONES_GRPC", "MULTIPLAY", "PLAYFAB")}


def play(launch: Launcher, host: str, behaviour: str, mode: Mode = "subreaper", **settings: str) -> Run:
    """Starts a game made for a host."""
    # The example answers queries as such games do: on a port that no other test has.
    ports = {name: {"name": name, "internal": free_port()} for name in ("gameport", "query")}
    env = PORTS | {"ARBITRIUM_PORTS_MAPPING": json.dumps({"ports": ports}), "AGENT_COMPAT": host} | settings
    return launch(game("made_for", host, behaviour), mode=mode, env=env)


def status(run: Run) -> Any:
    """What the agent says of itself."""
    return run.http("GET", "/v1/status").json()


@pytest.mark.parametrize("host", one_fast(*reversed(HOSTS)))
def test_a_platform_stop_reaches_the_game_in_its_hosts_way(launch: Launcher, mode: Mode, host: str) -> None:
    """Ready, a player, then SIGTERM with 5 s of grace: the game hears of it by its own protocol and ends with 0."""
    run = play(launch, host, "lives", mode, AGENT_STOP=f"{host}@60%,signal:SIGTERM")
    run.wait_for("playing")
    eventually(lambda: status(run)["phase"] == "ready", "it is ready")
    if host != "multiplay":  # whose players are asked for by queries
        eventually(lambda: status(run)["players"]["count"] == 1, "ada plays")
    else:
        eventually(lambda: json.loads((run.files / "server.json").read_text())["allocatedUUID"], "it is allocated")
    finished = run.stop()
    assert finished.code == 0, finished.stderr
    assert b"told: " in finished.stdout
    assert finished.seconds < 5
    found = run.story()
    assert found["reason"] == "platform_stop"
    (turn,) = [step for step in found["happened"] if "method" in step]
    assert (turn["method"], turn["outcome"]) == (host, "applied")
    assert turn["acknowledged"] is (host == "playfab")


@pytest.mark.parametrize("host", one_fast(*HOSTS))
def test_a_game_ends_itself_as_such_games_do(launch: Launcher, host: str) -> None:
    """Shutdown, Terminating, or simply its end: never a crash."""
    run = play(launch, host, "ends", AGENT_STOP=f"{host},signal:SIGTERM")
    assert run.finish().code == 0
    found = run.story()
    assert found["reason"] == ("game_exited" if host == "multiplay" else "requested")
    assert found["exit_code"] == 0


@pytest.mark.parametrize("host", one_fast(*HOSTS))
def test_a_crash_is_a_crash(launch: Launcher, host: str) -> None:
    """With the game's own exit code, and the same members in exit.json as of a native game."""
    run = play(launch, host, "crashes")
    assert run.finish().code == 3
    found = run.story()
    assert (found["reason"], found["exit_code"]) == ("game_crashed", 3)
    native = Launcher(launch.files / "native")
    native.files.mkdir()
    with native:
        other = native(game("exits", "3"), mode="subreaper")
        other.finish()
        assert set(found) == set(other.story()), "there is no second record of a life"


@pytest.mark.parametrize(
    ("host", "settings"),
    one_fast(
        (
            "agones",
            {
                "AGENT_AGONES_HEALTH_PERIOD": "400ms",
                "AGENT_AGONES_HEALTH_THRESHOLD": "2",
                "AGENT_AGONES_HEALTH_DELAY": "0",
            },
        ),
        ("playfab", {"AGENT_HEALTH_TIMEOUT": "2s"}),
    ),
)
def test_a_game_that_is_silent_has_lost_its_health(launch: Launcher, host: str, settings: dict[str, Any]) -> None:
    """By its host's own period and threshold, or by our setting."""
    run = play(launch, host, "hangs", **settings)
    run.finish()
    assert run.story()["reason"] == "heartbeat_lost"


def ask(run: Run, method: str, path: str, body: object = None) -> Any:
    """Asks Agones' REST, as the game would."""
    url = f"http://localhost:{run.game_environment['AGONES_SDK_HTTP_PORT']}"
    return run.http(method, path, body, url=url).json()


def test_an_agent_that_dies_takes_nothing_of_the_hosts_with_it(launch: Launcher) -> None:
    """Its process is killed: the next call waits for the new one, which knows state, labels and counters."""
    run = play(launch, "agones", "lives", AGENT_AGONES_COUNTERS="rooms=1/10", AGENT_STOP="agones@3s,signal:SIGTERM")
    run.wait_for("playing")
    eventually(lambda: status(run)["phase"] == "ready", "it is ready")
    ask(run, "PATCH", "/v1beta1/counters/rooms", {"countDiff": "4"})
    ask(run, "PUT", "/metadata/label", {"key": "mode", "value": "duel"})
    before = ask(run, "GET", "/gameserver")
    victim = eventually(lambda: agent_process(run.pid), "the agent has a process")
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: agent_process(run.pid) not in (None, victim), "it is started again")
    after = ask(run, "GET", "/gameserver")
    assert after["status"]["counters"] == {"rooms": {"count": "5", "capacity": "10"}}
    assert after["status"]["state"] == "Allocated"
    for same in ("uid", "labels", "annotations", "creation_timestamp"):
        assert after["object_meta"][same] == before["object_meta"][same]
    run.stop()


@pytest.mark.slow
def test_a_hold_is_a_veto_on_the_empty_policy(launch: Launcher) -> None:
    """Everybody has left, and the game is held: the stop comes when the hold is over, not before."""
    run = play(launch, "multiplay", "lives", AGENT_EMPTY_TIMEOUT="200ms")
    run.wait_for("playing")
    config = json.loads((run.files / "server.json").read_text())
    hold = run.http("POST", f"/v1/servers/{config['serverID']}/hold", {"timeout": "2s"}, url=config["localProxyUrl"])
    assert hold.json()["held"] is True
    run.http("PUT", "/v1/players", {"count": 1})
    run.http("PUT", "/v1/players", {"count": 0})
    run.finish()
    assert run.story()["reason"] == "empty"
    assert time.time() >= hold.json()["expiresAt"]


@pytest.mark.slow
def test_all_hosts_at_once_and_the_game_decides(launch: Launcher) -> None:
    """AGENT_COMPAT=auto: what the others would need is there, and costs nothing."""
    run = play(launch, "agones", "lives", AGENT_COMPAT="auto", AGENT_STOP="playfab,multiplay,agones@3s,signal:SIGTERM")
    run.wait_for("playing")
    eventually(lambda: status(run)["phase"] == "ready", "it is ready")
    environment = run.game_environment
    assert {"AGONES_SDK_HTTP_PORT", "AGONES_SDK_GRPC_PORT", "GSDK_CONFIG_FILE"} <= set(environment)
    assert (run.files / "server.json").exists()
    finished = run.stop()
    assert finished.code == 0
    assert "cannot stop the game by playfab: the game has not used it" in finished.stderr


@pytest.mark.slow
def test_a_game_of_ones_own_server_json_is_left_alone_by_auto(launch: Launcher) -> None:
    """Where the host is named it is written anew, as Multiplay does."""
    (launch.files / "server.json").write_text('{"mine": true}')
    run = play(launch, "agones", "ends", AGENT_COMPAT="auto")
    run.finish()
    assert json.loads((launch.files / "server.json").read_text()) == {"mine": True}


def test_without_the_setting_there_is_nothing_of_it(launch: Launcher) -> None:
    """No variable, no file, no listener, no module."""
    run = launch(game("polite"), mode="subreaper")
    run.wait_for("ready")
    assert not [name for name in run.game_environment if name.startswith(("AGONES", "GSDK", "PF_"))]
    assert not (run.files / "server.json").exists()
    assert not list(run.files.glob("arbitrium-playfab-*"))
    run.stop()


def test_a_port_that_is_taken_is_refused_where_it_was_named(launch: Launcher) -> None:
    """As with the control port: nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        run = launch(
            game("polite"),
            mode="subreaper",
            env=PORTS | {"AGENT_COMPAT": "agones", "AGENT_AGONES_GRPC_PORT": str(taken)},
        )
        finished = run.finish()
    assert finished.code == 78
    assert f"AGENT_AGONES_GRPC_PORT: got '{taken}' and takes a free port" in finished.stderr


def test_a_hosts_stop_method_needs_the_host(launch: Launcher) -> None:
    """As rcon needs its address."""
    finished = launch(game("polite"), mode="subreaper", env={"AGENT_STOP": "playfab,signal:TERM"}).finish()
    assert finished.code == 78
    assert "takes playfab only where AGENT_COMPAT has it" in finished.stderr


@pytest.mark.slow
def test_agones_own_node_sdk(launch: Launcher) -> None:
    """The real one over gRPC, where `npm install @google-cloud/agones-sdk` was run in AGONES_NODE_SDK."""
    modules = os.environ.get("AGONES_NODE_SDK")
    if not modules or shutil.which("node") is None:
        pytest.skip("AGONES_NODE_SDK does not name a directory with node_modules, or there is no node")
    script = Path(__file__).parent.parent / "games" / "agones_sdk.js"
    run = launch(
        ["node", str(script), f"{modules}/node_modules/@google-cloud/agones-sdk"],
        mode="subreaper",
        env=PORTS | {"AGENT_COMPAT": "agones", "AGENT_AGONES_COUNTERS": "rooms=1/10", "AGENT_AGONES_LISTS": "items=/4"},
    )
    finished = run.finish()
    assert b"all is as it should be" in finished.stdout, finished.stdout.decode() + finished.stderr
    assert run.story()["reason"] == "requested"


@pytest.mark.parametrize("value", ["nakama", "agones,auto", ","])
def test_a_host_that_nobody_knows_is_refused(launch: Launcher, value: str) -> None:
    """With those that there are."""
    finished = launch(game("polite"), mode="subreaper", env={"AGENT_COMPAT": value}).finish()
    assert finished.code == 78
    assert "takes agones, multiplay, playfab" in finished.stderr


def test_the_inits_part_is_light() -> None:
    """It is imported before the game is spawned, where it is asked for; where it is not, nothing of it is."""
    heavy = "asyncio|typing|dataclasses|aiohttp|pydantic|importlib.metadata"
    look = (
        "import sys; before = set(sys.modules); import agent.compat.prepare; "
        f"print([name for name in set(sys.modules) - before if name in {heavy.split('|')!r}])"
    )
    out = subprocess.run([sys.executable, "-S", "-c", look], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    look = "import sys, agent.init.main; print([name for name in sys.modules if name.startswith('agent.compat')])"
    out = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"

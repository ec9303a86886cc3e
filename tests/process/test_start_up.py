"""The first moments: a request is answered, not refused; wrong settings are told together; no platform is fine."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.process.harness import COMMAND, DEADLINE, Launcher, Mode, base_environment, game

MISTAKES = {
    "AGENT_GRACE_SECONDS": "soon",
    "AGENT_HOLD_SECONDS": "-3",
    "AGENT_ON_EXIT": "explode",
    "AGENT_CONTROL_PORT": "99999",
    "AGENT_LOG_LEVEL": "loud",
    "AGENT_SPOOL_MAX": "a lot",
    "AGENT_INTERCEPT": "perhaps",
    "AGENT_LOG_URL": "ftp://somewhere/else",
    "AGENT_WORKDIR": "/nowhere",
    "AGENT_PLAYERS_FROM": "tcp",
    "AGENT_TEMPLATE": "/nowhere/template:/tmp/target",
}


def test_the_first_breath_of_the_game_is_answered(launch: Launcher, mode: Mode) -> None:
    """Sixty calls made before the agent has finished its imports are all answered; not one is refused."""
    run = launch(game("asks_at_once"), mode=mode)
    run.wait_for("asked\n", "answered")
    assert run.stdout
    assert "answered 60 of 60\n" in run.stdout.text
    assert run.stop().code == 0


def test_all_wrong_settings_are_told_at_once(launch: Launcher, mode: Mode) -> None:
    """Each wrong setting is named with what it got and what it takes; the exit code is 78 and the game is ended."""
    done = launch(game("ignores_sigterm"), env=MISTAKES, mode=mode).finish()
    assert done.code == 78
    for name, value in MISTAKES.items():
        lines = [line for line in done.stderr.splitlines() if name in line]
        assert len(lines) == 1, done.stderr
        assert value in lines[0], "what it got"
    assert "exit" in next(line for line in done.stderr.splitlines() if "AGENT_ON_EXIT" in line).replace(
        "AGENT_ON_EXIT", ""
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", ["AGENT_CONTROL_PORT", "AGENT_LOG_URL", "AGENT_WORKDIR", "AGENT_PLAYERS_FROM", "AGENT_TEMPLATE"]
)
def test_one_wrong_setting_is_enough(launch: Launcher, name: str) -> None:
    """A single wrong setting ends with 78 before the game is executed, wherever in the start it is found."""
    done = launch(game("ignores_sigterm"), env={name: MISTAKES[name]}).finish()
    assert done.code == 78
    assert name in done.stderr
    assert done.stdout == b""


def test_a_wrong_option_is_told_like_a_wrong_variable(launch: Launcher) -> None:
    """`run --grace-seconds soon` is the same mistake as `AGENT_GRACE_SECONDS=soon`; both kinds are told together."""
    done = launch(
        game("ignores_sigterm"), options=["--grace-seconds", "soon"], env={"AGENT_ON_EXIT": "explode"}
    ).finish()
    assert done.code == 78
    assert "soon" in done.stderr
    assert "explode" in done.stderr


def test_an_unknown_option_is_a_mistake(launch: Launcher) -> None:
    """An option nobody knows is refused with 78 and its name; no game goes on under wrong assumptions."""
    done = launch(game("polite"), options=["--no-such-option", "1", "-x", "--port"]).finish()
    assert done.code == 78
    for name in ("--no-such-option", "-x", "--port"):
        assert f"  {name}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_nobody_knows_is_named(launch: Launcher) -> None:
    """A mistyped `AGENT_GRACE` has no effect, which is said by its name instead of being found out in production."""
    done = launch(game("exits", "0"), env={"AGENT_GRACE": "7"}).finish()
    assert done.code == 0
    assert len(re.findall(r"\bAGENT_GRACE\b", done.stderr)) == 1


@pytest.mark.parametrize("option", [["--grace-seconds", "1"], ["--grace-seconds=1"]])
def test_an_option_wins_over_the_variable(launch: Launcher, option: list[str]) -> None:
    """What is said on the command line is meant, in either way of saying it."""
    run = launch(game("ignores_sigterm"), env={"AGENT_GRACE_SECONDS": "3600"}, options=option, mode="subreaper")
    run.wait_for("ready")
    done = run.stop()
    assert done.code == 137
    assert done.seconds < 30


def test_a_shell_in_front_that_swallows_the_stop_is_named(launch: Launcher) -> None:
    """ENTRYPOINT in shell form, or a script without `exec`: said at the start, not found out at the first stop."""
    said = "cannot hear SIGTERM: a shell ("
    for shell in ("/bin/sh", "/bin/bash"):
        run = launch(game("exits", "0"), prefix=[shell, "-c", '"$@"; exit $?', shell])
        assert said in run.finish().stderr
    run = launch(game("exits", "0"), prefix=["/bin/sh", "-c", "trap 'kill -TERM $!' TERM; \"$@\" & wait $!", "sh"])
    assert said not in run.finish().stderr, "it passes the stop on"
    run = launch(game("exits", "0"), prefix=["/bin/sh", "-c", '"$@"; exit $?', "sh"], mode="subreaper")
    assert said not in run.finish().stderr, "no container: nobody signals the shell alone"


def test_an_explicit_port_that_is_taken_is_a_mistake(launch: Launcher) -> None:
    """A control or metrics port that was asked for by number and is taken ends with 78, and says which."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name in ("AGENT_CONTROL_PORT", "AGENT_METRICS_PORT"):
            done = launch(game("ignores_sigterm"), env={name: port}).finish()
            assert done.code == 78, name
            assert port in done.stderr
            assert name in done.stderr
            assert "Traceback" not in done.stderr


def test_without_a_platform_everything_else_works(launch: Launcher) -> None:
    """With nothing injected the agent runs, says once what is switched off, and a stop needs no platform."""
    run = launch(game("polite"))
    run.wait_for("ready")
    assert run.http("GET", "/v1/deployment").status == 200
    assert run.http("POST", "/v1/stop", {"reason": "match over"}).status == 202
    done = run.finish()
    assert done.code == 0
    assert "self-stop" in done.stderr
    assert done.stderr.count("ARBITRIUM_DELETE_URL") <= 1


def test_malformed_injected_values_are_told_once_each(launch: Launcher) -> None:
    """Whatever the platform injects that cannot be read is named once; the rest is used and the game runs."""
    malformed = {
        "ARBITRIUM_PORTS_MAPPING": "{not json",
        "ARBITRIUM_DEPLOYMENT_LOCATION": "[1, 2]",
        "ARBITRIUM_DEPLOYMENT_VCPU_UNITS": "many",
        "ARBITRIUM_DEPLOYMENT_MEMORY_MB": "-",
        "ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY": "2 GHz",
        "ARBITRIUM_HOST_IN_PRIVATE_FLEET": "perhaps",
        "ARBITRIUM_PUBLIC_IP": "999.1.1.1",
        "ARBITRIUM_DELETE_URL": "not a url",
        "ARBITRIUM_PORT_GAMEPORT_EXTERNAL": "http",
        "MM_TICKET_IDS": "{",
    }
    empty = {
        "ARBITRIUM_HOST_BEACON_ENABLED": "",
        "ARBITRIUM_HOST_BEACON_PUBLIC_IP": "",
        "ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL": "",
        "ARBITRIUM_DEPLOYMENT_TAGS": "",
    }
    good = {"ARBITRIUM_REQUEST_ID": "23c01225b99d", "ARBITRIUM_HOST_ID": "chicago-edge-od-1205-e3-30a8e1"}
    run = launch(game("polite"), env={**malformed, **empty, **good})
    run.wait_for("ready")
    seen = run.http("GET", "/v1/deployment").json()
    assert "23c01225b99d" in json.dumps(seen)
    assert "chicago-edge-od-1205-e3-30a8e1" in json.dumps(seen)
    done = run.stop()
    assert done.code == 0
    assert "Traceback" not in done.stderr
    for name in malformed:
        assert len([line for line in done.stderr.splitlines() if name in line]) == 1, (name, done.stderr)
    for name in empty:
        assert len([line for line in done.stderr.splitlines() if name in line]) <= 1, name


def test_a_stale_socket_does_not_stop_a_new_run(launch: Launcher) -> None:
    """The socket file that a killed agent left behind is replaced, and a run that ends properly leaves none."""
    first = launch(game("polite"), mode="subreaper")
    first.wait_for("ready")
    assert first.is_ready_to_answer()
    first.signal(9)
    first.clean_up()
    assert first.socket_path.is_socket()
    second = launch(game("polite"), mode="subreaper")
    second.wait_for("ready")
    with second.rpc() as rpc:
        assert "result" in rpc.call("status")
    assert second.stop().code == 0
    assert not second.socket_path.exists()


def test_the_socket_is_for_owner_and_group_only(launch: Launcher) -> None:
    """The socket has mode 0660, whatever the umask."""
    run = launch(game("polite"), prefix=["sh", "-c", 'umask 0; exec "$@"', "sh"])
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert run.socket_path.stat().st_mode & 0o777 == 0o660


def test_as_a_user_with_nothing(request: pytest.FixtureRequest) -> None:
    """An agent that is not root, and may write nowhere but in its own directory, runs a game like any other."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    files = Path(tempfile.mkdtemp(prefix="nobody-"))  # what pytest makes is for its own user only
    request.addfinalizer(lambda: shutil.rmtree(files))
    os.chown(files, 65534, 65534)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    probe = subprocess.run(
        [*nobody, COMMAND, "config"], env=base_environment(files), capture_output=True, timeout=DEADLINE, check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"this installation cannot be used by another user: {probe.stderr.decode()[-200:]}")
    launch = Launcher(files)
    request.addfinalizer(launch.clean_up)
    run = launch(["sh", "-c", 'trap "exit 4" TERM; echo ready; while :; do sleep 0.05; done'], prefix=nobody)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert run.stop().code == 4


@pytest.mark.parametrize(("settings", "code"), [({}, 0), ({"AGENT_GRACE_SECONDS": "soon", "AGENT_ON_EXIT": "no"}, 78)])
def test_config_check_finds_mistakes_at_build_time(tmp_path: Path, settings: dict[str, str], code: int) -> None:
    """`config --check` says in an image build what `run` would say in production."""
    done = subprocess.run(
        [COMMAND, "config", "--check"],
        env={**base_environment(tmp_path), **settings},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == code, done.stderr
    for name in settings:
        assert name in done.stdout + done.stderr


def test_config_prints_what_is_in_effect(tmp_path: Path) -> None:
    """`config` shows every setting with the value that `run` would use."""
    done = subprocess.run(
        [COMMAND, "config"],
        env={**base_environment(tmp_path), "AGENT_GRACE_SECONDS": "123"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "123" in next(line for line in done.stdout.splitlines() if "GRACE_SECONDS" in line.upper())
    for name in ("HOLD_SECONDS", "ON_EXIT", "ON_CRASH", "CONTROL_PORT", "METRICS_PORT", "SOCKET_PATH", "INTERCEPT"):
        assert name in done.stdout.upper().replace("-", "_"), name


def test_control_listens_on_loopback_only(launch: Launcher) -> None:
    """The control listener is bound to 127.0.0.1 and not to every address; metrics are where they were asked to be."""
    run = launch(game("polite"), mode="subreaper")
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    for name in ("AGENT_URL", "AGENT_METRICS_URL"):
        port = int(run.game_environment[name].split("/")[2].rpartition(":")[2])
        lines = [
            line.split() for family in ("tcp", "tcp6") for line in Path(f"/proc/net/{family}").read_text().splitlines()
        ]
        addresses = {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}
        assert addresses == {"0100007F"}, name

"""A deployment's life on the emulator: its states, its game's environment, its end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.emulator.container import tagged
from agent.emulator.deployment import Status
from agent.emulator.environment import sanitised
from agent.emulator.settings import Delays
from tests.contract.backend import PLAYER, QUICK, SLEEPS, Backend, alive, backend, eventually, python, quick

PRINTS_ENVIRONMENT = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(600)"
IGNORES_SIGTERM = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
os.write(1, b"up\\n")
while True:
    time.sleep(1)
"""
SLOW_TO_STOP = """
import signal, sys, time
def leave(*_):
    print("leaving", flush=True)
    time.sleep(0.3)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
time.sleep(600)
"""
FORKS_A_DAEMON = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.environ.clear()
        print("daemon", os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""


def states(caller: Backend, deployment_id: str) -> list[Status]:
    """Collects the states that a deployment enters from now on."""
    seen: list[Status] = [caller.inner(deployment_id).status]

    def changed(deployment: Any) -> None:
        if deployment.id == deployment_id and deployment.status is not seen[-1]:
            seen.append(deployment.status)

    caller.emulator.platform.watch(changed)
    return seen


async def test_a_deployment_passes_through_every_state_in_order() -> None:
    """From SEEKING to TERMINATED, and its status tells each."""
    async with backend(quick(delays=dataclasses.replace(QUICK, seeking=1.0))) as caller:
        deployment_id = await caller.deploy(await caller.version())
        seen = states(caller, deployment_id)
        first = await caller.status(deployment_id)
        assert (first["current_status"], first["running"], first["last_status"]) == ("Status.SEEKING", False, None)
        ready = await caller.until(deployment_id, "READY")
        assert (ready["running"], ready["error"], ready["last_status"]) == (True, False, "Status.DEPLOYING")
        assert ready["fqdn"] == f"{deployment_id}.pr.edgegap.net"
        assert len(deployment_id) == 12
        assert int(deployment_id, 16) >= 0
        assert ready["location"]["city"] == "Paris"
        ended = await caller.stop(deployment_id)
        assert (ended["running"], ended["error"]) == (False, False)
        assert [each.value for each in seen] == [
            "SEEKING",
            "SEEKED",
            "DEPLOYING",
            "READY",
            "TERMINATING",
            "TERMINATED",
        ]
        assert (await caller.get("/v1/deployments"))["data"] == []
        assert (await caller.call("DELETE", f"/v1/stop/{deployment_id}")).status == 410


async def test_a_game_finds_the_variables_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, in the forms of its reference, and nothing of the emulator's own."""
    monkeypatch.setenv("AGENT_LOG_LEVEL", "debug")
    monkeypatch.setenv("ARBITRIUM_DELETE_TOKEN", "of another life")
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "a real one")
    async with backend() as caller:
        ports = [
            {"port": 0, "protocol": "udp", "name": "gameport"},
            {"port": 0, "protocol": "WSS", "name": "web socket", "tls_upgrade": True},
        ]
        version = await caller.version(**python(PRINTS_ENVIRONMENT), ports=ports, req_cpu=1536, req_memory=3072)
        deployment_id = await caller.deploy(version, tags=["tag1", "tag2"])
        status = await caller.until(deployment_id, "READY")
        environment = json.loads(await caller.until_logged(deployment_id, "}\n"))
        inner, url = caller.inner(deployment_id), caller.emulator.url
        assert inner.host is not None
        expected = {
            "ARBITRIUM_REQUEST_ID": deployment_id,
            "ARBITRIUM_DELETE_URL": f"{url}/v1/self/stop/{deployment_id}/{inner.stop_key}",
            "ARBITRIUM_CONTEXT_URL": f"{url}/v1/context/{deployment_id}/{inner.security_number}",
            "ARBITRIUM_PUBLIC_IP": "127.0.0.1",
            "ARBITRIUM_HOST_ID": inner.host.host_id,
            "ARBITRIUM_DEPLOYMENT_TAGS": "tag1,tag2",
            "ARBITRIUM_DEPLOYMENT_VCPU_UNITS": "1536",
            "ARBITRIUM_DEPLOYMENT_MEMORY_MB": "3072",
            "ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY": "2000",
            "ARBITRIUM_HOST_IN_PRIVATE_FLEET": "false",
            "ARBITRIUM_PRIVATE_FLEET_ID": "PUBLIC_CLOUD",
            "ARBITRIUM_HOST_BEACON_ENABLED": "false",
            "ARBITRIUM_HOST_BEACON_PUBLIC_IP": "",
            "ARBITRIUM_PORT_GAMEPORT_INTERNAL": str(status["ports"]["gameport"]["internal"]),
            "ARBITRIUM_PORT_GAMEPORT_EXTERNAL": str(status["ports"]["gameport"]["external"]),
            "ARBITRIUM_PORT_GAMEPORT_PROTOCOL": "UDP",
            "ARBITRIUM_PORT_WEB_SOCKET_PROTOCOL": "WSS",
        }
        assert {name: environment.get(name) for name in expected} == expected
        assert len(environment["ARBITRIUM_DELETE_TOKEN"]) == 32
        assert int(environment["ARBITRIUM_DELETE_TOKEN"], 16) > 0
        assert environment["ARBITRIUM_DELETE_TOKEN"] != environment["ARBITRIUM_CONTEXT_TOKEN"]
        assert json.loads(environment["ARBITRIUM_DEPLOYMENT_LOCATION"]) == status["location"]
        mapping = json.loads(environment["ARBITRIUM_PORTS_MAPPING"])["ports"]
        assert mapping["gameport"].items() >= {"name": "gameport", "protocol": "UDP", "tls_upgrade": False}.items()
        assert status["ports"]["web socket"]["link"].startswith(f"wss://{deployment_id}.pr.edgegap.net:")
        assert "AGENT_LOG_LEVEL" not in environment
        assert "EDGEGAP_API_TOKEN" not in environment
        assert environment["PATH"] == os.environ["PATH"]


async def test_the_users_variables_are_merged_and_sanitised() -> None:
    """The version's, then the deployment's over them; the platform's own cannot be replaced."""
    async with backend() as caller:
        envs = [
            {"key": "MODE", "value": "version"},
            {"key": "MAP", "value": "island"},
            {"key": "my-key 1", "value": "kept"},
            {"key": "9lives", "value": "cat"},
            {"key": "SECRET", "value": "hidden", "is_hidden": True},
        ]
        own = [
            {"key": "MODE", "value": "deployment", "is_hidden": False},
            {"key": "ARBITRIUM_REQUEST_ID", "value": "forged", "is_hidden": False},
            {"key": "TICKET", "value": "hidden too", "is_hidden": True},
        ]
        version = await caller.version(**python(PRINTS_ENVIRONMENT), envs=envs)
        deployment_id = await caller.deploy(version, environment_variables=own)
        environment = json.loads(await caller.until_logged(deployment_id, "}\n"))
        expected = {"MODE": "deployment", "MAP": "island", "my_key_1": "kept", "_9lives": "cat", "SECRET": "hidden"}
        expected |= {"ARBITRIUM_REQUEST_ID": deployment_id, "TICKET": "hidden too"}
        assert {name: environment.get(name) for name in expected} == expected
        recorded = json.dumps((await caller.call("GET", "/emulator/requests")).body)
        assert "hidden too" not in recorded
        assert "island" in recorded


async def test_a_stop_before_it_is_ready_waits_until_it_is() -> None:
    """202, and the game still starts and hears SIGTERM."""
    async with backend(quick(delays=Delays(seeking=0.3, seeked=0, deploying=0, terminating=0))) as caller:
        deployment_id = await caller.deploy(await caller.version())
        seen = states(caller, deployment_id)
        answer = await caller.call("DELETE", f"/v1/stop/{deployment_id}")
        assert answer.status == 202
        assert answer.body["message"] == f"{deployment_id} - Delete request will be processed soon"
        assert answer.body["deployment_summary"]["current_status"] == "Status.SEEKING"
        await caller.until(deployment_id, "TERMINATED")
        assert [each.value for each in seen][2:] == ["DEPLOYING", "READY", "TERMINATING", "TERMINATED"]


async def test_a_stop_that_is_repeated_changes_nothing() -> None:
    """200 again while it is under way, one SIGTERM, 410 afterwards."""
    async with backend() as caller:
        deployment_id = await caller.running(**python(SLOW_TO_STOP), endpoint_storage="")
        await caller.until_logged(deployment_id, "up")
        answers = await asyncio.gather(*(caller.call("DELETE", f"/v1/stop/{deployment_id}") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        log = await caller.until_logged(deployment_id, "leaving")
        assert log.count("leaving") == 1
        await caller.until(deployment_id, "TERMINATED")
        assert (await caller.call("DELETE", f"/v1/stop/{deployment_id}")).status == 410


async def test_a_game_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    """It hears SIGTERM, stays, and is gone by SIGKILL; the crash data says so."""
    async with backend(quick(grace_seconds=0.3)) as caller:
        deployment_id = await caller.running(**python(IGNORES_SIGTERM))
        await caller.until_logged(deployment_id, "up")
        container = caller.inner(deployment_id).container
        assert container is not None
        await caller.stop(deployment_id)
        assert not alive(container.pid)
        crash = (await caller.logs(deployment_id))["crash_data"]
        assert crash["exit_code"] == 137
        assert crash["message"].startswith("Killed: still running 0.3 s after SIGTERM")


async def test_the_grace_is_the_versions_own() -> None:
    """A version may leave its games an hour; the emulator's own setting is for tests."""
    async with backend() as caller:
        deployment_id = await caller.running(**python(SLOW_TO_STOP), termination_grace_period_seconds=3600)
        await caller.until_logged(deployment_id, "up")
        await caller.stop(deployment_id)
        assert (await caller.logs(deployment_id))["crash_data"] is None


async def test_a_game_that_forks_a_daemon_leaves_nothing() -> None:
    """A daemon in a session of its own, that ignores SIGTERM and cleared its environment, goes with its deployment."""
    async with backend() as caller:
        deployment_id = await caller.running(**python(FORKS_A_DAEMON))
        log = await caller.until_logged(deployment_id, "daemon")
        daemon = int(log.split()[1])
        assert alive(daemon)
        await caller.stop(deployment_id)
        assert not alive(daemon)


async def test_what_a_game_leaves_behind_is_gone_when_its_shim_was_killed() -> None:
    """Even then its processes are found, by their environment, and the game is started again."""
    async with backend() as caller:
        deployment_id = await caller.running()
        container = caller.inner(deployment_id).container
        assert container is not None
        os.kill(container.shim_pid, signal.SIGKILL)
        await eventually(lambda: caller.inner(deployment_id).restart_count == 1)
        assert not alive(container.pid)
        await caller.stop(deployment_id)
        assert tagged(f"ARBITRIUM_DELETE_TOKEN={caller.inner(deployment_id).delete_token}") == []


EXITS = "import os, sys; sys.exit(int(os.environ['CODE']))"


@pytest.mark.parametrize(
    ("policy", "code", "ending"),
    [
        ("never", 0, "TERMINATED"),
        ("never", 42, "TERMINATED"),
        ("on_failure", 0, "TERMINATED"),
        ("on_failure", 42, "restarts"),
        ("always", 0, "restarts"),
        ("always", 42, "restarts"),
    ],
)
async def test_a_game_that_ends_is_started_again_as_its_policy_says(policy: str, code: int, ending: str) -> None:
    """Three policies, two exit codes."""
    async with backend() as caller:
        envs = [{"key": "CODE", "value": str(code)}]
        deployment_id = await caller.deploy(await caller.version(**python(EXITS), restart_policy=policy, envs=envs))
        if ending == "restarts":
            await eventually(lambda: caller.inner(deployment_id).restart_count >= 2)
            assert (await caller.status(deployment_id))["current_status"] == "Status.READY"
        else:
            assert (await caller.until(deployment_id, ending))["error"] is False
        crash = (await caller.logs(deployment_id))["crash_data"]
        if ending == "TERMINATED" and code == 0:
            assert crash is None
            return
        assert (crash["exit_code"], crash["message"]) == (code, f"Exited with code {code}")
        assert crash["restart_count"] >= (2 if ending == "restarts" else 0)
        if ending == "restarts":
            await caller.stop(deployment_id)


async def test_a_signal_that_ends_a_game_is_told_as_128_and_more() -> None:
    """SIGSEGV is exit code 139, and the crash log has what the game wrote last."""
    source = "import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"
    async with backend() as caller:
        deployment_id = await caller.deploy(await caller.version(**python(source)))
        await eventually(lambda: caller.inner(deployment_id).restart_count >= 1)
        logs = await caller.logs(deployment_id)
        crash = logs["crash_data"]
        assert (crash["exit_code"], crash["message"]) == (139, "Ended by signal 11")
        assert logs["crash_logs"] == "last words\n"


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ({"command": "/nowhere/at/all", "arguments": None}, "cannot run /nowhere/at/all: No such file or directory"),
        ({"command": "/etc/passwd", "arguments": None}, "cannot run /etc/passwd: Permission denied"),
        ({"command": "sh -c 'unclosed", "arguments": None}, "check its quotes"),
        ({"command": None, "arguments": None}, "it has no command"),
    ],
)
async def test_a_game_that_cannot_be_run_is_in_error_until_it_is_stopped(version: dict[str, Any], why: str) -> None:
    """ERROR with the reason; a stop then ends it, at once."""
    async with backend() as caller:
        deployment_id = await caller.deploy(await caller.version(**version))
        status = await caller.until(deployment_id, "ERROR")
        assert why in status["error_detail"]
        assert status["running"] is False
        assert [each["request_id"] for each in (await caller.get("/v1/deployments"))["data"]] == [deployment_id]
        answer = await caller.call("DELETE", f"/v1/stop/{deployment_id}")
        assert answer.status == 200
        await caller.until(deployment_id, "TERMINATED")


async def test_the_working_directory_is_as_set(tmp_path: Path) -> None:
    """Games start where the emulator is told; one that is not there is an error of its own."""
    source = "import os, time; print(os.getcwd(), flush=True); time.sleep(600)"
    async with backend(quick(directory=str(tmp_path))) as caller:
        deployment_id = await caller.running(**python(source))
        assert str(tmp_path) in await caller.until_logged(deployment_id, "\n")
    async with backend(quick(directory=str(tmp_path / "none"))) as caller:
        deployment_id = await caller.deploy(await caller.version())
        status = await caller.until(deployment_id, "ERROR")
        assert "No such file or directory" in status["error_detail"]


async def test_max_duration_ends_a_deployment() -> None:
    """Its minutes pass as fast as the settings say; the game gets SIGTERM like anybody's."""
    async with backend(quick(minute_seconds=0.1)) as caller:
        deployment_id = await caller.running(max_duration=2)
        status = await caller.status(deployment_id)
        if status["current_status"] == "Status.READY":
            assert status["removal_time"] > status["start_time"]
        await caller.until(deployment_id, "TERMINATED")
        request = caller.inner(deployment_id).stop_request
        assert request is not None
        assert request.by == "max_duration"


async def test_no_max_duration_has_no_removal_time() -> None:
    """-1 is for ever."""
    async with backend() as caller:
        status = await caller.status(await caller.running(max_duration=-1))
        assert (status["removal_time"], status["max_duration"]) == (None, -1)


async def test_a_game_that_takes_more_memory_than_it_has_is_killed() -> None:
    """137 and `OOM killed`, as a host's kernel would have it."""
    source = "import time; print('up', flush=True); data = b'x' * 200_000_000; time.sleep(600)"
    async with backend(quick(sample_seconds=0.05)) as caller:
        deployment_id = await caller.deploy(
            await caller.version(**python(source), restart_policy="never", req_memory=100)
        )
        await caller.until(deployment_id, "TERMINATED")
        crash = (await caller.logs(deployment_id))["crash_data"]
        assert crash == {"exit_code": 137, "message": "OOM killed", "restart_count": 0}


async def test_a_tcp_port_is_awaited_where_that_is_asked_for() -> None:
    """READY once it accepts, ERROR when its game ends first; UDP has nothing to wait for."""
    listens = """
import os, socket, time
time.sleep(0.2)
listener = socket.create_server(("127.0.0.1", int(os.environ["ARBITRIUM_PORT_WEB_INTERNAL"])))
print("listens", flush=True)
time.sleep(600)
"""
    ports = [{"port": 0, "protocol": "TCP", "name": "web"}, {"port": 0, "protocol": "UDP", "name": "game"}]
    async with backend(quick(check_ports=True)) as caller:
        deployment_id = await caller.running(**python(listens), ports=ports)
        assert (await caller.logs(deployment_id))["logs"] == "listens\n"
        ends = await caller.deploy(await caller.version(**python("print('no')"), ports=ports))
        status = await caller.until(ends, "ERROR")
        assert status["error_detail"].startswith("cannot reach port web")


async def test_terminated_deployments_are_forgotten_in_time() -> None:
    """The newest are remembered, as many as the settings say."""
    async with backend(quick(keep_terminated=2)) as caller:
        version = await caller.version()
        ids = []
        for _ in range(4):
            ids.append(await caller.deploy(version))
            await caller.stop(ids[-1])
        await caller.deploy(version)
        assert (await caller.call("GET", f"/v1/status/{ids[0]}")).status == 404
        assert (await caller.status(ids[3]))["current_status"] == "Status.TERMINATED"


async def test_closing_the_emulator_stops_every_deployment() -> None:
    """Ready, not yet ready, in error: nothing is left of any, and none is waited for longer than the settings say."""
    async with backend(quick(closing_seconds=0.3)) as caller:
        running = await caller.running(**python(IGNORES_SIGTERM), termination_grace_period_seconds=3600)
        await caller.until_logged(running, "up")
        await caller.until(await caller.deploy(await caller.version(command="/nowhere", arguments=None)), "ERROR")
        early = await caller.deploy(await caller.version(**python(SLEEPS)))
        platform = caller.emulator.platform
        tokens = [each.delete_token for each in platform.deployments.values()]
    assert {each.status for each in platform.deployments.values()} == {Status.TERMINATED}
    assert early in platform.deployments
    assert platform.port_book.held == frozenset()
    assert [pid for token in tokens for pid in tagged(f"ARBITRIUM_DELETE_TOKEN={token}")] == []


async def test_nothing_is_deployed_while_the_emulator_closes() -> None:
    """500 and the reason, as long as a last game is waited for."""
    async with backend() as caller:
        deployment_id = await caller.running(**python(SLOW_TO_STOP))
        await caller.until_logged(deployment_id, "up")
        closing = asyncio.create_task(caller.emulator.platform.close())
        await caller.until(deployment_id, "TERMINATING", "TERMINATED")
        body = {"application": "game", "version": "v1", "users": [PLAYER]}
        answer = await caller.call("POST", "/v2/deployments", body)
        assert (answer.status, "being closed" in answer.body["message"]) == (500, True)
        await closing


@given(st.text(min_size=1, max_size=40).filter(lambda key: key.strip() != ""))
def test_a_sanitised_key_is_a_name_of_a_variable(key: str) -> None:
    """Whatever it was; and one that is sanitised already stays as it is."""
    name = sanitised(key)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    assert sanitised(name) == name


STARTS_A_GAME = """
import asyncio, os
from agent.emulator.container import Container
from agent.emulator.container_log import ContainerLog

async def main():
    game = ["sh", "-c", "trap : TERM; sleep 600"]
    container = await Container.start(game, dict(os.environ), container_log=ContainerLog(1), tag="A=1")
    print(container.pid, flush=True)
    await container.wait()

asyncio.run(main())
"""


async def test_a_game_dies_with_an_emulator_that_was_killed() -> None:
    """SIGKILL to the emulator itself leaves no game behind, not even one that would not hear SIGTERM."""
    emulator = await asyncio.create_subprocess_exec(sys.executable, "-c", STARTS_A_GAME, stdout=asyncio.subprocess.PIPE)
    assert emulator.stdout is not None
    pid = int(await emulator.stdout.readline())
    assert alive(pid)
    emulator.kill()
    await emulator.communicate()
    await eventually(lambda: not alive(pid))

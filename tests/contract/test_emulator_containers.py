"""Container games: a version's image instead of a command, where an engine is there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.emulator.engine import Engine, find_engine, image_of
from agent.emulator.models import VersionBody
from tests.contract.backend import Backend, alive, backend, eventually, quick

BUSYBOX = {"docker_repository": "docker.io", "docker_image": "library/busybox", "docker_tag": "latest"}
GAME = "-c 'env; echo to stderr >&2; trap \"echo leaving; exit 0\" TERM; sleep 600 & wait'"


def has_busybox() -> bool:
    """Whether podman works here and has the image; nothing is pulled."""
    command = ["podman", "image", "exists", "docker.io/library/busybox:latest"]
    return (
        shutil.which("podman") is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


needs_busybox = pytest.mark.skipif(
    not has_busybox(), reason="podman does not run here, or has no docker.io/library/busybox:latest"
)


async def containers(caller: Backend, deployment_id: str) -> list[str]:
    """What podman has of a deployment."""
    process = await asyncio.create_subprocess_exec(
        *("podman", "ps", "--all", "--format", "{{.Names}}", "--filter", f"name=arbitrium-{deployment_id}"),
        stdout=asyncio.subprocess.PIPE,
    )
    return (await process.communicate())[0].decode().split()


def in_container(**settings: Any) -> Any:
    """An emulator that runs every version's image."""
    return backend(quick(engine="podman", games="container", **settings))


@pytest.mark.image
@needs_busybox
async def test_a_container_game_lives_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables, both streams, SIGTERM to its first process, and no container afterwards."""
    monkeypatch.setenv("OF_THE_EMULATOR", "not of the container")
    async with in_container(sample_seconds=0.1) as caller:
        ports = [{"port": 0, "protocol": "UDP", "name": "gameport"}]
        deployment_id = await caller.running(command="sh", arguments=GAME, ports=ports, **BUSYBOX)
        log = await caller.until_logged(deployment_id, "to stderr")
        environment = dict(line.split("=", 1) for line in log.splitlines() if "=" in line)
        inner = caller.inner(deployment_id)
        assert environment["ARBITRIUM_REQUEST_ID"] == deployment_id
        assert environment["ARBITRIUM_DELETE_TOKEN"] == inner.delete_token
        assert json.loads(environment["ARBITRIUM_PORTS_MAPPING"])["ports"].keys() == {"gameport"}
        assert "OF_THE_EMULATOR" not in environment
        assert await containers(caller, deployment_id) == [f"arbitrium-{deployment_id}-0"]
        assert inner.container is not None
        assert alive(inner.container.inner_pid)
        assert inner.delete_token not in Path(f"/proc/{inner.container.pid}/cmdline").read_text()
        await eventually(lambda: any(sample.memory_mb > 0 for sample in inner.samples))
        await caller.stop(deployment_id)
        assert inner.container.exit_code == 0
        assert not alive(inner.container.inner_pid)
        assert await containers(caller, deployment_id) == []


@pytest.mark.image
@needs_busybox
async def test_a_container_that_ignores_sigterm_is_killed() -> None:
    """After the grace, all of it, and the engine forgets it."""
    async with in_container(grace_seconds=0.5) as caller:
        stubborn = "-c 'trap \"\" TERM; echo up; while :; do sleep 1; done'"
        deployment_id = await caller.running(command="sh", arguments=stubborn, **BUSYBOX)
        await caller.until_logged(deployment_id, "up")
        container = caller.inner(deployment_id).container
        assert container is not None
        await caller.stop(deployment_id)
        assert (await caller.logs(deployment_id))["crash_data"]["exit_code"] == 137
        assert not alive(container.inner_pid)
        assert await containers(caller, deployment_id) == []


@pytest.mark.image
@needs_busybox
async def test_a_container_is_started_again_as_its_policy_says() -> None:
    """Each attempt is a container of its own, and the exit code is the game's."""
    async with in_container() as caller:
        version = await caller.version(command="sh", arguments="-c 'exit 3'", restart_policy="on_failure", **BUSYBOX)
        deployment_id = await caller.deploy(version)
        await eventually(lambda: caller.inner(deployment_id).restart_count >= 1)
        assert (await caller.logs(deployment_id))["crash_data"]["exit_code"] == 3
        await caller.stop(deployment_id)
        assert await containers(caller, deployment_id) == []


@pytest.mark.image
@needs_busybox
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"command": "/nowhere", "arguments": None}, "cannot start the container"),
        ({"command": None, "arguments": None}, "cannot make a container of docker.io/library/busybox:latest"),
        ({"docker_image": "Not An Image"}, "cannot make a container of docker.io/Not An Image:latest"),
    ],
)
async def test_a_container_that_cannot_be_run_is_in_error(wrong: dict[str, Any], why: str) -> None:
    """With what the engine said, and without a restart."""
    async with in_container() as caller:
        version = await caller.version(**{**BUSYBOX, "command": "sh", "arguments": "-c true", **wrong})
        deployment_id = await caller.deploy(version)
        status = await caller.until(deployment_id, "ERROR")
        assert status["error_detail"].startswith(why)
        await caller.stop(deployment_id)
        assert await containers(caller, deployment_id) == []


FAKE_ENGINE = """#!/bin/sh
echo "$@" >> "$HOME/calls"
case "$1" in
create) echo id ;;
start) shift; echo "started as $FROM_VERSION"; exec sleep 600 ;;
inspect) case "$3" in *Pid*) echo "running $$" ;; *) echo false ;; esac ;;
esac
"""


@pytest.fixture
def fake_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that notes how it is called; the directory of its notes."""
    program = tmp_path / "docker"
    program.write_text(FAKE_ENGINE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


async def test_an_engine_is_told_what_the_version_says(fake_engine: Path) -> None:
    """Resources, names of variables but not their values, the image, entry point and arguments; and to remove it."""
    async with backend(quick(engine="docker")) as caller:
        image = {"docker_repository": "registry.example.com", "docker_image": "team/game", "docker_tag": "7"}
        envs = [{"key": "FROM_VERSION", "value": "a value", "is_hidden": True}]
        version = await caller.version(**image, command=None, arguments="-x 'two words'", envs=envs, req_cpu=512)
        deployment_id = await caller.deploy(version)
        assert await caller.until_logged(deployment_id, "\n") == "started as a value\n"
        await caller.stop(deployment_id)
    calls = (fake_engine / "calls").read_text().splitlines()
    name = f"arbitrium-{deployment_id}-0"
    assert calls[0].startswith(
        f"create --name={name} --network=host --memory=256m --cpus=0.500 --env FROM_VERSION --env "
    )
    assert calls[0].endswith(" registry.example.com/team/game:7 -x two words")
    assert "a value" not in calls[0]
    assert f"start --attach {name}" in calls
    assert calls[-1] == f"rm --force --volumes {name}"


KILLS_ITSELF = """
import asyncio, os, signal
from tests.contract.backend import backend, eventually, quick

async def main():
    async with backend(quick(engine="docker")) as caller:
        version = await caller.version(command=None, docker_repository="r.example", docker_image="game", docker_tag="7")
        deployment_id = await caller.deploy(version)
        await caller.until_logged(deployment_id, "started")
        print(f"arbitrium-{deployment_id}-0", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_container_goes_with_an_emulator_that_was_killed(fake_engine: Path) -> None:
    """The container of a daemon is not below the emulator: the engine is told to kill and forget it."""
    emulator = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLS_ITSELF, stdout=asyncio.subprocess.PIPE)
    said, _ = await emulator.communicate()
    calls = fake_engine / "calls"
    await eventually(lambda: calls.read_text().splitlines()[-1] == f"rm --force --volumes {said.decode().strip()}")


async def test_closing_does_not_wait_for_an_image_that_is_being_pulled(
    fake_engine: Path,
) -> None:
    """Its `create` is given up, and nothing of it is left."""
    (fake_engine / "docker").write_text(FAKE_ENGINE.replace("create)", "create) sleep 600;"))
    async with backend(quick(engine="docker")) as caller:
        version = await caller.version(command=None, arguments=None, **BUSYBOX)
        await caller.deploy(version)
        await eventually((fake_engine / "calls").exists)


def test_an_engine_is_found_only_where_it_is(fake_engine: Path) -> None:
    """By name, or the first there is; `none` is none."""
    assert find_engine("none") is None
    found = find_engine("docker")
    assert isinstance(found, Engine)
    assert found.path == str(fake_engine / "docker")


@pytest.mark.parametrize(
    ("repository", "image", "tag", "name"),
    [
        ("registry.example.com/", "team/game", "1", "registry.example.com/team/game:1"),
        ("", "game", "", "game"),
        ("registry.example.com", "", "1", ""),
    ],
)
def test_an_image_is_named_in_full(repository: str, image: str, tag: str, name: str) -> None:
    """Repository, image, tag; no image is no name."""
    version = VersionBody(
        name="1", req_cpu=100, req_memory=100, docker_repository=repository, docker_image=image, docker_tag=tag
    )
    assert image_of(version) == name

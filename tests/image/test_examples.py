"""The examples: what people have today loses the end of the game; with the three lines it does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.image.conftest import RUNTIME
from tests.image.engine import AGENT, PYTHON, ROOT, Engine, eventually

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

BASE = "debian:12-slim"  # in place of ubuntu:22.04, which is not to be had everywhere these tests run
EXAMPLES = {  # what the stand-in says first, and when it has heard the stop
    "unity": ("Server started", "Quitting: saved"),
    "unreal": ("Bringing World", "LogExit: Exiting."),
    "godot": ("listening on port", None),
}


def copied(engine: Engine, tmp_path: Path, example: str, dockerfile: str) -> Path:
    """Copies an example; its Dockerfile names the runtime of this checkout and a base image that is here."""
    if not engine.has(BASE):
        pytest.skip(f"the base image {BASE} is not here and cannot be pulled")
    context = tmp_path / example
    shutil.copytree(ROOT / "examples" / example, context)
    text = (context / dockerfile).read_text()
    text = re.sub(r"\b(ubuntu:22\.04|debian:12-slim)\b", BASE, text).replace("arbitrium-agent:latest", RUNTIME)
    (context / dockerfile).write_text(text)
    return context


def built(engine: Engine, tmp_path: Path, example: str, dockerfile: str) -> str:
    """Builds one Dockerfile of an example."""
    context = copied(engine, tmp_path, example, dockerfile)
    tag = f"localhost/arbitrium-agent-test/{example}-{dockerfile.lower()}"
    return engine.build(tag, context, f"--file={context / dockerfile}")


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_commands_of_a_readme_do_what_it_says(engine: Engine, tmp_path: Path, example: str) -> None:
    """As they stand there: the image is built with its own doctor, the game's last words are in the container's log.

    `docker` is whichever engine is here, and the image of the runtime is the one that these tests share.
    """
    assert engine.run_command is not None
    context = copied(engine, tmp_path, example, "Dockerfile")
    commands = re.findall(r"^\$ (.+)$", (context / "README.md").read_text(), re.MULTILINE)
    assert commands.pop(0) == "make -C ../.. image", "which the fixture has done"
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin/docker"
    shim.write_text(
        f'#!/bin/sh\n[ "$1" != run ] || {{ shift; set -- run --network=none "$@"; }}\nexec {engine.run_command} "$@"\n'
    )
    shim.chmod(0o755)
    environ = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}"}
    first, last = EXAMPLES[example]

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command], cwd=context, env=environ, capture_output=True, text=True, timeout=600, check=False
        )

    def tried(command: str, expected: str) -> str | None:
        done = run(command)
        said = done.stdout + done.stderr
        return said if done.returncode == 0 and expected in said else None

    try:
        for command in commands:
            if command.startswith("docker stop"):
                eventually(lambda: tried(f"docker logs {example}-game", first), f"{first!r} in the log")
            if command.startswith("docker exec"):  # whoever types is slower than the container
                eventually(lambda: tried(command, "phase"), f"{command!r} finds the agent")  # noqa: B023 - called here
            else:
                done = run(command)
                assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
                if command.startswith("docker logs"):
                    assert last is None or last in done.stdout + done.stderr
                    assert run(f"docker inspect --format '{{{{.State.ExitCode}}}}' {example}-game").stdout == "0\n"
    finally:
        subprocess.run([engine.run_command, "rm", "--force", f"{example}-game"], capture_output=True, check=False)


@pytest.mark.parametrize("example", ["unity", "unreal"])
def test_the_same_image_without_the_agent_does_not(engine: Engine, tmp_path: Path, example: str) -> None:
    """The loss that the agent is there to prevent: SIGTERM reaches nobody, and the token is in the logs."""
    first, last = EXAMPLES[example]
    container = engine.run(
        built(engine, tmp_path, example, "Dockerfile.before"), options=["--env=ARBITRIUM_DELETE_TOKEN=secret-token"]
    )
    container.said(first)
    container.stop(2)
    assert container.wait() == 137
    assert last is not None
    assert last not in container.output()
    assert "ARBITRIUM_DELETE_TOKEN=secret-token" in container.output()


@pytest.mark.usefixtures("runtime")
def test_what_compose_starts_works_in_one_container(engine: Engine, runtime_context: Path, tmp_path: Path) -> None:
    """The emulator of the demo image runs the game that the example deploys; two bots play it to its end."""
    image = engine.build("localhost/arbitrium-agent-test/demo", runtime_context, "--target", "demo")
    versions = tmp_path / "versions.toml"
    text = (ROOT / "examples/compose/versions.toml").read_text().replace("s3://logs/arena", "file:///tmp/logs")
    text = text.replace('value = "40"', 'value = "2"')
    versions.write_text(text)
    token = "--env=EDGEGAP_API_TOKEN=6a271a0e-01ef-43d6-b4d4-bb4e1362d816"
    container = engine.run(
        image, "emulate", "--delays", "0", "--directory", "/game", "/etc/versions.toml",
        options=[
            "--entrypoint", AGENT, token, "--volume", f"{versions}:/etc/versions.toml",
            "--volume", f"{ROOT / 'examples/compose/deploy.py'}:/deploy.py",
        ],
    )  # fmt: skip
    container.said("listening")
    for name in ("ada", "bob"):
        code = f"""
import os
if not os.fork():
    os.setsid()
    for _ in range(30):
        if os.spawnl(os.P_WAIT, {PYTHON!r}, {PYTHON!r}, "-m", "udp_game.bot", "--name", {name!r}) == 0:
            break
    os._exit(0)
"""
        container.execute(PYTHON, "-c", code)
    page = "import os, runpy, sys; os.environ['EMULATOR_PAGE'] = 'http://127.0.0.1:8787/'; sys.argv = sys.argv[1:]"
    followed = container.execute(
        PYTHON, "-c", f"{page}; runpy.run_path(sys.argv[0], run_name='__main__')", "/deploy.py",
        "http://127.0.0.1:8787", "arena", "1",
    ).stdout  # fmt: skip
    assert "http://127.0.0.1:8787/?token=6a271a0e" in followed
    assert "Status.READY" in followed
    assert "Status.TERMINATED" in followed
    found = container.python("import glob; print(glob.glob('/tmp/logs/**/exit.json', recursive=True))")
    assert "exit.json" in found
    assert "/arena/1/" in found, "application and version are in the keys"


@pytest.mark.parametrize("file", ["examples/compose.yaml", "deploy/compose.yaml"])
def test_compose_names_what_there_is(file: str) -> None:
    """Services, files, and metrics: what the page of the example says to try."""
    text = (ROOT / file).read_text()
    services = yaml.safe_load(text)["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or ((ROOT / file).parent / source).exists()
        for other in service.get("depends_on", {}):
            assert other in services
        assert "deploy" not in service, "not every compose starts replicas"
    families = (ROOT / "agent/metrics/families.py").read_text()
    for metric in re.findall(r"\barbitrium_\w+", text):
        assert f'"{metric}"' in families
    assert [name for name, service in services.items() if "udp_game.bot" in service.get("entrypoint", [])] == [
        "ada",
        "bob",
    ]

"""What is in the runtime directory, how large it is, and that it is all there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.image.conftest import THREE_LINES, Make
from tests.image.engine import HOME, ROOT, Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

LARGEST_DIRECTORY = 47 * 1000 * 1000  # bytes
LARGEST_LAYER = 18_500 * 1000  # bytes, as `docker push` compresses


def copied_out(builder: Engine, image: str, folder: Path) -> Path:
    """Copies the runtime directory out of an image."""
    if builder.run_command is None:
        pytest.skip("there is only buildah here, which runs no containers")
    name = f"arbitrium-agent-test-{os.getpid()}"
    subprocess.run([builder.run_command, "create", "--name", name, image], check=True, capture_output=True)
    try:
        subprocess.run([builder.run_command, "cp", f"{name}:{HOME}", str(folder)], check=True, capture_output=True)
    finally:
        subprocess.run([builder.run_command, "rm", name], check=True, capture_output=True)
    return folder / "arbitrium-agent"


@pytest.fixture(scope="module")
def directory(builder: Engine, runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime directory, copied out of its image to another place."""
    return copied_out(builder, runtime, tmp_path_factory.mktemp("directory"))


def test_it_is_small(directory: Path) -> None:
    """On disk, and as the layer that everybody downloads."""
    sizes = [path.lstat().st_size for path in directory.rglob("*") if not path.is_dir()]
    assert sum(sizes) <= LARGEST_DIRECTORY
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(directory, "opt/arbitrium-agent")
    assert len(gzip.compress(tar.getvalue(), 6)) <= LARGEST_LAYER


def test_it_tells_what_it_consists_of(directory: Path) -> None:
    """A bill of materials with every part's version, and the licences."""
    bill = json.loads((directory / "share/sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    parts = {part["name"]: part for part in bill["components"]}
    locked = {
        line.split("==")[0]: line.split("==")[1].split(" ")[0]
        for name in ("requirements.lock", "requirements-query.lock")
        for line in (ROOT / name).read_text().splitlines()
        if "==" in line
    }
    python = {name: part["version"] for name, part in parts.items() if part["purl"].startswith("pkg:pypi/")}
    assert python
    assert python.items() <= locked.items()
    assert {"aiohttp", "obstore", "pydantic-core", "zstandard"} <= set(python)
    debian = {name for name, part in parts.items() if part["purl"].startswith("pkg:deb/")}
    assert {"libc6", "libssl-dev", "python3.13"} <= debian
    for part in parts.values():
        assert part["version"]
    licences = {path.parent.name for path in (directory / "share/licenses").rglob("*") if path.is_file()}
    assert debian <= licences
    assert "arbitrium-agent" in licences


def hashes(directory: Path) -> dict[str, str]:
    """Every file with the hash of its contents."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.timeout(7200)
def test_a_rebuild_from_nothing_gives_the_same_bytes(
    builder: Engine, directory: Path, runtime_context: Path, tmp_path: Path
) -> None:
    """Interpreter, extension modules, bytecode, bill of materials: all of it, compiled again.

    Where Debian's archive has moved since the cached layers were made, there is nothing to compare with: both are built
    again then.
    """

    def rebuilt(name: str) -> Path:
        image = builder.build(f"localhost/arbitrium-agent-test/{name}", runtime_context, "--no-cache")
        (tmp_path / name).mkdir()
        return copied_out(builder, image, tmp_path / name)

    first, second = directory, rebuilt("again")
    bill = "share/sbom.cdx.json"
    if (first / bill).read_bytes() != (second / bill).read_bytes():
        first = rebuilt("once-more")
    one, other = hashes(first), hashes(second)
    assert {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)} == set()


def test_the_descriptions_of_the_api_are_there(directory: Path) -> None:
    """They are docstrings, which most of the bytecode goes without."""
    code = """
import json
from agent.api.openapi import document
def texts(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [" ".join(inner.split())] if key == "description" and isinstance(inner, str) else texts(inner)
print(json.dumps(sorted(set(texts(document()["components"])) | set(texts(document()["info"])))))
"""
    said = [
        json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
        for python in (str(directory / "bin/python"), sys.executable)
    ]
    assert said[0] == said[1]


def test_grpc_is_in_the_image_that_is_built_with_it(
    builder: Engine, runtime: str, runtime_context: Path, make_image: Make, engine: Engine
) -> None:
    """`EXTRAS=agones`: a game's Agones SDK says Ready over gRPC."""
    with_grpc = builder.build(f"{runtime}-agones", runtime_context, "--build-arg=EXTRAS=agones")
    lines = THREE_LINES.replace(f"--from={runtime} ", f"--from={with_grpc} ")
    image = make_image("agones", f"FROM busybox:latest\nCOPY games /game\n{lines}ENV AGENT_COMPAT=agones\n")
    container = engine.run(image)
    container.said("ready")
    container.python("""
import asyncio
from grpclib.client import Channel, UnaryUnaryMethod
from agent.compat.agones_messages import MESSAGES
async def main():
    channel, empty = Channel("127.0.0.1", 9357), MESSAGES["agones.dev.sdk.Empty"]
    await UnaryUnaryMethod(channel, "/agones.dev.sdk.SDK/Ready", empty, empty)(empty())
    channel.close()
asyncio.run(main())
""")
    container.said("the game is ready for players")


def test_the_image_is_labelled(builder: Engine, runtime: str) -> None:
    """As the OCI has it."""
    if builder.run_command is None:
        pytest.skip("there is only buildah here")
    shown = subprocess.run([builder.run_command, "inspect", runtime], check=True, capture_output=True, text=True).stdout
    (inspected,) = json.loads(shown)
    labels = inspected["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "arbitrium-agent"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.usefixtures("runtime")
def test_the_demo_plays(engine: Engine, runtime_context: Path) -> None:
    """The stage with the demo game: it becomes ready by itself and ends on a stop."""
    demo = engine.build("localhost/arbitrium-agent-test/demo", runtime_context, "--target", "demo")
    container = engine.run(demo)
    container.said("ready")
    container.stop(20)
    assert container.wait() == 0


@pytest.mark.parametrize("suite", ["test_exit_codes", "test_stopping", "test_what_the_game_is_given"])
def test_a_black_box_suite_of_the_package_passes_with_it(directory: Path, suite: str) -> None:
    """The same tests that the installed command passes (tests/process), with this directory in its place."""
    # A short path: the tests make Unix sockets below it, whose names may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/runs",
             str(ROOT / f"tests/process/{suite}.py")],
            env={**os.environ, "ARBITRIUM_AGENT": str(directory / "bin/arbitrium-agent")},
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout

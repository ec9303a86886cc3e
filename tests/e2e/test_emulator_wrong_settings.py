"""A wrong setting under `restart_policy: always`, on the emulator: it ends the deployment instead of a billed loop."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

from tests.contract.backend import Backend, backend, eventually

GAME = Path(__file__).parent.parent / "games/polite.py"


async def deployed(caller: Backend, files: Path, **environment: str) -> str:
    """Deploys a version whose agent cannot start for its settings; returns the deployment's id."""
    files.mkdir()
    environment = {
        "HOME": str(files),
        "AGENT_SPOOL_DIR": str(files / "spool"),
        "AGENT_SOCKET_PATH": str(files / "s"),
        "AGENT_CONTROL_PORT": "0",
        "AGENT_METRICS_PORT": "0",
        "AGENT_GRACE_SECONDS": "soon",
        **environment,
    }
    version = await caller.version(
        command=shlex.join([sys.executable, "-m", "agent", "run", "--"]),
        arguments=shlex.join([sys.executable, str(GAME)]),
        envs=[{"key": key, "value": value} for key, value in environment.items()],
        restart_policy="always",
    )
    return await caller.deploy(version)


async def test_a_wrong_setting_is_not_billed_for_ever(tmp_path: Path) -> None:
    """One start and one self-stop; `AGENT_ON_CRASH=exit` leaves it to the restart policy."""
    async with backend() as caller:
        stopped, left = await asyncio.gather(
            deployed(caller, tmp_path / "stopped"), deployed(caller, tmp_path / "left", AGENT_ON_CRASH="exit")
        )
        await caller.until(stopped, "TERMINATED")
        inner = caller.inner(stopped)
        assert inner.restart_count == 0
        assert inner.stop_request is not None
        assert len([each for each in caller.emulator.records.all("selfStop") if stopped in each["path"]]) == 1

        await eventually(lambda: caller.inner(left).restart_count >= 2)
        crash = caller.inner(left).crash
        assert crash is not None
        assert crash.exit_code == 78

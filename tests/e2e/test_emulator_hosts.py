"""Games made for other hosts, on the emulator: the same ends as a native game's, for the platform and in exit.json.

`tests/process/test_compat.py` looks at the protocols; here the platform deploys, places, stops, and is asked to stop.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.emulator.settings import EmulatorSettings
from tests.contract.backend import Backend, backend, eventually, poll, quick
from tests.process.harness import Rpc

GAMES = Path(__file__).parent.parent / "games"
QUICK_HEALTH = {
    "AGENT_HEALTH_TIMEOUT": "2s",
    "AGENT_AGONES_HEALTH_PERIOD": "1s",
    "AGENT_AGONES_HEALTH_THRESHOLD": "2",
    "AGENT_AGONES_HEALTH_DELAY": "0",
}
LISTENERS = ("AGONES_HTTP", "AGONES_GRPC", "MULTIPLAY", "PLAYFAB", "CONTROL", "METRICS")
PORTS = [{"port": 0, "protocol": "UDP", "name": name} for name in ("gameport", "query")]


class Life:
    """One deployment of a game under the agent, with a directory of its own."""

    def __init__(self, caller: Backend, files: Path, game: list[str], **environment: str) -> None:
        self._caller = caller
        self._files = files
        self._game = game
        self._environment = environment
        self.id = ""

    async def begin(self) -> None:
        """Deploy it."""
        self._files.mkdir()
        environment = {
            "HOME": str(self._files),
            "AGENT_SPOOL_DIR": str(self._files / "spool"),
            "AGENT_SOCKET_PATH": str(self._files / "s"),
            **{f"AGENT_{name}_PORT": "0" for name in LISTENERS},
            **self._environment,
        }
        version = await self._caller.version(
            command=shlex.join([sys.executable, "-m", "agent", "run", "--"]),
            arguments=shlex.join([sys.executable, *self._game]),
            ports=PORTS,
            envs=[{"key": key, "value": value} for key, value in environment.items()],
            req_cpu=512,
            req_memory=1024,
            endpoint_storage="logs",
        )
        self.id = await self._caller.deploy(version)

    async def plays(self, host: str) -> None:
        """Wait until it is ready and allocated, with the player who joined."""
        await self._caller.until_logged(self.id, "playing")

        async def look() -> dict[str, Any]:
            with Rpc(self._files / "s") as agent:
                return dict((await asyncio.to_thread(agent.call, "status"))["result"])

        await poll(look, lambda seen: seen["phase"] == "ready")
        if host == "multiplay":  # its players are counted by queries
            server = self._files / "server.json"
            await eventually(lambda: bool(json.loads(server.read_text())["allocatedUUID"]))
        else:
            await poll(look, lambda seen: seen["players"]["count"] == 1)

    async def ends(self) -> dict[str, Any]:
        """Wait until the platform has ended it; returns its exit.json."""
        await self._caller.until(self.id, "TERMINATED")
        (path,) = self._files.glob("spool/**/exit.json")
        return dict(json.loads(path.read_text()))

    def self_stops(self) -> int:
        """How often the platform was asked from inside for the stop."""
        return len([each for each in self._caller.emulator.records.all("selfStop") if self.id in each["path"]])


@pytest.mark.slow  # each starts five agents
@pytest.mark.parametrize("host", ["agones", "multiplay", "playfab"])
async def test_a_game_made_for_another_host_lives_and_ends_as_a_native_one(tmp_path: Path, host: str) -> None:
    """Allocated, ready, with a player; ended by the platform in 5 s, from inside, by a crash, by silence."""
    settings: EmulatorSettings = quick(grace_seconds=5)
    async with backend(settings) as caller:
        body = {"name": "logs", "access_key_id": "", "secret_access_key": "", "bucket": "b"}
        assert (await caller.call("POST", "/v1/storage/endpoint", body | {"endpoint": tmp_path.as_uri()})).status == 200

        def life(behaviour: str, **more: str) -> Life:
            game = [str(GAMES / "made_for.py"), host, behaviour]
            return Life(caller, tmp_path / behaviour, game, AGENT_COMPAT=host, **more)

        stop = {"AGENT_STOP": f"{host}@60%,signal:SIGTERM"}
        stopped, ending = life("lives", **stop), life("ends", **stop)
        crashing, silent = life("crashes"), life("hangs", **QUICK_HEALTH)
        native = Life(caller, tmp_path / "native", [str(GAMES / "exits.py"), "3"])
        lives = [stopped, ending, crashing, native]
        if host != "multiplay":  # which has no health
            lives.append(silent)
        await asyncio.gather(*(each.begin() for each in lives))

        await stopped.plays(host)
        assert (await caller.call("DELETE", f"/v1/stop/{stopped.id}")).status == 200
        ends = dict(zip(lives, await asyncio.gather(*(each.ends() for each in lives)), strict=True))

        found = {life: (end["reason"], end["exit_code"]) for life, end in ends.items()}
        assert found[stopped] == ("platform_stop", 0)
        assert found[ending] == ("game_exited" if host == "multiplay" else "requested", 0)
        assert found[crashing] == found[native] == ("game_crashed", 3)
        assert host == "multiplay" or found[silent][0] == "heartbeat_lost"
        assert {frozenset(end) for end in ends.values()} == {frozenset(ends[native])}, "one record for all"
        assert [each.self_stops() > 0 for each in lives] == [each is not stopped for each in lives]
        told = (await caller.logs(stopped.id))["logs"]
        assert "told: " in told, "by its host's protocol, since SIGTERM would have ended it with 9"

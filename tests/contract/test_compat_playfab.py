"""PlayFab's heartbeat endpoint, as its GSDK sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.lifecycle.states import Phase
from tests.compat_fakes import Answer, Served, serving

LISTENER = "playfab"


async def beat(
    served: Served, state: str, players: Any = None, health: str = "Healthy", method: str = "PATCH", path: str = ""
) -> Answer:
    """A heartbeat as the GSDK sends it."""
    where = f"/v1/sessionHosts/{served.prepared.ids['session_host']}{path}"
    body = {
        "CurrentGameState": state,
        "CurrentGameHealth": health,
        "CurrentPlayers": None if players is None else [{"PlayerId": player} for player in players],
    }
    return await served.call(LISTENER, method, where, body)


async def test_the_configuration_says_where_everything_is(tmp_path: Path) -> None:
    """The file of GSDK_CONFIG_FILE has every field that an SDK reads, in its spelling."""
    async with serving(tmp_path, "playfab", playfab_title_id="ABCD", playfab_metadata="mode=duel") as served:
        config = json.loads(Path(served.game_env["GSDK_CONFIG_FILE"]).read_text())
        assert config["heartbeatEndpoint"] == f"localhost:{served.port(LISTENER)}"
        assert config["sessionHostId"] == served.prepared.ids["session_host"]
        assert config["gamePorts"] == {"gameport": "7777", "query": "7778"}
        assert config["buildMetadata"] == {"mode": "duel"}
        assert config["publicIpV4Address"] == config["gameServerConnectionInfo"]["publicIpV4Adress"]
        assert config["gameServerConnectionInfo"]["gamePortsConfiguration"][0] == {
            "name": "gameport",
            "serverListeningPort": 7777,
            "clientConnectionPort": 32013,
        }
        for folder in ("logFolder", "sharedContentFolder", "certificateFolder"):
            assert Path(config[folder]).is_dir()
        assert served.game_env["PF_TITLE_ID"] == "ABCD"
        assert served.game_env["PF_REGION"] == "Chicago"


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", ""), ("POST", ""), ("PATCH", "/heartbeats"), ("POST", "/heartbeats")]
)
async def test_a_game_that_stands_by_is_activated(tmp_path: Path, method: str, path: str) -> None:
    """Old and new SDKs alike: Continue, then Active with the session, then Continue."""
    async with serving(tmp_path, "playfab", match=True) as served:
        info = await served.call(
            LISTENER, "POST", f"/v1/metrics/{served.prepared.ids['session_host']}/gsdkinfo", {"Flavor": "C#"}
        )
        assert info.status == 200
        answer = await beat(served, "Initializing", method=method, path=path)
        assert answer.body == {"operation": "Continue", "nextHeartbeatIntervalMs": 1000}
        assert served.phase() is Phase.STARTING
        answer = await beat(served, "StandingBy", method=method, path=path)
        assert answer.body["operation"] == "Active"
        assert answer.body["sessionConfig"] == {
            "sessionId": "3d3bd9bd-7bd0-4f0a-9f3f-1d3b4e9a7a00",
            "sessionCookie": "duel",
            "initialPlayers": ["ada", "grace"],
            "metadata": {"ticket-ada": '{"skill": 7}', "matchId": "3d3bd9bd-7bd0-4f0a-9f3f-1d3b4e9a7a00"},
        }
        assert served.phase() is Phase.READY
        assert (await beat(served, "Active", method=method, path=path)).body["operation"] == "Continue"


async def test_players_are_our_players(tmp_path: Path) -> None:
    """Who is in the list plays; null says nothing."""
    async with serving(tmp_path, "playfab") as served:
        await beat(served, "Active", ["ada", "grace"])
        assert set(served.agent.report.ids) == {"ada", "grace"}
        await beat(served, "Active", None)
        assert served.agent.report.count == 2
        await beat(served, "Active", ["grace", "linus"])
        assert set(served.agent.report.ids) == {"grace", "linus"}
        await beat(served, "Active", [])
        assert served.agent.report.count == 0
        assert served.agent.report.players_known


async def test_unhealthy_means_something_only_after_healthy(tmp_path: Path) -> None:
    """C# says Unhealthy for as long as the game has set no callback: those are heartbeats all the same."""
    async with serving(tmp_path, "playfab") as served:
        await beat(served, "Active", health="Unhealthy")
        assert served.agent.report.heartbeats == 1
        assert served.health_limits == [60.0]
        await beat(served, "Active", health="Healthy")
        assert served.agent.report.heartbeats == 2
        await beat(served, "Active", health="Unhealthy")
        assert served.agent.report.heartbeats == 2


async def test_a_stop_reaches_the_game_as_terminate(tmp_path: Path) -> None:
    """With the answer to its next heartbeat; its own Terminating acknowledges it."""
    async with serving(tmp_path, "playfab") as served:
        await beat(served, "Active")
        assert served.compat.ask_to_stop("playfab", 5.0) == ""
        served.stop()
        assert (await beat(served, "Active")).body["operation"] == "Terminate"
        assert (await beat(served, "Terminating")).body["operation"] == "Terminate"
        assert any(name == "playfab" for name, _, _ in served.agent.requests)


async def test_a_game_that_ends_by_itself_is_not_called_a_crash(tmp_path: Path) -> None:
    """Terminating out of the blue: the game's own wish to end."""
    async with serving(tmp_path, "playfab") as served:
        await beat(served, "Active")
        await beat(served, "Terminating")
        stop = served.agent.driver.state.stop
        assert stop is not None
        assert (stop.source, stop.message, stop.ending) == ("game", "GSDK: Terminating", True)


async def test_the_end_of_the_longest_duration_is_a_maintenance(tmp_path: Path) -> None:
    """AGENT_MAX_DURATION after the first heartbeat's moment, in UTC."""
    async with serving(tmp_path, "playfab", max_duration="60m") as served:
        answer = await beat(served, "Initializing")
        assert answer.body["nextScheduledMaintenanceUtc"].endswith("Z")


async def test_a_session_survives_a_restart_of_the_agent(tmp_path: Path) -> None:
    """The id was made before the game started; that it is active is kept."""
    async with serving(tmp_path, "playfab") as served:
        session = (await beat(served, "StandingBy")).body["sessionConfig"]["sessionId"]
        await beat(served, "Active")
        saved = json.loads(json.dumps(served.compat.snapshot()))
        await served.compat.close()
        async with serving(tmp_path, "playfab", saved=saved, prepared=served.prepared) as again:
            answer = await beat(again, "Active")
            assert answer.body["operation"] == "Continue"
            assert answer.body["sessionConfig"]["sessionId"] == session


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
async def test_what_is_no_heartbeat_is_refused(tmp_path: Path, body: bytes) -> None:
    """And changes nothing."""
    async with serving(tmp_path, "playfab") as served:
        where = f"/v1/sessionHosts/{served.prepared.ids['session_host']}"
        assert (await served.call(LISTENER, "PATCH", where, body)).status == 400
        assert (await served.call(LISTENER, "PATCH", "/v1/sessionHosts/another", {})).status == 404
        assert served.agent.report.heartbeats == 0


async def test_odd_members_are_taken_as_they_can_be(tmp_path: Path) -> None:
    """Small first letters, players that are none, ids too long: nobody is lost, nothing fails."""
    async with serving(tmp_path, "playfab") as served:
        where = f"/v1/sessionHosts/{served.prepared.ids['session_host']}"
        body = {
            "currentGameState": "Active",
            "currentGameHealth": "Healthy",
            "currentPlayers": [7, {"playerId": "ada"}],
        }
        assert (await served.call(LISTENER, "PATCH", where, body)).status == 200
        assert set(served.agent.report.ids) == {"ada"}
        await beat(served, "Active", ["ada", "x" * 200])
        assert served.agent.report.count == 2

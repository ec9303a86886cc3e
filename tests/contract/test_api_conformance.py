"""HTTP and the socket are the same operations: one list of what each does, run over both."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agent.api.table import OPERATIONS
from agent.errors import AgentError
from agent.lifecycle.states import (
    ApplyStop,
    Flush,
    Flushed,
    GameExited,
    GameGone,
    Phase,
    Reason,
    Released,
    Source,
    StopSignal,
    Timer,
    TimerFired,
)
from agent.lifecycle.states import ExitStatus as Ended
from tests.api_fakes import DEPLOYMENT, GAME_PID, Agent, FakeTags, HttpCaller, SocketCaller, running
from tests.rules import default_rules

Caller: TypeAlias = HttpCaller | SocketCaller
TRANSPORTS = pytest.mark.parametrize("transport", [HttpCaller, SocketCaller], ids=["http", "socket"])
pytestmark = TRANSPORTS


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent whose game was started; it has tags and keeps files."""

    async def keep(path: str) -> str:
        if path.endswith("refused"):
            raise AgentError("cannot keep it: the store is full; empty it")
        return f"file:///store{path}"

    async with running(tmp_path, tags=FakeTags(["red"]), keep=keep) as one:
        yield one


@pytest.fixture
async def caller(agent: Agent, transport: type[Caller]) -> AsyncIterator[Caller]:
    """A client of it, over either transport."""
    async with transport(agent) as one:
        yield one


# What a call does, starting from a game that was just started: operation, params, result (or a part of it).
SIMPLE: list[tuple[str, dict[str, Any] | None, dict[str, Any]]] = [
    ("ready", None, {"phase": "ready", "ready": True}),
    ("ready", {}, {"phase": "ready", "ready": True}),
    ("health", None, {"phase": "starting", "stopping": False}),
    ("stop", None, {"reason": "requested", "message": "", "grace_seconds": 5.0, "log_storage": None}),
    (
        "stop",
        {"reason": " match\nover ", "grace_seconds": 7, "log_storage": True},
        {"message": "match over", "grace_seconds": 7.0, "log_storage": "true"},
    ),
    ("stop", {"reason": None}, {"message": ""}),
    ("stop", {"log_storage": "my-bucket", "grace_seconds": None}, {"log_storage": "my-bucket", "grace_seconds": 5.0}),
    ("status", None, {"phase": "starting", "attempt": 1, "restarts": 0, "stop": None, "exit": None, "text": ""}),
    ("deployment", None, DEPLOYMENT),
    ("players", None, {"count": 0, "capacity": None, "ids": []}),
    ("players.set", {"count": 3, "capacity": 4}, {"count": 3, "capacity": 4}),
    ("players.set", {"count": 3.0}, {"count": 3, "capacity": None}),
    ("players.set", {"capacity": 16, "count": None}, {"count": 0, "capacity": 16}),
    ("players.join", {"id": "Jürgen / 42?#%2F"}, {"count": 1, "capacity": None}),
    ("players.leave", {"id": "nobody"}, {"count": 0, "capacity": None}),
    ("metrics", {"tick_seconds": 0.016, "rounds_total": 3}, {"metrics": {"tick_seconds": 0.016, "rounds_total": 3.0}}),
    ("metrics", {"load": {"value": 1, "help": "how full"}}, {"metrics": {"load": 1.0}}),
    ("metrics", {}, {"metrics": {}}),
    ("tags.list", None, {"tags": ["red"]}),
    ("tags.add", {"name": "blue"}, {"tags": ["red", "blue"]}),
    ("tags.remove", {"name": "red"}, {"tags": []}),
    ("upload", {"path": os.path.realpath(__file__)}, {"kept_as": f"file:///store{os.path.realpath(__file__)}"}),
]


@pytest.mark.parametrize(("operation", "params", "expected"), SIMPLE)
async def test_each_operation(
    caller: Caller, operation: str, params: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    """Each operation does what the table says, with empty, missing and full input."""
    answer = await caller.call(operation, params)
    assert answer.problem is None
    assert {**answer.result, **expected} == answer.result


async def test_no_operation_is_left_out(caller: Caller) -> None:
    """Every operation that both transports have is in the list above; one needs a stop and has a test of its own."""
    tested = {name for name, _, _ in SIMPLE} | {"stop.ack"}
    assert tested == {operation.name for operation in OPERATIONS if operation.socket}


async def test_acknowledging_a_stop(caller: Caller) -> None:
    """A conflict before there is a stop; then it says how long the game has."""
    early = await caller.call("stop.ack", {"more_seconds": 1})
    assert early.problem is not None
    assert "none is under way" in early.problem["detail"]
    await caller.call("stop", {"grace_seconds": 100})
    answer = await caller.call("stop.ack", {"more_seconds": 1})
    assert answer.problem is None
    assert 0 < answer.result["kill_in_seconds"] <= 100


# Wrong input: operation, params, the field that is to blame.
WRONG: list[tuple[str, Any, str]] = [
    ("ready", {"now": True}, "now"),
    ("health", {"status": "fine"}, "status"),
    ("status", {"verbose": True}, "verbose"),
    ("stop", {"raeson": "typing error"}, "raeson"),
    ("stop", {"reason": 7}, "reason"),
    ("stop", {"grace_seconds": "soon"}, "grace_seconds"),
    ("stop", {"grace_seconds": -1}, "grace_seconds"),
    ("stop", {"grace_seconds": 3601}, "grace_seconds"),
    ("stop", {"grace_seconds": True}, "grace_seconds"),
    ("stop", {"log_storage": ""}, "log_storage"),
    ("stop", {"log_storage": "two words"}, "log_storage"),
    ("stop", {"log_storage": 1}, "log_storage"),
    ("stop", {"log_storage": "x" * 256}, "log_storage"),
    ("players.set", {}, "count"),
    ("players.set", {"count": None}, "count"),
    ("players.set", {"count": "5"}, "count"),
    ("players.set", {"count": 1.5}, "count"),
    ("players.set", {"count": True}, "count"),
    ("players.set", {"count": -1}, "count"),
    ("players.set", {"count": 10**30}, "count"),
    ("players.set", {"count": 1, "capacity": {}}, "capacity"),
    ("players.set", {"count": 1, "max": 2}, "max"),
    ("players.join", {"id": "x" * 129}, "id"),
    ("metrics", {"1st": 1}, "1st"),
    ("metrics", {"with space": 1}, "with space"),
    ("metrics", {"fine": 1, "load": "high"}, "load"),
    ("metrics", {"fine": 1, "load": True}, "load"),
    ("metrics", {"fine": 1, "load": {"help": "no value"}}, "load"),
    ("metrics", {"fine": 1, "load": {"value": 1, "unit": "s"}}, "load.unit"),
    ("metrics", {"fine": 1, "rounds_total": -1}, "rounds_total"),
    ("metrics", {f"m{number}": 1 for number in range(201)}, "m200"),
    ("tags.add", {"name": "x" * 41}, "name"),
    ("upload", None, "path"),
    ("upload", {"path": "relative/file"}, "path"),
    ("upload", {"path": "/no/such/file"}, "path"),
    ("upload", {"path": "/tmp"}, "path"),
    ("upload", {"path": "/dev/zero"}, "path"),
    ("upload", {"path": "/proc/self/environ"}, "path"),
    ("upload", {"path": "/etc/../proc/self/environ"}, "path"),
    ("upload", {"path": "/etc/passwd\0"}, "path"),
]


@pytest.mark.parametrize(("operation", "params", "field"), WRONG)
async def test_wrong_input_is_named_and_changes_nothing(
    agent: Agent, caller: Caller, operation: str, params: Any, field: str
) -> None:
    """What is wrong is named with what was got and what it takes, in a sentence as well, and nothing has changed."""
    before = agent.facts
    answer = await caller.call(operation, params)
    assert answer.problem is not None
    assert answer.problem["status"] == 400
    assert answer.problem["detail"].startswith("cannot ")
    errors = {error["field"]: error for error in answer.problem["errors"]}
    assert field in errors
    assert set(errors[field]) == {"field", "got", "takes"}
    assert errors[field]["takes"]
    assert agent.facts == before
    assert agent.effects == []


async def test_every_wrong_field_is_named_at_once(caller: Caller) -> None:
    """Two mistakes are two entries."""
    answer = await caller.call("stop", {"reason": 1, "grace_seconds": "x"})
    assert [error["field"] for error in answer.problem["errors"]] == ["reason", "grace_seconds"]


async def test_ready_twice_and_too_late(agent: Agent, caller: Caller) -> None:
    """A second ready keeps the first one's time; during a stop it is no error and undoes nothing."""
    first = await caller.call("ready")
    second = await caller.call("ready")
    assert first.result == second.result
    await caller.call("stop")
    late = await caller.call("ready")
    assert late.result == {"phase": "stopping", "ready": False, "ready_at": first.result["ready_at"]}
    assert agent.driver.state.phase is Phase.STOPPING


async def test_heartbeats_are_counted(agent: Agent, caller: Caller) -> None:
    """The status says how many there were and how old the last one is."""
    for _ in range(3):
        await caller.call("health")
    heart = (await caller.call("status")).result["heartbeat"]
    assert heart["count"] == 3
    assert 0 <= heart["age_seconds"] < 60
    assert abs((datetime.fromisoformat(heart["last_at"]) - datetime.now(UTC)).total_seconds()) < 60


async def test_a_heartbeat_tells_of_the_stop(caller: Caller) -> None:
    """A game that does nothing but send heartbeats learns from the answer that it is to end."""
    await caller.call("stop")
    assert (await caller.call("health")).result == {"phase": "stopping", "stopping": True}


async def test_a_hundred_stops_at_once_are_one(agent: Agent, transport: type[Caller]) -> None:
    """A hundred requests, each with its own reason, on connections of their own: one stop, one answer for all."""

    async def ask(number: int) -> Any:
        async with transport(agent) as one:
            return (await one.call("stop", {"reason": f"number {number}", "grace_seconds": number})).result

    answers = await asyncio.gather(*(ask(number) for number in range(100)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["message"].startswith("number ")
    assert [type(effect) for effect in agent.effects].count(ApplyStop) == 1
    async with HttpCaller(agent) as one, SocketCaller(agent) as other:
        assert (await one.call("stop")).result == (await other.call("stop")).result == answers[0]


async def test_the_stop_becomes_the_state(agent: Agent, caller: Caller) -> None:
    """What was asked for is in the lifecycle's request, and the answer has its plan and deadline."""
    answer = (await caller.call("stop", {"reason": "match over", "grace_seconds": 30, "log_storage": False})).result
    request = agent.driver.state.stop
    assert request is not None
    assert (request.reason, request.message) == (Reason.REQUESTED, "match over")
    assert (request.grace_seconds, request.log_storage) == (30.0, "false")
    steps = {step["step"]: step for step in answer["plan"]}
    assert steps["kill"]["ends"] == 30.0
    length = datetime.fromisoformat(answer["deadline"]) - datetime.fromisoformat(answer["requested_at"])
    assert length.total_seconds() == pytest.approx(steps["ship"]["ends"], abs=0.001)


async def test_who_asked(tmp_path: Path, transport: type[Caller]) -> None:
    """HTTP is the game; the socket is the game where the game's processes connect, else an operator."""
    async with running(tmp_path) as one, transport(one) as caller:
        source = (await caller.call("stop")).result["source"]
        assert source == ("game" if transport is HttpCaller else "operator")
    (tmp_path / "s").unlink(missing_ok=True)
    async with running(tmp_path, game_connects=True) as one, transport(one) as caller:
        assert (await caller.call("stop")).result["source"] == Source.GAME


async def test_the_platform_has_told_already(agent: Agent, caller: Caller) -> None:
    """A stop request after SIGTERM is answered with the platform's stop, in the same shape."""
    agent.driver.post(StopSignal(agent.driver.now()))
    answer = (await caller.call("stop", {"reason": "match over"})).result
    assert (answer["source"], answer["reason"], answer["message"]) == ("platform", "platform_stop", "")
    assert answer["plan"][-1]["ends"] <= 5.0


async def test_a_stop_of_a_game_that_has_ended(tmp_path: Path, transport: type[Caller]) -> None:
    """When the game ended by itself and the deployment is being stopped, a stop request is told so, every time."""
    async with running(tmp_path, rules=default_rules(can_self_stop=True)) as agent, transport(agent) as caller:
        post, now = agent.driver.post, agent.driver.now()
        post(GameExited(now, Ended(code=3)))
        answers = [(await caller.call("stop")).result]
        post(GameGone(now))
        post(Flushed(now))
        assert agent.driver.state.phase is Phase.RELEASING
        post(Released(now, "confirmed"))
        answers.append((await caller.call("stop")).result)
        for answer in answers:
            assert answer["source"] == "game"
            assert answer["reason"] == "game_crashed"
        status = (await caller.call("status")).result
        assert status["exit"] == {"code": 3, "signal": None, "core_dumped": False, "exit_code": 3}
        assert (await caller.call("ready")).result["ready"] is False


async def test_a_stop_between_two_attempts(tmp_path: Path, transport: type[Caller]) -> None:
    """While a crashed game waits to be started again a stop request ends the deployment."""
    async with running(tmp_path, rules=default_rules(on_crash="restart")) as agent, transport(agent) as caller:
        post, now = agent.driver.post, agent.driver.now()
        for event in (GameExited(now, Ended(signal=11)), GameGone(now), Flushed(now)):
            post(event)
        status = (await caller.call("status")).result
        assert (status["phase"], status["stop"]) == ("restarting", None)
        answer = (await caller.call("stop", {"reason": "enough"})).result
        assert answer["message"] == "enough"
        assert agent.driver.state.phase is Phase.EXITED


async def test_a_stop_while_a_crash_is_looked_into(tmp_path: Path, transport: type[Caller]) -> None:
    """Between a crash and the restart an accepted stop is kept, and a refused one says so."""
    async with running(tmp_path, rules=default_rules(on_crash="restart")) as agent, transport(agent) as caller:
        post, now = agent.driver.post, agent.driver.now()
        post(GameExited(now, Ended(signal=11)))
        post(GameGone(now))
        answer = await caller.call("stop")
        post(Flushed(now))
        if answer.problem is not None:
            assert answer.problem["status"] == 409
            assert "ask again" in answer.problem["detail"]
            answer = await caller.call("stop")
        assert answer.result["reason"] == "requested"
        assert agent.driver.state.phase is Phase.EXITED


async def test_a_restart_forgets_what_the_game_said(tmp_path: Path, transport: type[Caller]) -> None:
    """Players, heartbeats and figures of the attempt that crashed do not count for the next one."""
    async with running(tmp_path, rules=default_rules(on_crash="restart")) as agent, transport(agent) as caller:
        await caller.call("players.set", {"count": 3, "capacity": 4})
        await caller.call("health")
        await caller.call("metrics", {"load": 1})
        post, now = agent.driver.post, agent.driver.now()
        for event in (GameExited(now, Ended(code=1)), GameGone(now), Flushed(now)):
            post(event)
        assert (await caller.call("status")).result["players"]["count"] == 3, "what it said last is still evidence"
        post(TimerFired(now + 60, Timer.BACKOFF))
        status = (await caller.call("status")).result
        assert (status["phase"], status["attempt"], status["restarts"]) == ("starting", 2, 1)
        assert status["players"] == {"count": 0, "capacity": None, "expected": None, "ids": []}
        assert status["heartbeat"]["count"] == 0
        assert status["metrics"] == {}


async def test_players_by_name_and_by_number(agent: Agent, caller: Caller) -> None:
    """A number that was set goes on with names; joins and leaves count once; the full server says no."""
    assert (await caller.call("players.set", {"count": 2, "capacity": 4})).result == {"count": 2, "capacity": 4}
    for _ in range(2):
        assert (await caller.call("players.join", {"id": "a"})).result["count"] == 3
    assert (await caller.call("players.join", {"id": "b"})).result["count"] == 4
    full = await caller.call("players.join", {"id": "c"})
    assert full.problem["status"] == 409
    assert full.problem["errors"] == [{"field": "id", "got": "c", "takes": "at most 4 players"}]
    for params, field in (
        ({"capacity": 3}, "capacity"),
        ({"count": 5}, "count"),
        ({"count": 9, "capacity": 8}, "count"),
    ):
        refused = await caller.call("players.set", params)
        assert (refused.problem["status"], refused.problem["errors"][0]["field"]) == (409, field)
    listed = (await caller.call("players")).result
    assert [player["id"] for player in listed["ids"]] == ["a", "b"]
    for _ in range(2):
        assert (await caller.call("players.leave", {"id": "a"})).result["count"] == 3
    assert (await caller.call("players.set", {"count": 0})).result == {"count": 0, "capacity": 4}
    assert (await caller.call("status")).result["players"] == {"count": 0, "capacity": 4, "expected": None, "ids": []}


async def test_the_last_player_ends_the_drain(tmp_path: Path, transport: type[Caller]) -> None:
    """While players may finish, the last one to leave ends the wait; a game without players does not wait at all."""
    async with running(tmp_path, rules=default_rules(grace=60, drain=20)) as agent, transport(agent) as caller:
        await caller.call("players.join", {"id": "a"})
        await caller.call("stop")
        status = (await caller.call("status")).result
        assert status["phase"] == "draining"
        assert 0 < status["stop"]["game_seconds_left"] <= 60
        await caller.call("players.leave", {"id": "a"})
        assert (await caller.call("status")).result["phase"] == "stopping"


async def test_nobody_to_wait_for(tmp_path: Path, transport: type[Caller]) -> None:
    """A game that said that nobody plays is not drained; of one that never spoke of players nobody knows."""
    async with running(tmp_path, rules=default_rules(grace=60, drain=20)) as agent, transport(agent) as caller:
        await caller.call("players.set", {"count": 0})
        await caller.call("stop")
        assert agent.driver.state.phase is Phase.STOPPING
    (tmp_path / "s").unlink(missing_ok=True)
    async with running(tmp_path, rules=default_rules(grace=60, drain=20)) as agent, transport(agent) as caller:
        await caller.call("stop")
        assert agent.driver.state.phase is Phase.DRAINING


async def test_status_through_a_whole_life(tmp_path: Path, transport: type[Caller]) -> None:
    """Phase, process, times, stop and exit are what they should be at every station."""
    async with running(tmp_path, rules=default_rules(can_self_stop=True)) as agent, transport(agent) as caller:
        status = (await caller.call("status")).result
        assert status["game"]["pid"] == GAME_PID
        assert status["game"]["uptime_seconds"] >= 0
        assert (status["ready"], status["ready_at"]) == (False, None)
        await caller.call("ready")
        agent.report.set_text("map de_dust", agent.driver.now())
        status = (await caller.call("status")).result
        assert (status["ready"], status["text"]) == (True, "map de_dust")
        assert abs((datetime.fromisoformat(status["ready_at"]) - datetime.now(UTC)).total_seconds()) < 60
        await caller.call("stop", {"reason": "match over"})
        status = (await caller.call("status")).result
        assert (status["ready"], status["reason"], status["stop"]["message"]) == (False, "requested", "match over")
        assert 0 < status["stop"]["game_seconds_left"] < status["stop"]["seconds_left"]
        post, now = agent.driver.post, agent.driver.now()
        post(GameExited(now, Ended(signal=15)))
        post(GameGone(now))
        assert any(isinstance(effect, Flush) for effect in agent.effects)
        status = (await caller.call("status")).result
        assert status["phase"] == "flushing"
        assert status["exit"] == {"code": None, "signal": 15, "core_dumped": False, "exit_code": 143}
        assert status["game"]["uptime_seconds"] is None


async def test_without_a_way_to_tags_and_files(tmp_path: Path, transport: type[Caller]) -> None:
    """Where tags cannot be reached and files cannot be kept, the answer says so and what is missing."""
    async with running(tmp_path) as agent, transport(agent) as caller:
        for operation, params in (("tags.list", None), ("tags.add", {"name": "a"}), ("tags.remove", {"name": "a"})):
            answer = await caller.call(operation, params)
            assert answer.problem["status"] == 503
            assert answer.problem["detail"].startswith("cannot ")
        answer = await caller.call("upload", {"path": os.path.realpath(__file__)})
        assert answer.problem["status"] == 503
        assert "AGENT_LOG_URL" in answer.problem["detail"]


async def test_what_the_platform_says_is_passed_on(tmp_path: Path, transport: type[Caller]) -> None:
    """A tag that the platform refuses is a problem with the platform's words."""
    tags = FakeTags(broken="cannot add tag: the platform is away; try later")
    async with running(tmp_path, tags=tags) as agent, transport(agent) as caller:
        answer = await caller.call("tags.add", {"name": "a"})
        assert answer.problem["status"] == 502
        assert answer.problem["detail"] == "cannot add tag: the platform is away; try later"


async def test_files_that_cannot_be_kept(tmp_path: Path, caller: Caller) -> None:
    """A pipe, a socket and a link to either are no files; a link to a file is; a store that refuses says why."""
    file, pipe, link, refused = (tmp_path / name for name in ("file", "pipe", "link", "refused"))
    file.write_bytes(b"12345")
    refused.write_bytes(b"")
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "l"))
        for path in (pipe, tmp_path / "l"):
            assert (await caller.call("upload", {"path": str(path)})).problem["status"] == 400
    link.symlink_to(pipe)
    assert (await caller.call("upload", {"path": str(link)})).problem["status"] == 400
    link.unlink()
    link.symlink_to(file)
    answer = await caller.call("upload", {"path": str(link)})
    real = os.path.realpath(file)
    assert answer.result == {"path": real, "bytes": 5, "kept_as": f"file:///store{real}"}
    answer = await caller.call("upload", {"path": str(refused)})
    assert (answer.problem["status"], answer.problem["detail"]) == (502, "cannot keep it: the store is full; empty it")


async def test_a_fault_in_the_agent_is_no_leak(
    agent: Agent, caller: Caller, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An exception nobody expected is a problem that says where to look, and goes on to the log, not to the client."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the inside of the agent")

    monkeypatch.setattr(agent.operations.view, "status", fail)
    answer = await caller.call("status")
    assert answer.problem["status"] == 500
    assert "inside" not in answer.problem["detail"]
    assert "the inside of the agent" in capfd.readouterr().err
    assert (await caller.call("health")).problem is None


async def test_each_call_is_told(agent: Agent, caller: Caller) -> None:
    """Whoever counts requests hears of each: transport, operation and how it went."""
    await caller.call("health")
    await caller.call("players.set", {"count": "x"})
    await caller.call("tags.list")
    fine, wrong = ("200", "400") if caller.name == "http" else ("ok", "-32602")
    assert agent.requests == [
        (caller.name, "health", fine),
        (caller.name, "players.set", wrong),
        (caller.name, "tags.list", fine),
    ]

"""The commands that speak to a running agent, as a shell calls them."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.lifecycle.states import ExitStatus as Ended
from agent.lifecycle.states import GameExited, GameGone, Phase, StopSignal
from tests.api_fakes import DEADLINE, Agent, FakeTags, eventually, running


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Shell:
    """Calls `arbitrium-agent` with an environment of its own."""

    def __init__(self, **environment: str) -> None:
        """Takes variables beside PATH."""
        self._environment = {"PATH": os.environ["PATH"], **environment}

    @asynccontextmanager
    async def start(self, *arguments: str, cwd: Path | None = None, then: str = "") -> AsyncIterator[Process]:
        """Starts a command (`then` is what a shell puts behind it) and sees to its end."""
        pipe = asyncio.subprocess.PIPE
        command = shlex.join([sys.executable, "-m", "agent", *arguments]) + then
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"exec {command}" if not then else command),
            env=self._environment,
            stdout=pipe,
            stderr=pipe,
            cwd=cwd,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()

    async def __call__(self, *arguments: str, cwd: Path | None = None) -> Done:
        """Runs a command to its end."""
        async with asyncio.timeout(DEADLINE * 3), self.start(*arguments, cwd=cwd) as process:
            out, err = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in err
        return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent whose game was started; it has tags and keeps files."""

    async def keep(path: str) -> str:
        return f"file:///store{path}"

    async with running(tmp_path, tags=FakeTags(["red"]), keep=keep, game_connects=True) as one:
        yield one


@pytest.fixture
def shell(agent: Agent) -> Shell:
    """A shell inside the container."""
    return Shell(AGENT_SOCKET=agent.socket_path)


async def test_a_start_script(agent: Agent, shell: Shell) -> None:
    """What a script of a game does from ready to stop, with what it says to a person."""
    assert (await shell("healthcheck", "--ready")).code == 1
    ready = await shell("ready")
    assert (ready.code, ready.out) == (0, "players may come\n")
    assert agent.driver.state.phase is Phase.READY
    assert (await shell("health")).out == "heard; the deployment is ready\n"
    assert (await shell("players", "set", "3", "--capacity", "16")).out == "3 of 16 players\n"
    assert (await shell("players", "join", "Jürgen / 42")).out == "4 of 16 players\n"
    assert (await shell("players")).out == "4 of 16 players\nJürgen / 42\n"
    assert (await shell("players", "leave", "Jürgen / 42")).out == "3 of 16 players\n"
    assert (await shell("players", "--count", "0")).out == "0 of 16 players\n"
    assert (await shell("healthcheck")).code == 0
    assert (await shell("healthcheck", "--ready")).code == 0
    status = await shell("status")
    assert status.out.splitlines()[0].split() == ["phase", "ready", "(no", "restarts)"]
    assert json.loads((await shell("deployment")).out)["request_id"] == "23c01225b99d"
    stop = await shell("stop", "--reason", "match over", "--grace-seconds", "7", "--log-storage", "false")
    assert (stop.code, stop.out) == (0, "stopping (asked for by the game, requested: match over)\n")
    request = agent.driver.state.stop
    assert request is not None
    assert (request.message, request.grace_seconds, request.log_storage) == ("match over", 7.0, "false")
    late = await shell("ready")
    assert (late.code, late.out) == (0, "too late: the deployment is stopping\n")
    assert (await shell("healthcheck", "--ready")).err == (
        "arbitrium-agent: cannot call it healthy: the deployment is stopping\n"
    )


async def test_tags_and_files(agent: Agent, shell: Shell, tmp_path: Path) -> None:
    """Tags are listed one a line; a file may be named relative to where the shell is."""
    assert (await shell("tags")).out == "red\n"
    assert (await shell("tags", "add", "blue")).out == "red\nblue\n"
    assert (await shell("tags", "remove", "red")).out == "blue\n"
    assert json.loads((await shell("tags", "--json", "list")).out) == {"tags": ["blue"]}
    (tmp_path / "replay").write_bytes(b"12345")
    real = os.path.realpath(tmp_path / "replay")
    kept = await shell("upload", "replay", cwd=tmp_path)
    assert (kept.code, kept.out) == (0, f"{real} (5 bytes) is kept as file:///store{real}\n")
    refused = await shell("upload", "nothing", cwd=tmp_path)
    assert refused.code == 1
    assert refused.err.startswith("arbitrium-agent: cannot ")


@pytest.mark.parametrize("command", ["ready", "health", "status", "deployment", "players", "stop"])
async def test_json(shell: Shell, command: str) -> None:
    """With --json the answer is that of the socket, on one line."""
    done = await shell(command, "--json")
    assert done.code == 0
    assert done.out.count("\n") == 1
    assert isinstance(json.loads(done.out), dict)


async def test_what_the_agent_refuses(agent: Agent, shell: Shell) -> None:
    """Exit code 1, and the agent's own sentence with the field in it."""
    done = await shell("players", "set", "5", "--capacity", "4")
    assert done.code == 1
    assert done.err == "arbitrium-agent: cannot set players: count 5 is more than the capacity, 4\n"
    assert (await shell("players", "set")).code == 1
    assert (await shell("stop", "--grace-seconds", "-1")).code == 1
    assert agent.driver.state.phase is Phase.STARTING


@pytest.mark.parametrize(
    "arguments", [("stop", "--grace-seconds", "soon"), ("players", "set", "many"), ("upload",), ("ready", "now")]
)
async def test_a_wrong_command_line(shell: Shell, arguments: tuple[str, ...]) -> None:
    """Exit code 2 and the usage."""
    done = await shell(*arguments)
    assert done.code == 2
    assert "usage:" in done.err


async def test_events(agent: Agent, shell: Shell) -> None:
    """Prints the present state and each event as it comes, and ends with the agent."""
    async with asyncio.timeout(DEADLINE), shell.start("events") as process:
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().split(maxsplit=1)[1] == "state   starting\n"
        assert (await shell("ready")).code == 0
        assert (await process.stdout.readline()).decode().split(maxsplit=1)[1] == "state   ready (was starting)\n"
        agent.driver.post(StopSignal(agent.driver.now()))
        assert "asked for by the platform" in (await process.stdout.readline()).decode()
        agent.events.close()
        await agent.rpc.close()
        assert await process.wait() == 0
        assert b"stopping" in await process.stdout.read()
        assert process.stderr is not None
        assert await process.stderr.read() == b""


async def test_events_as_json_into_a_pipe_that_closes(agent: Agent, shell: Shell) -> None:
    """`events --json | head -1` prints one event and ends without a complaint at the next one."""
    async with asyncio.timeout(DEADLINE), shell.start("events", "--json", then=" | head -1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        event = json.loads(await process.stdout.readline())
        assert (event["type"], event["data"]["phase"]) == ("state", "starting")
        await eventually(lambda: agent.events.subscribers == 1, "the command listens")
        await shell("ready")
        assert await process.wait() == 0
        assert await process.stdout.read() == b""
        assert await process.stderr.read() == b""


async def test_waiting_for_the_stop(agent: Agent, shell: Shell) -> None:
    """`stop --wait` says at once that it is accepted and returns when game and logs are taken care of."""
    async with asyncio.timeout(DEADLINE), shell.start("stop", "--wait", "--reason", "over") as process:
        assert process.stdout is not None
        assert b"over" in await process.stdout.readline()
        now = agent.driver.now()
        agent.driver.post(GameExited(now, Ended(code=0)))
        agent.driver.post(GameGone(now))
        assert process.returncode is None
        agent.events.close()
        await agent.rpc.close()
        assert await process.wait() == 0


class TestNoAgent:
    """When nobody answers."""

    @pytest.mark.parametrize(
        "command", ["ready", "health", "stop", "status", "deployment", "players", "events", "tags", "upload x"]
    )
    async def test_no_socket(self, tmp_path: Path, command: str) -> None:
        """Exit code 2 and a sentence that says where it looked and what to do."""
        done = await Shell(AGENT_SOCKET=str(tmp_path / "none"))(*command.split())
        assert done.code == 2
        assert done.err.startswith(f"arbitrium-agent: cannot reach the agent: {tmp_path}/none: no socket there; ")

    async def test_healthcheck_knows_zero_and_one_only(self, tmp_path: Path) -> None:
        """Docker reserves 2."""
        assert (await Shell(AGENT_SOCKET=str(tmp_path / "none"))("healthcheck")).code == 1

    async def test_a_socket_that_its_agent_left_behind(self, tmp_path: Path) -> None:
        """Is told from one that is not there."""
        path = tmp_path / "s"
        with closing(socket.socket(socket.AF_UNIX)) as left:
            left.bind(str(path))
        done = await Shell(AGENT_SOCKET_PATH=str(path))("status")
        assert (done.code, "no agent listens any more" in done.err) == (2, True)

    async def test_a_socket_that_is_off(self) -> None:
        """Says that it is off."""
        done = await Shell(AGENT_SOCKET_PATH="off")("status")
        assert (done.code, "off" in done.err) == (2, True)

    async def test_something_else_at_the_socket(self, tmp_path: Path) -> None:
        """What answers, but not like an agent, is no agent; nor is what never answers healthy."""

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        for number, handler in enumerate((answer, hang)):
            path = str(tmp_path / f"s{number}")
            server = await asyncio.start_unix_server(handler, path)
            async with server:
                done = await Shell(AGENT_SOCKET=path)("healthcheck", "--timeout", "0.2")
                assert done.code == 1
                assert "cannot reach the agent" in done.err

    async def test_health_without_a_socket(self, agent: Agent) -> None:
        """Where no socket could be made, the health check asks the port."""
        url = f"http://127.0.0.1:{agent.port}"
        nowhere = "off"
        assert (await Shell(AGENT_SOCKET_PATH=nowhere, AGENT_URL=url)("healthcheck")).code == 0
        assert (await Shell(AGENT_SOCKET_PATH=nowhere, AGENT_CONTROL_PORT=str(agent.port))("healthcheck")).code == 0
        assert (await Shell(AGENT_SOCKET_PATH=nowhere, AGENT_URL=url)("healthcheck", "--ready")).code == 1

    async def test_another_user(self, tmp_path: Path) -> None:
        """Who may not use the socket is told so by the agent."""
        async with running(tmp_path, users=frozenset({54321})) as agent:
            done = await Shell(AGENT_SOCKET=agent.socket_path)("status")
        assert (done.code, f"cannot answer user {os.geteuid()}" in done.err) == (1, True)


def test_only_the_standard_library() -> None:
    """The commands import neither pydantic nor aiohttp nor asyncio: scripts call them in loops."""
    program = (
        "import sys, agent.api.cli\n"
        "slow = {'pydantic', 'aiohttp', 'asyncio', 'dataclasses', 'inspect', 'http'} & set(sys.modules)\n"
        "sys.exit(f'imported: {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

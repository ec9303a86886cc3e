"""The steps of the demo. Each step must succeed, or the demo fails and says which one did not."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import os
import shlex
import socket
import sys
from typing import Any

import aiohttp

from agent.demo.screen import Screen
from agent.demo.watch import Calls, Progress, Spectator, follow_agent, wait_for_socket
from agent.edgegap import models
from agent.edgegap.client import EdgegapClient
from agent.emulator.container import tagged
from agent.emulator.deployment import Deployment
from agent.emulator.server import Emulator
from agent.emulator.settings import EmulatorSettings
from agent.errors import AgentError

APPLICATION, VERSION, STORAGE = "udp-game", "1.0", "demo-logs"
GOAL = 20
LONGEST_MATCH = 12
# Name, seconds after the game is ready at which it joins, and how long it plays (None: to the end).
BOTS = (("ada", 0.0, None), ("grace", 0.6, None), ("linus", 1.2, 2.2), ("edsger", 2.0, None))
_LISTENERS = ("AGONES_HTTP", "AGONES_GRPC", "MULTIPLAY", "PLAYFAB")
STEP_SECONDS = 15.0  # how long any one step may take: many times of what it does take
TAIL_LINES = 15


class Story:
    """One demo.

    Args:
        directory: where everything that is written goes; empty.
        game: the directory with the package `udp_game`.
        screen: where it is shown.
        host: agones, multiplay or playfab, where the game is one made for it.
    """

    def __init__(self, directory: str, game: str, screen: Screen, host: str | None = None) -> None:
        """Nothing happens yet."""
        self._directory = directory
        self._game = game
        self._screen = screen
        self._host = host
        self._progress = Progress()
        self._platform: EdgegapClient
        self._emulator: Emulator
        self._calls: Calls

    async def play(self) -> None:
        """From the first call to the last process.

        Raises:
            AgentError: what did not come about; several of them, or one of several tasks, in an `ExceptionGroup`.
        """
        async with Emulator(EmulatorSettings(directory=self._directory)) as self._emulator:
            self._say("platform", f"the emulator listens on {self._emulator.url}")
            self._calls = Calls(self._emulator.url, self._screen)
            async with EdgegapClient(self._emulator.token, self._emulator.url) as self._platform:
                await self._create()
                deployment = await self._deploy()
                try:
                    async with asyncio.TaskGroup() as group:
                        await self._live(deployment, group)
                except Exception:
                    await self._say_tail(deployment)
                    raise
        self._check(deployment)

    def _say(self, who: str, what: str) -> None:
        self._screen.say(who, what)

    # The steps -------------------------------------------------------------------------------------------------------

    async def _create(self) -> None:
        """The storage, the application and the version, as a build pipeline would make them."""
        await self._platform.create_storage(
            models.StorageCreate(
                name=STORAGE,
                access_key_id="none",
                secret_access_key="none",  # noqa: S106 - a directory asks for no key
                endpoint=f"file://{self._directory}",
                bucket="platform",
                output_format="TEXT",
            )
        )
        await self._platform.create_application(models.Application(name=APPLICATION))
        await self._platform.create_version(APPLICATION, self._version())

    def _version(self) -> models.Version:
        python = sys.executable
        # In a container this is ENTRYPOINT ["arbitrium-agent", "run", "--"] and the image's own CMD.
        command = [python, "-m", "agent", "run", "--", python, "-m", "udp_game"]
        variables = {
            "PYTHONPATH": self._game,
            "MATCH_GOAL": str(GOAL),
            "MATCH_SECONDS": str(LONGEST_MATCH),
            "MATCH_RESULT_FILE": os.path.join(self._directory, "match-result.json"),
            "AGENT_APP_NAME": APPLICATION,
            "AGENT_APP_VERSION": VERSION,
            "AGENT_GRACE_SECONDS": "5",
            "AGENT_LOG_URL": f"file://{self._directory}/logs",
            "AGENT_SPOOL_DIR": os.path.join(self._directory, "spool"),
            "AGENT_SOCKET_PATH": self._socket,
            # Other agents may run on this machine; nobody else has to know these two.
            "AGENT_CONTROL_PORT": "0",
            "AGENT_METRICS_PORT": "0",
            "AGENT_METRICS_HOST": "127.0.0.1",
        }
        if self._host is not None:
            variables |= {
                "MATCH_HOST": self._host,
                "AGENT_COMPAT": self._host,
                "AGENT_STOP": f"{self._host}@60%,signal:SIGTERM",
                "HOME": self._directory,  # where server.json is written
                **{f"AGENT_{listener}_PORT": "0" for listener in _LISTENERS},
            }
        ports = [models.VersionPort(port=_free_udp_port(), protocol="UDP", to_check=False, name="gameport")]
        if self._host == "multiplay":
            # Nobody reports players to Multiplay: they are asked for on a port of their own.
            query = _free_udp_port()
            ports.append(models.VersionPort(port=query, protocol="UDP", to_check=False, name="query"))
            variables |= {
                "AGENT_PLAYERS_FROM": f"query:sqp://127.0.0.1:{query}",
                "AGENT_PLAYERS_INTERVAL": "500ms",
            }
        return models.Version(
            name=VERSION,
            req_cpu=1024,
            req_memory=1024,
            docker_repository="registry.example",
            docker_image="udp-game",
            docker_tag="1.0",
            restart_policy="always",
            termination_grace_period_seconds=5,
            ports=ports,
            envs=[models.Variable(key=name, value=value) for name, value in variables.items()],
            endpoint_storage=STORAGE,
            command=shlex.join(command),
        )

    @property
    def _socket(self) -> str:
        return os.path.join(self._directory, "agent.sock")

    async def _deploy(self) -> Deployment:
        accepted = await self._platform.deploy(
            models.DeploymentCreate(
                application=APPLICATION,
                version=VERSION,
                users=[models.User.from_coordinates(45.5, -73.6)],
                tags=["demo"],
            )
        )
        await self._calls.show()
        deployment = self._emulator.platform.deployment(accepted.request_id)
        self._on_deployment(deployment)
        self._emulator.platform.watch(self._on_deployment)
        return deployment

    async def _live(self, deployment: Deployment, group: asyncio.TaskGroup) -> None:
        """The deployment's life, from ready to terminated. What goes on beside it belongs to `group`."""
        progress = self._progress
        showing = group.create_task(self._calls.follow(), name="calls")
        status = await self._platform.wait_until_ready(deployment.id, STEP_SECONDS)
        port = status.ports["gameport"].external
        assert port is not None, "the emulator maps every port"
        self._screen.scene.address = f"{status.public_ip}:{port}"
        await wait_for_socket(self._socket, STEP_SECONDS)
        following = group.create_task(follow_agent(self._socket, self._screen, progress), name="agent")
        await progress.until("see the game ready", lambda: "ready" in self._screen.scene.phases, STEP_SECONDS)
        await self._play_match(status.public_ip, port, group)
        await following
        await self._platform.wait_until_terminated(deployment.id, STEP_SECONDS)
        showing.cancel()
        await self._calls.show()

    async def _play_match(self, host: str, port: int, group: asyncio.TaskGroup) -> None:
        """Players come and go until one has won; then the game asks for the stop itself."""
        progress = self._progress
        self._screen.scene.goal = GOAL
        spectator = await Spectator.open(host, port, self._screen, progress)
        watching = group.create_task(spectator.watch(), name="spectator")
        for number, (name, joins_after, plays) in enumerate(BOTS):
            before = BOTS[number - 1][1] if number else 0.0
            await asyncio.sleep(joins_after - before)
            if progress.over is None:
                group.create_task(self._play_as(name, host, port, plays), name=f"bot {name}")
        await self._show_metrics()
        await progress.until("see the end of the match", lambda: progress.over is not None, LONGEST_MATCH + 5)
        watching.cancel()
        assert progress.over is not None, "just waited for"
        self._say("game", f"the match is over: {progress.over['winner'] or 'nobody'} wins")

    async def _play_as(self, name: str, host: str, port: int, plays: float | None) -> None:
        """Runs one bot to its end.

        Raises:
            AgentError: it could not play.
        """
        command = ["-m", "udp_game.bot", "--host", host, "--port", str(port), "--name", name, "--seed", name]
        bot = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *([] if plays is None else ["--seconds", str(plays)]),
            env={**os.environ, "PYTHONPATH": self._game},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, complaint = await bot.communicate()
        finally:
            if bot.returncode is None:
                bot.kill()
                await bot.wait()
        if bot.returncode:
            raise AgentError(f"cannot play on: the bot {complaint.decode(errors='replace').strip()}")

    async def _show_metrics(self) -> None:
        """What Prometheus would read now, in one line."""
        from agent.api.client import AgentClient  # noqa: PLC0415 - likewise

        def ask() -> str:
            with AgentClient(self._socket) as agent:
                urls = agent.call("status")["urls"]
            assert isinstance(urls, dict), "the status has them"
            return str(urls["metrics"])

        async with aiohttp.ClientSession() as session, session.get(await asyncio.to_thread(ask)) as answer:
            answer.raise_for_status()
            text = await answer.text()
        total: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                total[name] = total.get(name, 0.0) + float(value)
        cpu, memory = total["arbitrium_game_cpu_seconds_total"], total["arbitrium_game_resident_memory_bytes"] / 1e6
        self._say(
            "metrics",
            f"game: {cpu:.2f} s of CPU, {memory:.1f} MB, {total.get('arbitrium_players', 0):.0f} players; "
            f"agent: {total['arbitrium_agent_requests_total']:.0f} requests, "
            f"{total.get('arbitrium_heartbeats_total', 0):.0f} heartbeats",
        )

    def _on_deployment(self, deployment: Deployment) -> None:
        status = deployment.status.value
        if status != self._screen.scene.platform:
            self._screen.scene.platform = status
            by = {"self": ", because the deployment asked for it itself"}.get(
                deployment.stop_request.by if deployment.stop_request else "", ""
            )
            self._say("platform", f"{deployment.id} is {status}{by if status == 'TERMINATING' else ''}")

    # The end ---------------------------------------------------------------------------------------------------------

    async def _say_tail(self, deployment: Deployment) -> None:
        """What the game and its agent said last; where the deployment has ended, the platform has it."""
        text = deployment.container_log.text().decode(errors="replace")
        if not text:
            with contextlib.suppress(AgentError):
                text = (await self._platform.get_logs(deployment.id)).logs or ""
        for line in text.splitlines()[-TAIL_LINES:]:
            self._say("game", f"| {line}")

    def _check(self, deployment: Deployment) -> None:
        """Looks at what is left, and prints where it lies.

        Raises:
            AgentError: something is not as it should be.
        """
        left = tagged(f"ARBITRIUM_DELETE_TOKEN={deployment.delete_token}")
        if left:
            raise AgentError(f"cannot end: processes of the deployment are left: {', '.join(map(str, left))}")
        story_file = self._found("logs/**/exit.json")
        with open(story_file, encoding="utf-8") as file:
            story: dict[str, Any] = json.load(file)
        # A game made for Multiplay ends by itself: there is no call that stops the deployment.
        wanted = "game_exited" if self._host == "multiplay" else "requested"
        if (story["reason"], story["exit_code"]) != (wanted, 0):
            raise AgentError(f"cannot call this a proper end: {story['summary']} ({story_file})")
        over = self._progress.over
        assert over is not None, "the match was waited for"
        stop = story["stop"]
        asked = f"the {stop['source']} asked: “{stop['message']}”; " if stop else ""
        ranking = sorted(over["scores"].items(), key=lambda entry: -entry[1])
        self._screen.end(
            f"The deployment is terminated and nothing is left running, after {self._screen.seconds:.1f} s.",
            [
                ("the match", ", ".join(f"{name} {coins}" for name, coins in ranking)),
                ("why it ended", f"{asked}{story['summary']}"),
                ("exit.json", story_file),
                ("logs", os.path.dirname(story_file)),
                ("platform's copy", self._found("platform/**/*.log")),
                ("match result", self._found("match-result.json")),
            ],
        )

    def _found(self, pattern: str) -> str:
        found = sorted(glob.glob(os.path.join(self._directory, pattern), recursive=True))
        if not found:
            raise AgentError(f"cannot find {pattern} in {self._directory}: it should have been written")
        return found[-1]


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port

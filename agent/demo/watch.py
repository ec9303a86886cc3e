"""The data sources of the demo: the agent's events, the platform's record of calls, the game field for a spectator."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, Self

import aiohttp

from agent.api.client import AgentClient
from agent.demo.screen import Screen
from agent.errors import AgentError

_POLL = 0.03
_WATCH_AGAIN = 1.0
_STOP_KEY = re.compile(r"(/v1/(?:self/stop|context)/[^/]+)/[^/]+")


class Progress:
    """Facts that become true, and the tasks that wait for them.

    Attributes:
        agent_gone: whether the agent has closed its connection.
        over: the last word of the game, once the match is over.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.agent_gone = False
        self.over: dict[str, Any] | None = None
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Wakes the waiting tasks."""
        self._changed.set()

    async def until(self, what: str, reached: Callable[[], bool], seconds: float) -> None:
        """Waits until `reached`.

        Args:
            what: what is waited for, as it stands after "cannot".
            reached: looked at after every change.
            seconds: how long to wait at most.

        Raises:
            AgentError: the time is over, or the agent is gone and it will never be.
        """
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    if self.agent_gone:
                        raise AgentError(f"cannot {what}: the agent has ended before")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AgentError(f"cannot {what}: it did not happen within {seconds:g} s") from None


async def follow_agent(path: str, screen: Screen, progress: Progress) -> None:
    """Subscribes to the agent's events and shows them, until the agent is gone.

    Args:
        path: of its socket.
        screen: where they are shown.
        progress: told of each event, and of the end.
    """
    loop = asyncio.get_running_loop()

    def listen() -> None:
        with AgentClient(path) as agent:
            agent.call("subscribe")
            while (event := agent.event()) is not None:
                loop.call_soon_threadsafe(_show_event, event, screen, progress)

    try:
        await asyncio.to_thread(listen)
    finally:
        progress.agent_gone = True
        progress.changed()


def _show_event(event: dict[str, Any], screen: Screen, progress: Progress) -> None:
    data = event["data"]
    match event["type"]:
        case "state":
            screen.scene.phases.append(data["phase"])
            before = f"{data['previous']} → " if data["previous"] else "is "
            screen.say("agent", f"{before}{data['phase']}")
        case "stop":
            why = f": “{data['message']}”" if data["message"] else ""
            steps = ", ".join(f"{step['step']} {step['seconds']:.2g} s" for step in data["plan"] if step["seconds"])
            screen.say("agent", f"the {data['source']} asks for a stop{why}")
            screen.say("agent", f"the plan: {steps}")
        case "players" if data["joined"] or data["left"]:
            of = f" of {data['capacity']}" if data["capacity"] is not None else ""
            what = f"{data['joined']} joined" if data["joined"] else f"{data['left']} left"
            screen.say("game", f"{what}, {data['count']}{of} play")
    progress.changed()


async def wait_for_socket(path: str, seconds: float) -> None:
    """Waits until the agent listens at `path`.

    Raises:
        AgentError: it does not within `seconds`.
    """
    problem: Exception | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    _, writer = await asyncio.open_unix_connection(path)
                except OSError as error:
                    problem = error
                    await asyncio.sleep(_POLL / 2)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return
    except TimeoutError:
        raise AgentError(f"cannot reach the agent at {path} within {seconds:g} s: {problem}") from None


class Calls:
    """Shows the calls to the platform, from the emulator's own record; polling is shown once."""

    def __init__(self, url: str, screen: Screen) -> None:
        """Takes the emulator's URL."""
        self._url = f"{url}/emulator/requests"
        self._screen = screen
        self._shown = 0
        self._last = ""

    async def follow(self) -> None:
        """Shows what comes, until it is cancelled."""
        while True:
            await self.show()
            await asyncio.sleep(_POLL)

    async def show(self) -> None:
        """Shows what has come since the last time."""
        async with aiohttp.ClientSession() as session, session.get(self._url) as answer:
            records = (await answer.json())["requests"]
        new, self._shown = records[self._shown :], len(records)
        for record in new:
            # The stop key in the path is half of what it takes to stop the deployment.
            path = _STOP_KEY.sub(r"\1/…", record["path"])
            query = "&".join(f"{name}={value}" for name, value in record["query"].items())
            line = f"{record['method']} {path}{'?' if query else ''}{query} {record['status'] or 'no answer'}"
            if line != self._last or record["method"] != "GET":
                self._screen.say("call", line)
            self._last = line


class Spectator(asyncio.DatagramProtocol):
    """Watches the match over UDP, as anybody could."""

    def __init__(self, screen: Screen, progress: Progress) -> None:
        """Takes where the field is shown and who waits for the end."""
        self._screen = screen
        self._progress = progress
        self._transport: asyncio.DatagramTransport

    @classmethod
    async def open(cls, host: str, port: int, screen: Screen, progress: Progress) -> Self:
        """A spectator of the game at this address; `watch` begins to watch."""
        loop = asyncio.get_running_loop()
        transport, spectator = await loop.create_datagram_endpoint(
            lambda: cls(screen, progress), remote_addr=(host, port)
        )
        spectator._transport = transport
        return spectator

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Takes what the game shows."""
        message = json.loads(data)
        if message["type"] == "field":
            self._screen.scene.players = [tuple(player) for player in message["players"]]
            self._screen.scene.coins = [tuple(coin) for coin in message["coins"]]
        elif message["type"] == "over":
            self._progress.over = message
            self._progress.changed()

    def error_received(self, exc: Exception) -> None:
        """The game's socket is closed: it has ended."""

    async def watch(self) -> None:
        """Says again and again that somebody watches, until it is cancelled."""
        try:
            while True:
                self._transport.sendto(b'{"type": "watch"}')
                await asyncio.sleep(_WATCH_AGAIN)
        finally:
            self._transport.close()

"""What goes on beside the game, where the settings ask for it: seeing that it is ready, counting players, tagging."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from agent import log
from agent.config.injected import Deployment
from agent.config.model import Settings
from agent.edgegap.tags import DeploymentTags
from agent.errors import AgentError, Problem, SettingsError
from agent.game.ports import listening
from agent.game.signal_handling import threads
from agent.init.main import Boot
from agent.lifecycle.driver import Conductor
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.states import GameReady, Phase
from agent.runtime.player_count import Count, counter, poll

_READY_EVERY = 0.2


class Background:
    """Owns the tasks beside the game."""

    def __init__(
        self,
        boot: Boot,
        settings: Settings,
        deployment: Deployment,
        conductor: Conductor,
        report: GameReport,
        tags: DeploymentTags,
        *,
        pids: Callable[[], list[int]],
        players_unknown: Callable[[bool], None],
    ) -> None:
        """Starts nothing yet.

        Raises:
            SettingsError: players cannot be counted in the way that AGENT_PLAYERS_FROM says.
        """
        self._boot = boot
        self._settings = settings
        self._deployment = deployment
        self._conductor = conductor
        self._report = report
        self._tags = tags
        self._pids = pids
        self._players_unknown = players_unknown
        self._count_players = self._counter()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts what the settings ask for."""
        self._tasks = [loop.create_task(work) for work in self._work()]
        self._see_output()

    def begin_again(self) -> None:
        """The game is started again: it has to be seen ready again."""
        self._see_output(again=True)

    async def close(self) -> None:
        """Ends all of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def capture_hang(self) -> None:
        """Captures what can be captured of a game that does not answer any more, as AGENT_ON_HANG says."""
        game = self._boot.game
        if game is None or self._settings.on_hang == "none":
            return
        if self._settings.on_hang == "abort":
            log.warning("SIGABRT to the game, so that it leaves a core or a crash dump")
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(game.main_pid, signal.SIGABRT)
            return
        for line in threads(self._pids()):
            if self._boot.capture is not None:
                self._boot.capture.note(line)
            log.warning(line)

    def _work(self) -> Iterator[Coroutine[Any, Any, None]]:
        if self._settings.tags:
            yield self._tag()
        if self._count_players is not None:
            interval = self._settings.players_interval
            yield poll(self._count_players, self._report, self._conductor.now, interval, self._players_unknown)
        if self._settings.ready_when.startswith("port"):
            yield self._see_port()

    async def _see_port(self) -> None:
        """The game is ready when it listens; looked at while it starts only."""
        name = self._settings.ready_when.partition(":")[2]
        ports = [port.internal for port in self._deployment.ports.values() if not name or port.name == name]
        if name.isdigit():
            ports.append(int(name))
        if not ports:
            log.warning(f"cannot see by a port when the game is ready: there is no port {name or 'in the mapping'}")
        while ports:
            if self._conductor.state.phase is Phase.STARTING and await asyncio.to_thread(
                lambda: listening(ports, self._pids())
            ):
                self._conductor.post(GameReady(self._conductor.now()))
            await asyncio.sleep(_READY_EVERY)

    def _see_output(self, *, again: bool = False) -> None:
        """The game is ready when a line of its output says so."""
        kind, _, pattern = self._settings.ready_when.partition(":")
        if kind != "output":
            return
        capture = self._boot.capture
        if capture is None:
            log.warning("cannot see in its output when the game is ready: AGENT_CAPTURE is off")
            return
        loop = asyncio.get_running_loop()

        def ready() -> None:
            self._conductor.post(GameReady(self._conductor.now()))

        def found() -> None:
            loop.call_soon_threadsafe(ready)

        capture.look_for(re.compile(pattern.encode()), found, from_now=again)

    async def _tag(self) -> None:
        """Gives the deployment the tags of AGENT_TAGS."""
        for name in self._settings.tags:
            try:
                await self._tags.add(name)
            except AgentError as problem:
                log.warning(f"{problem} (AGENT_TAGS: {name})")

    def _counter(self) -> Count | None:
        ports = [port.internal for port in self._deployment.ports.values() if port.protocol != "UDP"]
        try:
            return counter(self._settings.players_from, ports)
        except AgentError as problem:
            wrong = Problem("AGENT_PLAYERS_FROM", self._settings.players_from, f"cannot be used: {problem}")
            raise SettingsError([wrong]) from None

"""Stop methods that need the agent: rcon, and those of other hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.config.model import Settings
from agent.game.rcon import RconError, execute
from agent.lifecycle.stop_methods import HOSTS
from agent.link.messages import MethodAsked, MethodEnded, MethodFailed
from agent.record import Record
from agent.runtime.link import Link
from agent.runtime.tasks import Tasks


class Rcon(Record):
    """Where the game's rcon listens; the password is never shown."""

    host: str
    port: int
    password: str

    def __repr__(self) -> str:
        """Without its secret."""
        return f"Rcon({self.host!r}, {self.port})"


class RemoteMethods:
    """Applies a method when the init asks for it, and reports if it has no effect."""

    def __init__(self, settings: Settings, link: Link, tasks: Tasks, ask_host: Callable[[str, float], str]) -> None:
        """Takes what the methods need.

        Args:
            settings: all settings.
            link: to the init.
            tasks: runs the background work.
            ask_host: tells the game through another host's SDK; takes the host and the seconds left, and returns ""
                or why it has no effect.
        """
        self._ask_host = ask_host
        self._rcon = _rcon(settings)
        self._link = link
        self._tasks = tasks
        self._calling: asyncio.Task[None] | None = None
        link.handle(MethodAsked, self._on_asked)
        link.handle(MethodEnded, self._on_ended)

    def _on_asked(self, message: MethodAsked, _payload: bytes) -> None:
        if message.kind == "rcon" and self._rcon is not None:
            self._calling = self._tasks.start(self._say_by_rcon(self._rcon, message), "rcon")
            return
        if message.kind in HOSTS:
            left = max(0.0, message.ends - asyncio.get_running_loop().time())
            if why := self._ask_host(message.kind, left):
                self._link.send(MethodFailed(message.turn, why))
            return
        why = "AGENT_RCON_ADDRESS is not set" if message.kind == "rcon" else f"there is no method {message.kind}"
        self._link.send(MethodFailed(message.turn, why))

    def _on_ended(self, _message: MethodEnded, _payload: bytes) -> None:
        if self._calling is not None:
            self._calling.cancel()
            self._calling = None

    async def _say_by_rcon(self, rcon: Rcon, message: MethodAsked) -> None:
        """Sends the command; once it is sent, no answer is no failure, since the game may be busy ending."""
        sent = asyncio.Event()
        try:
            async with asyncio.timeout_at(message.ends):
                await execute(rcon.host, rcon.port, rcon.password, message.argument, sent=sent.set)
        except RconError as problem:
            self._link.send(MethodFailed(message.turn, str(problem)))
        except TimeoutError:
            if not sent.is_set():
                self._link.send(MethodFailed(message.turn, "the game's rcon does not answer"))


def _rcon(settings: Settings) -> Rcon | None:
    if settings.rcon_address is None:
        return None
    host, _, port = settings.rcon_address.rpartition(":")
    password = settings.rcon_password
    return Rcon(host.strip("[]"), int(port), password.get_secret_value() if password else "")

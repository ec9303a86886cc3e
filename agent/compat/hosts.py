"""Serves the hosts in AGENT_COMPAT.

There is one module for each host, a thin layer over the operations: there is no second lifecycle. A host's module is
not imported or served until a client connects to one of its sockets, which `agent.compat.prepare` has bound.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent import log
from agent.lifecycle.states import Phase

if TYPE_CHECKING:
    import socket

    from agent.api.contracts import OnRequest
    from agent.api.events import Event, EventBus
    from agent.api.operations import Operations
    from agent.compat.contracts import Closable, Host, Link
    from agent.compat.prepare import Prepared
    from agent.config.injected import Deployment
    from agent.config.model import Settings
    from agent.lifecycle.game_report import GameReport

_RELEVANT = frozenset({"state", "stop", "players"})


async def serve(
    prepared: Prepared,
    operations: Operations,
    events: EventBus,
    report: GameReport,
    *,
    settings: Settings,
    deployment: Deployment,
    phase: Callable[[], Phase],
    limit_health: Callable[[float], None],
    hold: Callable[[float | None], None],
    saved: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
    wall: Callable[[], float] = time.time,
    on_request: OnRequest | None = None,
) -> Compat:
    """Answers for the hosts that were prepared for, from the first connection on.

    Args:
        prepared: what exists since before the game was started.
        operations: what the calls become.
        events: where changes are heard of.
        report: what the game said.
        settings: all settings.
        deployment: what the platform injected, without secrets.
        phase: gives the present phase.
        limit_health: see `agent.compat.contracts.Link`.
        hold: likewise.
        saved: what `Compat.snapshot` gave before the agent was restarted.
        save: is given the snapshot after each change of it.
        wall: seconds since 1970.
        on_request: told of each request.

    Raises:
        SettingsError: AGENT_AGONES_CONFIG cannot be used.
    """
    from agent.compat.contracts import Link  # noqa: PLC0415 - nothing of this unless asked for

    compat = Compat(prepared, events, save)
    link = Link(
        operations,
        report,
        phase,
        settings,
        deployment,
        prepared.ids,
        prepared.files,
        prepared.user,
        wall,
        limit_health,
        hold,
        compat.changed,
        on_request,
    )
    compat.begin(link, saved or {})
    return compat


class Compat:
    """All hosts that are answered for; made by `serve`."""

    def __init__(self, prepared: Prepared, events: EventBus, save: Callable[[dict[str, Any]], None]) -> None:
        """Listens to the events; nothing is served yet."""
        self._prepared = prepared
        self._save = save
        self._saving = False
        self._closed = False
        self._hosts: dict[str, Host] = {}
        self._saved: dict[str, Any] = {}
        self._listeners: list[_Lazy] = []
        self._loop = asyncio.get_running_loop()
        self._unlisten = events.listen(self._on_event)

    def begin(self, link: Link, saved: Mapping[str, Any]) -> None:
        """Waits for the first connection to each socket; hosts that were in use before go on at once."""
        self._link = link
        self._saved = dict(saved)
        if "agones" in self._prepared.hosts and link.settings.agones_config:
            self._host("agones")  # what is wrong with its file is said at the start
        if "multiplay" in link.settings.compat:
            self._host("multiplay")  # a game that only reads server.json is allocated as well
        for name in self._saved:
            self._host(name)
        for listener, port in self._prepared.ports.items():
            self._listeners.append(_Lazy(self._loop, port.sock, self._starter(listener)))

    def ask_to_stop(self, kind: str, seconds: float) -> str:
        """The stop methods `agones`, `multiplay` and `playfab`.

        Args:
            kind: which.
            seconds: how long the game has.

        Returns:
            "", or why that has no effect.
        """
        if kind not in self._prepared.hosts:
            return f"AGENT_COMPAT does not have {kind}"
        host = self._hosts.get(kind)
        return host.ask_to_stop(seconds) if host is not None else "the game has not used it"

    def snapshot(self) -> dict[str, Any]:
        """All that has to survive a restart of the agent, by host: small, and JSON."""
        return {name: host.snapshot() for name, host in self._hosts.items()}

    def changed(self) -> None:
        """Saves soon, once for all changes of this moment."""
        if not self._saving and not self._closed:
            self._saving = True
            self._loop.call_soon(self._save_now)

    async def close(self) -> None:
        """Ends all of it."""
        if self._closed:
            return
        self._closed = True
        self._unlisten()
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        await asyncio.gather(*(host.close() for host in self._hosts.values()))

    def _save_now(self) -> None:
        self._saving = False
        if not self._closed:
            self._save(self.snapshot())

    def _on_event(self, event: Event) -> None:
        if event.type in _RELEVANT:
            for host in self._hosts.values():
                # The lifecycle goes on first: this event may be told of in the middle of a transition.
                self._loop.call_soon(host.on_change)

    def _host(self, name: str) -> Host:
        """The host of this name, made when it is first needed."""
        if name not in self._hosts:
            host: Host
            if name == "agones":
                agones_config = importlib.import_module("agent.compat.agones_config")
                spec = agones_config.read(self._link.settings)
                host = importlib.import_module("agent.compat.agones").Agones(self._link, spec)
            elif name == "multiplay":
                host = importlib.import_module("agent.compat.multiplay").Multiplay(self._link)
            else:
                host = importlib.import_module("agent.compat.playfab").PlayFab(self._link)
            self._hosts[name] = host
            if name in self._saved:
                host.restore(self._saved[name])
        return self._hosts[name]

    def _starter(self, listener: str) -> Callable[[socket.socket], Any]:
        async def start(sock: socket.socket) -> Closable:
            host = self._host(listener.partition("-")[0])
            log.debug(f"the game uses {listener}")
            return await host.listeners[listener](sock)

        return start


class _Lazy:
    """A listening socket that is served from its first connection on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, start: Callable[[socket.socket], Any]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._start = start
        self._starting: asyncio.Task[None] | None = None
        self._server: Closable | None = None
        loop.add_reader(sock, self._first)

    def _first(self) -> None:
        self._loop.remove_reader(self._sock)
        self._starting = self._loop.create_task(self._begin(), name="compat")

    async def _begin(self) -> None:
        try:
            # The server gets a descriptor of its own, so that closing it does not close what the init keeps.
            self._server = await self._start(self._sock.dup())
        except Exception as problem:
            port = self._sock.getsockname()[1]
            log.error(f"cannot serve port {port} for AGENT_COMPAT ({type(problem).__name__}: {problem})")
            # It is better to refuse the connections in the backlog than to leave them waiting.
            self._sock.close()

    async def close(self) -> None:
        if self._starting is None:
            self._loop.remove_reader(self._sock)
            return
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        if self._server is not None:
            await self._server.close()

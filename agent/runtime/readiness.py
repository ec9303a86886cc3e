"""Detects that the game is ready by the port that it listens on (AGENT_READY_WHEN=port); logs what it sees instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent import log
from agent.config.injected import Deployment
from agent.game.ports import listening, what_listens
from agent.lifecycle.states import Event, GameReady, Phase, Reason, State
from agent.runtime.mirror import Mirror

_EVERY = 0.2
# How often to check what the game listens on instead, and after how long to log it, whenever it has changed.
_LOOK_EVERY = 1.0
_SAY_AFTER = 10.0


async def watch_port(setting: str, deployment: Deployment, mirror: Mirror, pids: Callable[[], list[int]]) -> None:
    """Tells the lifecycle when the game listens; checks only while the game starts.

    Args:
        setting: AGENT_READY_WHEN, `port` or `port:NAME`.
        deployment: has the ports.
        mirror: of the lifecycle.
        pids: every process of the game.
    """
    ports = _ports(setting, deployment)
    seen, said, look_at = "", "", 0.0

    def on_transition(before: State, after: State, _event: Event) -> None:
        if before.stop is None and after.stop is not None and after.stop.reason is Reason.NOT_READY and seen:
            log.warning(f"the game was not seen ready: {seen} (AGENT_READY_WHEN={setting})")

    if ports:
        mirror.watch(on_transition)
    while ports:
        state = mirror.state
        if state.phase is Phase.STARTING:
            if await asyncio.to_thread(lambda: listening(ports, pids())):
                mirror.post(GameReady(mirror.now()))
            elif mirror.now() >= look_at:
                look_at = mirror.now() + _LOOK_EVERY
                seen = await asyncio.to_thread(lambda: what_listens(ports, pids()))
                if seen != said and mirror.now() - (state.started_at or mirror.now()) >= _SAY_AFTER:
                    said = seen
                    log.warning(f"the game is not ready yet: {seen} (AGENT_READY_WHEN={setting})")
        await asyncio.sleep(_EVERY)


def _ports(setting: str, deployment: Deployment) -> list[int]:
    name = setting.partition(":")[2]
    ports = [port.internal for port in deployment.ports.values() if not name or port.name == name]
    if name.isdigit():
        ports.append(int(name))
    if not ports:
        log.warning(f"cannot see by a port when the game is ready: there is no port {name or 'in the mapping'}")
    return ports

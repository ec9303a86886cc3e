"""Sees that the game is ready by the port that it listens on (AGENT_READY_WHEN=port)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent import log
from agent.config.injected import Deployment
from agent.game.ports import listening
from agent.lifecycle.states import GameReady, Phase
from agent.runtime.mirror import Mirror

_EVERY = 0.2


async def watch_port(setting: str, deployment: Deployment, mirror: Mirror, pids: Callable[[], list[int]]) -> None:
    """Tells the lifecycle when the game listens; looked at while it starts only.

    Args:
        setting: AGENT_READY_WHEN, `port` or `port:NAME`.
        deployment: has the ports.
        mirror: of the lifecycle.
        pids: every process of the game.
    """
    name = setting.partition(":")[2]
    ports = [port.internal for port in deployment.ports.values() if not name or port.name == name]
    if name.isdigit():
        ports.append(int(name))
    if not ports:
        log.warning(f"cannot see by a port when the game is ready: there is no port {name or 'in the mapping'}")
    while ports:
        if mirror.state.phase is Phase.STARTING and await asyncio.to_thread(lambda: listening(ports, pids())):
            mirror.post(GameReady(mirror.now()))
        await asyncio.sleep(_EVERY)

"""The interfaces between the emulated hosts and the agent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agent.api.contracts import Caller
from agent.game.user import User
from agent.lifecycle.states import Phase, Source

if TYPE_CHECKING:
    from agent.api.contracts import OnRequest
    from agent.api.operations import Operations
    from agent.config.injected import Deployment
    from agent.config.model import Settings
    from agent.lifecycle.game_report import GameReport

ENDING = (Phase.STOPPING, Phase.FLUSHING, Phase.RELEASING, Phase.EXITED)
"""The phases in which the game is being ended or has ended; while it drains, players may still finish."""


class Closable(Protocol):
    """Something that serves until it is closed."""

    async def close(self) -> None:
        """Ends it."""


@dataclass(frozen=True, slots=True)
class Link:
    """The agent as the hosts see it. They change nothing but through it.

    Attributes:
        operations: the operations; those that change the lifecycle may have to be awaited.
        report: what the game said, to be read.
        phase: the present phase.
        settings: all settings.
        deployment: what the platform injected, without secrets.
        ids: what was made up for this deployment before the game started; see `agent.compat.prepare`.
        files: the files that were written then.
        user: whom the game runs as, or None for the agent's user.
        wall: the present time, in seconds since 1970.
        limit_health: tells the policies how long a game may be silent after its first heartbeat, in seconds, where
            AGENT_HEALTH_TIMEOUT does not say it.
        hold: no stop for want of players for so many seconds from now; None ends that.
        changed: something that `Host.snapshot` has was changed.
        on_request: told of each request, as by the other transports.
    """

    operations: Operations
    report: GameReport
    phase: Callable[[], Phase]
    settings: Settings
    deployment: Deployment
    ids: Mapping[str, str]
    files: Mapping[str, str]
    user: User | None
    wall: Callable[[], float]
    limit_health: Callable[[float], None]
    hold: Callable[[float | None], None]
    changed: Callable[[], None]
    on_request: OnRequest | None = None


class Host(Protocol):
    """One host's local agent, played by ours."""

    name: str
    listeners: Mapping[str, Callable[[Any], Awaitable[Closable]]]
    """What serves each of its listening sockets; called with the socket when somebody connects."""

    def on_change(self) -> None:
        """The phase, the stop or the players may have changed."""

    def ask_to_stop(self, seconds: float) -> str:
        """Tells the game to end, as this host does; the game has so many seconds.

        Returns:
            "", or why that has no effect.
        """

    def snapshot(self) -> dict[str, Any]:
        """All that has to survive a restart of the agent: small, and JSON."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes back what `snapshot` gave."""

    async def close(self) -> None:
        """Ends what it does in the background."""


async def settled(outcome: Any) -> Any:
    """The result of an operation, whether it comes at once or has to be awaited."""
    return await outcome if inspect.isawaitable(outcome) else outcome


def game(transport: str) -> Caller:
    """The game as a caller, over one host's protocol."""
    return Caller(transport, Source.GAME)


class Tasks:
    """Tasks that somebody owns: each is awaited at the end, and a fault of one is raised by `close`."""

    def __init__(self) -> None:
        """None yet."""
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Any, name: str) -> None:
        """Starts one."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Ends all of them."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

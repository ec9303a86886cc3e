"""Players of a game that does not report them: counted by its connections, or by asking it what it tells everybody."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from agent import log
from agent.errors import AgentError
from agent.game.ports import connections
from agent.lifecycle.game_report import GameReport

# Short names for what opengsq calls by the game that made each known; any other name of its is taken as it is.
_PROTOCOLS = {"a2s": "Source", "source": "Source", "minecraft": "Minecraft", "quake3": "Quake3", "samp": "Samp"}
_ASK_SECONDS = 3.0

Count = Callable[[], Awaitable[tuple[int, int | None]]]


def counter(setting: str, ports: Iterable[int]) -> Count | None:
    """What counts, by AGENT_PLAYERS_FROM (checked); None where the game reports by itself.

    Args:
        setting: `api`, `tcp`, `tcp:PORT`, or `query:PROTOCOL://HOST:PORT`.
        ports: the game's TCP ports, for `tcp`.

    Raises:
        AgentError: the library for queries is not installed, or does not know the protocol.
    """
    kind, _, rest = setting.partition(":")
    if kind == "tcp":
        watched = [int(rest)] if rest else list(ports)
        if not watched:
            raise AgentError("cannot count connections: the mapping has no TCP port; name one, as in tcp:7777")

        async def by_connections() -> tuple[int, int | None]:
            return len(await asyncio.to_thread(connections, watched, ())), None

        return by_connections
    if kind != "query":
        return None
    protocol, _, address = rest.partition("://")
    host, _, port = address.rpartition(":")
    server = _server(protocol, host.strip("[]"), int(port))

    async def by_query() -> tuple[int, int | None]:
        async with asyncio.timeout(_ASK_SECONDS * 2):
            return _read(await _ask(server))

    return by_query


def _server(protocol: str, host: str, port: int) -> Any:
    try:
        known = importlib.import_module("opengsq.protocols")
    except ImportError:
        raise AgentError(
            "cannot query the game: opengsq is not installed; install arbitrium-agent[query], or report players "
            "over the API"
        ) from None
    names = {name.lower(): name for name in dir(known) if name[0].isupper()}
    name = _PROTOCOLS.get(protocol.lower()) or names.get(protocol.lower())
    if name is None:
        raise AgentError(
            f"cannot query the game: {protocol!r} is no protocol; AGENT_PLAYERS_FROM takes "
            f"{', '.join([*_PROTOCOLS, *sorted(names)])}"
        )
    return getattr(known, name)(host, port, _ASK_SECONDS)


async def _ask(server: Any) -> Any:
    for method in ("get_info", "get_status"):
        if hasattr(server, method):
            return await getattr(server, method)()
    raise AgentError("cannot query the game: this protocol tells no number of players")


def _read(answer: Any) -> tuple[int, int | None]:
    """Players and capacity from an answer; every protocol names them in its own way."""
    given = answer if isinstance(answer, dict) else getattr(answer, "__dict__", {})
    flat = {str(key).lower(): value for key, value in given.items()}
    players = flat.get("players")
    if isinstance(players, dict):  # Minecraft: {"online": 3, "max": 20}
        return int(players["online"]), int(players["max"])
    if isinstance(players, list | tuple):
        return len(players), _number(flat)
    for name in ("players", "clients", "num_players", "numplayers"):
        if flat.get(name) is not None:
            return int(flat[name]), _number(flat)
    raise AgentError("cannot read the number of players from what the game answered")


def _number(flat: dict[str, Any]) -> int | None:
    for source in (flat, flat.get("info"), flat.get("server_info")):
        for name in ("max_players", "maxplayers", "sv_maxclients", "maxclients"):
            if isinstance(source, dict) and source.get(name) is not None:
                return int(source[name])
    return None


async def poll(
    count: Count,
    report: GameReport,
    now: Callable[[], float],
    interval: float,
    unknown: Callable[[bool], None],
) -> None:
    """Counts again and again, until it is cancelled; a failed count counts as occupied: the last number stays.

    Args:
        count: from `counter`.
        report: gets the number.
        now: the moment, in seconds of the monotonic clock.
        interval: seconds between two counts.
        unknown: told after each count whether the number is not known.
    """
    failing = False
    while True:
        try:
            players, capacity = await count()
            # Some servers let an administrator in beyond their capacity, or name none as 0.
            report.set_players(now(), players, capacity if capacity is None else max(capacity, players))
            failing = False
        except Exception as problem:
            # Whatever a game answers to a query must not look like nobody: a server would be stopped under its players.
            if not failing:
                why = f"{type(problem).__name__}: {problem}"
                log.warning(f"cannot count players ({why}); the server counts as occupied until that works again")
            failing = True
        unknown(failing)
        await asyncio.sleep(interval)

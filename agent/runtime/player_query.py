"""Asks a game for its number of players, in the protocols of server browsers, and parses the answers.

If a protocol tells bots from people, bots do not count: a server with only bots would never be empty. An answer that
cannot be parsed is an error and never means "no players", or a server would be stopped while people play on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from agent.errors import AgentError, how_to_install
from agent.game.query_protocols import COUNTED, check

ASK_SECONDS = 3.0
"""How long to wait for an answer."""


class Tally(NamedTuple):
    """The number of players.

    Attributes:
        players: people, without bots.
        capacity: the most players, or None if it is unknown.
        bots: the number of bots, or None if the protocol does not tell them from people.
    """

    players: int
    capacity: int | None = None
    bots: int | None = None


def query(protocol: str, host: str, port: int) -> Callable[[], Awaitable[Tally]]:
    """Creates the function that queries a game.

    Args:
        protocol: by its name in AGENT_PLAYERS_FROM.
        host: where the game answers.
        port: its query port.

    Raises:
        AgentError: the protocol cannot count, or the library that speaks it is not installed.
    """
    try:
        name = check(protocol)
    except ValueError as problem:
        raise AgentError(str(problem)) from None
    class_name, method, reader = COUNTED[name]
    if reader == "teeworlds":
        return _teeworlds(host, port)
    if reader == "sqp":
        return _sqp(host, port)
    server = _opengsq(class_name)(host, port, ASK_SECONDS)
    # By default the library removes colours from names and descriptions, and fails for servers that have neither.
    keywords = {"strip_color": False} if reader == "minecraft" else {}

    async def ask() -> Tally:
        return read(reader, await getattr(server, method)(**keywords))

    return ask


def _opengsq(class_name: str) -> Any:
    # The package has Warfork, but does not export it.
    module = "opengsq.protocols.warfork" if class_name == "Warfork" else "opengsq.protocols"
    try:
        return getattr(importlib.import_module(module), class_name)
    except ImportError:
        raise AgentError(
            "cannot query the game: opengsq is not installed; report players over the API, or "
            f"{how_to_install('query')}"
        ) from None
    except AttributeError:
        raise AgentError(
            f"cannot query the game: the installed opengsq knows no {class_name}; report players over the API, or "
            f"{how_to_install('query')}"
        ) from None


def _teeworlds(host: str, port: int) -> Callable[[], Awaitable[Tally]]:
    from agent.runtime import teeworlds  # noqa: PLC0415 - for those who have one

    async def ask() -> Tally:
        return Tally(*await teeworlds.query(host, port, ASK_SECONDS))

    return ask


def _sqp(host: str, port: int) -> Callable[[], Awaitable[Tally]]:
    try:
        sqp = importlib.import_module("agent.compat.sqp")
    except ImportError:
        raise AgentError(
            "cannot query the game: this agent was built without sqp; report players over the API"
        ) from None

    async def ask() -> Tally:
        players, capacity = await sqp.query(host, port, ASK_SECONDS)
        return Tally(players, capacity or None)

    return ask


def read(reader: str, answer: Any) -> Tally:
    """Reads an answer of opengsq.

    Args:
        reader: as `agent.game.query_protocols.COUNTED` names it.
        answer: what the library returned.

    Raises:
        AgentError: the answer has no number of players, or an invalid one.
    """
    try:
        tally = _READERS[reader](answer)
        if tally.players < 0:
            raise ValueError(f"{tally.players} players")
        return tally
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as problem:
        raise AgentError(f"cannot read the number of players from what the game answered: {problem!r}") from None


def _a2s(answer: Any) -> Tally:
    """`players` counts the bots as well (https://developer.valvesoftware.com/wiki/Server_queries#A2S_INFO)."""
    players, bots = int(answer.players), int(answer.bots)
    # More bots than players: this game does not include bots in `players`.
    return Tally(players - bots if bots <= players else players, int(answer.max_players) or None, bots)


def _quake3(answer: Mapping[str, Any]) -> Tally:
    """`infoResponse`. Engines differ in what `clients` counts, and in how they tell the bots."""
    given = {key.lower(): value for key, value in answer.items()}
    clients, capacity = int(given["clients"]), _capacity(given)
    if "g_humanplayers" in given:  # ioquake3 and CoD4X: `clients` are all
        humans = int(given["g_humanplayers"])
        return Tally(humans, capacity, max(0, clients - humans))
    if "bots" not in given:
        return Tally(clients, capacity)
    bots = int(given["bots"])
    if "modname" in given:  # DarkPlaces (Xonotic): `clients` are all
        return Tally(max(0, clients - bots), capacity, bots)
    return Tally(clients, capacity, bots)  # Daemon (Unvanquished): `clients` are people


def _minecraft(answer: Mapping[str, Any]) -> Tally:
    players = answer["players"]
    return Tally(int(players["online"]), int(players["max"]) or None)


def _gamespy(answer: Any) -> Tally:
    info = {key.lower(): value for key, value in answer.info.items()}
    # Battlefield 2 marks its bots in the list of players, and counts them among these.
    bots = sum(player.get("AIBot") == "1" for player in answer.players) if _marks_bots(answer.players) else None
    return Tally(max(0, int(info["numplayers"]) - (bots or 0)), _capacity(info), bots)


def _marks_bots(players: list[dict[str, str]]) -> bool:
    return any("AIBot" in player for player in players)


def _list(answer: Any) -> Tally:
    return Tally(len(answer.players), _capacity({key.lower(): value for key, value in answer.info.items()}))


def _fields(answer: Any) -> Tally:
    given = vars(answer)
    players = given["num_players"] if "num_players" in given else given["players"]
    return Tally(int(players), _capacity(given))


def _capacity(given: Mapping[str, Any]) -> int | None:
    """None where it is not there, or 0: some servers say so for "no limit"."""
    for name in ("max_players", "maxplayers", "sv_maxclients", "maxclients"):
        if given.get(name) is not None:
            return int(given[name]) or None
    return None


_READERS: dict[str, Callable[[Any], Tally]] = {
    "a2s": _a2s,
    "quake3": _quake3,
    "minecraft": _minecraft,
    "gamespy": _gamespy,
    "list": _list,
    "fields": _fields,
}

"""Counts the players of a game that does not report them: by its connections, or by a server query protocol."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator

from agent import log
from agent.config.table import TABLE
from agent.errors import AgentError
from agent.game.ports import connections
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.states import Phase
from agent.runtime.player_query import ASK_SECONDS, Tally, query

_MIN_STAY: float = TABLE["players_min_stay"].default
# A game that is loading answers no query: for this many seconds after its start, nothing is logged about it.
_PATIENCE = 120.0
# A logged reason is not logged again for this many seconds, for a game that answers only every other query.
_SAY_AGAIN = 600.0
# The phases in which players are counted.
_COUNTED_IN = (Phase.STARTING, Phase.READY, Phase.DRAINING)

Count = Callable[[], Awaitable[Tally]]


class ConnectionCount:
    """Counts the TCP connections to the game.

    Attributes:
        settled: whether a connection has lasted long enough to be a player since there was last no connection.
            Shorter ones are port probes or health checks.
    """

    def __init__(
        self,
        ports: Iterable[int],
        own: Callable[[], Iterable[int]] = tuple,
        *,
        min_stay: float = _MIN_STAY,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the ports and processes.

        Args:
            ports: the game's.
            own: the game's processes, whose connections do not count.
            min_stay: how long a connection must last to count as a player, in seconds.
            now: the clock, in seconds.
        """
        self._ports = tuple(ports)
        self._own = own
        self._min_stay = min_stay
        self._now = now
        self._since: dict[str, float] = {}
        self.settled = False

    async def __call__(self) -> Tally:
        """How many there are at this moment.

        Raises:
            OSError: the kernel's table cannot be read.
        """
        found = await asyncio.to_thread(connections, self._ports, self._own_processes())
        self.note(found)
        return Tally(len(found))

    def _own_processes(self) -> Iterator[int]:
        """The game's own processes; listed only if a connection comes from the same container."""
        yield from (os.getpid(), os.getppid())
        yield from self._own()

    def note(self, found: Iterable[str]) -> None:
        """Records when each connection was first seen."""
        now = self._now()
        if not self._since:
            self.settled = False
        self._since = {name: self._since.get(name, now) for name in found}
        self.settled = self.settled or any(now - since >= self._min_stay for since in self._since.values())


def counter(
    setting: str,
    ports: Iterable[int],
    own: Callable[[], Iterable[int]] = tuple,
    *,
    min_stay: float = _MIN_STAY,
) -> Count | None:
    """Creates the counter for AGENT_PLAYERS_FROM (checked); None if the game reports players itself.

    Args:
        setting: `api`, `tcp`, `tcp:PORT`, or `query:PROTOCOL://HOST:PORT`.
        ports: the game's TCP ports, for `tcp`.
        own: the game's processes, for `tcp`.
        min_stay: for `tcp`, see `ConnectionCount`.

    Raises:
        AgentError: there is no port, the protocol cannot count, or the library for queries is not installed.
    """
    kind, _, rest = setting.partition(":")
    if kind == "tcp":
        watched = [int(rest)] if rest else list(ports)
        if not watched:
            raise AgentError("cannot count connections: the mapping has no TCP port; name one, as in tcp:7777")
        return ConnectionCount(watched, own, min_stay=min_stay)
    if kind != "query":
        return None
    protocol, _, address = rest.partition("://")
    host, _, port = address.rpartition(":")
    ask = query(protocol, host.strip("[]"), int(port))

    async def by_query() -> Tally:
        async with asyncio.timeout(ASK_SECONDS * 2):
            return await ask()

    return by_query


async def poll(
    count: Count,
    report: GameReport,
    now: Callable[[], float],
    interval: float,
    unknown: Callable[[bool], None],
    *,
    phase: Callable[[], Phase] = lambda: Phase.READY,
    short_visit: Callable[[], None] = lambda: None,
) -> None:
    """Counts periodically until it is cancelled; if a count fails, the last number stays (the server is occupied).

    Args:
        count: from `counter`.
        report: called with the number.
        now: the current time, in seconds of the monotonic clock.
        interval: seconds between two counts.
        unknown: called after each count with whether the number is unknown.
        phase: returns the lifecycle's phase. Players are not counted without a game, or while it is ending.
        short_visit: called when all connections have closed and none lasted long enough to be a player.
    """
    news = _News(now)
    while True:
        if phase() in _COUNTED_IN:
            before = report.count
            try:
                players, capacity, bots = await _guarded(count)
                # Some servers admit an administrator beyond their capacity, or report "no limit" as 0.
                report.set_players(now(), players, capacity if capacity is None else max(capacity, players))
            except Exception as problem:
                # A bad answer must never count as no players, or a server in use would be stopped. An exception in a
                # library must not end more than this one count.
                news.failed(why(problem), starting=phase() is Phase.STARTING)
                unknown(True)
            else:
                news.counted(players, bots)
                unknown(False)
                if before and not players and isinstance(count, ConnectionCount) and not count.settled:
                    short_visit()
        else:
            news.forget()
        await asyncio.sleep(interval)


async def _guarded(count: Count) -> Tally:
    """If a library cancels the query, and not the caller who ends the loop, the count has failed."""
    try:
        return await count()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise AgentError("cannot query the game: the query was cancelled") from None


class _News:
    """Logs the result of counting: each reason once, and the end of a logged failure."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._said: dict[str, float] = {}
        self._failing_since: float | None = None
        self._told = False
        self._bots = False

    def failed(self, reason: str, *, starting: bool) -> None:
        now = self._now()
        if self._failing_since is None:
            self._failing_since = now
        if starting and now - self._failing_since < _PATIENCE:
            return
        said_at = self._said.get(reason)
        if said_at is not None and now - said_at < _SAY_AGAIN:
            return
        self._said[reason] = now
        self._told = True
        log.warning(f"cannot count players: {reason}; the server counts as occupied until that works again")

    def counted(self, players: int, bots: int | None) -> None:
        if self._told and self._failing_since is not None:
            seconds = self._now() - self._failing_since
            log.info(f"players can be counted again after {seconds:.0f} s: {_number(players, 'player')}")
        self._failing_since, self._told = None, False
        if bool(bots) is not self._bots:
            self._bots = bool(bots)
            log.info(f"{_number(players, 'player')} and {_number(bots or 0, 'bot')}; bots do not count as players")

    def forget(self) -> None:
        """The game is ending or gone: forgets the current failure, which says nothing about a restarted game."""
        self._failing_since, self._told = None, False


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def why(problem: BaseException) -> str:
    """Why a count failed, in words; never empty."""
    if isinstance(problem, TimeoutError):
        return "the game does not answer the query"
    if isinstance(problem, ConnectionRefusedError):
        return "nothing listens on the port that is asked (connection refused)"
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.strerror}{f' ({problem.filename})' if problem.filename else ''}"
    said = str(problem).removeprefix("cannot count players: ").strip()
    if isinstance(problem, AgentError) and said:
        return said
    return f"{type(problem).__name__}: {said}" if said else f"the query failed with {type(problem).__name__}"

"""Policies that stop the deployment by themselves: pure functions from facts to the times at which a stop is due.

Every policy is off until its setting is given, and most become active with the first report of the game: a game that
never sent a heartbeat never counts as hung, and one that never reported players never counts as empty.
"""

from __future__ import annotations

from agent.lifecycle.states import Phase, Reason
from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Limits(Record):
    """The settings of the policies, in seconds; None or 0 switches one off.

    Attributes:
        ready: from the game's start to its being ready.
        first_player: from ready to the first player.
        empty: since the last player left.
        health: since the last heartbeat, after the first one.
        duration: how long the platform lets the deployment run.
        warnings: how long before the end of `duration` the game is warned.
        reserve: how long a stop takes, to complete it before the platform's own limit.
        least_reserve: the same without the time for shipping.
    """

    ready: float | None = None
    first_player: float | None = None
    empty: float | None = None
    health: float | None = None
    duration: float | None = None
    warnings: tuple[float, ...] = ()
    reserve: float = 0.0
    least_reserve: float = 0.0


class Facts(Record):
    """The facts; times in seconds of the monotonic clock.

    Attributes:
        phase: of the lifecycle.
        began: when the container began.
        started_at: when the game was started last, or None.
        ready_at: when it was ready, or None.
        players: how many play.
        seen_players: whether anybody ever played.
        empty_since: when the last one left, or None.
        last_heartbeat: the last one, or None where there never was one.
        counted_since: since when players can be counted; None while counting fails, when the server counts as occupied.
            If the game reports players itself, since the beginning.
        expected_players: how many players the match was made for, or None.
        held_until: until when the game must not be stopped for having no players, or None.
    """

    phase: Phase
    began: float
    started_at: float | None = None
    ready_at: float | None = None
    players: int = 0
    seen_players: bool = False
    empty_since: float | None = None
    last_heartbeat: float | None = None
    counted_since: float | None = 0.0
    expected_players: int | None = None
    held_until: float | None = None


class Due(Record):
    """A stop that will be requested at a given time, unless the facts change."""

    at: float
    reason: Reason
    message: str


class TimeWarning(Record):
    """A warning to the game, at a given time, about how long it has left."""

    at: float
    seconds_left: float


def stops(limits: Limits, facts: Facts) -> list[Due]:
    """All stops that follow from the facts, the soonest first; none once a stop is under way."""
    if facts.phase not in (Phase.STARTING, Phase.READY):
        return []
    return sorted(_stops(limits, facts), key=lambda due: due.at)


def _stops(limits: Limits, facts: Facts) -> Iterator[Due]:
    if limits.ready and facts.phase is Phase.STARTING and facts.started_at is not None:
        yield Due(facts.started_at + limits.ready, Reason.NOT_READY, f"not ready after {limits.ready:g} s")
    counted = facts.counted_since
    if (
        limits.first_player
        and facts.phase is Phase.READY
        and facts.ready_at is not None
        and counted is not None
        and not facts.seen_players
    ):
        expected = f" of the {facts.expected_players} expected" if facts.expected_players else ""
        message = (
            f"none{expected} joined within {limits.first_player:g} s"
            if expected
            else (f"nobody joined within {limits.first_player:g} s")
        )
        due = max(facts.ready_at, counted) + limits.first_player
        yield Due(max(due, facts.held_until or due), Reason.FIRST_PLAYER_TIMEOUT, message)
    nobody = facts.seen_players and facts.players == 0 and counted is not None
    if limits.empty and nobody and facts.empty_since is not None:
        due = facts.empty_since + limits.empty
        yield Due(max(due, facts.held_until or due), Reason.EMPTY, f"nobody has played for {limits.empty:g} s")
    if limits.health and facts.last_heartbeat is not None:
        message = f"no heartbeat for {limits.health:g} s"
        yield Due(facts.last_heartbeat + limits.health, Reason.HEARTBEAT_LOST, message)
    if limits.duration:
        yield Due(
            _end(limits, facts), Reason.MAX_DURATION, f"the maximum duration of {limits.duration:g} s is nearly over"
        )


def warnings(limits: Limits, facts: Facts) -> list[TimeWarning]:
    """When the game is warned that its time runs out, the soonest first."""
    if not limits.duration or facts.phase not in (Phase.STARTING, Phase.READY):
        return []
    end = _end(limits, facts)
    moments = (TimeWarning(end - before, before) for before in limits.warnings if 0 < before < end - facts.began)
    return sorted(moments, key=lambda warning: warning.at)


def _end(limits: Limits, facts: Facts) -> float:
    """When the stop has to begin to be complete before the platform's own limit.

    The reserve takes at most a fifth of the duration, or what the game's grace needs, but never more than half.
    """
    assert limits.duration, "looked at by whoever calls"
    most = max(limits.duration * 0.2, min(limits.least_reserve, limits.duration * 0.5))
    return facts.began + limits.duration - min(limits.reserve, most)

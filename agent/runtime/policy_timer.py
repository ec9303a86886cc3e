"""Drives the policies: knows the facts, owns one timer, asks for the stop when one is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from agent import log
from agent.lifecycle.driver import Conductor
from agent.lifecycle.game_report import Fact, GameReport, PlayersReported, ReportCleared
from agent.lifecycle.policies import Due, Facts, Limits, TimeWarning, stops, warnings
from agent.lifecycle.states import Event, Phase, Reason, Source, State, StopRequest, StopRequested

# A timer that fires so many seconds late says that nobody ran meanwhile (a paused container, a suspended machine): the
# game could not have sent its heartbeat either, or it has not been read yet.
_LATE = 1.0


class Watch:
    """Looks whenever a fact changes, and when the next thing is due; a look at the wrong time changes nothing."""

    def __init__(
        self,
        conductor: Conductor,
        report: GameReport,
        limits: Limits,
        *,
        loop: asyncio.AbstractEventLoop,
        began: float,
        expected_players: int | None,
        on_hang: Callable[[], None],
        warn: Callable[[float], None],
    ) -> None:
        """Watches from now on.

        Args:
            conductor: gets the stop requests.
            report: what the game says.
            limits: the settings.
            loop: its clock is that of all moments.
            began: when the container began.
            expected_players: how many the match was made for, or None.
            on_hang: called before the stop of a game whose heartbeat was lost: captures what can be captured.
            warn: tells the game how many seconds it has.
        """
        self._conductor = conductor
        self._report = report
        self._limits = limits
        self._loop = loop
        self._began = began
        self._expected = expected_players
        self._on_hang = on_hang
        self._warn = warn
        self._warned: set[float] = set()
        self._seen_players = False
        self._empty_since: float | None = None
        self._counted_since: float | None = began
        self._counted_before = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = began
        self._resumed_at = began
        self._held_until: float | None = None
        report.subscribe(self._on_fact)
        conductor.watch(self._on_transition)
        self._loop.call_soon(self.look)

    def facts(self) -> Facts:
        """What is known at this moment."""
        state, report = self._conductor.state, self._report
        heartbeat = report.last_heartbeat
        return Facts(
            phase=state.phase,
            began=self._began,
            started_at=state.started_at,
            ready_at=state.ready_at,
            players=report.count,
            seen_players=self._seen_players,
            empty_since=self._empty_since,
            last_heartbeat=None if heartbeat is None else max(heartbeat, self._resumed_at),
            counted_since=self._counted_since,
            expected_players=self._expected,
            held_until=self._held_until,
        )

    def look(self) -> None:
        """Does what is due, and arms the timer for what comes next."""
        now = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if now > self._timer_at + _LATE:
                self._resumed_at = now
        facts = self.facts()
        coming: list[Due | TimeWarning] = []
        for warning in warnings(self._limits, facts):
            if warning.seconds_left in self._warned:
                continue
            if warning.at <= now:
                self._warned.add(warning.seconds_left)
                self._warn(warning.seconds_left)
            else:
                coming.append(warning)
        due = stops(self._limits, facts)
        if due and due[0].at <= now:
            self._stop(due[0], now)
            return
        coming += due[:1]
        if coming:
            self._timer_at = min(one.at for one in coming)
            self._timer = self._loop.call_at(self._timer_at, self.look)

    def players_unknown(self, unknown: bool) -> None:
        """Players cannot be counted at present: the server counts as occupied, and as empty only from when it can.

        A game that was never counted is still loading. Where counting worked before, somebody may have come meanwhile.
        """
        now = self._loop.time()
        if unknown:
            self._counted_since = self._empty_since = None
            self._seen_players = self._seen_players or self._counted_before
        else:
            self._counted_before = True
            if self._counted_since is None:
                self._counted_since = now
            if self._seen_players and self._report.count == 0 and self._empty_since is None:
                self._empty_since = now
        self.look()

    def alarm(self, message: str) -> None:
        """The game's own watchdog says that it hangs: as if its heartbeat were lost."""
        if self._conductor.state.phase in (Phase.STARTING, Phase.READY):
            now = self._loop.time()
            self._stop(Due(now, Reason.HEARTBEAT_LOST, message), now)

    def limit_health(self, seconds: float) -> None:
        """How long the game may be silent, where the settings do not say it: its own host's rule."""
        if not self._limits.health:
            self._limits = replace(self._limits, health=seconds)
            self._loop.call_soon(self.look)

    def hold(self, seconds: float | None) -> None:
        """The game wants no stop for want of players for so long from now; None ends that."""
        self._held_until = None if seconds is None else self._loop.time() + seconds
        self._loop.call_soon(self.look)

    def close(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _stop(self, due: Due, now: float) -> None:
        log.warning(f"{due.message}: stopping")
        if due.reason is Reason.HEARTBEAT_LOST:
            self._on_hang()
        self._conductor.post(StopRequested(now, StopRequest(Source.POLICY, due.reason, now, due.message)))

    def _on_fact(self, fact: Fact) -> None:
        match fact:
            case PlayersReported(count=count, at=at):
                if count > 0:
                    self._seen_players, self._empty_since = True, None
                elif self._seen_players and self._empty_since is None:
                    self._empty_since = at
            case ReportCleared():
                self._seen_players, self._empty_since = False, None
            case _:
                pass
        self._loop.call_soon(self.look)

    def _on_transition(self, before: State, after: State, _event: Event) -> None:
        if after.phase is not before.phase or after.started_at != before.started_at:
            if after.phase is Phase.STARTING:
                self._seen_players, self._empty_since = False, None
                self._counted_before = False
            self._loop.call_soon(self.look)

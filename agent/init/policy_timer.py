"""Evaluates the policies and schedules the next evaluation. Standard library only.

It collects the facts, owns one timer, and asks for the stop when one is due. An evaluation too early has no effect.
"""

from __future__ import annotations

from agent import log
from agent.lifecycle.game_report import GameReport, PlayersReported, ReportCleared
from agent.lifecycle.policies import Due, Facts, Limits, TimeWarning, stops, warnings
from agent.lifecycle.states import Phase, PlayersGone, Reason, Source, State, StopRequest, StopRequested
from agent.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.init.loop import Loop, TimerHandle
    from agent.lifecycle.driver import Driver
    from agent.lifecycle.game_report import Fact
    from agent.lifecycle.states import Event

# If a timer fires this many seconds late, nothing ran meanwhile (a paused container, a suspended machine): the game
# could not have sent its heartbeat either, or it has not been read yet.
_LATE = 1.0
# These depend on what the game reported: the agent must have read everything that arrived before they apply.
_BY_REPORT = (Reason.HEARTBEAT_LOST, Reason.EMPTY, Reason.FIRST_PLAYER_TIMEOUT, Reason.NOT_READY)


class PolicyTimer:
    """Evaluates the policies when a fact changes, and when the next stop or warning is due."""

    def __init__(
        self,
        driver: Driver,
        report: GameReport,
        limits: Limits,
        *,
        loop: Loop,
        began: float,
        expected_players: int | None,
        on_hang: Callable[[], None],
        warn: Callable[[float], None],
        caught_up: Callable[[Callable[[], None]], None] = lambda then: then(),
    ) -> None:
        """Watches from now on.

        Args:
            driver: gets the stop requests.
            report: what the game says.
            limits: the settings.
            loop: its clock is used for all times.
            began: when the container began.
            expected_players: how many the match was made for, or None.
            on_hang: called before the stop of a game without heartbeat, to capture its stacks or a core.
            warn: tells the game how many seconds it has left.
            caught_up: calls back once everything that the game has reported so far is in `report`.
        """
        self._driver = driver
        self._report = report
        self._limits = limits
        self._loop = loop
        self._began = began
        self._expected = expected_players
        self._on_hang = on_hang
        self._warn = warn
        self._caught_up = caught_up
        self._asked: tuple[Reason, float] | None = None  # the stop that is due and is being confirmed
        self._confirmed_at = -1.0
        self._warned: set[float] = set()
        self._seen_players = False
        self._empty_since: float | None = None
        self._before_visit: tuple[bool, float | None] = False, None
        self._counted_since: float | None = began
        self._counted_before = False
        self._timer: TimerHandle | None = None
        self._timer_at = began
        self._resumed_at = began
        self._held_until: float | None = None
        report.subscribe(self._on_fact)
        driver.watch(self._on_transition)
        self._loop.call_soon(self.look)

    def facts(self) -> Facts:
        """What is known at this moment."""
        state, report = self._driver.state, self._report
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
        """Asks for the stop or warning that is due, and arms the timer for the next one."""
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
        for due in stops(self._limits, facts):
            if due.at > now:
                coming.append(due)
                break
            if due.reason not in _BY_REPORT or self._confirmed_at >= due.at:
                self._stop(due, now)
                return
            self._confirm(due)
        if coming:
            self._timer_at = min(one.at for one in coming)
            self._timer = self._loop.call_at(self._timer_at, self.look)

    def _confirm(self, due: Due) -> None:
        """Waits until everything that the game may have sent before the deadline has been read."""
        if self._asked == (due.reason, due.at):
            return
        self._asked = (due.reason, due.at)
        asked_at = self._loop.time()

        def confirmed() -> None:
            self._asked = None
            self._confirmed_at = asked_at
            self.look()

        self._caught_up(confirmed)

    def resumed(self) -> None:
        """The agent, which listens to the game, was not running until now: ignores the game's silence in that time."""
        self._resumed_at = self._loop.time()
        self._asked = None
        if self._empty_since is not None:
            self._empty_since = self._resumed_at
        self.look()

    def players_unknown(self, unknown: bool) -> None:
        """Players cannot be counted now: the server counts as occupied, and as empty only once counting works.

        A game that was never counted is still loading. If counting worked before, somebody may have joined meanwhile.
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

    def short_visit(self) -> None:
        """The visitor who just left was no player, but a port probe or a health check: ignores the visit."""
        self._seen_players, self._empty_since = self._before_visit
        self.look()

    def alarm(self, message: str) -> None:
        """The game's own watchdog reports a hang: treated like a lost heartbeat."""
        if self._driver.state.phase in (Phase.STARTING, Phase.READY):
            now = self._loop.time()
            self._stop(Due(now, Reason.HEARTBEAT_LOST, message), now)

    def limit_health(self, seconds: float) -> None:
        """Sets how long the game may be silent, by the rule of its host's SDK, unless a setting says it."""
        if not self._limits.health:
            self._limits = replace(self._limits, health=seconds)
            self.look()

    def hold(self, seconds: float | None) -> None:
        """For this many seconds, the game is not to be stopped for having no players; None ends that."""
        self._held_until = None if seconds is None else self._loop.time() + seconds
        self.look()

    def close(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _stop(self, due: Due, now: float) -> None:
        log.warning(f"{due.message}: stopping")
        if due.reason is Reason.HEARTBEAT_LOST:
            self._on_hang()
        request = StopRequest(Source.POLICY, due.reason, now, due.message)
        if due.reason is Reason.MAX_DURATION and self._limits.duration:
            request = replace(request, within_seconds=max(0.0, self._began + self._limits.duration - now))
        self._driver.post(StopRequested(now, request))

    def _on_fact(self, fact: Fact) -> None:
        match fact:
            case PlayersReported(count=count, at=at):
                if count > 0 and fact.before == 0:
                    self._before_visit = self._seen_players, self._empty_since
                if count > 0:
                    self._seen_players, self._empty_since = True, None
                elif self._seen_players and self._empty_since is None:
                    self._empty_since = at
                self._nobody_left(at)
            case ReportCleared():
                self._seen_players, self._empty_since = False, None
            case _:
                pass
        self._loop.call_soon(self.look)

    def _on_transition(self, before: State, after: State, event: Event) -> None:
        if after.phase is not before.phase or after.started_at != before.started_at:
            if after.phase is Phase.STARTING:
                self._seen_players, self._empty_since = False, None
                self._counted_before = False
                if before.phase is Phase.RESTARTING:
                    self._report.clear(event.at)
            if after.phase is Phase.DRAINING:
                self._nobody_left(event.at)
            self._loop.call_soon(self.look)

    def _nobody_left(self, at: float) -> None:
        """Ends the drain early when no player is left."""
        if self._driver.state.phase is Phase.DRAINING and self._report.players_known and self._report.count == 0:
            self._driver.post(PlayersGone(at))

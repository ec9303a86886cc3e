"""What the game reports about itself: players, heartbeats, a status text, its own metrics.

The facts are kept in one place for several readers: the API shows them, metrics count them, policies act on them, and
`exit.json` includes them. Readers can subscribe to changes. Nothing here does I/O or reads a clock; the caller passes
times, in seconds of the monotonic clock.

The two ways to report players share one number. `set_players` sets it; `join` adds one and `leave` subtracts one, once
for each id. A game uses one of the ways, or sets the number once and continues with ids. If the number is set below the
number of known ids, all ids are forgotten, because somebody left and the game did not say who. A later `leave` of a
forgotten id changes nothing.
"""

from __future__ import annotations

from types import MappingProxyType

from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeAlias

    from agent.lifecycle.game_metrics import CustomMetric, GameMetrics

MAX_PLAYERS = 1_000_000
"""The largest accepted count or capacity."""
MAX_IDS = 10_000
"""The most ids that are kept, so that a game which never reports who leaves cannot fill the agent's memory."""
MAX_ID_LENGTH = 128
MAX_TEXT_LENGTH = 500


class PlayersReported(Record):
    """The players changed; `before` is the previous count, `joined` or `left` the id if one was given."""

    at: float
    before: int
    count: int
    capacity: int | None
    joined: str | None = None
    left: str | None = None


class HeartbeatReported(Record):
    """The game sent heartbeats: `count` since the last of these facts."""

    at: float
    count: int = 1


class TextReported(Record):
    """The game set its status text."""

    at: float
    text: str


class MetricsReported(Record):
    """The game reported these metrics."""

    at: float
    names: tuple[str, ...]


class ReportCleared(Record):
    """The game was restarted: its earlier reports no longer count."""

    at: float


Fact: TypeAlias = PlayersReported | HeartbeatReported | TextReported | MetricsReported | ReportCleared
if TYPE_CHECKING:
    Listener: TypeAlias = Callable[[Fact], None]


class ReportError(ValueError):
    """A report is refused, and nothing was changed. `str()` is a sentence that begins with "cannot".

    Attributes:
        field: the wrong field.
        got: the refused value.
        takes: what would be accepted.
        conflict: whether it is refused only because of an earlier report.
    """

    def __init__(self, message: str, field: str, got: object, takes: str, *, conflict: bool = False) -> None:
        """Takes the sentence and its parts."""
        super().__init__(message)
        self.field = field
        self.got = got
        self.takes = takes
        self.conflict = conflict


class GameReport:
    """The latest reports of the game.

    Attributes:
        count: the number of players.
        capacity: the most players, or None if the game did not report it.
        players_known: whether the game ever reported players; before that `count` is 0 and means nothing.
        last_heartbeat: time of the latest heartbeat, or None.
        heartbeats: how many there were.
        text: the latest status text; may be empty.
        ids_changed: how often `ids` changed, so that readers can cache values made from them.
    """

    def __init__(self) -> None:
        """A game that has not reported anything."""
        self._listeners: list[Listener] = []
        self._metrics: GameMetrics | None = None
        self.ids_changed = 0
        self._forget()

    def _forget(self) -> None:
        self.count = 0
        self.capacity: int | None = None
        self.players_known = False
        self.last_heartbeat: float | None = None
        self.heartbeats = 0
        self.text = ""
        self._ids: dict[str, float] = {}
        self.ids_changed += 1
        if self._metrics is not None:
            self._metrics.clear()

    @property
    def ids(self) -> Mapping[str, float]:
        """The known ids in the order they joined, with the time of each; a view that stays up to date."""
        return MappingProxyType(self._ids)

    @property
    def metrics(self) -> GameMetrics:
        """The game's own figures by name."""
        if self._metrics is None:
            from agent.lifecycle.game_metrics import GameMetrics  # noqa: PLC0415 - the init has none

            self._metrics = GameMetrics()
        return self._metrics

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` after each change, at once and in the order of subscription.

        Returns:
            A function that ends the subscription; it may be called twice.
        """
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def _tell(self, fact: Fact) -> None:
        for listener in tuple(self._listeners):
            listener(fact)

    def set_players(self, at: float, count: int | None = None, capacity: int | None = None) -> None:
        """Sets the number of players, the capacity, or both; None leaves a value unchanged.

        Args:
            at: time of the report.
            count: the number of players now.
            capacity: the most players.

        Raises:
            ReportError: the count would be greater than the capacity, or a number is out of range.
        """
        for field, number in (("count", count), ("capacity", capacity)):
            if number is not None and not 0 <= number <= MAX_PLAYERS:
                takes = f"a whole number from 0 to {MAX_PLAYERS}"
                raise ReportError(f"cannot set players: {field} {number} is not {takes}", field, number, takes)
        new_count = self.count if count is None else count
        new_capacity = self.capacity if capacity is None else capacity
        if new_capacity is not None and new_count > new_capacity:
            if count is not None:
                takes = f"at most the capacity, {new_capacity}"
                message = f"cannot set players: count {count} is more than the capacity, {new_capacity}"
                raise ReportError(message, "count", count, takes)
            takes = f"at least the {new_count} who play now"
            raise ReportError(
                f"cannot set players: capacity {capacity} is less than the {new_count} who play now",
                "capacity",
                capacity,
                takes,
            )
        before = self.count
        if before == new_count and self.capacity == new_capacity and self.players_known:
            return
        if new_count < len(self._ids):
            self._ids.clear()
            self.ids_changed += 1
        self.count, self.capacity, self.players_known = new_count, new_capacity, True
        self._tell(PlayersReported(at, before, new_count, new_capacity))

    def join(self, player: str, at: float) -> bool:
        """Adds a player.

        Args:
            player: an id of the game's choice, 1 to `MAX_ID_LENGTH` printable characters.
            at: time of the join.

        Returns:
            Whether anything changed; a second join of the same id changes nothing.

        Raises:
            ReportError: the server is full, or the id is invalid.
        """
        if not player or len(player) > MAX_ID_LENGTH or not player.isprintable():
            takes = f"1 to {MAX_ID_LENGTH} printable characters"
            raise ReportError(f"cannot join: an id has {takes}", "id", player, takes)
        if player in self._ids:
            return False
        limit = MAX_PLAYERS if self.capacity is None else self.capacity
        if self.count >= limit:
            takes = f"at most {limit} players"
            raise ReportError(f"cannot join: all {limit} places are taken", "id", player, takes)
        if len(self._ids) >= MAX_IDS:
            takes = f"at most {MAX_IDS} ids"
            raise ReportError(f"cannot join: {MAX_IDS} ids are known; report who leaves", "id", player, takes)
        self._ids[player] = at
        self.ids_changed += 1
        self.count += 1
        self.players_known = True
        self._tell(PlayersReported(at, self.count - 1, self.count, self.capacity, joined=player))
        return True

    def leave(self, player: str, at: float) -> bool:
        """Removes a player.

        Args:
            player: the id given to `join`.
            at: time of the leave.

        Returns:
            Whether anything changed; an unknown id changes nothing.
        """
        if self._ids.pop(player, None) is None:
            return False
        self.ids_changed += 1
        self.count -= 1
        self._tell(PlayersReported(at, self.count + 1, self.count, self.capacity, left=player))
        return True

    def heartbeat(self, at: float) -> None:
        """The game lives."""
        self.last_heartbeat = at
        self.heartbeats += 1
        self._tell(HeartbeatReported(at))

    def set_text(self, text: str, at: float) -> None:
        """Sets the status text, which is converted to one printable line and cut to `MAX_TEXT_LENGTH`."""
        line = one_line(text, MAX_TEXT_LENGTH)
        if line != self.text:
            self.text = line
            self._tell(TextReported(at, line))

    def set_metrics(self, metrics: Iterable[CustomMetric], at: float) -> tuple[str, ...]:
        """Records metrics of the game: all of them, or none if one is wrong.

        Returns:
            Their names.

        Raises:
            ReportError: a name is invalid, a number is out of range, a type does not match, or there are too many
                names or label sets (`agent.lifecycle.game_metrics`).
        """
        from agent.lifecycle.game_metrics import MetricError  # noqa: PLC0415 - the init takes no figures

        try:
            names = self.metrics.report(metrics)
        except MetricError as wrong:
            raise ReportError(str(wrong), wrong.field, wrong.got, wrong.takes, conflict=wrong.conflict) from None
        if names:
            self._tell(MetricsReported(at, names))
        return names

    def set_known_metrics(self, values: Mapping[str, object], at: float) -> dict[str, float] | None:
        """Records numbers for known metrics quickly, or nothing; see `GameMetrics.set_values`."""
        known = self.metrics.set_values(values)
        if known:
            self._tell(MetricsReported(at, tuple(known)))
        return known

    def take(self, fact: Fact) -> None:
        """Applies a fact that another copy of this report sent to its listeners.

        Facts do not contain metric values, so such a copy has no metrics.
        """
        match fact:
            case PlayersReported(count=count, capacity=capacity, joined=joined, left=left, at=at):
                self.ids_changed += 1
                if joined is not None:
                    self._ids[joined] = at
                elif left is not None:
                    self._ids.pop(left, None)
                elif count < len(self._ids):
                    self._ids.clear()
                self.count, self.capacity, self.players_known = count, capacity, True
            case HeartbeatReported(at=at, count=count):
                self.last_heartbeat = max(at, self.last_heartbeat or at)
                self.heartbeats += count
            case TextReported(text=text):
                self.text = text
            case ReportCleared():
                self._forget()
            case _:
                pass
        self._tell(fact)

    def copy(self) -> GameReport:
        """A copy of the report without listeners."""
        other = GameReport()
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name != "_listeners"})
        other._ids, other._metrics = dict(self._ids), None
        if self._metrics is not None:
            other.metrics.load(self._metrics.dump())
        return other

    def clear(self, at: float) -> None:
        """Forgets all reports, because the game is restarted."""
        self._forget()
        self._tell(ReportCleared(at))


def one_line(text: str, limit: int) -> str:
    """The text as one printable line of at most `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"

"""The rules of the game, without sockets and clocks: who is where, who has how many coins, when it is over."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """What a match is like; times in seconds."""

    width: int = 40
    height: int = 10
    capacity: int = 8
    coins: int = 6
    goal: int = 10
    longest: float = 120.0  # from the first player's join
    silence: float = 5.0  # after which a player counts as gone


@dataclass
class Player:
    """One player: a place on the field, coins, where it wants to go, and when it was last heard of."""

    id: int
    name: str
    x: int
    y: int
    heard_at: float
    coins: int = 0
    dx: int = 0
    dy: int = 0


@dataclass(frozen=True)
class Result:
    """How a match ended.

    Attributes:
        reason: `goal`, `time`, `left` (everybody has) or `stopped` (the server was told to end).
        winner: who has the most coins; None where nobody or several have.
        scores: coins by name, also of those who left.
        seconds: from the first join to the end.
    """

    reason: str
    winner: str | None
    scores: dict[str, int]
    seconds: float


class World:
    """A match. Every moment that it is told is in seconds of one clock."""

    def __init__(self, rules: Rules, rng: random.Random) -> None:
        """An empty field with coins on it."""
        self.rules = rules
        self.players: dict[int, Player] = {}
        self.coins: set[tuple[int, int]] = set()
        self.ticks = 0
        self.result: Result | None = None
        self._rng = rng
        self._next_id = 1
        self._began: float | None = None
        self._scores: dict[str, int] = {}
        self._scatter()

    def _scatter(self) -> None:
        wanted = min(self.rules.coins, self.rules.width * self.rules.height - 1)
        while len(self.coins) < wanted:
            self.coins.add((self._rng.randrange(self.rules.width), self._rng.randrange(self.rules.height)))

    def why_not(self) -> str | None:
        """Why nobody can join, or None."""
        if self.result is not None:
            return "the match is over"
        if len(self.players) >= self.rules.capacity:
            return "the server is full"
        return None

    def join(self, name: str, now: float) -> Player:
        """Adds a player at a random place. The caller has asked `why_not`."""
        if self._began is None:
            self._began = now
        taken = {player.name for player in self.players.values()}
        name = next(each for each in _names(name) if each not in taken)
        player = Player(
            self._next_id, name, self._rng.randrange(self.rules.width), self._rng.randrange(self.rules.height), now
        )
        self._next_id += 1
        self.players[player.id] = player
        self._scores.setdefault(name, 0)
        return player

    def move(self, player: Player, dx: int, dy: int, now: float) -> None:
        """Says where a player wants to go: at most one step each way a tick, until it says otherwise."""
        player.heard_at = now
        player.dx = max(-1, min(1, dx))
        player.dy = max(-1, min(1, dy))

    def leave(self, player: Player) -> None:
        """Takes a player off the field; the coins stay in the result."""
        self.players.pop(player.id, None)

    def tick(self, now: float) -> list[Player]:
        """Moves everybody one step and sees who is gone and whether it is over.

        Returns:
            The players that were not heard of for too long; they have left.
        """
        if self.result is not None:
            return []
        self.ticks += 1
        gone = [player for player in self.players.values() if now - player.heard_at > self.rules.silence]
        for player in gone:
            self.leave(player)
        for player in self.players.values():
            player.x = max(0, min(self.rules.width - 1, player.x + player.dx))
            player.y = max(0, min(self.rules.height - 1, player.y + player.dy))
            if (player.x, player.y) in self.coins:
                self.coins.remove((player.x, player.y))
                self._scores[player.name] += 1
                player.coins = self._scores[player.name]
        self._scatter()
        reason = self._why_over(now)
        if reason is not None:
            self.end(reason, now)
        return gone

    def _why_over(self, now: float) -> str | None:
        if self._began is None:
            return None
        if any(player.coins >= self.rules.goal for player in self.players.values()):
            return "goal"
        if not self.players:
            return "left"
        if now - self._began >= self.rules.longest:
            return "time"
        return None

    def end(self, reason: str, now: float) -> Result:
        """Ends the match, if it has not ended; the first end counts."""
        if self.result is None:
            best = max(self._scores.values(), default=0)
            leaders = [name for name, coins in self._scores.items() if coins == best]
            seconds = 0.0 if self._began is None else now - self._began
            winner = leaders[0] if len(leaders) == 1 else None
            self.result = Result(reason, winner, dict(self._scores), round(seconds, 2))
        return self.result


def _names(wanted: str) -> Iterator[str]:
    """The name, then the name with a number: `ada`, `ada 2`, `ada 3`."""
    name = "".join(each for each in wanted if each.isprintable()).strip()[:16] or "player"
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name} {number}"

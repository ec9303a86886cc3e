"""Serves one match over UDP, and lives by what arbitrium-agent is for: ready, heartbeats, players, and a proper end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
from dataclasses import asdict
from types import FrameType

from .agent_link import AgentLink, complain
from .agones_link import AgonesLink
from .multiplay_link import MultiplayLink
from .playfab_link import PlayFabLink
from .world import Player, Result, Rules, World

Address = tuple[str, int]

TICK_SECONDS = 0.05
TICKS_BETWEEN_FIELDS = 2
HEARTBEAT_SECONDS = 1.0
LARGEST_DATAGRAM = 2048
MOST_SPECTATORS = 16
ENDING_SECONDS = 10.0  # how long to wait for the stop that was asked for


class Server:
    """One match, its socket, and its line to the agent.

    Attributes:
        told_to_end: set by a signal; the loop sees it within one tick.
    """

    def __init__(self, world: World, listening: socket.socket, link: AgentLink, result_file: str) -> None:
        """Takes a bound UDP socket; nothing is sent yet."""
        listening.setblocking(False)
        self.told_to_end = False
        self._world = world
        self._socket = listening
        self._link = link
        self._result_file = result_file
        self._players: dict[Address, Player] = {}
        self._spectators: dict[Address, float] = {}
        self._slowest_tick = 0.0

    def end(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Asks the loop to end; a signal handler."""
        self.told_to_end = True

    def run(self) -> int:
        """Serves until the match is over and the agent has stopped it, or until it is told to end.

        Returns:
            The exit code: 0 when the result is saved.
        """
        rules = self._world.rules
        host, port = self._socket.getsockname()[:2]
        say(f"listening on {host}:{port} for {rules.capacity} players, {rules.goal} coins win")
        self._link.capacity(rules.capacity)
        self._link.ready()
        next_tick = next_heartbeat = time.monotonic()
        while self._world.result is None and not self._must_end:
            self._receive(next_tick)
            now = time.monotonic()
            if now >= next_tick:
                self._tick(now)
                next_tick = max(next_tick + TICK_SECONDS, now)
            if now >= next_heartbeat:
                self._heartbeat()
                next_heartbeat = now + HEARTBEAT_SECONDS
        return self._finish()

    @property
    def _must_end(self) -> bool:
        return self.told_to_end or self._link.told_to_end

    def _receive(self, until: float) -> None:
        """Handles datagrams until the moment `until`; at least those that are there already."""
        while not self._must_end:
            wait = max(0.0, until - time.monotonic())
            if not select.select([self._socket], [], [], wait)[0]:
                return
            try:
                data, address = self._socket.recvfrom(LARGEST_DATAGRAM)
            except OSError:  # an ICMP error of an earlier send
                continue
            self._handle(data, address[:2])
            if time.monotonic() >= until:
                return

    def _handle(self, data: bytes, address: Address) -> None:
        try:
            message = json.loads(data)
            kind = message["type"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return  # anybody can send anything to a UDP port
        now = time.monotonic()
        player = self._players.get(address)
        if kind == "join":
            self._join(message, address, player, now)
        elif kind == "watch":
            if len(self._spectators) < MOST_SPECTATORS or address in self._spectators:
                self._spectators[address] = now
        elif player is not None and kind == "move":
            dx, dy = message.get("dx"), message.get("dy")
            if isinstance(dx, int) and isinstance(dy, int):
                self._world.move(player, dx, dy, now)
        elif player is not None and kind == "leave":
            self._world.leave(player)
            self._left(player, "left")

    def _join(self, message: dict[str, object], address: Address, player: Player | None, now: float) -> None:
        if player is None:
            why_not = "the server is stopping" if self._link.stop_announced.is_set() else self._world.why_not()
            if why_not is not None:
                self._send({"type": "refused", "why": why_not}, address)
                return
            player = self._world.join(str(message.get("name", "")), now)
            self._players[address] = player
            self._link.joined(player.name)
            say(f"{player.name} joined ({len(self._world.players)} of {self._world.rules.capacity})")
        rules = self._world.rules
        welcome = {"id": player.id, "name": player.name, "width": rules.width, "height": rules.height}
        self._send({"type": "welcome", "goal": rules.goal, **welcome}, address)

    def _left(self, player: Player, how: str) -> None:
        self._players = {address: each for address, each in self._players.items() if each is not player}
        self._link.left(player.name)
        say(f"{player.name} {how} with {player.coins} coins ({len(self._world.players)} play)")

    def _tick(self, now: float) -> None:
        for gone in self._world.tick(now):
            self._left(gone, "is not heard of any more and left")
        if self._world.ticks % TICKS_BETWEEN_FIELDS == 0:
            players = [[each.id, each.name, each.x, each.y, each.coins] for each in self._world.players.values()]
            self._tell_all({"type": "field", "tick": self._world.ticks, "players": players, "coins": self._coins()})
            silence = self._world.rules.silence
            self._spectators = {who: since for who, since in self._spectators.items() if now - since < silence}
        self._slowest_tick = max(self._slowest_tick, time.monotonic() - now)

    def _coins(self) -> list[list[int]]:
        return [list(coin) for coin in sorted(self._world.coins)]

    def _heartbeat(self) -> None:
        self._link.heartbeat()
        self._link.figures(
            {
                "ticks_total": self._world.ticks,
                "slowest_tick_seconds": {"value": round(self._slowest_tick, 6), "help": "Slowest tick of this second."},
            }
        )
        self._slowest_tick = 0.0

    def _finish(self) -> int:
        """Saves the result, tells the players, and has the deployment stopped if nobody does that already."""
        asked_to = self._link.words or "SIGTERM"
        result = self._world.end("stopped", time.monotonic())
        saved = self._save(result)
        self._tell_all({"type": "over", **asdict(result)})
        say(f"the match is over ({result.reason}): {_scores(result)}")
        for player in list(self._players.values()):
            self._link.left(player.name)
        if result.reason == "stopped":
            say(f"ending: {asked_to}")
        elif self._link.connected:
            self._link.stop(f"match over: {result.winner or 'nobody'} wins")
            end = time.monotonic() + ENDING_SECONDS
            while self._link.stops_the_game and not self._must_end and time.monotonic() < end:
                time.sleep(TICK_SECONDS)
        self._link.close()
        return 0 if saved else 1

    def _save(self, result: Result) -> bool:
        part = f"{self._result_file}.part"
        try:
            with open(part, "w", encoding="utf-8") as file:
                json.dump(asdict(result), file, indent=2)
                file.write("\n")
            os.replace(part, self._result_file)
        except OSError as problem:
            complain(f"cannot save the result in {self._result_file}: {problem.strerror}; set MATCH_RESULT_FILE")
            return False
        say(f"the result is saved in {self._result_file}")
        return True

    def _tell_all(self, message: dict[str, object]) -> None:
        for address in [*self._players, *self._spectators]:
            self._send(message, address)

    def _send(self, message: dict[str, object], address: Address) -> None:
        # A datagram can be lost anywhere; where the kernel does not take it, it is lost here.
        with contextlib.suppress(OSError):
            self._socket.sendto(json.dumps(message, separators=(",", ":")).encode(), address)


def _scores(result: Result) -> str:
    ranked = sorted(result.scores.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{name} {coins}" for name, coins in ranked) or "nobody played"


def say(sentence: str) -> None:
    """One line on stdout."""
    print(f"udp_game: {sentence}", flush=True)


def _link(host: str) -> AgentLink:
    """Whom the game talks to: arbitrium-agent, or what another host has in its place."""
    if host == "agones":
        return AgonesLink()
    if host == "multiplay":
        return MultiplayLink()
    if host == "playfab":
        return PlayFabLink()
    return AgentLink(os.environ.get("AGENT_URL"))


def _number(name: str, default: float) -> float:
    """A number from the environment; a value that is none is said and not used."""
    text = os.environ.get(name, "").strip()
    try:
        return float(text) if text else default
    except ValueError:
        complain(f"cannot use {name}={text!r}: it takes a number; using {default:g}")
        return default


def main() -> int:
    """Reads the environment and serves.

    `ARBITRIUM_PORT_GAMEPORT_INTERNAL` (injected by the platform, 7777 without it), `MATCH_GOAL` (coins),
    `MATCH_SECONDS`, `MATCH_CAPACITY`, `MATCH_SEED`, `MATCH_RESULT_FILE`, `MATCH_HOST` (agones, multiplay or playfab:
    whose local agent the game was made for).
    """
    rules = Rules(
        goal=int(_number("MATCH_GOAL", 10)),
        longest=_number("MATCH_SECONDS", 120.0),
        capacity=int(_number("MATCH_CAPACITY", 8)),
    )
    seed = os.environ.get("MATCH_SEED")
    world = World(rules, random.Random(seed) if seed else random.Random())  # noqa: S311 - where a coin lies is no secret
    port = int(_number("ARBITRIUM_PORT_GAMEPORT_INTERNAL", 7777))
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listening.bind(("0.0.0.0", port))  # noqa: S104 - players come from outside
    except OSError as problem:
        complain(f"cannot listen on UDP port {port}: {problem.strerror}; is another server running?")
        return 1
    with listening:
        server = Server(
            world,
            listening,
            _link(os.environ.get("MATCH_HOST", "")),
            os.environ.get("MATCH_RESULT_FILE", "match-result.json"),
        )
        signal.signal(signal.SIGTERM, server.end)
        signal.signal(signal.SIGINT, server.end)
        return server.run()


if __name__ == "__main__":
    sys.exit(main())

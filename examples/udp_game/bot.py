"""A player that plays by itself: joins, runs to the nearest coin, and leaves.

`python3 -m udp_game.bot --port 7777 --name ada`. Prints one line when it has joined and one when it is done; exits 0
when it played and 1 when it could not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

Point = tuple[int, int]

ANSWER_SECONDS = 5.0  # how long a silent server counts as there
JOIN_AGAIN_SECONDS = 0.5


def step_towards(here: Point, coins: list[Point], rng: random.Random) -> Point:
    """One step to the nearest coin; now and then another way, so that not all bots move alike."""
    if not coins or rng.random() < 0.1:
        return rng.choice((-1, 0, 1)), rng.choice((-1, 0, 1))
    x, y = min(coins, key=lambda coin: (max(abs(coin[0] - here[0]), abs(coin[1] - here[1])), coin))
    return _sign(x - here[0]), _sign(y - here[1])


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


class Bot:
    """One player and its socket."""

    def __init__(self, host: str, port: int, name: str, rng: random.Random) -> None:
        """Takes where the server is; nothing is sent yet."""
        self.id: int | None = None
        self.name = name
        self._rng = rng
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((host, port))

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def join(self) -> None:
        """Joins, asking again until the server answers.

        Raises:
            ConnectionError: it refuses, or does not answer.
        """
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            self._send({"type": "join", "name": self.name})
            for message in self._messages(JOIN_AGAIN_SECONDS):
                if message["type"] == "welcome":
                    self.id, self.name = message["id"], message["name"]
                    return
                if message["type"] == "refused":
                    raise ConnectionError(f"cannot join: {message['why']}")
        raise ConnectionError(f"cannot join: no answer within {ANSWER_SECONDS:g} s")

    def play(self, seconds: float) -> str:
        """Plays until the match is over or `seconds` have passed, then leaves.

        Returns:
            How it ended, as a sentence.

        Raises:
            ConnectionError: the server has fallen silent.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            heard = False
            for message in self._messages(ANSWER_SECONDS, most=1):
                heard = True
                if message["type"] == "over":
                    return f"the match is over, {message['winner'] or 'nobody'} wins"
                if message["type"] == "field":
                    self._follow(message)
            if not heard:
                raise ConnectionError(f"cannot play on: the server said nothing for {ANSWER_SECONDS:g} s")
        self._send({"type": "leave"})
        return "left"

    def _follow(self, field: dict[str, Any]) -> None:
        me = next(((x, y) for number, _, x, y, _ in field["players"] if number == self.id), None)
        if me is not None:
            dx, dy = step_towards(me, [(x, y) for x, y in field["coins"]], self._rng)
            self._send({"type": "move", "dx": dx, "dy": dy})

    def _send(self, message: dict[str, object]) -> None:
        # A refusal is said of an earlier datagram: the server was not there then.
        with contextlib.suppress(ConnectionRefusedError):
            self._socket.send(json.dumps(message).encode())

    def _messages(self, seconds: float, most: int | None = None) -> Iterator[dict[str, Any]]:
        """What the server says within `seconds`, `most` messages at most."""
        end = time.monotonic() + seconds
        while most != 0 and (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                message = json.loads(self._socket.recv(65536))
            except ConnectionRefusedError:
                time.sleep(0.05)
            except TimeoutError:
                return
            else:
                most = None if most is None else most - 1
                yield message


def main() -> int:
    """Plays as the options say."""
    parser = argparse.ArgumentParser(prog="udp_game.bot", description="Plays by itself.")
    parser.add_argument("--host", default="127.0.0.1", help="address of the server (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7777, help="its UDP port (default: %(default)s)")
    parser.add_argument("--name", default="bot", help="what to be called (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long to play (default: to the end)")
    parser.add_argument("--seed", help="makes its whims repeatable")
    args = parser.parse_args()
    bot = Bot(args.host, args.port, args.name, random.Random(args.seed))  # noqa: S311 - a whim is no secret
    try:
        bot.join()
        print(f"{bot.name}: joined", flush=True)
        print(f"{bot.name}: {bot.play(args.seconds)}", flush=True)
    except ConnectionError as problem:
        print(f"{bot.name}: {problem}", file=sys.stderr, flush=True)
        return 1
    finally:
        bot.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The demo game as a process: its socket, what it tells an agent, and how it ends."""

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from examples.udp_game.bot import Bot
from tests.free_ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"


class Agent(ThreadingHTTPServer):
    """The few routes of the agent that the game uses; remembers each call and announces a stop when told to.

    Attributes:
        calls: method, path and body of each call, in order.
        announced: lets the stream of events say that a stop is under way.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: queue.Queue[tuple[str, str, Any]] = queue.Queue()
        self.announced = threading.Event()
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def heard(self, method: str, path: str) -> Any:
        """Waits for a call and returns its body; what came before it is forgotten."""
        while True:
            call = self.calls.get(timeout=20)
            if call[:2] == (method, path):
                return call[2]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Agent

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.put((self.command, self.path, json.loads(body) if body else None))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that the base class calls

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b'id: 0\nevent: state\ndata: {"phase": "starting"}\n\n')
        self.server.announced.wait()
        if not self.server.closing.is_set():
            self.wfile.write(b'id: 1\nevent: stop\ndata: {"reason": "requested", "message": "maintenance"}\n\n')
            self.server.closing.wait()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Says nothing."""


@pytest.fixture
def agent() -> Iterator[Agent]:
    """A small agent that listens."""
    with Agent() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.closing.set()
        server.announced.set()
        server.shutdown()
        thread.join()


class Game:
    """The running game.

    Attributes:
        port: where it listens.
        result_file: where it saves its result.
    """

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = free_port()
        self.result_file = directory / "result.json"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "udp_game"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(EXAMPLES),
                "ARBITRIUM_PORT_GAMEPORT_INTERNAL": str(self.port),
                "MATCH_RESULT_FILE": str(self.result_file),
                "MATCH_GOAL": "3",
                "MATCH_SEED": "7",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self.bots: list[Bot] = []

    def says(self, words: str) -> str:
        """Waits for a line with these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"it ended without saying {words!r}: {''.join(self.said)}")

    def ended(self) -> int:
        """Waits for its end and returns its exit code."""
        assert self.process.stdout is not None
        self.said += self.process.stdout.readlines()
        return self.process.wait(20)

    def result(self) -> dict[str, Any]:
        """What it saved."""
        return dict(json.loads(self.result_file.read_text()))

    def bot(self, name: str) -> Bot:
        """A player that has joined; closed with the game."""
        bot = Bot("127.0.0.1", self.port, name, random.Random(7))
        self.bots.append(bot)
        bot.join()
        return bot

    def close(self) -> None:
        """Makes sure that it is gone, and its players."""
        for bot in self.bots:
            bot.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Game]]:
    """Starts games, with variables of the environment, and ends them."""
    games: list[Game] = []

    def start_one(**environment: str) -> Game:
        games.append(Game(tmp_path, **environment))
        return games[-1]

    yield start_one
    for game in games:
        game.close()


@pytest.fixture
def game(start: Callable[..., Game], agent: Agent) -> Game:
    """The game with an agent."""
    return start(AGENT_URL=agent.url)


def test_a_match_is_reported_from_ready_to_the_wish_to_be_stopped(game: Game, agent: Agent) -> None:
    """Capacity, ready, heartbeats, players by name, figures, and a stop with the result in words."""
    assert agent.heard("PUT", "/v1/players") == {"count": 0, "capacity": 8}
    agent.heard("POST", "/v1/ready")
    agent.heard("POST", "/v1/health")
    assert agent.heard("POST", "/v1/metrics")["ticks_total"] >= 0
    bot = game.bot("ada lovelace")
    agent.heard("PUT", "/v1/players/ada%20lovelace")
    assert bot.play(20) == "the match is over, ada lovelace wins"
    agent.heard("DELETE", "/v1/players/ada%20lovelace")
    assert agent.heard("POST", "/v1/stop") == {"reason": "match over: ada lovelace wins"}
    assert game.process.poll() is None, "it waits to be stopped"
    game.process.send_signal(signal.SIGTERM)
    assert game.ended() == 0
    assert game.result()["scores"] == {"ada lovelace": 3}


def test_sigterm_in_the_middle_of_a_match_saves_its_result(game: Game, agent: Agent) -> None:
    """Players are told, and no stop is asked for: somebody else has decided it."""
    agent.heard("POST", "/v1/ready")
    bot = game.bot("ada")
    game.process.send_signal(signal.SIGTERM)
    assert bot.play(20).startswith("the match is over")
    assert game.ended() == 0
    assert game.result()["reason"] == "stopped"
    assert ("POST", "/v1/stop") not in [call[:2] for call in list(agent.calls.queue)]


def test_an_announced_stop_lets_nobody_in_and_the_match_go_on(game: Game, agent: Agent) -> None:
    """Until SIGTERM comes, players may finish."""
    first = game.bot("ada")
    agent.announced.set()

    def come_late() -> None:
        while True:
            game.bot("late").play(0)

    with pytest.raises(ConnectionError, match=r"cannot join: the server is stopping"):
        come_late()
    game.process.send_signal(signal.SIGTERM)
    assert first.play(20).startswith("the match is over")
    assert game.ended() == 0
    assert "ending: maintenance\n" in game.said[-1]


def test_without_an_agent_it_plays_the_same_and_ends_by_itself(start: Callable[..., Game]) -> None:
    """Nothing is missing on a developer's machine but the agent."""
    game = start()
    assert game.bot("ada").play(20) == "the match is over, ada wins"
    assert game.ended() == 0
    assert game.result()["winner"] == "ada"


def test_an_agent_that_is_gone_does_not_stop_the_match(start: Callable[..., Game]) -> None:
    """It is said on stderr, and played on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    game = start(AGENT_URL=f"http://127.0.0.1:{nobody}")
    assert game.bot("ada").play(20) == "the match is over, ada wins"
    game.process.send_signal(signal.SIGTERM)
    assert game.ended() == 0
    assert "cannot call POST /v1/ready of the agent" in "".join(game.said)


def test_what_is_no_message_is_ignored(game: Game, agent: Agent) -> None:
    """Anybody can send anything to a UDP port; the match goes on."""
    agent.heard("POST", "/v1/ready")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"\xff", b"[]", b"7", b"{}", b'{"type": 7}', b'{"type": "move", "dx": "x"}', b"[" * 2000):
            stranger.sendto(data, ("127.0.0.1", game.port))
    bot = game.bot("ada")
    assert bot.play(20) == "the match is over, ada wins"


def test_a_result_that_cannot_be_saved_is_an_error(start: Callable[..., Game], tmp_path: Path) -> None:
    """It is said with what to do, and the exit code shows it."""
    game = start(MATCH_RESULT_FILE=str(tmp_path / "missing" / "result.json"))
    game.bot("ada").play(20)
    assert game.ended() == 1
    assert "cannot save the result" in "".join(game.said)


def test_a_port_that_is_taken_is_an_error(start: Callable[..., Game]) -> None:
    """Named, with a guess at the cause."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        game = start(ARBITRIUM_PORT_GAMEPORT_INTERNAL=str(other.getsockname()[1]))
        assert game.ended() == 1
    assert "cannot listen on UDP port" in game.said[0]

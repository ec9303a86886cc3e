"""The demo, run as a user runs it: what it shows, what it leaves, and that nothing goes on afterwards."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "agent", "demo"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass
class Mark:
    """A variable that every process of one demo inherits, so that what is left of it can be found."""

    name: str = field(default_factory=lambda: f"DEMO_MARK={uuid.uuid4().hex}")

    def environment(self, **more: str) -> dict[str, str]:
        """This process's environment with the mark, and without what would switch colours off."""
        kept = {name: text for name, text in os.environ.items() if name not in ("NO_COLOR", "TERM")}
        name, _, text = self.name.partition("=")
        return {**kept, name: text, **more}

    def processes(self) -> list[int]:
        """Those with the mark that run."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and self.name.encode() in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
            except OSError:
                continue
        return found


@pytest.fixture
def mark() -> Iterator[Mark]:
    """A mark of which nothing is left in the end, not even after a test that failed."""
    it = Mark()
    yield it
    for pid in it.processes():
        os.kill(pid, signal.SIGKILL)


def demo(directory: Path, mark: Mark, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs the demo without a terminal."""
    return subprocess.run(
        [*COMMAND, "--directory", str(directory), *options],
        env=mark.environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("host", ["agones", "multiplay", "playfab"])
def test_the_demo_plays_a_game_made_for_another_host(tmp_path: Path, mark: Mark, host: str) -> None:
    """The same match, with the other host's protocol between the game and the agent."""
    it = demo(tmp_path / "demo", mark, "--as", host)
    assert it.returncode == 0, it.stdout + it.stderr
    assert mark.processes() == []
    # A game that is ready before anyone has subscribed is shown as such at once.
    assert re.search(r"agent +(starting →|is) ready", it.stdout)
    for words in ("wins", "ready → ", "is TERMINATED", "nothing is left running"):
        assert words in it.stdout
    if host != "multiplay":
        assert "ada joined" in it.stdout
    assert not list(Path.home().glob("server.json.*"))


@pytest.mark.slow
def test_the_demo_shows_a_whole_life_and_leaves_nothing_running(tmp_path: Path, mark: Mark) -> None:
    """States, players, calls and figures as plain lines; then logs and exit.json where it says; no secret in any."""
    it = demo(tmp_path / "demo", mark)
    assert it.returncode == 0, it.stdout + it.stderr
    assert it.stderr == ""
    assert mark.processes() == []
    assert "\x1b" not in it.stdout
    happened = [
        "POST /v1/storage/endpoint",
        "POST /v1/app ",
        "POST /v1/app/udp-game/version",
        "POST /v2/deployments 202",
        "is SEEKING",
        "is DEPLOYING",
        "is READY",
        "ready",
        "ada joined, 1 of 8 play",
        "edsger joined",
        "wins",
        "ready → stopping",
        "stopping → flushing",
        "is TERMINATED",
        "nothing is left running",
    ]
    at = 0
    for words in happened:
        at = it.stdout.find(words, at)
        assert at >= 0, f"{words!r} is not there, or not after what should come before it:\n{it.stdout}"
    for words in ("linus left", "flushing → releasing", "the game asks for a stop: “match over: ", " of CPU, "):
        assert words in it.stdout
    assert re.search(r"DELETE /v1/self/stop/[0-9a-f]{12}/…\?container_log_storage=true 202", it.stdout)

    named = dict(re.findall(r"^  (exit\.json|logs|platform's copy|match result) +(/.+)$", it.stdout, re.MULTILINE))
    story = json.loads(Path(named["exit.json"]).read_text())
    assert (story["reason"], story["exit_code"], story["stop"]["source"]) == ("requested", 0, "game")
    assert list(Path(named["logs"]).glob("*.zst"))
    assert "udp_game: the match is over (goal)" in Path(named["platform's copy"]).read_text()
    assert max(json.loads(Path(named["match result"]).read_text())["scores"].values()) >= 20

    written = it.stdout
    for path in (tmp_path / "demo").rglob("*"):
        if path.is_file() and path.suffix != ".zst":
            written += path.read_text(errors="replace")
    assert not re.search(r"self/stop/[0-9a-f]{12}/[0-9]", written), "the stop key"
    assert not re.search(r"\b[0-9a-f]{32}\b", written), "the token"


@pytest.mark.slow
def test_in_a_terminal_there_is_a_picture_that_moves(tmp_path: Path, mark: Mark) -> None:
    """The field with players on it, the phases of the life; and the transcript is whole when it is gone."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--directory", str(tmp_path / "demo")],
        env=mark.environment(TERM="xterm-256color", COLUMNS="100", LINES="30"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while True:
            shown += os.read(ours, 65536)
    except OSError:  # the last one to hold the terminal has closed it
        pass
    finally:
        os.close(ours)
    assert process.wait(20) == 0
    text = ESCAPES.sub("", shown.decode())
    assert "\x1b[" in shown.decode()
    assert "20 coins win" in text
    assert "starting ─ ready ─ draining ─ stopping ─ flushing ─ releasing ─ exited" in text
    assert re.search(r"│ .*A.* │  ", text), "ada is on the field"
    assert "nothing is left running" in text
    assert mark.processes() == []


@pytest.mark.slow
def test_players_that_cannot_join_fail_the_demo_aloud(tmp_path: Path, mark: Mark) -> None:
    """A step that does not come about: which, the last words of the game, exit 1, and nothing left."""
    it = demo(tmp_path / "demo", mark, MATCH_CAPACITY="0")
    assert it.returncode == 1
    assert "arbitrium-agent demo: cannot play on: the bot ada: cannot join: the server is full" in it.stderr
    assert "| udp_game: listening on" in it.stdout
    assert "Traceback" not in it.stderr
    assert mark.processes() == []


@pytest.mark.slow
def test_a_game_that_is_killed_fails_the_demo_aloud(tmp_path: Path, mark: Mark) -> None:
    """The agent stops the deployment; the demo does not wait for a match that never ends."""
    with running(tmp_path, mark) as process:
        (game,) = [pid for pid in mark.processes() if is_game(pid)]
        os.kill(game, signal.SIGKILL)
        shown, complaint = process.communicate(timeout=50)
    assert process.returncode == 1
    assert complaint.startswith("arbitrium-agent demo: cannot ")
    assert "| arbitrium-agent: the game has ended with signal 9" in shown
    assert "TERMINATED" in shown
    assert mark.processes() == []


def is_game(pid: int) -> bool:
    """Whether this process is the game itself, and neither its agent nor a bot."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[1:3] == [b"-m", b"udp_game"]


@contextmanager
def running(tmp_path: Path, mark: Mark) -> "Iterator[subprocess.Popen[str]]":
    """The demo, at the moment when a player has joined."""
    with subprocess.Popen(
        [*COMMAND, "--directory", str(tmp_path / "demo")],
        env=mark.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "joined" in line:
                break
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_a_demo_that_is_interrupted_ends_what_it_started(tmp_path: Path, mark: Mark, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM: the deployment is stopped as by the platform, and the bots are gone."""
    with running(tmp_path, mark) as process:
        process.send_signal(number)
        shown, complaint = process.communicate(timeout=50)
    assert process.returncode == (130 if number is signal.SIGINT else 143)
    assert "TERMINATED" in shown
    assert complaint == ""
    assert mark.processes() == []


@pytest.mark.slow
def test_a_directory_that_is_in_use_is_refused(tmp_path: Path, mark: Mark) -> None:
    """Nothing of the user's is mixed with what the demo writes."""
    (tmp_path / "mine").write_text("mine")
    it = demo(tmp_path, mark)
    assert it.returncode == 1
    assert it.stderr.startswith(f"cannot write to {tmp_path}: it is not empty")

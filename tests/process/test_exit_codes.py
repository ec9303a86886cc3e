"""The exit code of the agent is the game's: passed on, 128+n for a signal, 126 and 127 where it cannot be executed."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.process.harness import Launcher, game
from tests.variants import one_fast


@pytest.mark.parametrize("code", [0, *one_fast(255, 1, 42, 78)])
def test_the_games_exit_code_is_passed_on(launch: Launcher, code: int) -> None:
    """Whatever the game exits with is what the container exits with, also where the number has another meaning."""
    assert launch(game("exits", str(code))).finish().code == code


def test_the_exit_code_is_passed_on_when_not_pid_1(launch: Launcher) -> None:
    """On a laptop, without a namespace, the exit code is the same."""
    assert launch(game("exits", "42"), mode="subreaper").finish().code == 42


def test_the_exit_code_of_a_game_that_ran_for_a_while(launch: Launcher) -> None:
    """A game that ends by itself, long after the agent has finished starting, is reported with its own code."""
    run = launch(game("polite", "17"), mode="subreaper")
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    os.kill(run.game_pid, 15)
    assert run.finish().code == 17


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGSEGV", 11), *one_fast(("SIGKILL", 9), ("SIGABRT", 6), ("SIGTERM", 15), ("SIGUSR1", 10))],
)
def test_death_by_a_signal_gives_128_and_its_number(launch: Launcher, name: str, number: int) -> None:
    """A game that dies of a signal ends the container as a shell would report it."""
    done = launch(game("dies_of_signal", name)).finish()
    assert done.code == 128 + number
    assert b"ready" in done.stdout


def test_death_by_a_signal_when_not_pid_1(launch: Launcher) -> None:
    """The agent exits with 128+n; it does not die of the game's signal itself."""
    assert launch(game("dies_of_signal", "SIGSEGV"), mode="subreaper").finish().code == 139


def no_such_file(files: Path) -> Path:
    """A path with nothing there."""
    return files / "no-such-game"


def not_executable(files: Path) -> Path:
    """A proper script that somebody forgot to `chmod +x`."""
    path = files / "forgot-chmod"
    path.write_text("#!/bin/sh\nexit 0\n")
    return path


def no_program(files: Path) -> Path:
    """An executable file that is neither a program nor a script."""
    path = files / "not-a-program"
    path.write_bytes(b"\x00\x01\x02 neither ELF nor script")
    path.chmod(0o755)
    return path


def no_interpreter(files: Path) -> Path:
    """A script whose interpreter is not there; with Windows line endings this happens to every script."""
    path = files / "saved-on-windows.sh"
    path.write_bytes(b"#!/bin/sh\r\necho hello\r\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("make", "code", "hint"),
    [
        (no_such_file, 127, "no such|not found"),
        (not_executable, 126, "chmod|permission"),
        pytest.param(Path, 126, "directory", marks=pytest.mark.slow),
        pytest.param(no_program, 126, "program|format", marks=pytest.mark.slow),
        (no_interpreter, 127, "line endings|interpreter|CRLF"),
    ],
    ids=["not found", "not executable", "a directory", "no program", "interpreter not found"],
)
def test_a_game_that_cannot_be_executed(launch: Launcher, tmp_path: Path, make: object, code: int, hint: str) -> None:
    """127 when it is not there, 126 when it is but cannot be executed; one sentence says what and why."""
    assert callable(make)
    path = make(tmp_path)
    done = launch([str(path)]).finish()
    assert done.code == code
    said = [line for line in done.stderr.splitlines() if "cannot" in line and str(path) in line]
    assert said, f"nothing says what cannot be done: {done.stderr}"
    assert re.search(hint, " ".join(said), re.IGNORECASE), "why, and what to do"
    assert "Traceback" not in done.stderr


def test_a_command_without_a_slash_is_looked_for_in_the_path(launch: Launcher, tmp_path: Path) -> None:
    """Commands are found as a shell finds them, in the game's own PATH, and not where the file is not executable."""
    for folder, text, mode in (("one", "#!/bin/sh\nexit 3\n", 0o644), ("two", "#!/bin/sh\nexit 4\n", 0o755)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "some-game").write_text(text)
        (tmp_path / folder / "some-game").chmod(mode)
    env = {"PATH": f"{tmp_path}/one:{tmp_path}/two:{os.environ['PATH']}"}
    assert launch(["some-game"], env=env).finish().code == 4
    assert launch(["some-other-game"], env=env).finish().code == 127


def test_a_game_that_cannot_be_executed_leaves_its_story(launch: Launcher, tmp_path: Path) -> None:
    """`exit.json` exists for a game that never was, and says that it could not start."""
    store = tmp_path / "store"
    store.mkdir()
    done = launch([str(no_such_file(tmp_path))], env={"AGENT_LOG_URL": store.as_uri()}).finish()
    assert done.code == 127
    (record,) = store.rglob("exit.json")
    story = json.loads(record.read_text())
    assert "start" in json.dumps(story["cause"])


def test_run_without_a_command_says_what_is_missing(launch: Launcher) -> None:
    """`run --` with nothing behind it is a usage error, told in one sentence, with a code no game is blamed for."""
    done = launch([]).finish()
    assert done.code == 78
    assert "cannot start the game: there is no command; add CMD" in done.stderr
    assert "Traceback" not in done.stderr

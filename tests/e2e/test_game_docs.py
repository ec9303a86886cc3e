"""The snippets of docs/game.md, taken from the document and run under a real agent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Launcher, Run, eventually

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "game.md"
SNIPPETS = {
    (language, kind): text
    for language, kind, text in re.findall(
        r"^```(\w+) (game|stop)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
}
# How each says that it plays on, and what a test has it say instead.
PLAYS_ON = {
    "sh": ("sleep 60", "echo played on"),
    "python": ("time.sleep(60)", "print('played on')"),
    "js": ("setTimeout(() => {}, 60_000);", "console.log('played on');"),
    "c": ("sleep(60);", 'puts("played on");'),
}


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts the agent with a game."""
    with Launcher(tmp_path) as launcher:
        yield launcher


def command(language: str, folder: Path, kind: str = "game", *, to_the_end: bool = False) -> list[str]:
    """What runs a snippet; skips, visibly, where the tool is not to be had."""
    tool = {"sh": "sh", "python": sys.executable, "js": "node", "c": "gcc"}[language]
    if shutil.which(tool) is None or (language == "sh" and shutil.which("curl") is None):
        pytest.skip(f"{tool} is not installed")
    text = SNIPPETS[language, kind]
    if to_the_end:
        assert PLAYS_ON[language][0] in text
        text = text.replace(*PLAYS_ON[language])
    source = folder / {"sh": "game.sh", "python": "game.py", "js": "game.mjs", "c": "game.c"}[language]
    source.write_text(text)
    if language == "c":
        subprocess.run([tool, "-Wall", "-Werror", "-o", folder / "game", source], check=True, timeout=60)
        return [str(folder / "game")]
    return [tool, str(source)]


def is_connected(run: Run) -> bool:
    """Whether somebody has a connection to the agent's control port (`01` is established, man 5 proc)."""
    port = f"{int(run.game_environment['AGENT_URL'].rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(fields[1].endswith(f":{port}") and fields[3] == "01" for fields in lines)


def test_every_language_that_can_be_run_is_there() -> None:
    """The others (C#, C++, GDScript) need an engine that is not to be had here."""
    assert sorted(language for language, kind in SNIPPETS if kind == "game") == sorted(PLAYS_ON)
    assert sorted(language for language, kind in SNIPPETS if kind == "stop") == ["python", "sh"]


@pytest.mark.parametrize("language", sorted(PLAYS_ON))
@pytest.mark.slow
def test_a_snippet_does_what_it_says(launch: Launcher, tmp_path: Path, language: str) -> None:
    """Ready, two players of sixteen, a heartbeat, and a stop for the reason it gives."""
    run = launch(command(language, tmp_path), env={"AGENT_ON_EXIT": "exit"})
    run.finish()
    said = run.stderr.text
    assert "the game is ready for players" in said
    assert 'game asked, requested ("match over")' in said
    (story,) = tmp_path.glob("**/exit.json")
    told = json.loads(story.read_text())
    assert (told["players"]["count"], told["players"]["capacity"]) == (2, 16)
    assert told["heartbeat"]["count"] == 1


@pytest.mark.parametrize("language", ["python", "sh"])
def test_a_snippet_hears_the_stop(launch: Launcher, tmp_path: Path, language: str) -> None:
    """It saves, says that it needs a moment, and is gone before any signal."""
    run = launch(command(language, tmp_path, "stop"), env={"AGENT_STOP": "notify"})
    assert run.game_environment
    assert run.is_ready_to_answer()
    eventually(lambda: is_connected(run), "it waits for the stop")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.code == 0
    assert b"saving, because of" in done.stdout
    (story,) = tmp_path.glob("**/exit.json")
    (turn,) = [step for step in json.loads(story.read_text())["happened"] if "method" in step]
    assert turn["method"] == "notify"
    assert turn["acknowledged"] is True


@pytest.mark.parametrize("env", [{}, {"AGENT_URL": "http://127.0.0.1:1", "AGENT_SOCKET": "/nowhere"}])
@pytest.mark.parametrize("language", sorted(PLAYS_ON))
def test_a_snippet_plays_on_without_an_agent(tmp_path: Path, language: str, env: dict[str, str]) -> None:
    """On a laptop without one, or with one that is gone, the calls fail, and nothing else."""
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(
        command(language, tmp_path, to_the_end=True), env=path | env, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"played on\n"

"""The snippets of docs/game.md, taken from the document and run under a real agent."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Launcher, eventually

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "game.md"
SNIPPETS = dict(re.findall(r"^```(\w+) game\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts the agent with a game."""
    with Launcher(tmp_path) as launcher:
        yield launcher


def command(language: str, folder: Path) -> list[str]:
    """What runs a snippet; skips, visibly, where the tool is not to be had."""
    tool = {"sh": "sh", "python": sys.executable, "js": "node", "c": "gcc"}[language]
    if shutil.which(tool) is None or (language == "sh" and shutil.which("curl") is None):
        pytest.skip(f"{tool} is not installed")
    source = folder / {"sh": "game.sh", "python": "game.py", "js": "game.mjs", "c": "game.c"}[language]
    source.write_text(SNIPPETS[language])
    if language == "c":
        subprocess.run([tool, "-Wall", "-Werror", "-o", folder / "game", source], check=True, timeout=60)
        return [str(folder / "game")]
    return [tool, str(source)]


def test_every_language_that_can_be_run_is_there() -> None:
    """The others (C#, C++, GDScript) need an engine that is not to be had here."""
    assert sorted(SNIPPETS) == ["c", "js", "python", "sh"]


@pytest.mark.parametrize("language", sorted(SNIPPETS))
def test_a_snippet_does_what_it_says(launch: Launcher, tmp_path: Path, language: str) -> None:
    """Ready, two players of sixteen, a heartbeat, and a stop for the reason it gives."""
    run = launch(command(language, tmp_path), env={"AGENT_ON_EXIT": "exit"})
    run.finish()
    said = run.stderr.text
    assert "the game is ready for players" in said
    assert 'game asked, requested ("match over")' in said
    (story,) = tmp_path.glob("**/exit.json")
    text = story.read_text()
    assert '"count": 2' in text
    assert '"capacity": 16' in text


@pytest.mark.parametrize("language", ["sh", "python", "c"])
def test_a_snippet_plays_on_without_an_agent(tmp_path: Path, language: str) -> None:
    """On a laptop without one the calls fail, and nothing else."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "AGENT_URL": "http://127.0.0.1:1", "AGENT_SOCKET": "/nowhere"}
    with subprocess.Popen(
        command(language, tmp_path), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        sleeps = f"/proc/{process.pid}/wchan" if language != "sh" else ""
        try:
            if sleeps:
                eventually(lambda: Path(sleeps).read_text().endswith(("nanosleep", "0")), "it sleeps, at its end")
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()

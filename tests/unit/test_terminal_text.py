"""What is printed on a terminal cannot steer it."""

import argparse
import asyncio
import io
import json
import os
import socket
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import cli, doctor
from agent.api import cli as api_cli
from agent.api.client import AgentClient, CannotReachError
from agent.doctor.findings import note
from agent.emulator.cli import Reporter
from agent.emulator.deployment import Status
from agent.errors import AgentError
from agent.fleet import cli as fleet_cli
from agent.logs import cli as logs_cli
from agent.logs.reader import Item
from agent.terminal_text import safe, safe_json, safe_lines
from tests.other_users import let_others_reach

HARMFUL = "ü\x9b2J\x7f\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本\t🎮", "plain ü 日本\t🎮"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("one\ntwo\r", "one\\ntwo\\r"),
        ("safe\u202egnp.exe", "safe\\u202egnp.exe"),
        ("\x9b2J", "\\x9b2J"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\x1b[31mred", "\\x1b[31mred"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    """Sequences, line ends, overrides; everything else stays as it is."""
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m"),
        ("\x1b[38:2:1:2:3mrgb", "\x1b[38:2:1:2:3mrgb\x1b[0m"),
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\x1b[31mred\x1b[0m"),
        ("no colour", "no colour"),
    ],
)
def test_colours_are_kept_where_that_was_asked_and_end_with_the_line(text: str, shown: str) -> None:
    """Only colours and styles: a sequence that moves or clears is shown as an escape all the same."""
    assert safe(text, keep_colours=True) == shown


@given(st.text())
def test_nothing_but_tabs_and_printable_text_is_left(text: str) -> None:
    """Whatever comes in, what comes out is one line without controls, and a second pass changes nothing."""
    shown = safe(text)
    assert all(
        character == "\t" or unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"} for character in shown
    )
    assert not any(unicodedata.bidirectional(c) in {"LRO", "RLO", "LRE", "RLE", "PDF"} for c in shown)
    assert safe(shown) == shown
    shown.encode()


def test_the_commands_print_nothing_harmful(capsys: pytest.CaptureFixture[str]) -> None:
    """What the game called itself, its players, its tags; line breaks of the commands' own stay."""
    api_cli._print(argparse.Namespace(json=False), {}, "a\x1b]0;title\x07\nb\u202e")
    fleet_cli._print_table(["na\x1bme"], [["x\x1b[2J"]])
    assert capsys.readouterr().out.split() == ["a\\x1b]0;title\\x07", "b\\u202e", "na\\x1bme", "x\\x1b[2J"]


def test_an_image_or_a_version_of_somebody_else_prints_nothing_harmful(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor` quotes what stands in an image, the emulator what a client has called an application."""
    assert doctor._line(note("user", f"{HARMFUL}\n"), colour=False).endswith("ü\\x9b2J\\x7f\\u202e\\n")
    request = SimpleNamespace(application=HARMFUL, version="1")
    deployment = SimpleNamespace(id="a", status=Status.ERROR, restart_count=0, request=request, error_detail="b\x1b")
    Reporter(lambda: None).changed(cast("Any", deployment))
    assert "ü\\x9b2J\\x7f\\u202e 1" in (shown := capsys.readouterr().out)
    assert shown.endswith("b\\x1b\n")


@pytest.mark.parametrize("indent", [None, 2])
def test_json_on_a_terminal_is_the_same_json(indent: int | None) -> None:
    """Readable where nothing in it is harmful; what goes to a program keeps its characters."""
    assert safe_json({"a": ["ü日"]}, terminal=True) == '{"a": ["ü日"]}'
    shown = safe_json({HARMFUL: [HARMFUL]}, indent)
    assert json.loads(shown) == {HARMFUL: [HARMFUL]}
    assert safe_lines(shown) == shown
    assert safe_json({HARMFUL: 1}, terminal=False) == f'{{"{HARMFUL}": 1}}'


class Terminal(io.StringIO):
    """A stdout that says that it is one, or not."""

    def __init__(self, is_one: bool) -> None:
        super().__init__()
        self.is_one = is_one

    def isatty(self) -> bool:
        """See the class."""
        return self.is_one


@pytest.mark.parametrize("terminal", [False, True])
def test_json_of_the_commands_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """Answers of the agent, lines of the game's log, rows of a fleet: into a pipe they go as they are."""

    class Answers:
        """Stands for DuckDB."""

        description = (("name",),)

        def __init__(self) -> None:
            self.rows = [[(HARMFUL,)], []]

        def fetchmany(self, _: int) -> list[tuple[str]]:
            """A batch."""
            return self.rows.pop(0)

        async def query(self, _: str) -> Self:
            """Itself."""
            return self

    monkeypatch.setattr(sys, "stdout", Terminal(terminal))
    api_cli._print(argparse.Namespace(json=True), {"name": HARMFUL}, "")
    for gap in (False, True):
        arguments = argparse.Namespace(json=True, raw=False, stream=None, colours=False)
        logs_cli._Printer(arguments, None)(Item("", "stdout", HARMFUL, gap=gap))
    for as_json in (True, False):
        asked = argparse.Namespace(sql="SELECT", json=as_json, csv=not as_json)
        asyncio.run(fleet_cli._query(cast("Any", Answers()), asked))
    assert isinstance(sys.stdout, Terminal)
    printed = sys.stdout.getvalue()
    if terminal:
        assert safe_lines(printed) == printed
    else:
        assert printed.count(HARMFUL) == 5


def test_what_cannot_be_done_is_said_without_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error may quote what comes from outside; its own line breaks stay."""

    def fails(_: argparse.Namespace) -> int:
        raise AgentError(f"cannot read {HARMFUL}\nat all")

    monkeypatch.setattr("agent.completion.run", fails)
    assert cli.main(["completion", "bash"]) == 1
    assert capsys.readouterr().err == "cannot read ü\\x9b2J\\x7f\\u202e\nat all\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_the_commands_do_not_speak_to_a_socket_of_somebody_else(tmp_path: Path) -> None:
    """Anybody can make one in /tmp before the agent does."""
    let_others_reach(tmp_path)
    tmp_path.chmod(0o1777)
    with socket.socket(socket.AF_UNIX) as listener:
        os.seteuid(65534)
        try:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(CannotReachError, match="user 65534 listens there"):
            AgentClient(str(tmp_path / "s"), timeout=1)
        os.chown(tmp_path, 65534, -1)  # the agent's own directory
        AgentClient(str(tmp_path / "s"), timeout=1).__exit__()

"""What is printed on a terminal cannot steer it."""

import argparse
import os
import socket
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api import cli as api_cli
from agent.api.client import AgentClient, CannotReachError
from agent.fleet import cli as fleet_cli
from agent.terminal_text import safe
from tests.other_users import let_others_reach


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

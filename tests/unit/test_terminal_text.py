"""What is printed on a terminal cannot steer it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.terminal_text import safe


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

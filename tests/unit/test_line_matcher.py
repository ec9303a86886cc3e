"""A line is found wherever it stands in what is read."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.logs.line_matcher import LONGEST_LINE, LineMatcher, not_matched

# Each is a whole output, and whether `^Server started( on port \d+)?$` is a line of it.
OUTPUTS = [
    (b"Server started\n", True),
    (b"Server started\r\n", True),
    (b"loading\nServer started\nbye\n", True),
    (b"\x1b[32mServer started\x1b[0m\n", True),
    (b"\x1b[1;38;5;40mServer\x1b[0m started on port 7777\r\n", True),
    (b"\x1b]0;my server\x07Server started\n", True),
    (b"\x1b]8;;http://x\x1b\\Server started\x1b]8;;\x1b\\\n", True),
    (b"loading 10%\rloading 20%\rServer started\n", True),
    (b"\x1b(BServer started\x1b[K\n", True),
    (b"\x00\x00Server started\n", True),
    ("\u00e4\u00f6\u00fc\nServer started\n".encode(), True),
    (b"the Server started\n", False),
    (b"Server started slowly\n", False),
    (b"Server \nstarted\n", False),
    (b"Server started", False),  # what follows on this line is not known
]
PATTERN = rb"^Server started( on port \d+)?$"


@pytest.mark.parametrize(("output", "there"), OUTPUTS)
@given(cuts=st.lists(st.integers(0, 60), max_size=8))
def test_a_line_is_found_however_the_output_is_cut(output: bytes, there: bool, cuts: list[int]) -> None:
    """In one read with others, in pieces, with a CRLF or an escape sequence cut in two."""
    matcher = LineMatcher(PATTERN)
    bounds = [0, *sorted(cuts), len(output)]
    pieces = [output[begin:end] for begin, end in itertools.pairwise(bounds)]
    assert any(matcher.feed(piece) for piece in pieces) is there


def test_a_prompt_is_found_before_its_line_ends() -> None:
    """It never does, and a pattern that does not look at the end has all it needs."""
    matcher = LineMatcher(rb"^> ready")
    assert not matcher.feed(b"loading\n> rea")
    assert matcher.feed(b"dy \x1b[")


def test_a_line_that_never_ends_costs_bounded_memory() -> None:
    """And its beginning still counts."""
    matcher = LineMatcher(b"^begin .*end")
    matcher.feed(b"begin ")
    for _ in range(100):
        assert not matcher.feed(b"x" * LONGEST_LINE)
        assert len(matcher._line) <= LONGEST_LINE
    assert matcher.feed(b"end")


def test_the_last_lines_are_told_as_a_person_saw_them() -> None:
    """Without colours and empty lines, and together with a line that has not ended."""
    matcher = LineMatcher(b"never")
    assert not_matched(matcher.last_lines()) == "it has printed nothing so far"
    matcher.feed(b"one\n\x1b[31mtwo\x1b[0m\r\n\n \nthree\nfo")
    assert matcher.last_lines(3) == ("two", "three", "fo")
    assert not_matched(matcher.last_lines()) == 'no line matched; the last ones were "two", "three", "fo"'
    for number in range(100):
        matcher.feed(b"%d" % number + b"x" * 1000 + b"\n")
    assert len(matcher.last_lines(50)) == 10
    assert len(matcher.last_lines(1)[0]) == 200


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    """Output is not always text."""
    matcher = LineMatcher(b"^a.*z$")
    for piece in pieces:
        matcher.feed(piece)
        matcher.last_lines()


def test_a_wrong_pattern_is_refused_where_it_is_given() -> None:
    """And not when the first line comes."""
    with pytest.raises(re.error):
        LineMatcher(b"(")

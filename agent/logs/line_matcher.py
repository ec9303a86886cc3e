r"""Finds a line in output that comes in pieces. Pure; standard library only, light enough for PID 1.

A read may end in the middle of a line, a character, or an escape sequence, and may contain many lines. The pattern is
always applied to one line as a person would see it: without its line break (`\n`, `\r\n`, or the `\r` of a progress
display) and without colours and other escape sequences, so that `^` and `$` match the ends of the line. An unfinished
line is searched too, since a prompt has no line break.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Of a very long line, this much is kept: its beginning and its end.
LONGEST_LINE = 16 * 1024
_SHOWN = 200  # bytes of a line in messages
_KEPT = 10  # lines that are kept to be shown

# What a terminal does not show (ECMA-48): control sequences (ESC [ ... letter), strings up to BEL or ESC \ (titles,
# links), other sequences, and control characters. A tab stays.
_ESCAPES = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]"
    rb"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    rb"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1a\x7f]"
)
# The beginning of an escape sequence that is not complete yet.
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")
# A pattern with one of these can only be decided when the line is complete.
_NEED_END = (b"$", rb"\Z", rb"\b", rb"\B", b"(?!", b"(?=")


class LineMatcher:
    """Looks for a regular expression in each line of one stream."""

    def __init__(self, pattern: bytes) -> None:
        """Takes the pattern.

        Args:
            pattern: searched for in each line; `^` and `$` are the line's ends.

        Raises:
            re.error: the pattern is invalid.
        """
        self._pattern = re.compile(pattern)
        self._needs_end = any(sign in pattern for sign in _NEED_END)
        self._line = b""
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Takes the next piece of output.

        Returns:
            Whether a line matches: one that is completed by this piece, or the unfinished last line.
        """
        *ended, rest = (self._line + data.replace(b"\r", b"\n")).split(b"\n")
        found = False
        for raw in ended:
            line = _shown(raw)
            self._lines.append(line)
            found = found or self._pattern.search(line) is not None
        self._lines = [line[:_SHOWN] for line in self._lines if line.strip()][-_KEPT:]
        if len(rest) > LONGEST_LINE:
            rest = rest[: LONGEST_LINE // 2] + rest[-LONGEST_LINE // 2 :]
        self._line = rest
        if not found and rest and not self._needs_end:
            found = self._pattern.search(_shown(rest)) is not None
        return found

    def last_lines(self, count: int = 3) -> tuple[str, ...]:
        """The last lines that are not empty, oldest first, each cut to 200 bytes; the last one may be unfinished."""
        lines = [*self._lines, _shown(self._line)[:_SHOWN]]
        shown = [line.decode("utf-8", "replace").strip() for line in lines]
        return tuple([line for line in shown if line][-count:]) if count > 0 else ()


def not_matched(lines: Iterable[str]) -> str:
    """The message while no line matches.

    Args:
        lines: from `LineMatcher.last_lines`.
    """
    shown = [f'"{line}"' for line in lines]
    if not shown:
        return "it has printed nothing so far"
    return f"no line matched; the last {'one was' if len(shown) == 1 else 'ones were'} {', '.join(shown)}"


def _shown(line: bytes) -> bytes:
    """A line as a terminal would show it."""
    return _ESCAPES.sub(b"", _UNFINISHED.sub(b"", line))

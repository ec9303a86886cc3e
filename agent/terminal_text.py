"""Makes text of unknown origin harmless to print on a terminal.

Names, tags, messages and game output come from outside. Printed as they are, they can move the cursor, change the
window's title, answer queries into the shell, or let one line look like two. Everything that prints such text uses
`safe` or what is made of it. Standard library only: commands that have to start fast use it too.
"""

import json
import re
from collections.abc import Callable
from typing import Any

_RESET = "\x1b[0m"
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
"""SGR: the only control sequence that just changes the appearance of text (ECMA-48, 8.3.117)."""
_HARMFUL = re.compile(
    "["
    "\x00-\x08\x0a-\x1f\x7f"  # C0 controls except the tab (line ends included), and DEL
    "\x80-\x9f"  # C1 controls: some terminals read U+009B as ESC [
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\u2028\u2029"  # line and paragraph separator
    "\u200b\u2060\ufeff\U000e0000-\U000e007f"  # invisible: two names that look alike
    "\ud800-\udfff"  # lone surrogates: not printable as UTF-8 at all
    "]"
)
_SHORT = {"\n": "\\n", "\r": "\\r"}


def safe(text: str, *, keep_colours: bool = False) -> str:
    r"""One line of text that can only show characters on a terminal.

    Control characters, line ends, bidirectional overrides and invisible characters are shown as escapes (`\x1b`, `\n`,
    `\u202e`); a tab stays. For text of several lines there is `safe_lines`.

    Args:
        text: from outside.
        keep_colours: keep sequences that set colours and styles; the line then ends with a reset.

    Returns:
        The text itself if nothing in it is harmful.
    """
    if not keep_colours:
        return _HARMFUL.sub(_escaped, text)
    shown, end, coloured = [], 0, False
    for match in _COLOUR.finditer(text):
        shown += [_HARMFUL.sub(_escaped, text[end : match.start()]), match[0]]
        end, coloured = match.end(), True
    shown.append(_HARMFUL.sub(_escaped, text[end:]))
    return "".join(shown) + (_RESET if coloured else "")


def safe_lines(text: str) -> str:
    """Text of several lines, each as `safe` makes it."""
    return "\n".join(map(safe, text.split("\n")))


def safe_json(
    data: Any, indent: int | None = None, *, default: Callable[[Any], Any] | None = None, terminal: bool = True
) -> str:
    """JSON with readable characters, or with only ASCII if one of the others could control a terminal.

    Args:
        data: what to show.
        indent: as for `json.dumps`.
        default: as for `json.dumps`.
        terminal: whether it is printed on a terminal; output for a program keeps all characters.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False, default=default)
    if terminal and safe_lines(text) != text:
        return json.dumps(data, indent=indent, default=default).replace("\x7f", "\\u007f")
    return text


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

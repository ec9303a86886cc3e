"""Finds the line of each value in a TOML document, for error messages."""

from __future__ import annotations

import re

Path = tuple[str | int, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_SPACE = re.compile(r"[ \t]*")
_SPACE_AND_COMMENTS = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")


class _Scanner:
    """Walks a document that `tomllib` has accepted, and notes where its values begin."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._arrays: dict[Path, int] = {}
        self.lines: dict[Path, int] = {}

    def scan(self) -> None:
        """The whole document."""
        table: Path = ()
        self._skip(_SPACE_AND_COMMENTS)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_SPACE_AND_COMMENTS)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return match[0]

    def _note(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, self._text.count("\n", 0, at) + 1)

    def _key(self) -> list[str]:
        """A key, dotted or not."""
        parts = []
        while True:
            self._skip(_SPACE)
            parts.append(self._string() if self._text[self._at] in "\"'" else self._skip(_BARE))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _header(self) -> Path:
        """`[table]` or `[[array of tables]]`; the path it stands for."""
        began = self._at
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        parts = self._key()
        self._at += 2 if array else 1
        path: Path = ()
        for position, part in enumerate(parts):
            path += (part,)
            if array and position == len(parts) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
                self._note(path, began)
            if path in self._arrays:
                path += (self._arrays[path],)
        self._note(path, began)
        return path

    def _pair(self, table: Path) -> None:
        """`key = value`."""
        began = self._at
        path = table
        for part in self._key():
            path += (part,)
            self._note(path, began)
        self._at += 1
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        self._note(path, self._at)
        opening = self._text[self._at]
        if opening in "\"'":
            self._string()
        elif opening == "[":
            self._items(path, "]")
        elif opening == "{":
            self._items(path, "}")
        else:
            self._skip(_SCALAR)

    def _items(self, path: Path, closing: str) -> None:
        """An array's values or an inline table's pairs."""
        self._at += 1
        index = 0
        self._skip(_SPACE_AND_COMMENTS)
        while self._text[self._at] != closing:
            if closing == "]":
                self._value((*path, index))
            else:
                self._pair(path)
            index += 1
            self._skip(_SPACE_AND_COMMENTS)
            if self._text[self._at] == ",":
                self._at += 1
                self._skip(_SPACE_AND_COMMENTS)
        self._at += 1

    def _string(self) -> str:
        """Any of the four kinds; what stands between its quotes."""
        quote = self._text[self._at]
        mark = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(mark)
        began = self._at
        while not self._text.startswith(mark, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        content = self._text[began : self._at]
        self._at += len(mark)
        # Up to two quotes may stand right before the closing three.
        while len(mark) == 3 and self._text.startswith(quote, self._at):
            self._at += 1
        return content


def value_lines(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every table and value of a document.

    Args:
        text: TOML that `tomllib` accepts.
    """
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of a value; of what it should stand in, when it is missing; 1 when even that is."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)

"""Splits a shell script into words and operators (POSIX "Shell Command Language", 2.3). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPERATORS = (";;&", "<<<", "<<-", "&>>", ";;", ";&", "&&", "||", "|&", "&>", "<<", ">>", "<&", ">&", "<>", ">|")
_SINGLE = ";&|()<>\n"
REDIRECTIONS = frozenset({"<", ">", ">>", "<<", "<<-", "<<<", "<&", ">&", "<>", ">|", "&>", "&>>"})
_NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]")


@dataclass(frozen=True)
class Token:
    """A word, an operator or the end.

    Attributes:
        kind: `word`, `op` or `end`.
        text: as written.
        start: where it begins in the text.
        line: which line that is, from 1.
    """

    kind: str
    text: str
    start: int
    line: int


class NotUnderstoodError(Exception):
    """The text is no shell script, or a part of the language that is not read here."""


def tokens(text: str) -> list[Token]:  # noqa: C901, PLR0912 - one branch a kind of token
    """Splits a script into words and operators; bodies of here-documents are left out.

    Raises:
        NotUnderstoodError: a quote or a bracket does not end.
    """
    found: list[Token] = []
    documents: list[tuple[str, bool]] = []
    position, line, length = 0, 1, len(text)
    while position < length:
        character = text[position]
        if character in " \t\r":
            position += 1
        elif text.startswith("\\\n", position):
            position, line = position + 2, line + 1
        elif character == "#":
            end = text.find("\n", position)
            position = length if end < 0 else end
        elif character == "\n":
            found.append(Token("op", "\n", position, line))
            position, line = position + 1, line + 1
            for delimiter, stripped in documents:
                position, line = _skip_document(text, position, line, delimiter, stripped)
            documents.clear()
        elif character in _SINGLE and not (character in "<>" and text.startswith("(", position + 1)):
            operator = next((one for one in _OPERATORS if text.startswith(one, position)), character)
            if operator == "(" and text.startswith("((", position) and _at_command(found):
                end = text.find("))", position)
                if end > 0:
                    found.append(Token("word", "((", position, line))
                    line += text.count("\n", position, end)
                    position = end + 2
                    continue
            found.append(Token("op", operator, position, line))
            position += len(operator)
        else:
            end = _end_of_word(text, position)
            word = text[position:end]
            if word == "[[" and _at_command(found):
                closing = re.compile(r"\s\]\](?=[\s;&|)]|$)").search(text, end)
                if closing is None:
                    raise NotUnderstoodError("[[ without ]]")
                found.append(Token("word", "[[", position, line))
                end = closing.end()
            else:
                previous = found[-1].text if found and found[-1].kind == "op" else ""
                if previous in ("<<", "<<-"):
                    documents.append((re.sub(r"[\"'\\]", "", word), previous == "<<-"))
                found.append(Token("word", word, position, line))
            line += text.count("\n", position, end)
            position = end
    found.append(Token("end", "", length, line))
    return found


def _at_command(found: list[Token]) -> bool:
    return (
        not found
        or (found[-1].kind == "op" and found[-1].text not in REDIRECTIONS)
        or (found[-1].text in {"if", "elif", "while", "until", "then", "do", "else", "!", "{"})
    )


def _skip_document(text: str, position: int, line: int, delimiter: str, stripped: bool) -> tuple[int, int]:
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        body = text[position:end]
        position, line = min(end + 1, len(text)), line + 1
        if (body.lstrip("\t") if stripped else body) == delimiter:
            break
    return position, line


def _end_of_word(text: str, position: int) -> int:
    start = position
    while position < len(text):
        character = text[position]
        if character in " \t\r" or (character in _SINGLE and not (character in "<>" and position == start)):
            # An array's list, `x=(a b)`, belongs to the word.
            if character == "(" and re.fullmatch(r"[A-Za-z_]\w*\+?=", text[start:position]):
                position = _closing(text, position, "(", ")")
                continue
            break
        position = end_of_part(text, position)
    return position


def end_of_part(text: str, position: int) -> int:  # noqa: C901, PLR0911 - one branch a kind of quote
    """The end of one character, one quoted part or one expansion."""
    character = text[position]
    if character == "\\":
        return min(position + 2, len(text))
    if character == "'":
        end = text.find("'", position + 1)
        if end < 0:
            raise NotUnderstoodError("a quote does not end")
        return end + 1
    if character == '"':
        position += 1
        while position < len(text) and text[position] != '"':
            position = end_of_part(text, position) if text[position] in "\\$`" else position + 1
        if position >= len(text):
            raise NotUnderstoodError("a quote does not end")
        return position + 1
    if character == "`":
        end = position + 1
        while end < len(text) and text[end] != "`":
            end += 2 if text[end] == "\\" else 1
        return end + 1
    if character in "<>" and text.startswith("(", position + 1):
        return _closing(text, position + 1, "(", ")")
    if character == "$":
        return _end_of_expansion(text, position)
    return position + 1


def _end_of_expansion(text: str, position: int) -> int:
    after = text[position + 1 : position + 2]
    if after == "(":
        return _closing(text, position + 1, "(", ")")
    if after == "{":
        return _closing(text, position + 1, "{", "}")
    if after == "'":  # $'...'
        end = position + 2
        while end < len(text) and text[end] != "'":
            end += 2 if text[end] == "\\" else 1
        return end + 1
    name = _NAME.match(text, position + 1)
    return name.end() if name else position + 1


def _closing(text: str, position: int, opening: str, closing: str) -> int:
    """The place behind the bracket that closes the one at a position."""
    depth = 0
    while position < len(text):
        character = text[position]
        if character == opening:
            depth, position = depth + 1, position + 1
        elif character == closing:
            depth, position = depth - 1, position + 1
            if depth == 0:
                return position
        elif character in "\\'\"`" or (character == "$" and text[position + 1 : position + 2] in ("(", "{", "'")):
            position = end_of_part(text, position)
        else:
            position += 1
    raise NotUnderstoodError("a bracket does not end")

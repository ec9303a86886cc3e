"""Replaces secrets in log bytes. Standard library only, quick to import, and fast enough for a game's whole output.

`agent.logs.capture` (`_read`) calls it for every piece of output. A secret is searched for in all forms that
`agent.logs.needles` lists. A stream is treated as a whole, so that a secret divided between two reads is found too: if
the end of a piece may be the beginning of a secret, it is held back until more is read.
"""

from agent.fork_lock import FORK_LOCK
from agent.logs.needles import HELD_LINE, SHORTEST, Search, forms, wrapped_forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

__all__ = ["MARK", "SHORTEST", "RedactedStream", "Redactor"]

MARK = b"[redacted]"
_MARK_UTF16 = MARK.decode().encode("utf-16-le")[:-1]  # for both byte orders, as the forms of secrets are
_LINE = 65536  # with patterns, a line is held back until it is complete, but not beyond this length
_LIKELY = 6  # base64 characters at the end of a line that was only partly read: the line may continue on the next one
_LARGE = 65536  # a piece of at least so many bytes is passed on without a copy of it
_OVERLAP = 4096  # of a longer line, this much is searched again together with the bytes that follow


class Redactor:
    """Knows the secrets. One for all streams; threads may share it.

    Attributes:
        ignored: how many values were too short (below `SHORTEST` bytes) to be searched for.
        patterns: regular expressions whose matches are also replaced, within lines.
    """

    def __init__(self, secrets: "Iterable[str | bytes]" = (), patterns: "Iterable[str]" = ()) -> None:
        """Prepares the search.

        Args:
            secrets: exact values; empty ones are ignored, too short ones are ignored and counted.
            patterns: regular expressions whose matches are also replaced, within a line.

        Raises:
            ValueError: a pattern is not a valid regular expression.
        """
        self.ignored = 0
        self._secrets: tuple[bytes, ...] = ()
        self._search: Search | None = Search()
        self.patterns: tuple[re.Pattern[bytes], ...] = ()
        self.add(secrets, patterns)

    def add(self, secrets: "Iterable[str | bytes]" = (), patterns: "Iterable[str]" = ()) -> None:
        """Adds secrets and patterns after the start. Arguments and errors as in the constructor."""
        values = [value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value for value in secrets]
        self.ignored += sum(0 < len(value) < SHORTEST for value in values)
        if added := {value for value in values if len(value) >= SHORTEST}.difference(self._secrets):
            self._secrets, self._search = (*self._secrets, *added), None
        if expressions := tuple(patterns):
            self.patterns += _compiled(expressions)

    @property
    def search(self) -> Search:
        """Searches for all forms of the secrets. Created when it is first needed, to keep the start fast."""
        search = self._search
        if search is None:
            secrets = self._secrets
            with FORK_LOCK:  # some forms need codecs that are imported for them
                search = Search(
                    {form for value in secrets for form in forms(value)}, set().union(*map(wrapped_forms, secrets))
                )
            if secrets is self._secrets:
                self._search = search
        return search

    def stream(self, *, keep_length: bool = False) -> "RedactedStream":
        """A new stream of bytes to be redacted.

        Args:
            keep_length: whether to replace by the same number of asterisks instead of `[redacted]`, for files whose
                offsets matter (cores).
        """
        return RedactedStream(self, keep_length=keep_length)

    def data(self, value: bytes) -> bytes:
        """Redacts a complete value."""
        stream = self.stream()
        return stream.feed(value) + stream.flush()

    def text(self, value: str) -> str:
        """This text, redacted."""
        if not self._secrets and not self.patterns:
            return value
        try:
            raw = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raw = value.encode("utf-8", "backslashreplace")
        return self.data(raw).decode("utf-8", "surrogateescape")


class RedactedStream:
    """One stream of bytes. Must not be used by several threads at once."""

    __slots__ = ("_before", "_carry", "_covered", "_inside", "_keep_length", "_line", "_redactor")

    def __init__(self, redactor: Redactor, *, keep_length: bool) -> None:
        """Starts with nothing held back."""
        self._redactor = redactor
        self._keep_length = keep_length
        self._carry = b""
        self._inside = False  # whether the last read ended inside a line
        self._before = b""  # the end of what was read before, if so
        self._covered = 0  # this many bytes of it belong to a secret whose mark was already returned
        self._line = b""

    def feed(self, piece: bytes) -> bytes:
        """Takes a piece; returns the redacted bytes, except a possible beginning of a secret at the end."""
        return b"".join(self.parts(piece))

    def parts(self, piece: bytes) -> "list[bytes | memoryview]":
        """As `feed`, in parts to be joined: a large piece without a secret is not copied."""
        carry, search = self._carry, self._redactor.search
        continued = 1 if carry else _LIKELY if self._inside else 0
        large = len(piece) >= max(_LARGE, search.longest) and not (self._covered or self._redactor.patterns)
        if carry and large and not search.find(carry + piece[: search.longest]):
            # The end of the last piece was held back for nothing: no secret begins in it.
            return [carry, *self._search(piece, continued)]
        return self._search(carry + piece if carry else piece, continued)

    def _search(self, data: bytes, continued: int) -> "list[bytes | memoryview]":
        search = self._redactor.search
        found = search.find(data)
        end = len(data) - search.unfinished(data, continued=continued, before=self._before)
        self._inside = not data.endswith(b"\n")
        marked, self._covered = self._covered, 0
        if marked:
            found = _joined([(0, marked), *found])
        while found and end < found[-1][1]:
            # A secret that overlaps the part held back is held back as a whole, since a longer one may contain both.
            start, stop = found.pop()
            if min(start, end) >= len(data) - 2 * search.longest:
                end = min(start, end)
            else:
                # A secret that overlaps itself repeatedly is replaced in parts.
                found.append((start, end))
                self._covered = stop - end
        if end == 0:
            self._covered = marked
        self._carry = data[end:]
        if self._inside:
            self._before = data[end - HELD_LINE : end] if end >= HELD_LINE else (self._before + data[:end])[-HELD_LINE:]
        if not found and len(data) >= _LARGE and not self._redactor.patterns:
            return [memoryview(data)[:end] if end < len(data) else data]
        shown = self._replace(data[:end] if end < len(data) else data, found, marked=marked > 0)
        return [self._lines(shown) if self._redactor.patterns else shown]

    def flush(self) -> bytes:
        """Returns the part held back, because the stream has ended."""
        data, self._carry = self._carry, b""
        marked, self._covered = self._covered, 0
        found = self._redactor.search.find(data)
        shown = self._replace(data, _joined([(0, marked), *found]) if marked else found, marked=marked > 0)
        if self._redactor.patterns:
            shown, self._line = self._apply_patterns(self._line + shown), b""
        return shown

    def _mark(self, length: int) -> bytes:
        return b"*" * length if self._keep_length else MARK

    def _replace(self, data: bytes, found: "list[tuple[int, int]]", *, marked: bool) -> bytes:
        """Replaces secrets by marks; with `marked`, the one at the very beginning already has its mark."""
        if not found:
            return data
        parts: list[bytes] = []
        at = 0
        for start, end in found:
            has_mark = marked and start == 0 and not self._keep_length
            is_utf16 = (end - start) % 2 == 1 and data[start + 1 : start + 2] == b"\0" and not self._keep_length
            mark = _MARK_UTF16 if is_utf16 else self._mark(end - start)
            parts += (data[at:start], b"" if has_mark else mark)
            at = end
        parts.append(data[at:])
        return b"".join(parts)

    def _lines(self, shown: bytes) -> bytes:
        """Applies the patterns, which need whole lines, and holds back the beginning of the next line."""
        data = self._line + shown
        cut = data.rfind(b"\n") + 1
        if len(data) - cut > _LINE:
            cut = len(data) - _OVERLAP
            for pattern in self._redactor.patterns:
                for match in pattern.finditer(data):
                    if match.start() < cut < match.end():
                        # A very long match is replaced in parts, to limit the number of bytes held back.
                        cut = match.start() if match.end() - match.start() < _LINE else match.end()
        self._line = data[cut:]
        return self._apply_patterns(data[:cut])

    def _apply_patterns(self, data: bytes) -> bytes:
        for pattern in self._redactor.patterns:
            data = pattern.sub(lambda match: self._mark(len(match.group())) if match.group() else b"", data)
        return data


def _joined(places: "list[tuple[int, int]]") -> "list[tuple[int, int]]":
    """Merges the first position with those that overlap it."""
    start, end = places[0]
    rest = places[1:]
    while rest and rest[0][0] < end:
        end = max(end, rest.pop(0)[1])
    return [(start, end), *rest]


def _compiled(expressions: "tuple[str, ...]") -> "tuple[re.Pattern[bytes], ...]":
    import re  # noqa: PLC0415 - takes 5 ms, and most have no patterns

    try:
        return tuple(re.compile(expression.encode()) for expression in expressions)
    except re.error as problem:
        raise ValueError(f"cannot read the pattern {problem.pattern!r}: {problem}") from None

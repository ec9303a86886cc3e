"""Replaces secrets in log bytes. Standard library only, quick to import, and quick enough for every byte of a game.

A secret is looked for as it is, URL-encoded, as JSON writes it, and inside base64 at each of the three places where it
can begin in a group. A stream is looked at as a whole: a secret that two reads split is found as well. For that, and
only then, the end of a piece is kept back until more is read: when it is the beginning of a secret.
"""

import binascii
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

MARK = b"[redacted]"
# Anything shorter is found in ordinary words, and would make a log unreadable instead of safe.
SHORTEST = 6
# From so many long needles on, one pass over samples of the text is cheaper than one search for each of them: measured
# 0.1 s/GB for each search for 32 bytes or more, and 1.15 s/GB for the samples, however many needles there are.
_SAMPLE_FROM = 12
_SAMPLE_STEP = 24  # bytes between samples of 8 bytes: a needle of 31 bytes or more contains at least one whole sample
_SAMPLED = _SAMPLE_STEP + 7
_PREFIX = 64  # beginnings up to this length are looked up in a set, longer ones are searched for
_LINE = 65536  # a line that is longer than this is not waited for when patterns are applied
_OVERLAP = 4096  # and this much of it is looked at again together with what follows

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
# What common encoders leave alone beside letters, digits and "-_.": RFC 3986, JavaScript's encodeURIComponent and
# encodeURI, HTML forms, Python's quote() and quote(safe="").
_URL_SAFE = (b"~", b"", b"~/", b"~!'()*", b"~!'()*;/?:@&=+$,#", b"*")


def _url_forms(secret: bytes) -> "set[bytes]":
    forms = set()
    for extra in _URL_SAFE:
        safe = _UNRESERVED.union(extra)
        for digits in ("%%%02X", "%%%02x"):
            encoded = b"".join(bytes((c,)) if c in safe else (digits % c).encode() for c in secret)
            forms.add(encoded)
            forms.add(encoded.replace(b"%20", b"+"))
    return forms


def _base64_forms(secret: bytes) -> "set[bytes]":
    """The characters of base64 that depend on the secret alone, for each offset it can have in the encoded text."""
    forms = set()
    for offset in range(3):
        encoded = binascii.b2a_base64(b"\0" * offset + secret, newline=False)
        first = (0, 2, 3)[offset]
        core = encoded[first : (offset + len(secret)) * 8 // 6]
        forms.add(core)
        forms.add(core.replace(b"+", b"-").replace(b"/", b"_"))
        # Padding and the two special characters are often URL-encoded in turn.
        forms.add(core.replace(b"+", b"%2B").replace(b"/", b"%2F"))
    return forms


def _json_forms(secret: bytes) -> "set[bytes]":
    escaped = secret.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    for raw, written in ((b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t")):
        escaped = escaped.replace(raw, written)
    return {escaped, escaped.replace(b"/", b"\\/")}


def forms(secret: bytes) -> "set[bytes]":
    """All byte strings that give the secret away; empty when it is too short to be looked for."""
    found: set[bytes] = set()
    for value in {secret, secret.strip()}:
        if len(value) >= SHORTEST:
            found |= {value} | _url_forms(value) | _base64_forms(value) | _json_forms(value)
    if b"\n" in secret.strip():
        # A key of many lines is mostly logged line by line.
        found.update(line for line in map(bytes.strip, secret.split(b"\n")) if len(line) >= 16 and line[:5] != b"-----")
    return {form for form in found if len(form) >= SHORTEST}


class Redactor:
    """Knows the secrets. One for all streams; threads may share it.

    Attributes:
        ignored: how many values were too short (below `SHORTEST` bytes) to be looked for.
        needles: the byte strings that are looked for, the longest first.
    """

    def __init__(self, secrets: "Iterable[str | bytes]" = (), patterns: "Iterable[str]" = ()) -> None:
        """Prepares the search.

        Args:
            secrets: exact values; empty ones are ignored, too short ones are ignored and counted.
            patterns: regular expressions for what else is to be replaced, within a line.

        Raises:
            ValueError: a pattern is no regular expression.
        """
        self.ignored = 0
        self.needles: tuple[bytes, ...] = ()
        self.patterns: tuple[re.Pattern[bytes], ...] = ()
        self._short: tuple[bytes, ...] = ()
        self._long: tuple[bytes, ...] = ()
        self._samples: frozenset[int] = frozenset()
        self._prefixes: frozenset[bytes] = frozenset()
        self._last: frozenset[int] = frozenset()
        self._longest = 0
        self.add(secrets)
        expressions = tuple(patterns)
        if expressions:
            self.patterns = _compiled(expressions)

    def add(self, secrets: "Iterable[str | bytes]") -> None:
        """Looks for these from now on as well; for secrets that come later than boot."""
        needles = set(self.needles)
        for secret in secrets:
            value = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
            found = forms(value)
            if value and not found:
                self.ignored += 1
            needles |= found
        self.needles = tuple(sorted(needles, key=len, reverse=True))
        sampled = [needle for needle in self.needles if len(needle) >= _SAMPLED]
        if len(sampled) < _SAMPLE_FROM:
            sampled = []
        self._short = self.needles[len(sampled) :]
        self._long = tuple(sampled)
        self._samples = frozenset(
            int.from_bytes(needle[at : at + 8], sys.byteorder) for needle in sampled for at in range(len(needle) - 7)
        )
        self._prefixes = frozenset(
            needle[:n] for needle in self.needles for n in range(1, min(len(needle), _PREFIX + 1))
        )
        self._last = frozenset(byte for needle in self.needles for byte in needle[:-1])
        self._longest = max((len(needle) for needle in self.needles), default=0)

    def stream(self, *, keep_length: bool = False) -> "RedactedStream":
        """A new stream of bytes to be redacted.

        Args:
            keep_length: replace by as many asterisks instead of `[redacted]`, for files whose offsets matter (cores).
        """
        return RedactedStream(self, keep_length=keep_length)

    def data(self, value: bytes) -> bytes:
        """These bytes, redacted; for a value that is complete in itself."""
        stream = self.stream()
        return stream.feed(value) + stream.flush()

    def text(self, value: str) -> str:
        """This text, redacted."""
        if not self.needles and not self.patterns:
            return value
        try:
            raw = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raw = value.encode("utf-8", "backslashreplace")
        return self.data(raw).decode("utf-8", "surrogateescape")

    def find(self, data: bytes) -> "list[tuple[int, int]]":
        """Where secrets are: `(start, end)` in order, those that overlap as one."""
        needles = self._short
        if self._long:
            whole = len(data) & ~7
            if whole and not self._samples.isdisjoint(memoryview(data)[:whole].cast("Q")[:: _SAMPLE_STEP // 8]):
                needles = self.needles
        found = []
        for needle in needles:
            at = data.find(needle)
            while at >= 0:
                found.append((at, at + len(needle)))
                at = data.find(needle, at + 1)
        if len(found) > 1:
            found.sort()
            merged = [found[0]]
            for start, end in found[1:]:
                if start < merged[-1][1]:
                    merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
                else:
                    merged.append((start, end))
            return merged
        return found

    def unfinished(self, data: bytes) -> int:
        """How many bytes at the end of `data` are the beginning of a secret, whose rest may come with the next read."""
        if not data or data[-1] not in self._last:
            return 0
        if self._longest > _PREFIX:
            first = max(0, len(data) - self._longest + 1)
            best = 0
            for needle in self.needles:
                if len(needle) <= _PREFIX:
                    break  # they are sorted: only shorter ones follow
                at = data.find(needle[:_PREFIX], max(first, len(data) - len(needle) + 1))
                while at >= 0 and not needle.startswith(data[at:]):
                    at = data.find(needle[:_PREFIX], at + 1)
                if at >= 0:
                    best = max(best, len(data) - at)
            if best:
                return best
        for length in range(min(len(data), _PREFIX, self._longest - 1), 0, -1):
            if data[-length:] in self._prefixes:
                return length
        return 0


class RedactedStream:
    """One stream of bytes. Not for several threads at once."""

    __slots__ = ("_carry", "_keep_length", "_line", "_redactor")

    def __init__(self, redactor: Redactor, *, keep_length: bool) -> None:
        """Starts with nothing kept back."""
        self._redactor = redactor
        self._keep_length = keep_length
        self._carry = b""
        self._line = b""

    def feed(self, piece: bytes) -> bytes:
        """Takes what was read; returns what may be shown now: all, but for the beginning of a secret at its end."""
        redactor = self._redactor
        data = self._carry + piece if self._carry else piece
        found = redactor.find(data)
        kept = redactor.unfinished(data)
        if kept:
            end = len(data) - kept
            # A secret that reaches into what is kept back is kept back as a whole: a longer one may contain both.
            while found and found[-1][1] > end:
                end = min(end, found.pop()[0])
            self._carry = data[end:]
            data = data[:end]
        else:
            self._carry = b""
        shown = self._replace(data, found)
        return self._lines(shown) if redactor.patterns else shown

    def flush(self) -> bytes:
        """What was kept back: the stream has ended, and nothing will complete it."""
        data, self._carry = self._carry, b""
        shown = self._replace(data, self._redactor.find(data))
        if self._redactor.patterns:
            shown, self._line = self._apply_patterns(self._line + shown), b""
        return shown

    def _mark(self, length: int) -> bytes:
        return b"*" * length if self._keep_length else MARK

    def _replace(self, data: bytes, found: "list[tuple[int, int]]") -> bytes:
        if not found:
            return data
        parts: list[bytes] = []
        at = 0
        for start, end in found:
            parts += (data[at:start], self._mark(end - start))
            at = end
        parts.append(data[at:])
        return b"".join(parts)

    def _lines(self, shown: bytes) -> bytes:
        """Patterns need whole lines: applies them to these, and keeps the beginning of the next one back."""
        data = self._line + shown
        cut = data.rfind(b"\n") + 1
        if len(data) - cut > _LINE:
            cut = len(data) - _OVERLAP
            for pattern in self._redactor.patterns:
                for match in pattern.finditer(data):
                    if match.start() < cut < match.end():
                        # Waiting for the end of a match is bounded as well: a very long one is replaced in parts.
                        cut = match.start() if match.end() - match.start() < _LINE else match.end()
        self._line = data[cut:]
        return self._apply_patterns(data[:cut])

    def _apply_patterns(self, data: bytes) -> bytes:
        for pattern in self._redactor.patterns:
            data = pattern.sub(lambda match: self._mark(len(match.group())) if match.group() else b"", data)
        return data


def _compiled(expressions: "tuple[str, ...]") -> "tuple[re.Pattern[bytes], ...]":
    import re  # noqa: PLC0415 - takes 5 ms, and most have no patterns

    try:
        return tuple(re.compile(expression.encode()) for expression in expressions)
    except re.error as problem:
        raise ValueError(f"cannot read the pattern {problem.pattern!r}: {problem}") from None

"""Finds secrets in bytes, in every form in which programs print them. Standard library only, quick to import.

Large pieces are searched with `ahocorasick-rs`, which finds all forms in one pass and is imported for the first such
piece. If it is not installed, the standard library does the same more slowly.

Found: the value itself, percent-encoded, JSON-escaped, in hexadecimal, in UTF-16, and in base64 (at each of the three
offsets, with both alphabets, in lines of any width). Not found: two encodings combined (except base64 inside a URL or
JSON), hexadecimal with separators, base64 lines with a prefix, UTF-32, compressed data.
"""

import binascii
import sys

from agent.fork_lock import FORK_LOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

    from ahocorasick_rs import BytesAhoCorasick

# Shorter values occur in ordinary words; replacing them would make a log unreadable rather than safe.
SHORTEST = 6

_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
# Characters that encoders leave unchanged, besides letters and digits: RFC 3986 (Python's quote() with safe=""), older
# ones, Python's quote(), JavaScript's encodeURIComponent and encodeURI, HTML forms, and very strict ones.
_URL_SAFE = (b"-_.~", b"-_.", b"-_.~/", b"-_.~!'()*", b"-_.~!'()*;/?:@&=+$,#", b"-_.*", b"")

# A piece that contains none of certain parts of the needles ("anchors") contains no secret. That is true of most
# pieces, and a few searches for long anchors are enough to show it.
_ANCHOR = 12  # the shortest part of a needle that is searched for instead of the whole needle
# The cost in CPU seconds for 1 GB (measured): of one search, by the length of the searched bytes; and of looking up
# every `step`-th group of eight bytes in a set. The latter finds any number of parts of at least `step + 7` bytes,
# because each of them contains such a group wherever it lies.
_SEARCH_COST = 0.03
_SEARCH_COST_BY_LENGTH = 2.6
_SAMPLE_COST_BY_STEP = 27.0
_STEPS = (24, 32, 40, 48, 64, 96)
_NO_STEP = 1 << 30
_PREFIX = 64  # beginnings up to this length are looked up in a set, longer ones are searched for
_LARGE = 4096  # the library is used for pieces of at least this many bytes
# Anchors in one automaton: up to about this many are searched with vector instructions, in 0.2 to 0.3 CPU seconds for
# 1 GB; 70 anchors take 6 seconds (measured with ahocorasick-rs 1.0).
_GROUP = 28
# An additional pattern of bytes that do not occur in UTF-8, so in no log. Without it, if three different bytes cover
# all patterns, the library searches for these bytes, mostly digits and common letters: that takes 7 to 20 CPU seconds
# for 1 GB, depending on the secrets and on the order of a set in this process (measured).
_NO_FEW_BYTES = tuple(bytes((byte,)) * 8 for byte in range(0xF8, 0xFC))
_WRAPPED = 60  # the shortest width to which base64 is usually wrapped (64 in PEM, 76 in MIME)
_SHORTEST_PART = 8  # of wrapped base64; a shorter one occurs in ordinary words
HELD_LINE = 32  # a line of only base64 characters that is at least this long may continue on the next line
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"


class Search:
    """A fixed set of byte strings to search for. Threads may share it.

    Attributes:
        needles: the byte strings, the longest first.
        wrapped: those that are also searched for with line breaks inside them.
        longest: length of the longest, including its line breaks.
    """

    __slots__ = (
        "_anchors",
        "_automata",
        "_firsts",
        "_last",
        "_long",
        "_parts",
        "_periods",
        "_prefixes",
        "_regexes",
        "_samples",
        "_searched",
        "_step",
        "longest",
        "needles",
        "wrapped",
    )

    def __init__(self, needles: "Iterable[bytes]" = (), wrapped: "Iterable[bytes]" = ()) -> None:
        """Prepares the search.

        Args:
            needles: byte strings to look for.
            wrapped: those of base64 that a line break may divide.
        """
        self.wrapped = tuple(sorted({core for core in wrapped if _parts_of(core)}))
        self.needles = tuple(sorted({*needles, *self.wrapped}, key=len, reverse=True))
        self.longest = max((len(needle) + 2 * _breaks(needle) for needle in self.needles), default=0)
        self._periods: tuple[int, ...] | None = None
        self._parts = {core: _parts_of(core) for core in self.wrapped}
        self._anchors = anchors = _anchors(
            [*self.needles, *(part for core in self.wrapped for part in self._parts[core])]
        )
        self._step = _cheapest_step(anchors)
        self._searched = tuple(anchor for anchor in anchors if len(anchor) < self._step + 7)
        self._samples = frozenset(
            int.from_bytes(anchor[at : at + 8], sys.byteorder)
            for anchor in anchors
            if len(anchor) >= self._step + 7
            for at in range(len(anchor) - 7)
        )
        self._prefixes = frozenset(n[:size] for n in self.needles for size in range(1, min(len(n), _PREFIX + 1)))
        self._long = tuple((needle, needle[:_PREFIX]) for needle in self.needles if len(needle) > _PREFIX)
        firsts = {needle[0] for needle in self.needles}
        self._firsts = bytes(byte in firsts for byte in range(256))  # for bytes.translate
        self._last = frozenset(byte for needle in self.needles for byte in needle[:-1])
        self._automata: tuple[BytesAhoCorasick, ...] | None = None
        self._regexes: dict[bytes, re.Pattern[bytes]] = {}

    def find(self, data: bytes) -> "list[tuple[int, int]]":
        """The positions of needles as `(start, end)`, in order; overlapping ones are merged."""
        found = []
        for begin, end in self._windows(data):
            window = data if end - begin == len(data) else data[begin:end]
            places = self._find_exact(window)
            for core in self.wrapped:
                if any(part in window for part in self._parts[core]):
                    places += [match.span() for match in self._regex(core).finditer(window)]
            found += [(begin + start, begin + stop) for start, stop in places]
        found.sort()
        merged: list[tuple[int, int]] = []
        for start, stop in found:
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        return merged

    def unfinished(self, data: bytes, *, continued: int = 0, before: bytes = b"") -> int:
        """How many bytes at the end of `data` may be the beginning of a needle that continues in the next read.

        Args:
            data: the bytes read.
            continued: if `data` begins inside a line: how much of that line has to look like base64 of a secret
                before it is held back beyond the line's end; 0 if `data` begins a line.
            before: likewise: the bytes in front of `data`, the last `HELD_LINE` of them at least.
        """
        if not data:
            return 0
        over_lines = self._unfinished_over_lines(data, continued=continued, before=before) if self.wrapped else 0
        if over_lines or data[-1] not in self._last:
            return over_lines
        # Each read that ends inside a line comes here: no more Python than that takes.
        tail = data[-(self.longest - 1) :]
        long = [self._long_beginning(tail, needle) for needle, head in self._long if head in tail]
        if found := max(long, default=0):
            return found
        tail = tail[-_PREFIX:]
        may_begin = tail.translate(self._firsts)
        at = may_begin.find(1)
        while at >= 0:
            if tail[at:] in self._prefixes:
                return len(tail) - at
            at = may_begin.find(1, at + 1)
        return 0

    def _unfinished_over_lines(self, data: bytes, *, continued: int, before: bytes) -> int:
        """As `unfinished`, for base64 that continues on the next line: only after a line of nothing but base64."""
        held, size = 0, len(data)
        # A read may end between the two bytes of a line break.
        at = size - 1 if data.endswith(b"\r") else data.rfind(b"\n", max(0, size - self.longest - 2))
        tail = data[at + 1 :]
        most = max(map(len, self.wrapped)) - 1
        while at >= 0:
            begin = data.rfind(b"\n", 0, at) + 1
            line = data[begin:at].removesuffix(b"\r")
            least = HELD_LINE
            if continued and begin == 0:
                known = before[before.rfind(b"\n") + 1 :] + line
                is_long = len(known) >= HELD_LINE and not known[-HELD_LINE:].translate(None, _BASE64)
                least = continued = 1 if is_long else continued
            if len(line) < least or line.translate(None, _BASE64):
                break
            tail = line + tail
            lengths = (
                length
                for length in range(min(len(tail), most), len(tail) - len(line), -1)
                if any(core.startswith(tail[-length:]) for core in self.wrapped)
            )
            length = next(lengths, 0)
            if length and (begin or length >= continued):
                held = size - begin - (len(tail) - length)
            if len(tail) > most:
                break
            at = begin - 1
        return held

    def _windows(self, data: bytes) -> "list[tuple[int, int]]":
        """Where needles may be, as `(start, end)` in order; fast if there are none."""
        if not self.needles:
            return []
        automata = self._automata
        if automata is None and len(data) >= _LARGE:
            automata = self._automata = _automata(self._anchors)
        if automata:
            hits = sorted({hit[1:] for automaton in automata for hit in automaton.find_matches_as_indexes(data)})
            windows: list[tuple[int, int]] = []
            for start, end in hits:
                begin, stop = max(0, start - self.longest), min(len(data), end + self.longest)
                if windows and begin <= windows[-1][1]:
                    windows[-1] = (windows[-1][0], max(stop, windows[-1][1]))
                else:
                    windows.append((begin, stop))
            return windows
        return [(0, len(data))] if self._possible(data) else []

    def _possible(self, data: bytes) -> bool:
        """Whether it may contain a needle."""
        if any(anchor in data for anchor in self._searched):
            return True
        whole = len(data) & ~7
        if not self._samples or not whole:
            return False
        return not self._samples.isdisjoint(memoryview(data)[:whole].cast("Q")[:: self._step // 8])

    def _find_exact(self, data: bytes) -> "list[tuple[int, int]]":
        if self._periods is None:
            self._periods = tuple(map(_period, self.needles))
        found = []
        for needle, period in zip(self.needles, self._periods, strict=True):
            at = data.find(needle)
            while at >= 0:
                found.append((at, at + len(needle)))
                at = data.find(needle, at + period)
        return found

    def _regex(self, core: bytes) -> "re.Pattern[bytes]":
        """Finds base64 that contains line breaks, plain or JSON-escaped."""
        regex = self._regexes.get(core)
        if regex is None:
            with FORK_LOCK:
                import re  # noqa: PLC0415 - takes 5 ms, and most logs hold no secret

            line_break = rb"(?:(?:\r|\\r)?(?:\n|\\n))?"
            regex = re.compile(line_break.join(re.escape(bytes((c,))) for c in core))
            self._regexes[core] = regex
        return regex

    @staticmethod
    def _long_beginning(data: bytes, needle: bytes) -> int:
        """Length of the beginning of `needle`, of at least `_PREFIX` bytes, at the end of `data`; 0 for none."""
        at = data.find(needle[:_PREFIX], max(0, len(data) - len(needle) + 1))
        while at >= 0 and not needle.startswith(data[at:]):
            at = data.find(needle[:_PREFIX], at + 1)
        return len(data) - at if at >= 0 else 0


def _automata(anchors: "list[bytes]") -> "tuple[BytesAhoCorasick, ...]":
    """Finds out quickly whether any anchor occurs; empty if the library cannot be used."""
    try:
        with FORK_LOCK:
            from ahocorasick_rs import BytesAhoCorasick, MatchKind  # noqa: PLC0415 - only where much is written

        # With `LeftmostFirst` the library searches for the first bytes of all patterns with vector instructions.
        groups = [anchors[at : at + _GROUP] for at in range(0, len(anchors), _GROUP)]
        return tuple(BytesAhoCorasick([*group, *_NO_FEW_BYTES], matchkind=MatchKind.LeftmostFirst) for group in groups)
    except Exception:  # not installed, or not for this machine: the standard library finds the same
        return ()


def forms(secret: bytes) -> "set[bytes]":
    """All byte strings that would reveal the secret; empty if it is too short to be searched for."""
    found: set[bytes] = set()
    for value in {secret, secret.strip()}:
        if len(value) >= SHORTEST:
            found |= {value, *_url_forms(value), *_base64_forms(value), *_json_forms(value)}
            found |= {*_hex_forms(value), *_utf16_forms(value)}
    if b"\n" in secret.strip():
        # A key with several lines is usually logged line by line.
        found.update(line for line in map(bytes.strip, secret.split(b"\n")) if len(line) >= 16 and line[:5] != b"-----")
    return {form for form in found if len(form) >= SHORTEST}


def _url_forms(secret: bytes) -> "set[bytes]":
    found = set()
    for extra in _URL_SAFE:
        safe = _LETTERS.union(extra)
        for digits in ("%%%02X", "%%%02x"):
            encoded = b"".join(bytes((c,)) if c in safe else (digits % c).encode() for c in secret)
            found.add(encoded)
            found.add(encoded.replace(b"%20", b"+"))
    return found


def wrapped_forms(secret: bytes) -> "set[bytes]":
    """The forms of `forms` that a line break may divide: base64."""
    values = {secret, secret.strip()}
    return {core for value in values if len(value) >= SHORTEST for core in _base64_cores(value)}


def _base64_cores(secret: bytes) -> "set[bytes]":
    """The characters of base64 that depend on the secret alone, for each offset it can have in the encoded text."""
    found = set()
    for offset in range(3):
        encoded = binascii.b2a_base64(b"\0" * offset + secret, newline=False)
        core = encoded[(0, 2, 3)[offset] : (offset + len(secret)) * 8 // 6]
        found |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def _base64_forms(secret: bytes) -> "set[bytes]":
    found = set()
    for core in _base64_cores(secret):
        found.add(core)
        # The two special characters are often URL-encoded in turn, or escaped in JSON.
        found.add(core.replace(b"+", b"%2B").replace(b"/", b"%2F"))
        found.add(core.replace(b"+", b"%2b").replace(b"/", b"%2f"))
        for plus in (b"+", b"\\u002B", b"\\u002b"):
            for slash in (b"/", b"\\/", b"\\u002F", b"\\u002f"):
                found.add(core.replace(b"+", plus).replace(b"/", slash))
    return found


# Characters that JSON encoders write as \uXXXX without need: .NET, Go, Gson, PHP with all its flags; and none.
_JSON_ESCAPED = (b"", b"\"&'+<>`", b"<>&", b"<>&='", b"<>&'\"")


def _json_forms(secret: bytes) -> "set[bytes]":
    found = set()
    usual = {0x5C: b"\\\\", 0x22: b'\\"', 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t"}
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        text = ""
    for special in _JSON_ESCAPED:
        for digits in (b"\\u%04X", b"\\u%04x"):
            escapes = {**usual, **{c: digits % c for c in special}}
            escapes |= {c: digits % c for c in range(32) if c not in usual}
            written = [b"".join(escapes.get(c, bytes((c,))) for c in secret)]
            if text and not text.isascii():
                # Characters beyond ASCII as \uXXXX too, as a surrogate pair where needed.
                units = text.encode("utf-16-be")
                codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
                written.append(b"".join(escapes.get(c, bytes((c,))) if c < 128 else digits % c for c in codes))
            for one in written:
                found |= {one, one.replace(b"/", b"\\/"), one.replace(b"/", digits % 0x2F)}
    return found


def _hex_forms(secret: bytes) -> "set[bytes]":
    written = binascii.hexlify(secret)
    return {written, written.upper()}


def _utf16_forms(secret: bytes) -> "set[bytes]":
    """One byte string for both byte orders if possible: without the zero byte at one end."""
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return set()
    little = text.encode("utf-16-le")
    if all(character < "\u0100" for character in text):
        return {little[:-1]}
    return {little, text.encode("utf-16-be")}


def _breaks(needle: bytes) -> int:
    """How many line breaks wrapped base64 of this length may contain."""
    return 1 + (len(needle) - 2) // _WRAPPED


def _parts_of(core: bytes) -> "tuple[bytes, ...]":
    """Parts of base64, at least one of which is not divided by line breaks; none if they would be too short."""
    count = _breaks(core) + 1
    size = len(core) // count
    return tuple(core[at * size : (at + 1) * size] for at in range(count)) if size >= _SHORTEST_PART else ()


def _anchors(needles: "Iterable[bytes]") -> "list[bytes]":
    """A few long parts such that each needle contains at least one of them.

    The forms of a secret differ at special characters; between these they have parts in common.
    """
    kept: list[bytes] = []
    for part in sorted({_longest_word(needle) for needle in needles}, key=len):
        if not any(other in part for other in kept):
            kept.append(part)
    return kept


def _period(needle: bytes) -> int:
    """The smallest distance between two occurrences: its length, unless it can overlap itself."""
    return next((shift for shift in range(1, len(needle)) if needle.startswith(needle[shift:])), len(needle))


def _longest_word(needle: bytes) -> bytes:
    """The longest run of letters and digits if it is long enough to be rare; else the whole needle."""
    words = bytes(c if c < 128 and chr(c).isalnum() else 32 for c in needle).split()
    longest = max(words, key=len, default=b"")
    return longest if len(longest) >= _ANCHOR else needle


def _cheapest_step(anchors: "list[bytes]") -> int:
    """The distance between samples at which the search for all anchors is cheapest; a huge one means no sampling."""

    def cost(step: int) -> float:
        searched = [anchor for anchor in anchors if len(anchor) < step + 7]
        sampling = _SAMPLE_COST_BY_STEP / step if len(searched) < len(anchors) else 0.0
        return sampling + sum(_SEARCH_COST + _SEARCH_COST_BY_LENGTH / len(anchor) for anchor in searched)

    return min((*_STEPS, _NO_STEP), key=cost)

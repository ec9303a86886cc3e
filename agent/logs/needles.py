"""Finds secrets in bytes, in every form in which they are written. Standard library only, quick to import."""

import binascii
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Anything shorter is found in ordinary words, and would make a log unreadable instead of safe.
SHORTEST = 6

_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
# What encoders leave alone beside letters and digits: RFC 3986 (Python's quote() with safe=""), older ones, Python's
# quote(), JavaScript's encodeURIComponent and encodeURI, HTML forms, and those that are over-careful.
_URL_SAFE = (b"-_.~", b"-_.", b"-_.~/", b"-_.~!'()*", b"-_.~!'()*;/?:@&=+$,#", b"-_.*", b"")

# A piece in which none of certain parts of the needles occurs holds no secret. That is most pieces, and few searches
# for long parts are enough to say so.
_ANCHOR = 12  # the shortest part of a needle that is searched for instead of all of it
# What that costs, in CPU seconds for 1 GB (measured): one search, by the length of what is searched for; and, however
# many parts of `step + 7` bytes or more there are, looking up every `step`-th eight bytes in a set, because each of
# these parts contains eight such bytes wherever it lies.
_SEARCH_COST = 0.03
_SEARCH_COST_BY_LENGTH = 2.6
_SAMPLE_COST_BY_STEP = 27.0
_STEPS = (24, 32, 40, 48, 64, 96)
_NO_STEP = 1 << 30
_PREFIX = 64  # beginnings up to this length are looked up in a set, longer ones are searched for


class Search:
    """A fixed set of byte strings to look for. Threads may share it.

    Attributes:
        needles: what is looked for, the longest first.
        longest: length of the longest.
    """

    __slots__ = ("_last", "_periods", "_prefixes", "_samples", "_searched", "_step", "longest", "needles")

    def __init__(self, needles: "Iterable[bytes]" = ()) -> None:
        """Prepares the search."""
        self.needles = tuple(sorted(set(needles), key=len, reverse=True))
        self.longest = max(map(len, self.needles), default=0)
        self._periods = tuple(map(_period, self.needles))
        anchors = _anchors(self.needles)
        self._step = _cheapest_step(anchors)
        self._searched = tuple(anchor for anchor in anchors if len(anchor) < self._step + 7)
        self._samples = frozenset(
            int.from_bytes(anchor[at : at + 8], sys.byteorder)
            for anchor in anchors
            if len(anchor) >= self._step + 7
            for at in range(len(anchor) - 7)
        )
        self._prefixes = frozenset(n[:size] for n in self.needles for size in range(1, min(len(n), _PREFIX + 1)))
        self._last = frozenset(byte for needle in self.needles for byte in needle[:-1])

    def find(self, data: bytes) -> "list[tuple[int, int]]":
        """Where needles are: `(start, end)` in order, those that overlap as one."""
        if not self._possible(data):
            return []
        found = []
        for needle, period in zip(self.needles, self._periods, strict=True):
            at = data.find(needle)
            while at >= 0:
                found.append((at, at + len(needle)))
                at = data.find(needle, at + period)
        found.sort()
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def unfinished(self, data: bytes) -> int:
        """How many bytes at the end of `data` are the beginning of a needle, whose rest may come with the next read."""
        if not data or data[-1] not in self._last:
            return 0
        if self.longest > _PREFIX:
            long = max(self._long_beginning(data, needle) for needle in self.needles if len(needle) > _PREFIX)
            if long:
                return long
        for length in range(min(len(data), _PREFIX, self.longest - 1), 0, -1):
            if data[-length:] in self._prefixes:
                return length
        return 0

    def _possible(self, data: bytes) -> bool:
        """Whether there may be a needle in it; quick when there is none."""
        if any(anchor in data for anchor in self._searched):
            return True
        whole = len(data) & ~7
        if not self._samples or not whole:
            return False
        return not self._samples.isdisjoint(memoryview(data)[:whole].cast("Q")[:: self._step // 8])

    @staticmethod
    def _long_beginning(data: bytes, needle: bytes) -> int:
        """Length of the beginning of `needle`, of at least `_PREFIX` bytes, at the end of `data`; 0 for none."""
        at = data.find(needle[:_PREFIX], max(0, len(data) - len(needle) + 1))
        while at >= 0 and not needle.startswith(data[at:]):
            at = data.find(needle[:_PREFIX], at + 1)
        return len(data) - at if at >= 0 else 0


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


def _url_forms(secret: bytes) -> "set[bytes]":
    found = set()
    for extra in _URL_SAFE:
        safe = _LETTERS.union(extra)
        for digits in ("%%%02X", "%%%02x"):
            encoded = b"".join(bytes((c,)) if c in safe else (digits % c).encode() for c in secret)
            found.add(encoded)
            found.add(encoded.replace(b"%20", b"+"))
    return found


def _base64_forms(secret: bytes) -> "set[bytes]":
    """The characters of base64 that depend on the secret alone, for each offset it can have in the encoded text."""
    found = set()
    for offset in range(3):
        encoded = binascii.b2a_base64(b"\0" * offset + secret, newline=False)
        core = encoded[(0, 2, 3)[offset] : (offset + len(secret)) * 8 // 6]
        found.add(core)
        found.add(core.replace(b"+", b"-").replace(b"/", b"_"))
        # The two special characters are often URL-encoded in turn, or escaped in JSON.
        found.add(core.replace(b"+", b"%2B").replace(b"/", b"%2F"))
        found.add(core.replace(b"+", b"%2b").replace(b"/", b"%2f"))
        found.add(core.replace(b"/", b"\\/"))
    return found


def _json_forms(secret: bytes) -> "set[bytes]":
    escaped = secret.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    for raw, written in ((b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t")):
        escaped = escaped.replace(raw, written)
    return {escaped, escaped.replace(b"/", b"\\/")}


def _anchors(needles: "Iterable[bytes]") -> "list[bytes]":
    """Parts of needles, few and long, of which each needle contains at least one.

    The forms of a secret differ where it has special characters; between these they share a part.
    """
    kept: list[bytes] = []
    for part in sorted({_longest_word(needle) for needle in needles}, key=len):
        if not any(other in part for other in kept):
            kept.append(part)
    return kept


def _period(needle: bytes) -> int:
    """How far behind one occurrence the next one can begin at the earliest: its length, unless it overlaps itself."""
    return next((shift for shift in range(1, len(needle)) if needle.startswith(needle[shift:])), len(needle))


def _longest_word(needle: bytes) -> bytes:
    """The longest run of letters and digits, where that is long enough to be rare; else all of it."""
    words = bytes(c if c < 128 and chr(c).isalnum() else 32 for c in needle).split()
    longest = max(words, key=len, default=b"")
    return longest if len(longest) >= _ANCHOR else needle


def _cheapest_step(anchors: "list[bytes]") -> int:
    """The distance between samples with which looking for all anchors costs least; a huge one samples none."""

    def cost(step: int) -> float:
        searched = [anchor for anchor in anchors if len(anchor) < step + 7]
        sampling = _SAMPLE_COST_BY_STEP / step if len(searched) < len(anchors) else 0.0
        return sampling + sum(_SEARCH_COST + _SEARCH_COST_BY_LENGTH / len(anchor) for anchor in searched)

    return min((*_STEPS, _NO_STEP), key=cost)

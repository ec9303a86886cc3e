"""Turns a segment of the spool into an object for a store: its key, its lines, compressed.

One line of NDJSON:

    {"ts": "2025-11-24T08:12:00.123456Z", "stream": "stdout", "line": "player joined"}

`line` has no line break at its end. If the bytes are not UTF-8, `base64` contains them exactly, and `line` is their
text if they are UTF-16 (Wine, Windows), else an approximation. `"partial": true` says that the line continues in the
next object of the same stream: it was very long, or was not complete when the segment was closed. `dropped_bytes` says
how many bytes are missing at this place.
"""

from __future__ import annotations

import base64
import errno
import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from json.encoder import encode_basestring  # the C function under json.dumps
from typing import Literal

from agent.logs import frames
from agent.logs.runs import Segment

Form = Literal["ndjson", "verbatim"]
Order = Literal["utf-16-le", "utf-16-be"]

LONGEST = 256 * 1024  # bytes of a line in one object; a longer one continues in the next
_LEVEL = 3  # zstd level: makes a usual log 10 to 20 times smaller, at several hundred MB/s
_LITTLE_MARK, _BIG_MARK = b"\xff\xfe", b"\xfe\xff"  # U+FEFF at the beginning of a text
_WHY = "the spool was full (AGENT_SPOOL_MAX)"


def name(segment: Segment, form: Form) -> str:
    """The object's name below its run's directory: it sorts by number, and contains the time of its first bytes.

    It depends on nothing else, so that a segment shipped twice overwrites its first copy.
    """
    time_text = stamp(segment.since)[:23].replace(":", "").replace("-", "")
    return f"{segment.number:06d}-{time_text}Z.{'ndjson' if form == 'ndjson' else 'log'}.zst"


def text(segment: Segment, form: Form, dropped_before: int) -> Iterator[bytes]:
    """The lines of a segment; raises OSError if its file cannot be read."""
    if form == "verbatim":
        return verbatim(segment.pieces(), dropped_before, _WHY)
    return ndjson(segment.pieces(), dropped_before, _WHY, begins=segment.number == 1)


def compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as one zstd frame with a checksum."""
    import zstandard  # noqa: PLC0415 - late: a game that ships nothing does not need it

    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    for piece in pieces:
        if out := compressor.compress(piece):
            yield out
    yield compressor.flush()


def encode(segment: Segment, form: Form, dropped_before: int) -> bytes:
    """The whole object; raises OSError if the segment's file cannot be read, or is too damaged."""
    try:
        return b"".join(compress(text(segment, form, dropped_before)))
    except (ValueError, OverflowError, struct.error) as problem:
        raise OSError(errno.EILSEQ, f"it is damaged ({problem})") from None


def stamp(ns: int) -> str:
    """Nanoseconds since 1970 as ISO 8601 in UTC, to the microsecond."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def gap_text(dropped: int, why: str) -> str:
    """The line that is shown where bytes are missing."""
    return f"[arbitrium-agent] {dropped} bytes of log are missing here: {why}"


def ndjson(pieces: Iterable[bytes], dropped_before: int = 0, why: str = "", *, begins: bool = False) -> Iterator[bytes]:
    """The lines of a segment as JSON objects, one on each line, in chunks.

    Args:
        pieces: the segment's bytes, cut anywhere.
        dropped_before: bytes that are missing before it.
        why: the reason.
        begins: whether the game's streams begin in this segment.
    """
    unfinished: dict[str, tuple[str, bytes]] = {}
    wide: dict[str, Order | None] = {}  # by stream of which a line was seen: its byte order, where that is UTF-16
    first = True
    for kind, ns, stream, body in frames.parse(pieces):
        ts = stamp(ns)
        if first and dropped_before:
            yield _gap(ts, dropped_before, why)
        first = False
        if kind == frames.GAP:
            count, _, reason = body.partition(b" ")
            yield _gap(ts, _number(count), reason.decode("utf-8", "replace"))
            continue
        began, before = unfinished.pop(stream, (ts, b""))
        data = before + body if before else body
        cut = data.rfind(b"\n")
        head = f'"stream":{_quoted(stream)},"line":'
        if cut >= 0:
            lines = data[:cut]
            wide[stream] = order = _order(lines, wide.get(stream), begins=begins and stream not in wide)
            if order is not None:
                yield b"".join(
                    _object(began if at == 0 else ts, head, line, wide=order)
                    for at, line in enumerate(lines.split(b"\n"))
                )
            else:
                yield _whole(began, ts, head, lines)
            began = ts
        rest = data[cut + 1 :]
        if len(rest) > LONGEST:
            yield _object(began, head, rest, partial=True, wide=wide.get(stream))
        elif rest:
            unfinished[stream] = (began, rest)
    for stream, (began, rest) in unfinished.items():
        yield _object(began, f'"stream":{_quoted(stream)},"line":', rest, partial=True, wide=wide.get(stream))


def verbatim(pieces: Iterable[bytes], dropped_before: int = 0, why: str = "") -> Iterator[bytes]:
    """The unchanged bytes of a segment, all streams in the order in which they were read; arguments as `ndjson`."""
    if dropped_before:
        yield f"{gap_text(dropped_before, why)}\n".encode()
    for kind, _, _, body in frames.parse(pieces):
        if kind == frames.GAP:
            count, _, reason = body.partition(b" ")
            yield f"{gap_text(_number(count), reason.decode('utf-8', 'replace'))}\n".encode()
        else:
            yield body


def _number(count: bytes) -> int:
    """The number of bytes of a gap; 0 if it is damaged."""
    return int(count) if count.isdigit() and len(count) < 20 else 0


def _quoted(text: str) -> str:
    """As JSON, with escaped U+0085, U+2028 and U+2029, which some readers treat as line breaks."""
    quoted = encode_basestring(text)
    if not quoted.isascii():
        for character in "\x85\u2028\u2029":
            quoted = quoted.replace(character, f"\\u{ord(character):04x}")
    return quoted


def _gap(ts: str, dropped: int, why: str) -> bytes:
    line = _quoted(gap_text(dropped, why))
    return f'{{"ts":"{ts}","stream":"{frames.AGENT}","line":{line},"dropped_bytes":{dropped}}}\n'.encode()


def _whole(began: str, ts: str, head: str, data: bytes) -> bytes:
    """Complete lines; the first one began at `began`, the others at `ts`."""
    try:
        decoded = data.decode().split("\n")
    except UnicodeDecodeError:
        raw = data.split(b"\n")
        return b"".join([_object(began, head, raw[0])] + [_object(ts, head, line) for line in raw[1:]])
    prefix = f'{{"ts":"{ts}",{head}'
    out = [prefix + _quoted(line) + "}\n" for line in decoded]
    if began != ts:
        out[0] = f'{{"ts":"{began}",{head}{_quoted(decoded[0])}}}\n'
    return "".join(out).encode()


def _order(data: bytes, before: Order | None, *, begins: bool) -> Order | None:
    """The byte order of complete lines of UTF-16; None if they are something else.

    Splitting at the byte 0x0A leaves the other half of each line break, a NUL, at the end of the line (big-endian) or
    at the beginning of the next one (little-endian). So a line of characters below U+0100 behind a line break looks the
    same in both, and has the same text; its neighbours decide.

    Args:
        data: the lines, without the byte 0x0A of the last one.
        before: the order of the lines before these.
        begins: whether nothing of the stream came before, not even half of a line break.
    """
    if b"\0" not in data:
        return before
    unclear = False
    for line in data.split(b"\n"):
        little, big = _looks_little(line), _looks_big(line)
        if little != big:
            return "utf-16-le" if little else "utf-16-be"
        unclear = unclear or little
    if before is not None or not unclear:
        return before
    return "utf-16-be" if begins and data.startswith(b"\0") else "utf-16-le"


def _looks_little(line: bytes) -> bool:
    """Whether a line can be little-endian UTF-16, mostly of characters below U+0100."""
    if line.startswith(_BIG_MARK):
        return False
    units = line[1:] if line.startswith(b"\0") else line
    return _mostly_latin(units, low=units[::2], high=units[1::2])


def _looks_big(line: bytes) -> bool:
    """The same for big-endian UTF-16."""
    if not line.endswith(b"\0") or line.removeprefix(b"\0").startswith(_LITTLE_MARK):
        return False
    units = line[:-1]
    return _mostly_latin(units, low=units[1::2], high=units[::2])


def _mostly_latin(units: bytes, *, low: bytes, high: bytes) -> bool:
    return len(units) >= 2 and len(units) % 2 == 0 and b"\0" not in low and high.count(0) * 2 > len(high)


def _wide_text(line: bytes, order: Order) -> str | None:
    """The text of a line in a stream with UTF-16; None if this line is not UTF-16: other programs write there too."""
    if b"\0" not in line:
        try:
            line.decode()
        except UnicodeDecodeError:
            pass
        else:
            return None
    if order == "utf-16-le":
        units = line[1:] if line.startswith(b"\0") else line
    else:
        units = line[:-1] if len(line) % 2 and line.endswith(b"\0") else line
    try:
        return units.decode(order).removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None


def _text(line: bytes, wide: Order | None) -> tuple[str, bool]:
    """The text of a line, and whether its bytes are this text in UTF-8."""
    if wide is not None and (text := _wide_text(line, wide)) is not None:
        return text, False
    try:
        return line.decode(), True
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace"), False


def _object(ts: str, head: str, line: bytes, *, partial: bool = False, wide: Order | None = None) -> bytes:
    text, exact = _text(line, wide)
    bytes_too = "" if exact else f',"base64":"{base64.b64encode(line).decode()}"'
    end = ',"partial":true' if partial else ""
    return f'{{"ts":"{ts}",{head}{_quoted(text)}{bytes_too}{end}}}\n'.encode()

"""How a segment becomes an object in a store: its name, its lines, compressed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from agent.logs import lines
from agent.logs.runs import Segment

Form = Literal["ndjson", "verbatim"]

_LEVEL = 3  # of zstd: makes a usual log 10 to 20 times smaller, at several hundred MB/s
_WHY = "the spool was full (AGENT_SPOOL_MAX)"


def name(segment: Segment, form: Form) -> str:
    """The object's name below its run's directory: sorts by number, and carries the time of its first bytes.

    It depends on nothing else, so that a segment that is shipped twice replaces itself.
    """
    time_text = lines.stamp(segment.since)[:23].replace(":", "").replace("-", "")
    return f"{segment.number:06d}-{time_text}Z.{'ndjson' if form == 'ndjson' else 'log'}.zst"


def text(segment: Segment, form: Form, dropped_before: int) -> Iterator[bytes]:
    """The lines of a segment; raises OSError where its file cannot be read."""
    write = lines.ndjson if form == "ndjson" else lines.verbatim
    return write(segment.pieces(), dropped_before, _WHY)


def compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as one zstd frame with a checksum."""
    import zstandard  # noqa: PLC0415 - late: a game that ships nothing does not need it

    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    for piece in pieces:
        if out := compressor.compress(piece):
            yield out
    yield compressor.flush()


def encode(segment: Segment, form: Form, dropped_before: int) -> bytes:
    """The whole object."""
    return b"".join(compress(text(segment, form, dropped_before)))

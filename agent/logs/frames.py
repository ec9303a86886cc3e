"""Reads and writes the spool's file format: one frame for each piece read. Standard library only, quick to import.

Nothing is parsed while the game writes: a frame is a header of sixteen bytes and the unchanged bytes, so capturing is
cheap. Splitting into lines, formatting time stamps and compression happen when a segment is shipped.

A segment is a file of frames and complete in itself: the name of a stream is in a separate frame before the stream's
first bytes. A truncated frame (the agent was killed while writing) ends the segment.
"""

import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# magic, kind, number of the stream, bytes that follow, nanoseconds since 1970
HEADER = struct.Struct("<BBHIQ")
MAGIC = 0xA7
DATA = 1  # bytes of a stream
NAME = 2  # the name of the stream with this number
GAP = 3  # bytes were dropped here: their number in digits, a space, and the reason
LONGEST = 64 * 1024 * 1024  # a larger length means that the file is damaged

AGENT = "agent"  # the stream for the agent's own lines


def header(kind: int, stream: int, length: int, ts: int) -> bytes:
    """The header for `length` bytes that were read at `ts` (nanoseconds since 1970)."""
    return HEADER.pack(MAGIC, kind, stream, length, ts)


def gap(dropped: int, why: str, ts: "int | None" = None) -> bytes:
    """A whole frame which says that `dropped` bytes are missing here, and why."""
    body = f"{dropped} {why}".encode()
    return header(GAP, 0, len(body), time.time_ns() if ts is None else ts) + body


def parse(pieces: "Iterable[bytes]") -> "Iterator[tuple[int, int, str, bytes]]":
    """Reads frames.

    Args:
        pieces: the segment in order; cut anywhere.

    Yields:
        `(kind, ts, stream name, bytes)` for each DATA and GAP frame; ends at the first truncated one. After a damaged
        frame, the rest is reported as a gap.
    """
    names: dict[int, str] = {}
    buffer, last = b"", 0
    pieces = iter(pieces)
    for piece in pieces:
        buffer = buffer + piece if buffer else piece
        at = 0
        while len(buffer) - at >= HEADER.size:
            magic, kind, stream, length, ts = HEADER.unpack_from(buffer, at)
            if magic != MAGIC or length > LONGEST or kind not in (DATA, NAME, GAP):
                lost = len(buffer) - at + sum(map(len, pieces))
                yield GAP, last, AGENT, f"{lost} this part of the spool is damaged".encode()
                return
            end = at + HEADER.size + length
            if end > len(buffer):
                break
            body = buffer[at + HEADER.size : end]
            at, last = end, ts
            if kind == NAME:
                names[stream] = body.decode("utf-8", "backslashreplace")
            else:
                yield kind, ts, AGENT if kind == GAP else names.get(stream, f"stream-{stream}"), body
        buffer = buffer[at:]


def read_file(path: str, size: int = 1 << 20) -> "Iterator[bytes]":
    """The pieces of a file, for `parse`; raises OSError when it cannot be opened or read."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        while piece := os.read(fd, size):
            yield piece
    finally:
        os.close(fd)

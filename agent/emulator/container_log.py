"""A deployment's stdout and stderr, limited, with times, as the platform stores them while it runs."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Literal

Stream = Literal["stdout", "stderr"]
CHUNK_BYTES = 200
"""What a chunk costs beside its text; counted too, or a game that writes a byte at a time would fill the memory."""
LINE_BYTES = 65536
"""A line longer than this is cut, so that output without line ends is kept and seen too."""


@dataclass(frozen=True)
class Chunk:
    """Whole lines of one stream, as they arrived."""

    at: float
    """Unix time in seconds."""
    stream: Stream
    data: bytes
    attempt: int
    """0 for the first start, then one more with every restart."""


class ContainerLog:
    """The output of one deployment, over its restarts.

    Args:
        limit: most bytes of memory; the oldest output goes first and is counted in `dropped`.
    """

    def __init__(self, limit: int) -> None:
        """See the class."""
        self._limit = limit
        self._chunks: deque[Chunk] = deque()
        self._partial: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self._size = 0
        self.attempt = 0
        self.dropped = 0
        self.total = 0
        """Number of chunks ever kept; the position of the next one."""

    def write(self, stream: Stream, data: bytes) -> None:
        """Keep output; the part after the last line end waits for the rest of its line."""
        data = self._partial[stream] + data
        end = data.rfind(b"\n") + 1
        if len(data) - end > LINE_BYTES:
            end = len(data)
        self._partial[stream] = data[end:]
        self._append(stream, data[:end])

    def flush(self) -> None:
        """Keep unfinished lines too: an attempt has ended."""
        for stream, data in self._partial.items():
            self._append(stream, data)
            self._partial[stream] = b""

    def _append(self, stream: Stream, data: bytes) -> None:
        if not data:
            return
        self._chunks.append(Chunk(time.time(), stream, data, self.attempt))
        self.total += 1
        self._size += len(data) + CHUNK_BYTES
        while self._size > self._limit and len(self._chunks) > 1:
            gone = len(self._chunks.popleft().data)
            self._size -= gone + CHUNK_BYTES
            self.dropped += gone

    def since(self, position: int) -> tuple[list[Chunk], int]:
        """The chunks from a position on, and the position after them."""
        new = list(islice(reversed(self._chunks), max(0, self.total - position)))
        return new[::-1], self.total

    def text(self, attempt: int | None = None) -> bytes:
        """Everything kept, or what one attempt wrote, in the order in which it arrived."""
        return b"".join(chunk.data for chunk in self._of(attempt))

    def ndjson(self, attempt: int | None = None) -> bytes:
        """The same as one JSON object a line: `timestamp`, `stream`, `message`."""
        lines = []
        for chunk in self._of(attempt):
            at = datetime.fromtimestamp(chunk.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            lines += [
                json.dumps({"timestamp": at, "stream": chunk.stream, "message": line.decode(errors="replace")})
                for line in chunk.data.removesuffix(b"\n").split(b"\n")
            ]
        return "".join(f"{line}\n" for line in lines).encode()

    def clear(self) -> None:
        """Forget it all: the deployment has ended and nobody kept its logs."""
        self._chunks.clear()
        self._size = 0

    def _of(self, attempt: int | None) -> Iterable[Chunk]:
        return (chunk for chunk in self._chunks if attempt is None or chunk.attempt == attempt)

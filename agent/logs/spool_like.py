"""The interface of a spool for shipping: the segments of the init's spool, and those of earlier runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.logs.runs import Segment


class SpoolLike(Protocol):
    """Implemented by `agent.runtime.remote_spool.RemoteSpool`, and for tests by `tests/local_spool.py`."""

    directory: str
    run_id: str
    started_ns: int

    @property
    def run(self) -> str:
        """Directory of the run."""

    @property
    def next_number(self) -> int:
        """Number of the next segment."""

    def seal_after(self, seconds: float | None) -> None:
        """Closes segments at this age, even if they are small."""

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Calls back when a segment was closed."""

    def segments(self) -> list[Segment]:
        """What is held."""

    def dropped_before(self, segment: Segment) -> int:
        """Bytes dropped right before a segment."""

    def confirm(self, segment: Segment) -> None:
        """The store has confirmed the segment."""

    def forget(self, segment: Segment) -> None:
        """The segment cannot be read."""

    def seal(self) -> None:
        """Closes the open segment."""

    def flush(self, deadline: float) -> bool:
        """Waits until all is written."""

    def adopt(self) -> list[str]:
        """Adopts the segments of earlier runs."""

    def release(self, run: str, *, delete: bool) -> None:
        """Releases an earlier run."""

    def counters(self) -> dict[str, int]:
        """Bytes and segments so far."""

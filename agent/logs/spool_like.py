"""What is shipped from: what the agent's process sees of the init's spool, and of what earlier runs left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.logs.runs import Segment


class SpoolLike(Protocol):
    """What is shipped from: `agent.runtime.remote_spool.RemoteSpool`, for which `tests/local_spool.py` stands in."""

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
        """Has segments of this age closed."""

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Calls back when a segment was closed."""

    def segments(self) -> list[Segment]:
        """What is held."""

    def dropped_before(self, segment: Segment) -> int:
        """Bytes dropped right before a segment."""

    def confirm(self, segment: Segment) -> None:
        """The store has it."""

    def forget(self, segment: Segment) -> None:
        """It cannot be read."""

    def seal(self) -> None:
        """Closes the open segment."""

    def flush(self, deadline: float) -> bool:
        """Waits until all is written."""

    def adopt(self) -> list[str]:
        """Takes over what earlier runs left."""

    def release(self, run: str, *, delete: bool) -> None:
        """Lets go of an earlier run."""

    def counters(self) -> dict[str, int]:
        """Bytes and segments so far."""

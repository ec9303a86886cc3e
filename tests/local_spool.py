"""The spool as the shipper sees it, in one process: in a real life the init has one half and the agent the other."""

from __future__ import annotations

from typing import Any

from agent.logs.earlier_runs import EarlierRuns
from agent.logs.runs import Segment
from agent.logs.spool import Spool


class LocalSpool(Spool):
    """A run's spool, and what earlier runs left in the same directory; stands in for `runtime.remote_spool`."""

    def __init__(self, directory: str, max_bytes: int, **options: Any) -> None:
        super().__init__(directory, max_bytes, **options)
        self.earlier = EarlierRuns(directory, self.run, self.owner)

    def segments(self) -> list[Segment]:
        """Those of earlier runs come first."""
        return [*self.earlier.segments, *super().segments()]

    def dropped_before(self, segment: Segment) -> int:
        """Of either kind."""
        return super().dropped_before(segment) if segment.run == self.run else self.earlier.dropped_before(segment)

    def confirm(self, segment: Segment) -> None:
        """Of either kind; its file goes."""
        if segment.run != self.run:
            self.earlier.remove(segment)
        super().confirm(segment)

    def forget(self, segment: Segment) -> None:
        """Of either kind."""
        if segment.run != self.run:
            self.earlier.remove(segment)
        else:
            super().forget(segment)

    def adopt(self) -> list[str]:
        """See `EarlierRuns`."""
        return self.earlier.adopt()

    def release(self, run: str, *, delete: bool) -> None:
        """See `EarlierRuns`."""
        self.earlier.release(run, delete=delete)

    def close(self, deadline: float) -> bool:
        """Of the run, and of what it has adopted."""
        closed = super().close(deadline)
        self.earlier.close()
        return closed

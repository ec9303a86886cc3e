"""Segments that ended runs left in the spool directory; a later agent of the same deployment and command ships them."""

from __future__ import annotations

import os
import threading

from agent.logs import runs
from agent.logs.runs import Segment


class EarlierRuns:
    """The adopted runs: their segments, and the locks that keep other agents from adopting them too.

    Methods that use the disk are called in a thread; none raises because of the disk. One thread enforces the limits
    while another adopts or confirms segments, so each change is made under a lock.

    Attributes:
        segments: those that are still held, oldest first.
        bytes_dropped: bytes of log that did not fit.
        segments_dropped: how many segments did not fit.
        others: runs of other deployments or commands that `adopt` has left alone.
    """

    def __init__(self, directory: str, own_run: str, owner: str) -> None:
        """Nothing is adopted yet.

        Args:
            directory: the spool directory.
            own_run: the directory of the run that adopts.
            owner: the deployment and command whose runs are adopted, as `runs.identity` writes them.
        """
        self.segments: list[Segment] = []
        self.bytes_dropped = 0
        self.segments_dropped = 0
        self.others = 0
        self._directory = directory
        self._own_run = own_run
        self._owner = owner
        self._gaps: dict[tuple[str, int], int] = {}
        self._locks: dict[str, int] = {}
        self._changing = threading.Lock()

    def adopt(self) -> list[str]:
        """Adopts the runs that have ended; runs that are still active are not touched.

        Returns:
            The directories of those that were not adopted before, oldest first.
        """
        adopted, self.others = [], 0
        for path in runs.all_runs(self._directory):
            if path == self._own_run or path in self._locks:
                continue
            if runs.owner_of(path) != self._owner:
                self.others += 1
                continue
            fd = runs.lock(path)
            if fd < 0:
                continue
            self._locks[path] = fd
            found, gaps = runs.load(path)
            adopted.append(path)
            with self._changing:
                self.segments += found
                self._gaps.update(((path, number), size) for number, size in gaps.items())
        return adopted

    def dropped_before(self, segment: Segment) -> int:
        """How many bytes of log were dropped right before this segment."""
        return self._gaps.get((segment.run, segment.number), 0)

    def remove(self, segment: Segment) -> None:
        """The store has the segment, or it cannot be read: no longer holds it. Its file stays."""
        with self._changing:
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        if segment in self.segments:
            self.segments.remove(segment)
        self._gaps.pop((segment.run, segment.number), None)

    def bound(self, most: int) -> None:
        """Drops the oldest segments that are not being shipped, until at most `most` bytes are held."""
        with self._changing:
            total = sum(segment.size for segment in self.segments)
            for segment in [one for one in self.segments if not one.busy]:
                if total <= most:
                    return
                total -= segment.size
                self._drop(segment)

    def _drop(self, segment: Segment) -> None:
        """Counts a segment as dropped, and records the gap before the next one."""
        at = self.segments.index(segment)
        gap = self.dropped_before(segment) + segment.log_bytes
        self._remove(segment)
        self.bytes_dropped += segment.log_bytes
        self.segments_dropped += 1
        if at < len(self.segments):
            later = self.segments[at]
            self._gaps[later.run, later.number] = self.dropped_before(later) + gap
        segment.discard()

    def release(self, run: str, *, delete: bool) -> None:
        """Releases a run; with `delete`, also deletes its directory."""
        fd = self._locks.pop(run, -1)
        if delete:
            runs.remove(run)
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Releases all runs, so that a later agent can adopt them."""
        for run in list(self._locks):
            self.release(run, delete=False)

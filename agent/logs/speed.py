"""Measures the speed of the store, to estimate how long shipping the rest will take."""

from __future__ import annotations

from collections.abc import Callable

# Weight of the latest measurement: high enough to notice a store that becomes slow, but not after a single slow answer.
_WEIGHT = 0.3
# With fewer bytes, the time measures the round trip and not the bandwidth.
_ENOUGH_BYTES = 64 * 1024
# Smaller changes are not reported.
_CHANGE = 0.25


class Speed:
    """The measurements of one store.

    Attributes:
        object_seconds: time for a small object; None before the first.
        bytes_per_second: of uncompressed log; None until enough was shipped.
        working: whether the store accepts uploads now.
    """

    def __init__(self, tell: Callable[[float, float], object] = lambda _seconds, _rate: None) -> None:
        """Starts without measurements.

        Args:
            tell: called with seconds for a small object and bytes of log per second (0: the store accepts nothing
                now) whenever one has changed by a quarter.
        """
        self.object_seconds: float | None = None
        self.bytes_per_second: float | None = None
        self.working = True
        self._tell = tell
        self._told: tuple[float, float] | None = None

    def measured(self, size: int, seconds: float) -> None:
        """The store has confirmed an object.

        Args:
            size: bytes of uncompressed log in it; for other objects, their size.
            seconds: the time for the upload, without failed attempts.
        """
        self.working = True
        seconds = max(seconds, 1e-6)
        if size < _ENOUGH_BYTES:
            self.object_seconds = _smoothed(self.object_seconds, seconds)
        else:
            self.bytes_per_second = _smoothed(self.bytes_per_second, size / seconds)
        self._say()

    def works_again(self) -> None:
        """The store has confirmed an object: it works (again)."""
        if not self.working:
            self.working = True
            self._say()

    def failed(self) -> None:
        """The store has not accepted an object."""
        self.working = False
        self._say()

    def _say(self) -> None:
        rate = (self.bytes_per_second or DEFAULT_RATE) if self.working else 0.0
        now = (self.object_seconds if self.object_seconds is not None else DEFAULT_OBJECT_SECONDS, rate)
        if self._told is None or any(abs(new - old) > _CHANGE * old for new, old in zip(now, self._told, strict=True)):
            self._told = now
            self._tell(*now)


DEFAULT_OBJECT_SECONDS = 0.05
DEFAULT_RATE = 25e6
"""The estimate before the first measurement; a store in the same region is at least this fast."""


def _smoothed(before: float | None, new: float) -> float:
    return new if before is None else before + _WEIGHT * (new - before)

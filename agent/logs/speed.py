"""How fast the store takes what it is given: what shipping the rest will take is estimated by it."""

from __future__ import annotations

from collections.abc import Callable

# The last measurement counts for so much: a store that becomes slow is noticed, one slow answer is not believed.
_WEIGHT = 0.3
# With fewer bytes the time is that of asking, not of sending.
_ENOUGH_BYTES = 64 * 1024
# What has changed by less is not told.
_CHANGE = 0.25


class Speed:
    """What was measured of one store.

    Attributes:
        object_seconds: what a small object takes; None before the first.
        bytes_per_second: of log, before it is compressed; None before there was enough of it.
        working: whether the store takes anything at present.
    """

    def __init__(self, tell: Callable[[float, float], object] = lambda _seconds, _rate: None) -> None:
        """Nothing is measured yet.

        Args:
            tell: called with seconds for a small object and bytes of log per second (0: the store takes nothing at
                present) whenever they have changed by a quarter.
        """
        self.object_seconds: float | None = None
        self.bytes_per_second: float | None = None
        self.working = True
        self._tell = tell
        self._told: tuple[float, float] | None = None

    def measured(self, size: int, seconds: float) -> None:
        """The store has confirmed an object.

        Args:
            size: bytes of log in it, before they were compressed; for other objects, theirs.
            seconds: what that took, without repeated attempts.
        """
        self.working = True
        seconds = max(seconds, 1e-6)
        if size < _ENOUGH_BYTES:
            self.object_seconds = _smoothed(self.object_seconds, seconds)
        else:
            self.bytes_per_second = _smoothed(self.bytes_per_second, size / seconds)
        self._say()

    def works_again(self) -> None:
        """The store has confirmed an object; where it had failed before, that is over."""
        if not self.working:
            self.working = True
            self._say()

    def failed(self) -> None:
        """The store has not taken an object."""
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
"""Before anything was measured; what a store in the same region takes easily."""


def _smoothed(before: float | None, new: float) -> float:
    return new if before is None else before + _WEIGHT * (new - before)

"""An event loop whose clock jumps to whatever is waited for next, so that a test of minutes takes no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Impatient(selectors.DefaultSelector):
    """Waits for nothing: where no descriptor is ready, the clock is moved on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(5)  # only descriptors are waited for
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own, in seconds; it begins at 1000."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        """The virtual moment."""
        return self._impatient.now


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)

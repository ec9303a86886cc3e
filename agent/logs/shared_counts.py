"""Counters of the log in memory that a process which was forked later sees as well. Standard library only.

So a scrape, which the agent's process answers, has them as they are at that moment without asking PID 1 for them: that
took a fifth of a scrape's CPU time. PID 1 only writes, so that a broken agent can do no harm here.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STDOUT, STDERR, SHIPPED, DROPPED, LOST_STDOUT, LOST_STDERR = range(6)
_CELLS = 6
_SIZE = 8


class SharedCounts:
    """Whole numbers of 64 bits, by the constants of this module.

    Each is aligned, and so read and written as a whole. Two threads must not write the same one at once.

    Attributes:
        shared: whether a forked process sees them; not where there is no memory for that.
    """

    def __init__(self) -> None:
        """All are 0."""
        try:
            import mmap  # noqa: PLC0415 - PID 1 goes on without the module too

            self._cells = memoryview(mmap.mmap(-1, _CELLS * _SIZE)).cast("Q")
            self.shared = True
        except (ImportError, OSError, MemoryError):
            self._cells = memoryview(bytearray(_CELLS * _SIZE)).cast("Q")
            self.shared = False

    def __getitem__(self, cell: int) -> int:
        """The number in a cell."""
        return self._cells[cell]

    def __setitem__(self, cell: int, number: int) -> None:
        """Writes a number."""
        self._cells[cell] = number

    def writer(self, cell: int) -> "Callable[[int], None]":
        """A function that writes one cell."""
        cells = self._cells

        def write(number: int) -> None:
            cells[cell] = number

        return write

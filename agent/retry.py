"""The retry policy that is used everywhere: how long to wait before the next attempt.

Exponential backoff with jitter: many containers may end at the same time, and without jitter they would all send their
retries to the same server at once (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

Nothing is imported here, so that the init can use it too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from random import Random


class RetryPolicy:
    """Exponential backoff; a wait is random between a share of a ceiling and the ceiling, which doubles.

    Attributes:
        first: ceiling of the first wait, in seconds.
        cap: ceiling of every later wait, in seconds.
        least: the smallest wait as a share of the ceiling: 0 is full jitter, 1 is no jitter.
    """

    __slots__ = ("cap", "first", "least")

    def __init__(self, first: float = 0.2, cap: float = 30.0, least: float = 0.0) -> None:
        """Keep the values; see the class."""
        self.first = first
        self.cap = cap
        self.least = least

    def ceiling(self, retry: int) -> float:
        """The longest wait before retry number `retry` (counted from 0), in seconds."""
        return min(self.cap, self.first * 2.0 ** min(retry, 64))

    def wait(self, retry: int, rng: Random, asked: float | None = None) -> float:
        """Draw the wait before a retry.

        Args:
            retry: number of the retry, counted from 0.
            rng: source of the jitter.
            asked: seconds that the server asked for (`Retry-After`), or None. The wait is then never shorter than
                this, nor than the policy's own: a server that says 0 does not disable the policy. Up to a tenth is
                added as jitter, so that clients with the same answer do not return at the same time.

        Returns:
            Seconds to wait.
        """
        ceiling = self.ceiling(retry)
        own = rng.uniform(self.least * ceiling, ceiling)
        if asked is None:
            return own
        return max(own, asked + rng.uniform(0.0, max(self.first, asked / 10.0)))

"""How long to wait before trying again: full jitter, and what the server asked for.

Full jitter (a uniform draw between zero and a ceiling that doubles) because a hundred containers of one match day end
together: whatever they do in step, they do to the platform at once
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

Only the standard library is imported here.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRY_AFTER_LIMIT = 300.0
"""Seconds: a longer `Retry-After` is cut to this, because a deployment is billed while it waits."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    Attributes:
        first: ceiling of the first wait, in seconds.
        cap: ceiling of every later wait, in seconds.
    """

    first: float = 0.2
    cap: float = 30.0

    def ceiling(self, retry: int) -> float:
        """Give the longest wait before retry number `retry` (counted from 0), in seconds."""
        return min(self.cap, self.first * 2.0 ** min(retry, 64))

    def wait(self, retry: int, rng: random.Random, retry_after: float | None = None) -> float:
        """Draw the wait before a retry.

        Args:
            retry: number of the retry, counted from 0.
            rng: where the jitter comes from.
            retry_after: seconds the server asked for. The wait is then never shorter, and a tenth of it is added as
                jitter, so that all who were told the same do not come back at the same moment.

        Returns:
            Seconds to wait.
        """
        if retry_after is None:
            return rng.uniform(0.0, self.ceiling(retry))
        return retry_after + rng.uniform(0.0, max(self.first, retry_after / 10.0))


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Read `Retry-After`, in either of its forms (RFC 9110, 10.2.3).

    Args:
        headers: of the response; a case-insensitive mapping.
        now: Unix time in seconds, used for the form with a date where the response has no `Date` of its own. Its own is
            preferred: the two then come from one clock, and a wrong clock in the container does no harm.

    Returns:
        Seconds between 0 and `RETRY_AFTER_LIMIT`, or None where the header is absent or not readable.
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), RETRY_AFTER_LIMIT)
    until = _http_date(value)
    if until is None:
        return None
    sent = _http_date(headers.get("Date", ""))
    return min(max(0.0, until - (now if sent is None else sent)), RETRY_AFTER_LIMIT)


def _http_date(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None

"""Parses `Retry-After`, the header in which a server says when to retry.

Only the standard library is imported here.
"""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRY_AFTER_LIMIT = 300.0
"""Seconds: a longer `Retry-After` is cut to this, because a deployment is billed while it waits."""


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

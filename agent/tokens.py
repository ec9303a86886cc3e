"""Whether who asks knows a secret, in a time that does not tell how much of it. Standard library only."""

from __future__ import annotations

import hmac


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal; what is no UTF-8 arrives as lone surrogates, and is wrong as anything else is."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def bears(authorization: str, token: str) -> bool:
    """Whether a header `Authorization` bears this token (RFC 6750).

    Args:
        authorization: the header's value, "" where there is none.
        token: what is wanted.
    """
    return same(authorization, f"Bearer {token}")

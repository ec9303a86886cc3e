"""Compares secrets in constant time. Standard library only."""

from __future__ import annotations


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal; bytes that are not UTF-8 arrive as lone surrogates, and never match."""
    import hmac  # noqa: PLC0415 - it loads OpenSSL's tables of hashes, and most agents are never given a secret

    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def bears(authorization: str, token: str) -> bool:
    """Whether a header `Authorization` contains this token (RFC 6750).

    Args:
        authorization: the header's value, "" if there is none.
        token: the expected token.
    """
    return same(authorization, f"Bearer {token}")

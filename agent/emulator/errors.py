"""The error answers of the emulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An answer other than success: a status and a body that matches the contract's `Error`.

    Args:
        status: the HTTP status code.
        message: a sentence for people, beginning with what cannot be done.
        details: more about it, as a JSON object.
        headers: further response headers, such as `Retry-After`.
        extra: members of the body beside `message`; `AllocationError` has a `request_id`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """See the class."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.headers = headers
        self.extra = extra

    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        body: dict[str, Any] = {"message": self.message, **(self.extra or {})}
        if self.details:
            body["details"] = dict(self.details)
        return body


class Unanswered(Exception):  # noqa: N818 - it is no error of ours
    """The connection was closed on purpose; there is nobody to answer."""


class CannotRun(Exception):  # noqa: N818 - it reads as the sentence it carries, like the rest of the messages
    """A version's game could not be started; the deployment goes to `Status.ERROR` with this sentence."""


class CannotPlace(Exception):  # noqa: N818 - likewise
    """No host has room for a deployment."""

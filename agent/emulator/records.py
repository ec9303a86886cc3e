"""Records calls, for tests."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from aiohttp import web

from agent.emulator.json_text import load_json

OPERATION = web.RequestKey("operation", str)
"""The operation id of the contract."""
BODY = web.RequestKey("body", bytes)
"""The JSON body, once it was read."""
FAULT = web.RequestKey("fault", str)
"""The route of the fault that the request met."""
MOST_RECORDS = 2000
MOST_BODY_BYTES = 64 * 1024
"""Larger bodies are not recorded: only an application's picture makes one."""
SECRET_MEMBERS = frozenset({"secret_access_key", "private_token", "access_key_id"})
HIDDEN = "…"


class Records:
    """The last requests, oldest first; secrets are replaced before they are kept."""

    def __init__(self) -> None:
        """None yet."""
        self.counts: Counter[tuple[str, int]] = Counter()
        """How often each operation was answered each status, since the start."""
        self._records: deque[dict[str, Any]] = deque(maxlen=MOST_RECORDS)

    def add(self, request: web.Request, status: int | None, seconds: float) -> None:
        """Keep one; `status` is None when it was never answered."""
        if request.path.startswith("/emulator/") or request.path == "/":
            return
        if status is not None and OPERATION in request:
            self.counts[request[OPERATION], status] += 1
        self._records.append(
            {
                "at": time.time(),
                "method": request.method,
                "path": request.path,
                "query": {name: request.query.getall(name)[0] for name in request.query},
                "operation": request.get(OPERATION),
                "authorization": _kind(request.headers.get("Authorization")),
                "body": _without_secrets(request.get(BODY, b"")),
                "status": status,
                "seconds": round(seconds, 4),
                "fault": request.get(FAULT),
            }
        )

    def all(self, operation: str | None = None) -> list[dict[str, Any]]:
        """Those kept, or those of one operation."""
        return [record for record in self._records if operation is None or record["operation"] == operation]

    def clear(self) -> None:
        """Forget them."""
        self._records.clear()


def _kind(authorization: str | None) -> str:
    """What kind of token was sent, never which."""
    if authorization is None:
        return "none"
    return "token" if authorization.lower().startswith("token ") else "bare"


def _without_secrets(body: bytes) -> Any:
    """A JSON body with its secrets replaced; None when there is none, or it is not JSON."""
    if len(body) > MOST_BODY_BYTES:
        return HIDDEN
    try:
        return _cleaned(load_json(body))
    except (ValueError, RecursionError):  # of the second, what was read goes a little deeper than what can be walked
        return None


def _cleaned(value: Any) -> Any:
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    if not isinstance(value, dict):
        return value
    hidden = SECRET_MEMBERS | ({"value"} if value.get("is_hidden") or value.get("is_secret") else set())
    return {name: HIDDEN if name in hidden else _cleaned(each) for name, each in value.items()}

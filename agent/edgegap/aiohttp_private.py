"""All uses of the private parts of aiohttp's client; those of its server are in `agent.web.Connection`.

`tests/unit/test_aiohttp_private.py` fails if a new version has changed any of them. Imported with the first call: see
`self_stop`.
"""

import asyncio
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

_HEAD_BYTES = 64
"""A status line's beginning: `HTTP/1.1 202` and more."""


def call_once(session: aiohttp.ClientSession) -> None:
    """Have one request be one call.

    aiohttp repeats an idempotent request whose connection broke by itself, at once and unseen by counter and limiter.
    There is no public switch; its own TestClient sets the same attribute.
    """
    session._retry_connection = False


class StatusLines(aiohttp.TCPConnector):
    """Connections of their own for each call, and the status line of the last answer, whatever came after it.

    aiohttp drops a response whose body is damaged in the packet that also has its head: the parser fails, and the head
    that it had read is lost. For a self-stop the head is the answer.
    """

    def __init__(self, **options: Any) -> None:
        """As `aiohttp.TCPConnector`."""
        super().__init__(**options)
        self._head = b""
        loop = asyncio.get_running_loop()
        self._factory: Any = lambda: _Listening(loop, self)

    def forget(self) -> None:
        """Another call begins."""
        self._head = b""

    def heard(self, data: bytes) -> None:
        """Bytes of the response, as they came."""
        if len(self._head) < _HEAD_BYTES:
            self._head += data[: _HEAD_BYTES - len(self._head)]

    @property
    def status(self) -> int | None:
        """The status that the response began with; None where none came."""
        version, _, rest = self._head.partition(b" ")
        code = rest[:3]
        return int(code) if version.startswith(b"HTTP/1.") and code.isdigit() and not rest[3:4].isdigit() else None


class _Listening(ResponseHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop, connector: StatusLines) -> None:
        super().__init__(loop)
        self._listener = connector

    def data_received(self, data: bytes) -> None:
        self._listener.heard(data)
        super().data_received(data)

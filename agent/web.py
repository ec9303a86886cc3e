"""The server half of aiohttp, without its client: `from agent import web` in place of `from aiohttp import web`.

Importing any part of aiohttp executes the package first, which imports the client: it loads the machine's certificates
into two TLS contexts, which takes longer than importing the server (450 million instructions alone, 1,070 with the
client) and uses some MB permanently. So the package is executed when a name of the client is accessed
(`aiohttp.ClientSession`), and so is what the server itself imports for proxies, error pages, broken connections,
uploaded files and hosts whose names are not ASCII (`agent.postponed`). The classes are those of `aiohttp.web`. If a
later version's server needs more of this, that executes it: everything works, slower, and `tests/unit/test_rooms.py`
fails.
"""

from __future__ import annotations

import os
import urllib  # noqa: F401 - the package of one of these
from types import ModuleType
from typing import Any

from agent.postponed import postpone
from agent.substitutes import Changed, substitute


class _Random:
    """In place of `random.Random`: the one method that masks WebSocket's frames, without the module."""

    @staticmethod
    def getrandbits(count: int) -> int:
        """Random bits of the system, as RFC 6455 wants the masks."""
        return int.from_bytes(os.urandom(-(-count // 8)), "big") >> -count % 8


# The default for `Server` and `User-Agent`; the package defines it, but is not executed.
postpone("aiohttp", __version__="3")
postpone("urllib.request", functions=("getproxies", "proxy_bypass"))
postpone("html", functions=("escape",))
postpone("idna")
postpone("tempfile", functions=("SpooledTemporaryFile",))
substitute("aiohttp._websocket.writer", {"random": Changed(ModuleType("random"), Random=_Random)})
# What parses the value of a header, for a `Content-Type` with parameters.
postpone(
    "email._header_value_parser",
    functions=(
        "get_unstructured",
        "parse_content_disposition_header",
        "parse_content_transfer_encoding_header",
        "parse_content_type_header",
        "parse_message_id",
        "parse_mime_version",
    ),
)
_end = postpone("aiohttp.client_exceptions", functions=("ClientConnectionResetError",))

from aiohttp.http import SERVER_SOFTWARE, HttpVersion11  # noqa: E402 - after these
from aiohttp.http_exceptions import BadHttpMethod  # noqa: E402
from aiohttp.web_protocol import RequestHandler, RequestPayloadError  # noqa: E402
from aiohttp.web_request import BaseRequest  # noqa: E402
from aiohttp.web_response import Response, StreamResponse  # noqa: E402
from aiohttp.web_server import Server  # noqa: E402

_end()  # the client also catches it


def has_asked(data: bytes) -> bool:
    """Whether the first bytes of a client have a whole head of a request, or are nothing that can become one."""
    return b"\r\n\r\n" in data or not data[:1].isupper() or b"\n\n" in data


__all__ = [
    "SERVER_SOFTWARE",
    "BadHttpMethod",
    "BaseRequest",
    "Connection",
    "HttpVersion11",
    "RequestHandler",
    "RequestPayloadError",
    "Response",
    "Server",
    "StreamResponse",
    "has_asked",
]


class Connection(RequestHandler):
    """A connection, with what aiohttp's server knows of it and has no public name for.

    All uses of the server's private parts are here; `tests/unit/test_aiohttp_private.py` fails if a new version has
    moved one of them.

    Attributes:
        answering: whether a whole request has come, and somebody waits for the answer; set by whoever answers.
    """

    __slots__ = ("answering",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Takes what the library gives it."""
        super().__init__(*arguments, **options)
        self.answering = False

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer here."""
        return not (self.answering or self.has_requests_waiting)

    @property
    def has_requests_waiting(self) -> bool:
        """Whether the head of a request was read that is not handled yet."""
        return bool(self._messages)

    @property
    def waits_for_request(self) -> bool:
        """Whether no request is being handled, and none was read."""
        return self._waiter is not None and not self._waiter.done()

"""The server half of aiohttp, without its client: `from agent import web` in place of `from aiohttp import web`.

Importing any part of aiohttp executes the package first, which imports the client: it loads the machine's certificates
into two TLS contexts, which takes longer than importing the server (450 million instructions alone, 1,070 with the
client) and uses some MB permanently. So if aiohttp is not imported yet, the package is registered without being
executed, as `importlib` allows, and completed when a name of the client is accessed (`aiohttp.ClientSession`). The
classes are those of `aiohttp.web`. If a later version's server needs more of its package, that completes it: everything
works, slower, and `tests/unit/test_rooms.py` fails.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import Any

# The default for `Server` and `User-Agent`; the package defines it, but is not executed.
_VERSION = "3"


def _put_in_place() -> None:
    """Registers an aiohttp in `sys.modules` that is completed when more than its server is needed."""
    spec = importlib.util.find_spec("aiohttp")
    if "aiohttp" in sys.modules or spec is None or spec.loader is None:
        return
    loader = spec.loader
    package = importlib.util.module_from_spec(spec)
    lock = threading.RLock()
    begun = False

    def find(name: str) -> Any:
        nonlocal begun
        if name.startswith("__") or importlib.util.find_spec(f"aiohttp.{name}") is not None:
            raise AttributeError(name)  # a submodule: the caller imports it next
        with lock:
            if not begun:
                begun = True
                loader.exec_module(package)
        if name not in package.__dict__:
            raise AttributeError(f"module 'aiohttp' has no attribute {name!r}")
        return package.__dict__[name]

    package.__version__ = _VERSION  # type: ignore[attr-defined]  # as the package does
    package.__getattr__ = find  # type: ignore[method-assign]  # PEP 562
    sys.modules["aiohttp"] = package


_put_in_place()

from aiohttp.http import SERVER_SOFTWARE, HttpVersion11  # noqa: E402 - after the package was put in place
from aiohttp.http_exceptions import BadHttpMethod  # noqa: E402
from aiohttp.web_protocol import RequestHandler, RequestPayloadError  # noqa: E402
from aiohttp.web_request import BaseRequest  # noqa: E402
from aiohttp.web_response import Response, StreamResponse  # noqa: E402
from aiohttp.web_server import Server  # noqa: E402


def has_asked(data: bytes) -> bool:
    """Whether the first bytes of a client have a whole head of a request, or are nothing that can become one."""
    return b"\r\n\r\n" in data or not data[:1].isupper() or b"\n\n" in data


__all__ = [
    "SERVER_SOFTWARE",
    "BadHttpMethod",
    "BaseRequest",
    "HttpVersion11",
    "RequestHandler",
    "RequestPayloadError",
    "Response",
    "Server",
    "StreamResponse",
    "has_asked",
]

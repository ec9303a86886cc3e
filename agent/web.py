"""The server half of aiohttp, without its client: `from agent import web` in place of `from aiohttp import web`.

Importing anything of aiohttp executes the package first, and that is the client: it loads the machine's certificates
into two TLS contexts, which takes longer than everything the server needs, and keeps some MB for good. So where nobody
has imported aiohttp yet, the package is put in place without being executed, as `importlib` allows, and is completed
when somebody asks it for a name of the client's (`aiohttp.ClientSession`). The classes are those of `aiohttp.web`.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import Any

# What `Server` and `User-Agent` name where nothing else is said; the package knows, but is not executed.
_VERSION = "3"


def _put_in_place() -> None:
    """Puts an aiohttp into `sys.modules` that is completed when more than its server is wanted."""
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
            raise AttributeError(name)  # a module of its own is imported next by whoever asks
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

from aiohttp.http_exceptions import BadHttpMethod  # noqa: E402 - after the package was put in place
from aiohttp.web_protocol import RequestHandler, RequestPayloadError  # noqa: E402
from aiohttp.web_request import BaseRequest  # noqa: E402
from aiohttp.web_response import Response, StreamResponse  # noqa: E402
from aiohttp.web_server import Server  # noqa: E402

__all__ = [
    "BadHttpMethod",
    "BaseRequest",
    "RequestHandler",
    "RequestPayloadError",
    "Response",
    "Server",
    "StreamResponse",
]

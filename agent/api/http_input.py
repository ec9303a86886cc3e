"""Checks the sender of an HTTP request, reads its body, and collects the input of an operation from all its parts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import urlsplit

from agent import web
from agent.api.access import is_loopback, is_loopback_origin
from agent.api.problems import FieldProblem, Kind, OperationError
from agent.api.table import BODY_LIMIT, Operation

BODY_SECONDS = 10.0
"""How long a client may take to send its body."""

# curl -d declares a form, Unity's Put declares bytes; in both cases the content is JSON.
_TAKEN_FOR_JSON = ("application/json", "application/x-www-form-urlencoded", "application/octet-stream", "text/plain")


def check_sender(request: web.BaseRequest) -> None:
    """Refuses a request that was not meant for this machine, or comes from a web page of another machine."""
    headers = request.headers
    hosts = headers.getall("Host", ())
    if not hosts:
        raise OperationError(Kind.BAD_REQUEST, "cannot answer a request without a Host header; send Host: 127.0.0.1")
    if not request.raw_path.startswith("/"):  # the absolute form of RFC 9112, 3.2.2, which goes before Host
        with contextlib.suppress(ValueError):
            hosts = [*hosts, urlsplit(request.raw_path).netloc]
    for host in hosts:
        if not is_loopback(host):
            raise OperationError(
                Kind.FORBIDDEN,
                "cannot answer: the Host is not this machine; use 127.0.0.1, [::1] or localhost",
                [FieldProblem("Host", host[:100], "127.0.0.1, [::1] or localhost, with or without a port")],
            )
    for origin in headers.getall("Origin", ()):
        if not is_loopback_origin(origin):
            raise OperationError(
                Kind.FORBIDDEN,
                "cannot answer: the request comes from a web page of another machine",
                [FieldProblem("Origin", origin[:100], "nothing, or an origin of this machine")],
            )


async def read_body(operation: Operation, request: web.BaseRequest) -> bytes:
    """Reads the body; `null` counts as none.

    A content type is not required, but one that is clearly not JSON is refused.
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise OperationError(
            Kind.WRONG_TYPE,
            f"cannot {operation.doing}: the body is encoded ({encoding[:50]}); send it as it is",
            [FieldProblem("Content-Encoding", encoding[:50], "nothing")],
            {"Accept-Encoding": "identity"},
        )
    if "Content-Type" in request.headers:
        # Not aiohttp's `content_type`, which executes the standard library's parser of mail for what stands behind it.
        kind = request.headers["Content-Type"].partition(";")[0].strip().lower()
        if kind.count("/") == 1 and not (kind.startswith(_TAKEN_FOR_JSON) or kind.endswith("+json")):
            raise OperationError(
                Kind.WRONG_TYPE,
                f"cannot {operation.doing}: the body is {kind[:50]}; send JSON",
                [FieldProblem("Content-Type", kind[:50], "application/json")],
            )
    length = request.content_length or 0
    if length > BODY_LIMIT:
        raise _too_large(operation, length)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise _too_large(operation, len(body))
    except web.RequestPayloadError as wrong:
        raise OperationError(Kind.BAD_REQUEST, f"cannot {operation.doing}: the body is broken ({wrong})") from None
    except TimeoutError:
        raise OperationError(
            Kind.TIMEOUT, f"cannot {operation.doing}: the body did not come within {BODY_SECONDS:g} s"
        ) from None
    body = body.removeprefix(b"\xef\xbb\xbf")
    return b"" if body.strip() == b"null" else bytes(body)


def _too_large(operation: Operation, size: int) -> OperationError:
    return OperationError(
        Kind.TOO_LARGE,
        f"cannot {operation.doing}: the body has more than {BODY_LIMIT} bytes",
        [FieldProblem("", size, f"at most {BODY_LIMIT} bytes")],
    )


def gather(operation: Operation, fields: dict[str, str], request: web.BaseRequest, body: bytes) -> dict[str, object]:
    """The input, collected from path, query, headers and body."""
    given: dict[str, object] = dict(fields)
    for name in operation.query:
        if name in request.query:
            given[name] = request.query[name]
    for name in operation.headers:
        if name in request.headers:
            given[name] = request.headers[name]
    if body:
        try:
            members = json.loads(body)
        except (ValueError, RecursionError) as wrong:
            raise OperationError(
                Kind.NOT_JSON, f"cannot {operation.doing}: the body is not JSON ({wrong}); send none"
            ) from None
        if not isinstance(members, dict) or members:
            got = ", ".join(members) if isinstance(members, dict) else type(members).__name__
            raise OperationError(
                Kind.BAD_INPUT,
                f"cannot {operation.doing}: it takes no body, all is said in the URL",
                [FieldProblem(next(iter(members), "") if isinstance(members, dict) else "", got[:100], "no body")],
            )
    return given

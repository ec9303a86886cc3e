"""The middleware for every request: records, errors, faults, tokens, rate limits."""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from agent.emulator.errors import ApiError, Unanswered
from agent.emulator.faults import Faults
from agent.emulator.platform import Platform
from agent.emulator.reading import IGNORED, note_ignored
from agent.emulator.records import OPERATION, Records
from agent.emulator.unserved import unserved
from agent.tokens import same

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Operation:
    """One operation of the contract."""

    method: str
    path: str
    id: str
    handler: Handler
    inside: bool = False
    """Whether it is called from inside a container, with that deployment's own token."""
    query: tuple[str, ...] = ()
    """The query parameters that it reads."""
    pattern: str = ""
    """The path as the server matches it, where a parameter may hold a slash."""


class RateLimits:
    """A bucket for each limited operation, filled at its rate; the organisation has them in common.

    Args:
        rates: requests a second by operation id; None for no limits.
        clock: seconds that only go forward.
    """

    def __init__(self, rates: Mapping[str, int] | None, clock: Callable[[], float] = time.monotonic) -> None:
        """See the class."""
        self._clock = clock
        self._rates = dict(rates or {})
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, operation_id: str) -> None:
        """Let one request through.

        Raises:
            ApiError: 429, with `Retry-After` in whole seconds.
        """
        rate = self._rates.get(operation_id)
        if rate is None:
            return
        moment = self._clock()
        tokens, before = self._buckets.get(operation_id, (float(rate), moment))
        tokens = min(float(rate), tokens + (moment - before) * rate)
        if tokens < 1:
            self._buckets[operation_id] = (tokens, moment)
            wait = math.ceil((1 - tokens) / rate)
            raise ApiError(
                429,
                f"cannot take more than {rate} of these requests a second; try again in {wait} s",
                headers={"Retry-After": str(wait)},
            )
        self._buckets[operation_id] = (tokens - 1, moment)


PLATFORM = web.AppKey("platform", Platform)
FAULTS = web.AppKey("faults", Faults)
RECORDS = web.AppKey("records", Records)
LIMITS = web.AppKey("limits", RateLimits)


PAGED = ("page", "limit")
"""The query parameters of a list."""


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.json_response(body, status=status, headers=headers)


def check_organisation(request: web.Request) -> None:
    """Let only the organisation's token pass.

    Raises:
        ApiError: 401.
    """
    given = request.headers.get("Authorization", "")
    scheme, _, token = given.partition(" ")
    if not given:
        raise ApiError(401, "cannot tell who asks: the authorization header is missing; send 'token <uuid>'")
    if scheme.lower() != "token" or not same(token.strip(), request.app[PLATFORM].settings.token):
        raise ApiError(401, "cannot accept this token; send 'token <uuid>' with the organisation's token")


def check_own(request: web.Request) -> None:
    """Guard what is not the contract's: the page, and what steers the emulator.

    It starts programs, so a web site that its user happens to visit must not reach it: not by naming it (`Origin`), and
    not by a name of its own that leads here (`Host`). From this machine no token is needed; from others it is, in
    the header or as `?token=`, since a browser's page and streams send no header.

    Raises:
        ApiError: 403 for another site's page, 401 for another machine without the token.
    """
    hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
    if not request.raw_path.startswith("/") or len(hosts) != 1:
        # With a whole URL as its target, what is called is not what the Host header says.
        raise ApiError(
            403, "cannot do this for a request through a proxy; call the emulator itself, with one Host header"
        )
    if any(origin != f"{request.scheme}://{hosts[0]}" for origin in origins):
        raise ApiError(403, "cannot do this for another site's page; open the emulator's own")
    host = (_host_of(hosts[0]) or "").strip("[]")
    here = ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback  # noqa: S104 - no address is not this machine
    if here and (host == "localhost" or _is_address(host)):
        return
    token = request.app[PLATFORM].settings.token
    if not same(request.query.get("token", ""), token):
        check_organisation(request)


def _host_of(authority: str) -> str | None:
    """The host in `host:port`."""
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    """Whether it is an address rather than a name, which anybody can let lead here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@web.middleware
async def recorded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep what was called and what it was answered, without any secret."""
    began = time.monotonic()
    status: int | None = None
    try:
        response = await handler(request)
        if request.transport is not None and not request.transport.is_closing():
            status = response.status
        return response
    finally:
        request.app[RECORDS].add(request, status, time.monotonic() - began)


async def _allowed(request: web.Request) -> str:
    """The methods of the resource that the path names.

    Where `/deployments/{id}` would take `/deployments/bulk-stop` as well, the one with fewer variables is meant.
    """
    found: list[tuple[int, int, str]] = []
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        if methods:
            variables = resource.canonical.count("{")
            found.append((variables, -len(resource.canonical), ",".join(sorted(methods))))
    return min(found)[2] if found else ""


@web.middleware
async def as_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal is the contract's `Error`, and so is a mistake of ours."""
    try:
        return await handler(request)
    except ApiError as error:
        return answer(error.body(), error.status, error.headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = None
        if error.status == 404 and (name := unserved(request.method, request.path)):
            message = f"cannot do this here: the emulator does not serve {name} ({request.method} {request.path})"
            return answer({"message": message}, 501)
        if error.status == 404:
            message = f"cannot find {request.path}; see the operations of the contract"
        elif error.status == 405:
            allowed = await _allowed(request)
            headers = {"Allow": allowed}
            message = f"cannot {request.method} {request.path}; it takes {allowed}"
        else:
            message = f"cannot do this: {error.reason}; change the request"
        return answer({"message": message}, error.status, headers)
    except Unanswered:
        return web.Response()  # which goes nowhere: its connection is closed
    except Exception:
        log.exception("the emulator failed on %s %s", request.method, request.path)
        return answer({"message": "cannot answer: the emulator failed; look at its output"}, 500)


def with_any_slashes(path: str) -> str:
    """A route that also matches with slashes doubled, as in a base URL that ends in one, and one at the end.

    A route of aiohttp has a name for whatever varies: `/v1/apps` becomes `/{s0:/*}v1{s1:/*}/apps{s2:/*}`.
    """
    parts, depth, count = [], 0, 0
    for character in path:
        depth += (character == "{") - (character == "}")
        if character == "/" and depth == 0:
            more = f"{{s{count}:/*}}"
            parts.append(more + character if count else character + more)  # a route begins with a slash
            count += 1
        else:
            parts.append(character)
    return "".join(parts) + f"{{s{count}:/*}}"


def operation_middleware(operations: Iterable[Operation]) -> Any:
    """The middleware of the contract's operations: faults, then tokens, then limits."""
    by_handler = {each.handler: each for each in operations}

    @web.middleware
    async def as_operation(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        operation = by_handler.get(request.match_info.handler)
        if operation is None:
            if resource is not None:
                check_own(request)
            return await handler(request)
        request[OPERATION] = operation.id
        faults = request.app[FAULTS]
        await faults.before(request, operation.id)
        if not operation.inside:
            check_organisation(request)
        request.app[LIMITS].take(operation.id)
        note_ignored(
            request, [f"the query's {name} (unknown)" for name in request.query if name not in operation.query]
        )
        response = await handler(request)
        for ignored in request.get(IGNORED, []):
            request.app[PLATFORM].warn(f"{operation.id}: ignored {ignored}")
        await faults.after(request, operation.id)
        return response

    return as_operation

"""One call to the platform: authorization, rate limit, retries, and interpretation of the answer.

Only idempotent calls (GET, PUT, DELETE) are retried; a POST is made once, even after 429,
so that nobody pays for two deployments.
"""

import contextlib
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from pydantic import SecretStr, ValidationError
from yarl import URL

from agent import __version__
from agent.edgegap.aiohttp_private import call_once
from agent.edgegap.errors import (
    BY_STATUS,
    EdgegapError,
    InvalidArgumentError,
    MissingTokenError,
    RateLimitedError,
    UnavailableError,
    UnexpectedAnswerError,
    UnprocessableError,
)
from agent.edgegap.limits import Limit, Limiter
from agent.edgegap.masking import clean, mask_url, secret_of_url
from agent.edgegap.retry_after import retry_after_seconds
from agent.edgegap.wire import Wire
from agent.retry import RetryPolicy

_log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=Wire)

REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
_PREFIX = "token "


def organisation_authorization(token: str) -> str:
    """Write the `authorization` header of an organisation call; a prefix that is there already is not doubled."""
    bare = token.strip()
    if bare[: len(_PREFIX)].lower() == _PREFIX:
        bare = bare[len(_PREFIX) :].strip()
    return _PREFIX + bare


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask.

    Attributes:
        action: what it is for, as it follows "cannot" in an error: "stop deployment 23c01225b99d".
        method: GET, POST, PUT, PATCH or DELETE.
        url: with the path quoted.
        token: sent bare in place of the organisation's; None uses the organisation's.
        query: parameters to add; None values are left out.
        body: sent as JSON.
        limit: which of the platform's limits counts it.
    """

    action: str
    method: str
    url: URL
    token: SecretStr | None = None
    query: Mapping[str, str | int | None] = field(default_factory=dict)
    body: object = None
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: its status and its JSON (None where there is no body)."""

    status: int
    content: Any

    def read_as(self, model: type[Model], call: Call) -> Model:
        """Read the content as a model.

        Raises:
            UnexpectedAnswerError: it has another form; the message names the fields, not their values.
        """
        try:
            return model.model_validate(self.content)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False, include_context=False)[:5]
            )
            raise UnexpectedAnswerError(call.action, f"the answer has another form ({wrong})", self.status) from None


class Transport:
    """Makes calls over one aiohttp session.

    Args:
        token: of the organisation; None where only calls from inside a container are made.
        base_url: of the platform.
        attempt_seconds: how long one attempt may take.
        retries: how many times a repeatable call is tried again.
        policy: the waits between attempts.
        limiter: keeps to the platform's limits.
        rng: where the jitter comes from.
        sleep: how to wait.
        wall: Unix time in seconds, for a `Retry-After` with a date.
    """

    def __init__(
        self,
        token: SecretStr | None,
        base_url: str,
        *,
        attempt_seconds: float,
        retries: int,
        policy: RetryPolicy,
        limiter: Limiter,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[object]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Check the base URL; nothing is connected before `open`."""
        self.base = _base_url(base_url)
        self._token = token
        self._attempt_seconds = attempt_seconds
        self._retries = retries
        self._policy = policy
        self._limiter = limiter
        self._rng = rng
        self._sleep = sleep
        self._wall = wall
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the session; needs a running loop."""
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._attempt_seconds),
            headers={"User-Agent": f"arbitrium-agent/{__version__}"},
        )
        call_once(self._session)

    async def close(self) -> None:
        """Close the session; a second time does nothing."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, call: Call) -> Answer:
        """Make a call, with retries where it may be repeated.

        Raises:
            EdgegapError: the class says what kind of no it was.
        """
        authorization = self._authorization(call)
        retries = self._retries if call.method in REPEATABLE else 0
        for retry in range(retries + 1):
            await self._limiter.wait(call.limit)
            try:
                return await self._attempt(call, authorization)
            except (RateLimitedError, UnavailableError) as error:
                if retry == retries:
                    raise
                wait = self._policy.wait(retry, self._rng, _asked_to_wait(error))
                _log.debug("%s; trying again in %.1f s", error, wait)
                await self._sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _authorization(self, call: Call) -> str:
        token = call.token if call.token is not None else self._token
        if token is None or not token.get_secret_value().strip():
            raise MissingTokenError(call.action, "there is no organisation token")
        value = token.get_secret_value().strip()
        if not value.isprintable():
            raise MissingTokenError(call.action, "the token cannot be sent as a header", advice="correct the token")
        return value if call.token is not None else organisation_authorization(value)

    async def _attempt(self, call: Call, authorization: str) -> Answer:
        if self._session is None:
            raise RuntimeError("cannot call the platform: the client is not open; use `async with EdgegapClient(...)`")
        url = call.url.update_query({key: value for key, value in call.query.items() if value is not None})
        secrets = (authorization.removeprefix(_PREFIX), str(url), secret_of_url(str(url)) if call.token else None)
        try:
            async with self._session.request(
                call.method,
                url,
                headers={"authorization": authorization},
                json=call.body,
                allow_redirects=False,  # a redirect would send the token to another server
            ) as response:
                status, headers, raw = response.status, response.headers, await response.read()
        except aiohttp.ClientConnectorError as error:
            raise UnavailableError(call.action, clean(f"no connection ({error})", *secrets)) from None
        except TimeoutError:
            message = f"no answer within {self._attempt_seconds:g} s"
            raise UnavailableError(call.action, message, advice=_after_silence(call)) from None
        except (aiohttp.ClientError, OSError) as error:
            message = clean(f"the connection broke ({type(error).__name__}: {error})", *secrets)
            raise UnavailableError(call.action, message, advice=_after_silence(call)) from None
        _log.debug("%s %s: %d", call.method, mask_url(str(url)) if call.token else url, status)
        content = _json(raw)
        if 200 <= status < 300:
            if raw and content is None:
                raise UnexpectedAnswerError(call.action, "the answer is not JSON", status)
            return Answer(status, content)
        retry_after = retry_after_seconds(headers, self._wall())
        raise _error(call.action, status, content, retry_after, lambda text: clean(text, *secrets))


def _base_url(text: str) -> URL:
    with contextlib.suppress(ValueError):
        url = URL(text.strip())
        if url.scheme in {"http", "https"} and url.host and not url.query_string and url.user is None:
            return url
    raise InvalidArgumentError(
        "use the base URL of the platform",
        "it is not an http or https URL with a host and no user or query",
        advice="correct EDGEGAP_BASE_URL (AGENT_API_URL in the agent), such as https://api.edgegap.com",
    )


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None


def _after_silence(call: Call) -> str | None:
    """Advise on a call that was sent, and whose answer never came; None for the usual advice."""
    return None if call.method in REPEATABLE else "see whether it was carried out before trying again"


def _asked_to_wait(error: EdgegapError) -> float | None:
    return getattr(error, "retry_after", None)


def _error(
    action: str, status: int, content: Any, retry_after: float | None, cleaned: Callable[[str], str]
) -> EdgegapError:
    """Turn an answer that is not 2xx into the exception for it."""
    said = content.get("message") if isinstance(content, dict) else None
    message = cleaned(said) if isinstance(said, str) and said.strip() else "the platform gave no reason"
    kind = BY_STATUS.get(status, UnavailableError if status >= 500 else UnexpectedAnswerError)
    if kind is RateLimitedError:
        return RateLimitedError(action, message, status, retry_after=retry_after)
    if kind is UnavailableError:
        return UnavailableError(action, message, status, retry_after=retry_after)
    if kind is UnprocessableError:
        deployment_id = content.get("request_id") if isinstance(content, dict) else None
        return UnprocessableError(
            action, message, status, deployment_id=cleaned(deployment_id) if isinstance(deployment_id, str) else None
        )
    if kind is UnexpectedAnswerError and 300 <= status < 400:
        message = "it answered with a redirect, which is not followed"
    return kind(action, message, status)

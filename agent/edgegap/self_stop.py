"""The self-stop: the call that ends the deployment, and with it the bill.

It stands alone on purpose: no part of the big client is imported, and aiohttp only when the call is made, because this
runs when the game is gone and the container may have seconds left.

The loop never gives up by itself. Who runs it decides how long that is worth it, by cancelling the task.
"""

import asyncio
import contextlib
import enum
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent import __version__
from agent.edgegap.backoff import Backoff, retry_after_seconds
from agent.edgegap.masking import clean, mask_url, secret_of_url

if TYPE_CHECKING:
    import aiohttp
    from pydantic import SecretStr

_log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 10.0
_BODY_LIMIT = 4096
_BODY_SECONDS = 1.0


class Result(enum.StrEnum):
    """How one attempt ended; the values are the label `result` of the metric that counts attempts."""

    CONFIRMED = "confirmed"
    """200, 202: the platform will stop the deployment. 410: it already has."""
    REFUSED = "refused"
    """400, 401, 403, 404: the answer will not change, however often it is asked."""
    RATE_LIMITED = "rate_limited"
    """429."""
    UNAVAILABLE = "unavailable"
    """5xx."""
    TIMEOUT = "timeout"
    """No answer within `ATTEMPT_SECONDS`."""
    CONNECTION_ERROR = "connection_error"
    """Name resolution, connect, TLS, or a connection that broke before the status line."""
    UNEXPECTED = "unexpected"
    """Anything the contract does not know. Asking again is safe: had it worked, the next answer would be 410."""

    @property
    def final(self) -> bool:
        """Whether asking again would be pointless."""
        return self in {Result.CONFIRMED, Result.REFUSED}


_STATUS = {
    200: Result.CONFIRMED,
    202: Result.CONFIRMED,
    410: Result.CONFIRMED,
    429: Result.RATE_LIMITED,
} | dict.fromkeys((400, 401, 403, 404), Result.REFUSED)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to the platform.

    Attributes:
        number: counted from 1.
        result: how it ended.
        status: HTTP status, None where no answer came.
        message: a sentence for the log; never contains the token or the stop key.
        seconds: how long the attempt took.
        retry_in: seconds until the next attempt, None where there is none.
    """

    number: int
    result: Result
    status: int | None
    message: str
    seconds: float
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the self-stop ended: confirmed or refused.

    Attributes:
        result: `Result.CONFIRMED` or `Result.REFUSED`.
        status: HTTP status of the last answer; None where the injected values cannot be used for a call at all.
        message: a sentence for the log and for `exit.json`; never contains the token or the stop key.
        attempts: how many calls were made.
    """

    result: Result
    status: int | None
    message: str
    attempts: int

    @property
    def confirmed(self) -> bool:
        """Whether the platform said that the deployment will be, or is, stopped."""
        return self.result is Result.CONFIRMED


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one call brought, before it is decided what follows."""

    result: Result
    status: int | None
    message: str
    retry_after: float | None = None


class SelfStop:
    """`DELETE $ARBITRIUM_DELETE_URL`, repeated until the platform has confirmed or refused it.

    Args:
        url: the injected `ARBITRIUM_DELETE_URL`; a query it already has is kept.
        token: the injected `ARBITRIUM_DELETE_TOKEN`, sent bare as the `authorization` header.
        log_storage: value of `container_log_storage`: "true" uploads the container's logs to the storage of the
            version, "false" switches that off, anything else names a storage. None or "" sends no such parameter.
        backoff: the waits between attempts.
        attempt_seconds: how long one attempt may take.
        rng: where the jitter comes from.
        sleep: how to wait; a fake in tests.
        monotonic: clock for durations, in seconds.
        wall: Unix time in seconds, for a `Retry-After` with a date.
    """

    def __init__(
        self,
        url: str,
        token: "SecretStr",
        log_storage: str | None = "true",
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen, so one shared default is safe
        attempt_seconds: float = ATTEMPT_SECONDS,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Keep the values; no connection is made, and a wrong URL is reported by `run`."""
        self._url = url.strip()
        self._token = token
        self._log_storage = log_storage
        self._backoff = backoff
        self._attempt_seconds = attempt_seconds
        self._rng = rng or random.SystemRandom()
        self._sleep = sleep
        self._monotonic = monotonic
        self._wall = wall

    def __repr__(self) -> str:
        """Show where the call goes, without the stop key and the token."""
        return f"SelfStop({self.shown_url})"

    @property
    def shown_url(self) -> str:
        """The URL with the stop key masked: the form for logs."""
        return mask_url(self._url)

    async def run(self, on_attempt: Callable[[Attempt], None] | None = None) -> Outcome:
        """Ask until the platform has confirmed or refused.

        Args:
            on_attempt: told of each attempt as soon as it ended, the last one too. What it raises is logged and does
                not end the loop: a deployment must not stay billed because a counter failed.

        Returns:
            The confirmation or the refusal. Nothing else ends the loop but cancellation.
        """
        wrong = self._unusable()
        if wrong is not None:
            return Outcome(Result.REFUSED, None, wrong, attempts=0)

        import aiohttp  # noqa: PLC0415 - late: see the module's docstring

        number = 0
        unanswered = False
        # A fresh connection and name lookup each time: a retry should be able to reach another, healthy front end.
        connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._attempt_seconds),
            headers={"User-Agent": f"arbitrium-agent/{__version__}"},
        ) as session:
            # aiohttp would repeat a call whose connection broke by itself, at once and unseen: here one attempt is one
            # call, counted and spaced. There is no public switch (aiohttp's own TestClient sets the same attribute).
            session._retry_connection = False
            while True:
                number += 1
                started = self._monotonic()
                answer = await self._ask(session)
                seconds = self._monotonic() - started
                wait = self._wait_after(answer, retry=number - 1)
                message = answer.message
                if unanswered and answer.status in {400, 404}:
                    message += " (an earlier attempt had no answer and may have been carried out)"
                self._tell(on_attempt, Attempt(number, answer.result, answer.status, message, seconds, wait))
                if wait is None:
                    return Outcome(answer.result, answer.status, message, attempts=number)
                unanswered = unanswered or answer.status is None
                await self._sleep(wait)

    def _wait_after(self, answer: _Answer, retry: int) -> float | None:
        """Give the seconds until the next attempt, None where there is none."""
        return None if answer.result.final else self._backoff.wait(retry, self._rng, answer.retry_after)

    def _unusable(self) -> str | None:
        """Say why the injected values cannot be used for a call at all, None where they can."""
        try:
            parts = urlsplit(self._url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            return (
                "cannot self-stop: ARBITRIUM_DELETE_URL is not an http or https URL; stop the deployment from a backend"
            )
        token = self._token.get_secret_value().strip()
        if not token or not token.isprintable():
            return (
                "cannot self-stop: ARBITRIUM_DELETE_TOKEN is empty or cannot be sent as a header; "
                "stop the deployment from a backend"
            )
        return None

    async def _ask(self, session: "aiohttp.ClientSession") -> _Answer:
        import aiohttp  # noqa: PLC0415 - late: see the module's docstring
        from yarl import URL  # noqa: PLC0415 - comes with aiohttp

        try:
            url = URL(self._url)
            if self._log_storage:
                url = url.update_query(container_log_storage=self._log_storage)
            headers = {"authorization": self._token.get_secret_value().strip()}
            # A redirect is not followed: it would carry the token to whoever is named there.
            async with session.delete(url, headers=headers, allow_redirects=False) as response:
                return await self._judge(response)
        except TimeoutError:
            return _Answer(
                Result.TIMEOUT, None, f"cannot self-stop: no answer within {self._attempt_seconds:g} s; trying again"
            )
        except aiohttp.ClientConnectorCertificateError as error:
            return _Answer(
                Result.CONNECTION_ERROR,
                None,
                self._clean(
                    f"cannot self-stop: the certificate of the platform is not trusted ({error.certificate_error}); "
                    "install ca-certificates in the image or set SSL_CERT_FILE; trying again"
                ),
            )
        except (aiohttp.ClientError, OSError) as error:
            text = f"cannot self-stop: no connection ({type(error).__name__}: {error}); trying again"
            return _Answer(Result.CONNECTION_ERROR, None, self._clean(text))
        except Exception as error:  # whatever it is, giving up would leave the deployment running and billed
            text = f"cannot self-stop: {type(error).__name__}: {error}; trying again"
            return _Answer(Result.UNEXPECTED, None, self._clean(text))

    async def _judge(self, response: "aiohttp.ClientResponse") -> _Answer:
        """Turn a response into what it means; the status alone decides, a body that breaks off changes nothing."""
        status = response.status
        result = _STATUS.get(status, Result.UNAVAILABLE if status >= 500 else Result.UNEXPECTED)
        said = await _message_of(response)
        said = f": {said}" if said else ""
        match result:
            case Result.CONFIRMED:
                text = f"the platform confirmed the self-stop ({status}{said})"
            case Result.REFUSED:
                text = (
                    f"cannot self-stop: the platform refused it for good ({status}{said}); "
                    "stop the deployment from a backend or the dashboard"
                )
            case _ if 300 <= status < 400:
                text = (
                    f"cannot self-stop: the platform answered {status}, a redirect, which is not followed; trying again"
                )
            case _:
                text = f"cannot self-stop: the platform answered {status}{said}; trying again"
        retry_after = retry_after_seconds(response.headers, self._wall()) if not result.final else None
        return _Answer(result, status, self._clean(text), retry_after)

    def _clean(self, text: str) -> str:
        return clean(text, self._token.get_secret_value().strip(), self._url, secret_of_url(self._url))

    @staticmethod
    def _tell(on_attempt: Callable[[Attempt], None] | None, attempt: Attempt) -> None:
        if on_attempt is None:
            return
        try:
            on_attempt(attempt)
        except Exception:
            _log.exception("cannot record attempt %d of the self-stop; going on", attempt.number)


async def _message_of(response: "aiohttp.ClientResponse") -> str:
    """Read what the platform said, bounded in bytes and time; empty where it said nothing readable."""
    body = b""
    # The status has been received and decides; whatever happens to the body must not turn a confirmation into a retry.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_BODY_SECONDS):
            while len(body) < _BODY_LIMIT and (piece := await response.content.read(_BODY_LIMIT)):
                body += piece
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    message = parsed.get("message") if isinstance(parsed, dict) else None
    return message if isinstance(message, str) else ""

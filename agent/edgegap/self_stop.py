"""The self-stop: the call that ends the deployment, and with it the bill.

It is separate from the client on purpose: it imports no part of `agent.edgegap.client`, and aiohttp only when the call
is made, because it runs when the game is gone and the container may have seconds left.

The loop never gives up by itself; the caller ends it by cancelling the task. The caller is `agent.runtime.app`
(`_release`). Without the agent's process, `agent.init.release` makes the same call.
"""

import asyncio
import contextlib
import enum
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from agent import __version__
from agent.edgegap.masking import clean, mask_url, secret_of_url
from agent.edgegap.retry_after import retry_after_seconds
from agent.record import Record
from agent.retry import RetryPolicy
from agent.web_page import is_web_page

if TYPE_CHECKING:
    import aiohttp
    from pydantic import SecretStr

    from agent.edgegap.aiohttp_private import StatusLines

_log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 10.0
ASK_AGAIN = RetryPolicy(first=30.0, cap=600.0, least=0.5)
"""How often a refused self-stop is asked again while its caller holds the container."""
Told = TypeVar("Told")
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
    """Anything the contract does not know, a web page with a good status among it (a captive portal, a proxy's page).
    Asking again is safe: had it worked, the next answer would be 410."""

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


class Attempt(Record):
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


class Outcome(Record):
    """How the self-stop ended: confirmed or refused.

    Attributes:
        result: `Result.CONFIRMED` or `Result.REFUSED`.
        status: HTTP status of the last answer; None where the injected values cannot be used for a call at all.
        message: a sentence for the log and for `exit.json`; never contains the token or the stop key.
        attempts: how many calls were made.
        ask_again_in: seconds after which the same call is worth another try, None where it is not: confirmed, or the
            injected values cannot be used. A platform that refuses may do so by mistake or for a time (a token that is
            not known yet, a proxy's 403), and whoever exits instead is started again by `restart_policy: always` and
            billed again: hold, and ask again (`SelfStop.insist` does both).
    """

    result: Result
    status: int | None
    message: str
    attempts: int
    ask_again_in: float | None = None

    @property
    def confirmed(self) -> bool:
        """Whether the platform said that the deployment will be, or is, stopped."""
        return self.result is Result.CONFIRMED


class _Answer(Record):
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
        policy: the waits between attempts.
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
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - never changed, so one shared default is safe
        attempt_seconds: float = ATTEMPT_SECONDS,
        rng: "random.Random | None" = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Keep the values; no connection is made, and a wrong URL is reported by `run`."""
        self._url = url.strip()
        self._token = token
        self._log_storage = log_storage
        self._policy = policy
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
        return await self._run(on_attempt, 0, 0)

    async def insist(
        self,
        on_attempt: Callable[[Attempt], None] | None = None,
        on_refusal: Callable[[Outcome], None] | None = None,
    ) -> Outcome:
        """As `run`, but ask again now and then after a refusal, for as long as the caller lets it.

        Args:
            on_attempt: as in `run`; attempts are counted over all rounds.
            on_refusal: told of every refusal, with when the next round begins (`Outcome.ask_again_in`).

        Returns:
            The confirmation; a refusal only where the injected values cannot be used for a call at all.
        """
        made = rounds = 0
        while True:
            outcome = await self._run(on_attempt, made, rounds)
            if outcome.ask_again_in is None:
                return outcome
            self._tell(on_refusal, outcome, "a refusal")
            made, rounds = outcome.attempts, rounds + 1
            await self._sleep(outcome.ask_again_in)

    async def _run(self, on_attempt: Callable[[Attempt], None] | None, made: int, rounds: int) -> Outcome:
        """Ask until confirmed or refused.

        Args:
            on_attempt: told of each attempt.
            made: attempts of earlier rounds.
            rounds: how many rounds were refused before.
        """
        wrong = self._unusable()
        if wrong is not None:
            return Outcome(Result.REFUSED, None, wrong, attempts=made)

        import aiohttp  # noqa: PLC0415 - late: see the module's docstring

        from agent.edgegap.aiohttp_private import StatusLines, call_once  # noqa: PLC0415 - with aiohttp

        number = made
        unanswered = False
        # A fresh connection and name lookup each time: a retry should be able to reach another, healthy front end.
        connector = StatusLines(force_close=True, use_dns_cache=False)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._attempt_seconds),
            headers={"User-Agent": f"arbitrium-agent/{__version__}"},
        ) as session:
            call_once(session)  # one attempt is one call, counted and spaced
            while True:
                number += 1
                started = self._monotonic()
                answer = await self._ask(session, connector)
                seconds = self._monotonic() - started
                wait = self._wait_after(answer, retry=number - made - 1)
                message = answer.message
                if unanswered and answer.status in {400, 404}:
                    message += " (an earlier attempt had no answer and may have been carried out)"
                attempt = Attempt(number, answer.result, answer.status, message, seconds, wait)
                self._tell(on_attempt, attempt, f"attempt {number}")
                if wait is None:
                    again = ASK_AGAIN.wait(rounds, self._rng) if answer.result is Result.REFUSED else None
                    return Outcome(answer.result, answer.status, message, attempts=number, ask_again_in=again)
                unanswered = unanswered or answer.status is None
                await self._sleep(wait)

    def _wait_after(self, answer: _Answer, retry: int) -> float | None:
        """Give the seconds until the next attempt, None where there is none."""
        return None if answer.result.final else self._policy.wait(retry, self._rng, answer.retry_after)

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

    async def _ask(self, session: "aiohttp.ClientSession", connector: "StatusLines") -> _Answer:
        import aiohttp  # noqa: PLC0415 - late: see the module's docstring
        from yarl import URL  # noqa: PLC0415 - comes with aiohttp

        connector.forget()
        try:
            url = URL(self._url)
            if self._log_storage:
                url = url.update_query(container_log_storage=self._log_storage)
            headers = {"authorization": self._token.get_secret_value().strip()}
            # Redirects are not followed: they would send the token to another server.
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
            if _STATUS.get(connector.status or 0) is Result.CONFIRMED:
                # The rest of the answer could not be read; the status line is what decides.
                return self._answer(connector.status or 0, "", None)
            text = f"cannot self-stop: no connection ({type(error).__name__}: {error}); trying again"
            return _Answer(Result.CONNECTION_ERROR, None, self._clean(text))
        except Exception as error:  # whatever it is, giving up would leave the deployment running and billed
            text = f"cannot self-stop: {type(error).__name__}: {error}; trying again"
            return _Answer(Result.UNEXPECTED, None, self._clean(text))

    async def _judge(self, response: "aiohttp.ClientResponse") -> _Answer:
        """Turn a response into what it means: the status decides, unless a web page comes with it."""
        status = response.status
        body = await _beginning_of(response)
        if _STATUS.get(status) is Result.CONFIRMED and is_web_page(status, response.content_type, body):
            text = (
                f"cannot self-stop: the answer ({status}) is a web page and not the platform's (a captive portal, or a "
                "proxy's own page?); trying again"
            )
            return _Answer(Result.UNEXPECTED, status, text)
        return self._answer(status, _message_in(body), retry_after_seconds(response.headers, self._wall()))

    def _answer(self, status: int, said: str, retry_after: float | None) -> _Answer:
        """What a status means.

        Args:
            status: of the response.
            said: the platform's own words, "" for none.
            retry_after: seconds that it asked to wait.
        """
        result = _STATUS.get(status, Result.UNAVAILABLE if status >= 500 else Result.UNEXPECTED)
        said = f": {said}" if said else ""
        match result:
            case Result.CONFIRMED:
                text = f"the platform confirmed the self-stop ({status}{said})"
            case Result.REFUSED:
                text = (
                    f"cannot self-stop: the platform refused it ({status}{said}); "
                    "stop the deployment from a backend or the dashboard"
                )
            case _ if 300 <= status < 400:
                text = (
                    f"cannot self-stop: the platform answered {status}, a redirect, which is not followed; trying again"
                )
            case _:
                text = f"cannot self-stop: the platform answered {status}{said}; trying again"
        return _Answer(result, status, self._clean(text), None if result.final else retry_after)

    def _clean(self, text: str) -> str:
        return clean(text, self._token.get_secret_value().strip(), self._url, secret_of_url(self._url))

    @staticmethod
    def _tell(listener: Callable[[Told], None] | None, told: Told, what: str) -> None:
        if listener is None:
            return
        try:
            listener(told)
        except Exception:
            _log.exception("cannot record %s of the self-stop; going on", what)


async def _beginning_of(response: "aiohttp.ClientResponse") -> bytes:
    """Read the body, bounded in bytes and time; what came of it where it breaks off."""
    body = b""
    # The status has been received and decides; whatever happens to the body must not turn a confirmation into a retry.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_BODY_SECONDS):
            while len(body) < _BODY_LIMIT and (piece := await response.content.read(_BODY_LIMIT)):
                body += piece
    return body


def _message_in(body: bytes) -> str:
    """What the platform said; empty where it said nothing readable."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    message = parsed.get("message") if isinstance(parsed, dict) else None
    return message if isinstance(message, str) else ""

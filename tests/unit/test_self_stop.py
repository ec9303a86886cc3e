"""The self-stop: which answers end it, which are tried again, and when; and that no secret gets out."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agent.edgegap.masking import clean, mask_url, secret_of_url
from agent.edgegap.retry_after import RETRY_AFTER_LIMIT, retry_after_seconds
from agent.edgegap.self_stop import Attempt, Outcome, Result, SelfStop
from agent.retry import RetryPolicy
from tests.edgegap_fakes import CannedAnswers, FakeSleep, Handler, answers, hang, reset, serving

TOKEN = "0123456789abcdef0123456789abcdef"
URL = "https://api.edgegap.com/v1/self/stop/23c01225b99d/463660"
ASKED = f"{URL}?container_log_storage=true"


class Recorder:
    """Collects attempts and waits; waiting takes no time."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.sleep = FakeSleep()

    @property
    def waits(self) -> list[float]:
        """How long was waited between the attempts, in seconds."""
        return self.sleep.waits

    @property
    def results(self) -> list[Result]:
        """The results, in order."""
        return [attempt.result for attempt in self.attempts]


@pytest.fixture
def seen() -> Recorder:
    """A fresh recorder."""
    return Recorder()


async def stop(
    seen: Recorder, url: str = URL, log_storage: str | None = "true", attempt_seconds: float = 10.0
) -> Outcome:
    """Run a self-stop to its end, without real waiting."""
    call = SelfStop(
        url,
        SecretStr(TOKEN),
        log_storage,
        sleep=seen.sleep,
        rng=random.Random(7),
        wall=lambda: 1_700_000_000.0,
        attempt_seconds=attempt_seconds,
    )
    return await call.run(seen.attempts.append)


@asynccontextmanager
async def platform(*handlers: Handler) -> AsyncIterator[str]:
    """Serve one handler a request, the last one for all that follow; gives the self-stop URL."""
    async with serving(*handlers) as base:
        yield f"{base}/v1/self/stop/23c01225b99d/463660"


accept = answers(202, {"message": "23c01225b99d - Delete request will be processed soon"})


@pytest.mark.parametrize("status", [200, 202, 410])
async def test_a_confirmation_ends_it_after_one_call(seen: Recorder, status: int) -> None:
    """200, 202 and 410 all say that the deployment is, or will be, stopped."""
    with CannedAnswers() as mocked:
        mocked.delete(ASKED, status=status)
        outcome = await stop(seen)
    assert outcome.result is Result.CONFIRMED
    assert outcome.confirmed
    assert (outcome.status, outcome.attempts) == (status, 1)
    assert seen.results == [Result.CONFIRMED]
    assert seen.waits == []


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_ends_it_and_says_what_to_do(seen: Recorder, status: int) -> None:
    """The answer would not change, so nothing is tried again, and the message names the way out."""
    with CannedAnswers() as mocked:
        mocked.delete(ASKED, status=status, payload={"message": "unknown deployment"})
        outcome = await stop(seen)
    assert outcome.result is Result.REFUSED
    assert not outcome.confirmed
    assert outcome.message.startswith("cannot self-stop")
    assert "unknown deployment" in outcome.message
    assert "backend" in outcome.message
    assert seen.waits == []


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (429, Result.RATE_LIMITED),
        (500, Result.UNAVAILABLE),
        (502, Result.UNAVAILABLE),
        (503, Result.UNAVAILABLE),
        (204, Result.UNEXPECTED),
        (301, Result.UNEXPECTED),
        (307, Result.UNEXPECTED),
        (405, Result.UNEXPECTED),
        (409, Result.UNEXPECTED),
    ],
)
async def test_every_other_answer_is_tried_again(seen: Recorder, status: int, result: Result) -> None:
    """Only the contract's own answers are final: anything else could be a proxy in between."""
    with CannedAnswers() as mocked:
        for _ in range(3):
            mocked.delete(ASKED, status=status)
        mocked.delete(ASKED, status=202)
        outcome = await stop(seen)
    assert outcome.confirmed
    assert outcome.attempts == 4
    assert seen.results == [result] * 3 + [Result.CONFIRMED]
    assert len(seen.waits) == 3
    assert [attempt.retry_in for attempt in seen.attempts] == [*seen.waits, None]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (TimeoutError(), Result.TIMEOUT),
        (aiohttp.ServerTimeoutError(), Result.TIMEOUT),
        (aiohttp.ServerDisconnectedError(), Result.CONNECTION_ERROR),
        (OSError(101, "Network is unreachable"), Result.CONNECTION_ERROR),
        (RuntimeError("a bug in a library"), Result.UNEXPECTED),
    ],
)
async def test_every_error_is_tried_again(seen: Recorder, error: Exception, result: Result) -> None:
    """An attempt that brought no answer proves nothing, so the next one follows."""
    with CannedAnswers() as mocked:
        mocked.delete(ASKED, exception=error)
        mocked.delete(ASKED, status=410)
        outcome = await stop(seen)
    assert outcome.confirmed
    assert seen.results == [result, Result.CONFIRMED]
    assert seen.attempts[0].status is None


async def test_a_refusal_after_a_lost_answer_says_that_the_first_call_may_have_worked(seen: Recorder) -> None:
    """The live API answers 400 for a deployment that is already gone; exit.json should say so."""
    with CannedAnswers() as mocked:
        mocked.delete(ASKED, exception=TimeoutError())
        mocked.delete(ASKED, status=400)
        outcome = await stop(seen)
    assert outcome.result is Result.REFUSED
    assert "may have been carried out" in outcome.message


async def test_the_call_is_a_delete_with_the_bare_token_and_the_storage() -> None:
    """On the wire: method, path, query and header, exactly as the contract has them."""
    heard: list[web.Request] = []

    async def keep(request: web.Request) -> web.StreamResponse:
        heard.append(request)
        return await accept(request)

    async with platform(keep) as url:
        outcome = await SelfStop(url + "?region=eu%20west", SecretStr(TOKEN), "my bucket&x").run()
    assert outcome.confirmed
    (request,) = heard
    assert request.method == "DELETE"
    assert request.path == "/v1/self/stop/23c01225b99d/463660"
    assert dict(request.query) == {"region": "eu west", "container_log_storage": "my bucket&x"}
    assert request.headers.getall("authorization") == [TOKEN]
    assert request.headers["User-Agent"].startswith("arbitrium-agent/")


@pytest.mark.parametrize("storage", [None, ""])
async def test_without_a_storage_no_parameter_is_sent(seen: Recorder, storage: str | None) -> None:
    """The version's own default then holds."""
    with CannedAnswers() as mocked:
        mocked.delete(URL, status=202)
        assert (await stop(seen, log_storage=storage)).confirmed


async def test_a_reset_and_a_silent_server_are_survived_on_a_real_connection(seen: Recorder) -> None:
    """RST, no answer at all, then 202: confirmed at the third attempt."""
    async with platform(reset, hang, accept) as url:
        outcome = await stop(seen, url, attempt_seconds=0.3)
    assert outcome.confirmed
    assert seen.results == [Result.CONNECTION_ERROR, Result.TIMEOUT, Result.CONFIRMED]


async def test_a_closed_port_is_tried_again_until_somebody_listens() -> None:
    """The platform's front end restarts: its port is the same afterwards, and the third call gets through."""
    app = web.Application()
    app.router.add_delete("/{tail:.*}", accept)
    runner = web.AppRunner(app)
    await runner.setup()
    attempts: list[Attempt] = []
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but nobody listens: connects are refused
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1/self/stop/23c01225b99d/463660"

        async def sleep(_: float) -> None:
            if len(attempts) == 2:
                await web.SockSite(runner, bound).start()

        try:
            outcome = await SelfStop(url, SecretStr(TOKEN), sleep=sleep).run(attempts.append)
        finally:
            await runner.cleanup()
    assert outcome.confirmed
    assert [attempt.result for attempt in attempts] == [Result.CONNECTION_ERROR] * 2 + [Result.CONFIRMED]


async def test_a_confirmation_counts_even_when_its_body_breaks_off(seen: Recorder) -> None:
    """The status line came through: asking again would only cost time."""

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=202, headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"message": "half')
        assert request.transport is not None
        request.transport.close()
        return response

    async with platform(half) as url:
        outcome = await stop(seen, url)
    assert (outcome.confirmed, outcome.attempts) == (True, 1)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 4096, b'{"message": 7}', b"<html>", b"[]", b"x" * 100_000])
async def test_a_body_that_makes_no_sense_does_not_change_what_the_status_says(seen: Recorder, body: bytes) -> None:
    """Whatever a proxy writes into the body, 202 is a confirmation."""

    async def odd(_: web.Request) -> web.StreamResponse:
        return web.Response(status=202, body=body)

    async with platform(odd) as url:
        assert (await stop(seen, url)).confirmed
    assert seen.results == [Result.CONFIRMED]


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    """The one it points to is never asked."""
    asked: list[str] = []

    async def thief(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("authorization", ""))
        return web.Response(status=200)

    async with platform(thief) as elsewhere:

        async def redirect(_: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": elsewhere})

        async with platform(redirect, accept) as url:
            seen = Recorder()
            outcome = await stop(seen, url)
    assert asked == []
    assert outcome.confirmed
    assert seen.results == [Result.UNEXPECTED, Result.CONFIRMED]


async def test_retry_after_is_honoured_as_seconds_and_as_a_date(seen: Recorder) -> None:
    """The wait is never shorter than what the platform asked for."""
    with CannedAnswers() as mocked:
        mocked.delete(ASKED, status=429, headers={"Retry-After": "7"})
        mocked.delete(ASKED, status=503, headers={"Retry-After": formatdate(1_700_000_012.0, usegmt=True)})
        mocked.delete(ASKED, status=202)
        await stop(seen)
    assert 7.0 <= seen.waits[0] <= 7.7
    assert 12.0 <= seen.waits[1] <= 13.2


@pytest.mark.parametrize("asked", ["0", formatdate(1_600_000_000.0, usegmt=True)])
async def test_a_retry_after_of_nothing_does_not_switch_the_policy_off(seen: Recorder, asked: str) -> None:
    """0, or a date that is past: the waits still grow."""
    with CannedAnswers() as mocked:
        for _ in range(12):
            mocked.delete(ASKED, status=429, headers={"Retry-After": asked})
        mocked.delete(ASKED, status=202)
        await stop(seen)
    assert sum(seen.waits[:6]) > 1.0
    assert max(seen.waits) > 5.0


PAGE = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [(200, "text/html", PAGE), (202, "text/html", PAGE), (200, "application/json", b"\xef\xbb\xbf \n" + PAGE)],
)
async def test_a_web_page_is_no_confirmation(seen: Recorder, status: int, content_type: str, body: bytes) -> None:
    """A captive portal, or a proxy's own page, says 200 to everything: the next answer is waited for."""

    async def portal(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=content_type)

    async with platform(portal, accept) as url:
        outcome = await stop(seen, url)
    assert outcome.confirmed
    assert seen.results == [Result.UNEXPECTED, Result.CONFIRMED]
    assert "web page" in seen.attempts[0].message


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: chunked\r\n\r\nnot a chunk size\r\n",
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 100\r\n\r\nhalf",
        b"no colon in this line\r\n\r\n",
    ],
)
@pytest.mark.parametrize("status", [b"202 Accepted", b"410 Gone"])
async def test_a_status_line_decides_though_what_follows_in_the_same_packet_is_damaged(
    seen: Recorder, status: bytes, rest: bytes
) -> None:
    """Head and body come together, and the body cannot be parsed: confirmed at the first attempt all the same."""

    async def damaged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\n" + rest)
        writer.close()

    server = await asyncio.start_server(damaged, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        outcome = await stop(seen, f"http://127.0.0.1:{port}/v1/self/stop/23c01225b99d/463660")
    assert (outcome.confirmed, outcome.attempts) == (True, 1)
    assert outcome.status == int(status[:3])


async def test_a_refusal_says_when_to_ask_again_and_insisting_does(seen: Recorder) -> None:
    """The caller holds meanwhile: whoever exits instead is started again, and billed again."""
    refusals: list[Outcome] = []
    with CannedAnswers() as mocked:
        for status in (401, 404, 503, 400):
            mocked.delete(ASKED, status=status)
        mocked.delete(ASKED, status=202)
        call = SelfStop(URL, SecretStr(TOKEN), sleep=seen.sleep, rng=random.Random(7))
        outcome = await call.insist(seen.attempts.append, refusals.append)
    assert (outcome.confirmed, outcome.attempts, outcome.ask_again_in) == (True, 5, None)
    assert [refusal.status for refusal in refusals] == [401, 404, 400]
    holds = [refusal.ask_again_in for refusal in refusals]
    assert all(hold is not None and hold >= 15 for hold in holds)
    assert set(holds) <= set(seen.waits)
    assert [attempt.number for attempt in seen.attempts] == [1, 2, 3, 4, 5]


async def test_values_that_cannot_be_used_are_not_asked_again() -> None:
    """No time makes a URL out of what is none."""
    outcome = await SelfStop("nonsense", SecretStr(TOKEN)).insist()
    assert (outcome.result, outcome.ask_again_in) == (Result.REFUSED, None)


async def test_a_counter_that_fails_does_not_stop_the_stopping(
    seen: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A deployment must not stay billed because of a bug in the metrics."""

    def broken(attempt: Attempt) -> None:
        raise RuntimeError(str(attempt.number))

    with CannedAnswers() as mocked:
        mocked.delete(ASKED, status=500)
        mocked.delete(ASKED, status=200)
        outcome = await SelfStop(URL, SecretStr(TOKEN), sleep=seen.sleep).run(broken)
    assert outcome.confirmed
    assert "cannot record attempt 2" in caplog.text


async def test_cancellation_ends_it_in_the_middle_of_a_call() -> None:
    """The driver's deadline ends the loop by cancelling it; no connection and no task is left."""
    arrived = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with platform(hang) as url:
        task = asyncio.create_task(SelfStop(url, SecretStr(TOKEN)).run())
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cancellation_ends_it_in_the_middle_of_a_wait() -> None:
    """A platform that says "in a minute" does not hold up a second SIGTERM."""
    attempted = asyncio.Event()

    async def busy(_: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "60"})

    async with platform(busy) as url:
        task = asyncio.create_task(SelfStop(url, SecretStr(TOKEN)).run(lambda _: attempted.set()))
        await attempted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://host/x", "http://", "http://[::1", "http://host:99999/x", "//host/x"]
)
async def test_a_url_that_cannot_be_called_is_refused_at_once(seen: Recorder, url: str) -> None:
    """Trying the same unusable value for ever would help nobody; the variable is named."""
    outcome = await stop(seen, url)
    assert outcome.result is Result.REFUSED
    assert (outcome.status, outcome.attempts) == (None, 0)
    assert "ARBITRIUM_DELETE_URL" in outcome.message


@pytest.mark.parametrize("token", ["", "  ", "a\nb", "a\x00b"])
async def test_a_token_that_cannot_be_sent_is_refused_at_once(token: str) -> None:
    """A line break in a header would be an injection; the variable is named, its value is not."""
    outcome = await SelfStop(URL, SecretStr(token)).run()
    assert outcome.result is Result.REFUSED
    assert "ARBITRIUM_DELETE_TOKEN" in outcome.message


async def test_neither_token_nor_stop_key_gets_into_a_message(seen: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Not even when the platform, or an exception, says them itself."""
    gossip = {"message": f"token {TOKEN} is wrong for {URL} (key 463660)"}
    with CannedAnswers() as mocked:
        mocked.delete(ASKED, exception=OSError(f"connecting to {URL} with {TOKEN}"))
        mocked.delete(ASKED, exception=RuntimeError(f"bug near {URL} and {TOKEN}"))
        mocked.delete(ASKED, status=500, payload=gossip)
        mocked.delete(ASKED, status=401, payload=gossip)
        outcome = await stop(seen)
    said = "\n".join([repr(outcome), *map(repr, seen.attempts), caplog.text])
    said += repr(SelfStop(URL, SecretStr(TOKEN)))
    assert "is wrong for" in outcome.message
    assert TOKEN not in said
    assert "463660" not in said


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_wait_is_a_draw_below_a_ceiling_that_doubles_up_to_the_cap(retry: int, rng: random.Random) -> None:
    """Full jitter: between zero and min(30, 0.2 * 2^n) seconds."""
    policy = RetryPolicy()
    ceiling = policy.ceiling(retry)
    assert ceiling == (min(30.0, 0.2 * 2**retry) if retry < 100 else 30.0)
    assert 0.0 <= policy.wait(retry, rng) <= ceiling


@given(st.text(max_size=40))
def test_no_retry_after_can_break_the_loop_or_stretch_it_beyond_the_limit(value: str) -> None:
    """Whatever the header says, the answer is None or a wait between zero and the limit."""
    seconds = retry_after_seconds({"Retry-After": value}, now=0.0)
    assert seconds is None or 0.0 <= seconds <= RETRY_AFTER_LIMIT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": " 3 "}, 3.0),
        ({"Retry-After": "999999999999999999999"}, RETRY_AFTER_LIMIT),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 10.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT", "Date": "Thu, 01 Jan 1970 00:00:20 GMT"}, 40.0),
    ],
)
def test_both_forms_of_retry_after_are_read(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, or a date against the response's own Date, else against the clock (50 s after the epoch here)."""
    assert retry_after_seconds(headers, now=50.0) == seconds


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "https://api.edgegap.com/v1/self/stop/23c01225b99d/***"),
        (
            f"{URL}?container_log_storage=logs&key=x",
            "https://api.edgegap.com/v1/self/stop/23c01225b99d/***?container_log_storage=logs&key=***",
        ),
        ("http://u:p@10.0.0.1:8080/v1/context/abc/77/tags/x", "http://10.0.0.1:8080/v1/context/abc/***/tags/x"),
        ("http://[::1]:80/secret", "http://[::1]:80/***"),
        ("http://[::1", "***"),
        ("http://host:port/x", "***"),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(url: str, shown: str) -> None:
    """Enough is left to see where a call went."""
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("url", "secret"),
    [(URL, "463660"), ("https://h/v1/context/a/9", "9"), ("https://h/x", None), ("http://[::1", None)],
)
def test_the_secret_part_of_an_injected_url_is_found(url: str, secret: str | None) -> None:
    """So that it can be removed from messages, and from logs."""
    assert secret_of_url(url) == secret


def test_a_cleaned_message_is_one_short_line_and_short_secrets_do_not_tear_numbers_apart() -> None:
    """`660` alone is masked, `16600` is not; control characters do not reach a terminal."""
    assert clean("a\x1b[31m\nb 660 16600 c%2Fd c/d", "660", "c/d", None, "") == "a [31m b *** 16600 *** ***"
    assert len(clean("x" * 10_000)) == 500

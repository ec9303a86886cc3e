"""Pushes all metrics to a receiver: at the end of a deployment, and optionally at an interval.

A scraper does not discover a server that runs only for seconds, and cannot reach one without public ports. The receiver
is a Prometheus remote-write endpoint (version 2.0 first, then 1.0), or a Pushgateway if the URL's path contains
`/metrics/job/`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

import aiohttp

from agent import log
from agent.metrics import remote_write
from agent.metrics.exposition import TEXT, Family, LabelPairs, text_format

# Timeout of a push, except the last one, which gets the rest of the stop plan.
_SECONDS = 10.0
_LONGEST_ANSWER = 300
_PAUSE = 0.5
# The receiver is there again, or was busy: everything else will be refused again.
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class PushError(Exception):
    """Metrics could not be pushed; `str()` says why."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        """Takes the reason, and whether retrying makes sense."""
        super().__init__(message)
        self.again = again


class Pusher:
    """Pushes the metrics of `collect` to one receiver."""

    def __init__(
        self,
        url: str,
        collect: Callable[[], Awaitable[list[Family]]],
        *,
        job: str,
        instance: str,
        auth: str | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            url: of a remote-write receiver, or of a Pushgateway with a job.
            collect: reads all metrics.
            job: value of the label `job` (remote write); a Pushgateway has it in its URL.
            instance: value of the label `instance`, unique for each deployment of the job.
            auth: a bearer token, or USER:PASSWORD; None without authentication.
        """
        self._url = url
        self._collect = collect
        self._gateway = "/metrics/job" in urlsplit(url).path
        self._labels: LabelPairs = (("job", job), ("instance", instance))
        self._instance = instance
        self._headers = _authorization(auth)
        self._version = 2
        self._failing = False

    async def run(self, interval: float) -> None:
        """Pushes at an interval, until it is cancelled.

        Args:
            interval: seconds between the starts of two pushes.
        """
        async with aiohttp.ClientSession(trust_env=True) as session:
            while True:
                began = time.monotonic()
                try:
                    async with asyncio.timeout(min(_SECONDS, interval)):
                        await self._push(session)
                except (PushError, TimeoutError) as problem:
                    self._complain(str(problem) or "no answer in time")
                else:
                    self._failing = False
                await asyncio.sleep(max(0.0, began + interval - time.monotonic()))

    async def push_last(self, deadline: float) -> bool:
        """Pushes once more, with retries if they make sense, until a deadline.

        Args:
            deadline: seconds of the monotonic clock.

        Returns:
            Whether the receiver has the values.
        """
        reason = "no answer in time"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                async with aiohttp.ClientSession(trust_env=True) as session:
                    while True:
                        try:
                            await self._push(session)
                        except PushError as problem:
                            reason = str(problem)
                            if not problem.again:
                                break
                            await asyncio.sleep(_PAUSE)
                        else:
                            return True
        self._failing = False
        self._complain(reason)
        return False

    def _complain(self, why: str) -> None:
        if not self._failing:
            log.warning(f"cannot push metrics to {_shown(self._url)}: {why}")
        self._failing = True

    async def _push(self, session: aiohttp.ClientSession) -> None:
        families = await self._collect()
        if self._gateway:
            url = f"{self._url.rstrip('/')}/instance{_grouping(self._instance)}"
            await self._send(session, "PUT", url, {"Content-Type": TEXT}, text_format(families))
            return
        now = time.time()
        if self._version == 2:
            body = remote_write.snappy(remote_write.write_v2(families, self._labels, now))
            status, answered = await self._send(session, "POST", self._url, remote_write.headers(2), body, {415, 400})
            # A receiver of 1.0 refuses the type, or takes what it does not understand for nothing and says 2xx. One of
            # 2.0 says how many samples it wrote.
            if status < 300 and "X-Prometheus-Remote-Write-Samples-Written" in answered:
                return
            self._version = 1
        body = remote_write.snappy(remote_write.write_v1(families, self._labels, now))
        await self._send(session, "POST", self._url, remote_write.headers(1), body)

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes,
        expected: frozenset[int] | set[int] = frozenset(),
    ) -> tuple[int, dict[str, str]]:
        """Sends a request.

        Returns:
            Status and headers of the answer.

        Raises:
            PushError: there is no answer, or it is neither 2xx nor one of `expected`.
        """
        try:
            async with session.request(
                method, url, data=body, headers=headers | self._headers, allow_redirects=False
            ) as answer:
                if answer.status < 300 or answer.status in expected:
                    return answer.status, dict(answer.headers)
                text = (await answer.content.read(_LONGEST_ANSWER)).decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError) as problem:
            raise PushError(f"{type(problem).__name__}: {problem}", again=True) from None
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        raise PushError(f"it answered {answer.status} {line}".rstrip(), again=answer.status in _AGAIN)


def instance_name(request_id: str | None) -> str:
    """The unique name of a deployment: its id on the platform, else the name of the machine."""
    return request_id or socket.gethostname()


def _authorization(auth: str | None) -> dict[str, str]:
    if not auth:
        return {}
    # A bearer token has no colon (RFC 6750, section 2.1).
    if ":" in auth:
        return {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"}
    return {"Authorization": f"Bearer {auth}"}


def _grouping(value: str) -> str:
    """The value of a label, encoded for a Pushgateway's path."""
    if "/" in value or not value:
        return f"@base64/{base64.urlsafe_b64encode(value.encode()).decode().rstrip('=') or '='}"
    return f"/{quote(value, safe='')}"


def _shown(url: str) -> str:
    """The URL without its query, which may contain a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"

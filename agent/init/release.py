"""The self-stop without the agent: a forked process makes the call. Standard library only.

Name resolution and the TLS handshake can hang or crash; in a separate process neither affects PID 1. It is used only if
the agent's process, which has the full retry policy (`agent.edgegap.self_stop`), is not running.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time

from agent import log
from agent.retry import RetryPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.client import HTTPResponse
    from typing import NoReturn

    from agent.game.reaper import Reaper
    from agent.init.loop import Loop

CONFIRMED = 0
_CONFIRMATIONS = (200, 202, 410)
# How much of a confirmation is read to tell whether it is a web page, which may begin with empty lines.
_BODY_BYTES = 1024
_CALL_SECONDS = 10.0
# Limit of a whole call that PID 1 makes itself, and how often it looks meanwhile whether a signal has arrived.
_CALL_HERE_SECONDS = 3.0
_LOOK_EVERY = 0.1
# Nothing can interrupt the C library's name resolution, so it gets less time than the usual 5 s a server, twice (man 5
# resolv.conf, RES_OPTIONS).
_RESOLVE_QUICKLY = "timeout:1 attempts:1"
# Limit of a whole call: a server that sends a byte now and then never exceeds the limit of a single read.
_TOTAL_SECONDS = 20
_PAUSES = RetryPolicy(first=0.5, cap=30.0, least=0.5)
_AFTER_REFUSAL = 60.0
# Delay before a helper that could not be started, or was lost, is started again.
_HELPER_AGAIN = 2.0


class LightRelease:
    """Makes the self-stop call from a helper process until it is confirmed."""

    def __init__(self, reaper: Reaper, isolate: Callable[[], None], loop: Loop) -> None:
        """Starts nothing yet.

        Args:
            reaper: told that the helper is not a process of the game.
            isolate: called in the forked process first: undoes what belongs to the init alone.
            loop: starts a helper again that could not be started, or was lost.
        """
        self._reaper = reaper
        self._isolate = isolate
        self._loop = loop
        self._pid = 0
        self._settled: Callable[[str], None] | None = None
        self._call: tuple[str, str, str] | None = None

    def start(self, url: str, token: str, log_storage: str, settled: Callable[[str], None]) -> None:
        """Starts calling; does nothing if that is under way already.

        Args:
            url: ARBITRIUM_DELETE_URL.
            token: ARBITRIUM_DELETE_TOKEN.
            log_storage: value of `container_log_storage`.
            settled: called with `confirmed`.
        """
        if self._settled is None:
            self._settled = settled
            self._call = (url, token, log_storage)
            self._start_helper()

    def _start_helper(self) -> None:
        if self._call is None:
            return
        try:
            pid = os.fork()
        except OSError as problem:
            log.error(
                f"cannot start a process for the self-stop: {os.strerror(problem.errno or 0).lower()}; trying again in "
                f"{_HELPER_AGAIN:g} s"
            )
            self._loop.call_later(_HELPER_AGAIN, self._call_here)
            return
        if pid == 0:
            self._isolate()
            _call_until_settled(*self._call)
        self._pid = pid
        self._reaper.add_helper(pid)

    def _call_here(self) -> None:
        """Tries a helper again, and makes one call without one where there is still no room (pids limit).

        The game is gone: for so long nothing but a stop signal could come, and that ends the call.
        """
        if self._call is None:
            return
        self._start_helper()
        if self._pid:
            return
        if call_here(*self._call, self._loop.signalled):
            self._confirmed()

    def ended(self, pid: int, status: int) -> None:
        """Handles the end of the helper, which was reaped."""
        if pid != self._pid or self._settled is None:
            return
        self._pid = 0
        if os.waitstatus_to_exitcode(status) == CONFIRMED:
            self._confirmed()
        else:
            # It hung for too long or was killed. Restarting at once could become a busy loop.
            self._loop.call_later(_HELPER_AGAIN, self._start_helper)

    def _confirmed(self) -> None:
        settled, self._call = self._settled, None
        if settled is not None:
            settled("confirmed")


def call_here(url: str, token: str, log_storage: str, early: Callable[[], bool]) -> bool:
    """One call from PID 1 itself, which takes 3 s at most, name resolution aside. For the main thread.

    Args:
        url: ARBITRIUM_DELETE_URL.
        token: ARBITRIUM_DELETE_TOKEN.
        log_storage: value of `container_log_storage`.
        early: asked now and then; the call ends soon after this is true.

    Returns:
        Whether the platform has confirmed.
    """
    os.environ.setdefault("RES_OPTIONS", _RESOLVE_QUICKLY)
    status = 0
    with _interrupted(_CALL_HERE_SECONDS, early):
        status = _call(url, token, log_storage, seconds=_CALL_HERE_SECONDS)
    return status in _CONFIRMATIONS


@contextlib.contextmanager
def _interrupted(seconds: float, early: Callable[[], bool]) -> Iterator[None]:
    """Interrupts what runs in it, which may wait for a socket, by a TimeoutError. For the main thread.

    Args:
        seconds: after so many, or
        early: soon after this is true.
    """
    until = time.monotonic() + seconds

    def look(_number: int, _frame: object) -> None:
        # Python calls this between two tries of a system call that the timer's signal has interrupted (PEP 475).
        if early() or time.monotonic() >= until:
            raise TimeoutError

    before = signal.signal(signal.SIGALRM, look)
    try:
        # Again and again: the first error may be raised where all errors are caught.
        signal.setitimer(signal.ITIMER_REAL, _LOOK_EVERY, _LOOK_EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:
        pass  # between two steps of the call
    finally:
        signal.signal(signal.SIGALRM, before)


def _call_until_settled(url: str, token: str, log_storage: str) -> NoReturn:
    code = 1
    try:
        import random  # noqa: PLC0415 - only in the forked process

        jitter = random.Random()  # noqa: S311 - no secret
        for retry in itertools.count():
            pause = _PAUSES.wait(retry, jitter)
            signal.alarm(_TOTAL_SECONDS)  # ends this process; the init starts another one
            status = _call(url, token, log_storage)
            if status in _CONFIRMATIONS:
                code = CONFIRMED
                break
            if status in (400, 401, 403, 404):
                # If it exited, a restart policy would start the container again, and it would be billed again.
                pause = _AFTER_REFUSAL
                log.error(
                    f"cannot self-stop: the platform answered {status}; holding, and asking again in {pause:g} s: stop "
                    "the deployment from a backend"
                )
            elif status:
                log.warning(f"cannot self-stop: the platform answered {status}; trying again in {pause:.2g} s")
            signal.alarm(0)
            time.sleep(pause)
    finally:
        os._exit(code)


def _call(url: str, token: str, log_storage: str, seconds: float = _CALL_SECONDS) -> int:
    """The status of one call; 0 without an answer of the platform's, which is said.

    Redirects are not followed: they would send the token to another server.
    """
    import http.client  # noqa: PLC0415 - only in the forked process
    from urllib.parse import quote, urlsplit  # noqa: PLC0415

    from agent.web_page import is_web_page  # noqa: PLC0415

    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        connection.response_class = _strict_response()
        query = "&".join(part for part in (parts.query, f"container_log_storage={quote(log_storage)}") if part)
        try:
            connection.request("DELETE", f"{parts.path}?{query}", headers={"authorization": token})
            response = connection.getresponse()
            status, kind_of_body = response.status, response.getheader("Content-Type") or ""
            if status in _CONFIRMATIONS and is_web_page(status, kind_of_body, _beginning_of(response)):
                log.warning(
                    f"cannot self-stop: the answer ({status}) is a web page and not the platform's (a captive portal, "
                    "or a proxy's own page?); trying again"
                )
                return 0
            return status
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as problem:
        log.warning(f"cannot self-stop: no answer from the platform ({type(problem).__name__}); trying again")
        return 0


def _strict_response() -> type[HTTPResponse]:
    """A response that takes nothing but a status line for one: the library's takes `HTTP/1.1 2_02` for a 202."""
    import http.client  # noqa: PLC0415 - only in the forked process
    import re  # noqa: PLC0415

    status_line = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9]{2})[ \r\n]")  # RFC 9112, 4

    class Response(http.client.HTTPResponse):
        def _read_status(self) -> tuple[str, int, str]:  # not public; test_what_is_no_status_line fails without it
            line = self.fp.readline(_BODY_BYTES)
            if not line:
                raise http.client.RemoteDisconnected("the server hung up")
            found = status_line.match(line)
            if found is None:
                raise http.client.BadStatusLine(repr(line))
            return found[1].decode(), int(found[2]), ""

    return Response


def _beginning_of(response: HTTPResponse) -> bytes:
    try:
        return response.read(_BODY_BYTES)
    except Exception:  # the status has been received and decides, whatever happens to the body
        return b""

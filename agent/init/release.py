"""The self-stop without the agent: a forked process makes the call. Standard library only.

Resolving a name and a TLS handshake can hang or crash; in a process of its own neither touches PID 1. It is used where
the agent's process is not there to make the call with all that it knows of retries.
"""

from __future__ import annotations

import os
import time

from agent import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from agent.game.reaper import Reaper

CONFIRMED, REFUSED = 0, 3
_CALL_SECONDS = 10.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_AFTER_REFUSAL = 60.0


class LightRelease:
    """Makes the self-stop call from a helper process until it is settled."""

    def __init__(self, reaper: Reaper, isolate: Callable[[], None]) -> None:
        """Starts nothing yet.

        Args:
            reaper: the helper is the init's.
            isolate: called in the forked process first: undoes what belongs to the init alone.
        """
        self._reaper = reaper
        self._isolate = isolate
        self._pid = 0
        self._settled: Callable[[str], None] | None = None
        self._again: tuple[str, str, str] | None = None

    def start(self, url: str, token: str, log_storage: str, settled: Callable[[str], None]) -> None:
        """Begins to call.

        Args:
            url: ARBITRIUM_DELETE_URL.
            token: ARBITRIUM_DELETE_TOKEN.
            log_storage: value of `container_log_storage`.
            settled: called with `confirmed` or `refused`.
        """
        if self._pid:
            return
        self._settled = settled
        self._again = (url, token, log_storage)
        try:
            pid = os.fork()
        except OSError as problem:
            log.error(f"cannot start a process for the self-stop: {os.strerror(problem.errno or 0).lower()}")
            return
        if pid == 0:
            self._isolate()
            _call_until_settled(url, token, log_storage)
        self._pid = pid
        self._reaper.add_helper(pid)

    def ended(self, pid: int, status: int) -> None:
        """A helper of the init's was reaped."""
        if pid != self._pid or self._settled is None:
            return
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        if code in (CONFIRMED, REFUSED):
            self._settled("confirmed" if code == CONFIRMED else "refused")
        elif self._again is not None:
            self.start(*self._again, self._settled)


def _call_until_settled(url: str, token: str, log_storage: str) -> NoReturn:
    code = 1
    try:
        pause = _FIRST_PAUSE
        while True:
            status = _call(url, token, log_storage)
            if status in (200, 202, 410):
                code = CONFIRMED
                break
            if status in (400, 401, 403, 404):
                # Exiting would let a restart policy start the container again, and bill it again.
                pause = max(pause, _AFTER_REFUSAL)
                log.error(
                    f"cannot self-stop: the platform answered {status}; holding, and asking again in {pause:g} s: stop "
                    "the deployment from a backend"
                )
            elif status:
                log.warning(f"cannot self-stop: the platform answered {status}; trying again in {pause:g} s")
            time.sleep(pause)
            pause = min(max(_LONGEST_PAUSE, pause), pause * 2)
    finally:
        os._exit(code)


def _call(url: str, token: str, log_storage: str) -> int:
    """The status of one call; 0 without an answer. No redirect is followed: it would carry the token elsewhere."""
    import http.client  # noqa: PLC0415 - only in the forked process
    from urllib.parse import quote, urlsplit  # noqa: PLC0415

    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_CALL_SECONDS)
        query = "&".join(part for part in (parts.query, f"container_log_storage={quote(log_storage)}") if part)
        try:
            connection.request("DELETE", f"{parts.path}?{query}", headers={"authorization": token})
            response = connection.getresponse()
            # A web page is not the platform's answer (a captive portal, a proxy's page), whatever its status says.
            return 0 if "html" in (response.getheader("Content-Type") or "") else response.status
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as problem:
        log.warning(f"cannot self-stop: no answer from the platform ({type(problem).__name__}); trying again")
        return 0

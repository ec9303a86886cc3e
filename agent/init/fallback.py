"""The bare duties of an init, for when the rest of the agent is not there. Standard library only.

Forward signals, reap, escalate, stop the deployment, pass the exit code on. No API, no metrics, no shipping: the log is
in the spool, and in the container's own output.
"""

import os
import signal
import time

from agent import log
from agent.game.signals import ask_to_end, kill_all, signal_group
from agent.init.main import Boot
from agent.lifecycle import stop_methods

# Part of the grace that the game gets before SIGKILL.
_SHARE = 0.8
_CALL_SECONDS = 10.0
_LONGEST_PAUSE = 30.0
_REFUSED = (400, 401, 403, 404)


def supervise(boot: Boot) -> int:
    """Looks after the game until it is gone, and stops the deployment.

    Returns:
        The exit code.
    """
    # Nobody answers any more: a call that is refused at once is better than one that hangs.
    for port in (boot.control, boot.metrics):
        if port is not None:
            port.sock.close()
    for unix in (boot.unix, boot.notify):
        if unix is not None:
            unix.close()
    boot.unix = boot.notify = None
    code = _until_gone(boot) if boot.game is not None else (boot.failure.exit_code if boot.failure else 1)
    if boot.capture is not None:
        boot.capture.drain(time.monotonic() + 0.5)
    policy = boot.raw("on_exit" if code == 0 else "on_crash") or "self-stop"
    if policy != "exit":
        _self_stop(boot)
    return code


def _until_gone(boot: Boot) -> int:
    assert boot.game is not None, "looked at above"
    grace = boot.grace
    handled = 0
    status = boot.game.status
    term_at = kill_at = float("inf")
    while True:
        ended, left = boot.reaper.reap()
        if boot.game.main_pid in ended:
            status = ended[boot.game.main_pid]
            kill_at = min(kill_at, time.monotonic() + grace * _SHARE)
            ask_to_end(boot.game.pid)
        if not left or (status is not None and time.monotonic() > kill_at + 1):
            break
        if len(boot.signals) > handled:
            first = handled == 0
            handled = len(boot.signals)
            kill_at = min(kill_at, boot.signals[0][1] + grace * _SHARE) if first else 0.0
            term_at = time.monotonic() + grace * _SHARE / 2 if first and _asked_in_its_way(boot) else 0.0
        if time.monotonic() >= term_at:
            term_at = float("inf")
            ask_to_end(boot.game.pid)
        if time.monotonic() >= kill_at:
            kill_all(boot.game.pid, boot.reaper)
        time.sleep(0.02)
    code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def _asked_in_its_way(boot: Boot) -> bool:
    """Does what AGENT_STOP begins with, if that is a line on stdin or a signal; whether SIGTERM can wait for it."""
    assert boot.game is not None, "looked at by whoever calls"
    for method in boot.setting("stop", stop_methods.parse, ()):
        if method.kind == "stdin" and boot.stdin is not None:
            return boot.stdin.write_line(method.argument) == ""
        if method.kind == "signal" and method != stop_methods.SIGTERM:
            return signal_group(boot.game.pid, method.signum)
        if method.kind == "signal":
            return False
    return False


def _self_stop(boot: Boot) -> None:
    """`DELETE $ARBITRIUM_DELETE_URL` until it is confirmed or refused, or the platform sends SIGTERM; then the hold."""
    url, token = boot.environ.get("ARBITRIUM_DELETE_URL", ""), boot.environ.get("ARBITRIUM_DELETE_TOKEN", "")
    if not url or not token or boot.signals:
        return
    pause = 0.5
    while not boot.signals:
        status = _call(url, token, boot.raw("log_storage") or "true")
        if status in _REFUSED:
            log.error(f"cannot self-stop: the platform answered {status}; stop the deployment from a backend")
            return
        if status in (200, 202, 410):
            log.info("the platform will stop this deployment; holding until it does")
            _wait(boot, 60.0)
            return
        _wait(boot, pause)
        pause = min(_LONGEST_PAUSE, pause * 2)


def _call(url: str, token: str, log_storage: str) -> int:
    """The status of one call; 0 without an answer. No redirect is followed: it would carry the token elsewhere."""
    import http.client  # noqa: PLC0415 - only on this way out
    from urllib.parse import quote, urlsplit  # noqa: PLC0415

    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_CALL_SECONDS)
        query = "&".join(part for part in (parts.query, f"container_log_storage={quote(log_storage)}") if part)
        try:
            connection.request("DELETE", f"{parts.path}?{query}", headers={"authorization": token})
            return connection.getresponse().status
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as problem:
        log.warning(f"cannot self-stop: no answer from the platform ({type(problem).__name__}); trying again")
        return 0


def _wait(boot: Boot, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not boot.signals and time.monotonic() < until:
        time.sleep(0.05)

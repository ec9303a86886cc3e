"""The init's signal handlers: record each signal (SIGTERM too) with its time. Standard library only, quick to import.

The loop, which is created after the game was started, handles them in `agent.init.supervisor` (`_on_signal`).
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # the C part: see agent.game.spawn

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Not sent on to the game: those that stop, those of the kernel about the process itself, those that cannot be caught,
# and SIGCHLD, which is the init's own business.
_NOT_FORWARDED = {
    *STOP_SIGNALS,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGXFSZ,
}
_WATCHED = (
    *STOP_SIGNALS,
    signal.SIGCHLD,
    *(number for number in signal.valid_signals() if number not in _NOT_FORWARDED),
)


class KeptSignals:
    """The signals that arrived, and how they were treated before.

    Attributes:
        ignored: those that were ignored until now (`nohup`), and
        blocked: those that were blocked: the game inherits both.
        stop_at: when the first stop signal arrived, in seconds of the monotonic clock; None before that.
        on_stop: called in the handler of each stop signal, after the signal was recorded; it must not raise.
    """

    def __init__(self) -> None:
        """Records all signals from now on."""
        self.ignored: list[int] = []
        self.blocked: set[int] = set()
        self.stop_at: float | None = None
        self.on_stop: Callable[[], object] | None = None
        self._kept: list[tuple[int, float]] = []
        self._take: Callable[[int, float], None] = self._keep
        for number in _WATCHED:
            try:
                before = signal.signal(number, self._handle)
            except OSError:
                continue  # two real-time signals belong to the C library
            # SIGCHLD ignored by a parent would let the kernel reap the children, and their exit codes with them.
            if before == signal.SIG_IGN and number != signal.SIGCHLD:
                self.ignored.append(int(number))
        # A pending signal may have arrived at any time since the process started: its deadline counts from there.
        started = _started()
        for early in sorted({int(number) for number in signal.sigpending()} & {int(number) for number in STOP_SIGNALS}):
            self.stop_at = started
            self._keep(early, started)
            signal.signal(early, signal.SIG_IGN)  # discards what is pending (man 2 sigaction)
            signal.signal(early, self._handle)
        # `agent.__main__` may have blocked the stop signals, so that none is lost before there are handlers; this
        # does not apply to the game.
        before_that = signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.blocked = {int(number) for number in before_that if number not in STOP_SIGNALS}

    def give_to(self, take: Callable[[int, float], None]) -> None:
        """Calls `take(number, at)` for each signal recorded so far, with its time, and for each later one."""
        self._pass_on(take)
        self._take = take
        self._pass_on(take)  # for a signal that arrived between the two lines

    def _pass_on(self, take: Callable[[int, float], None]) -> None:
        while self._kept:
            take(*self._kept.pop(0))

    def _handle(self, number: int, _frame: object) -> None:
        at = time.monotonic()
        if self.stop_at is None and number in STOP_SIGNALS:
            self.stop_at = at
        self._take(number, at)
        if self.on_stop is not None and number in STOP_SIGNALS:
            self.on_stop()

    def _keep(self, number: int, at: float) -> None:
        self._kept.append((number, at))


def forget_signals() -> None:
    """Restores the default handlers in a forked process."""
    signal.set_wakeup_fd(-1)
    for number in _WATCHED:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            continue


def _started() -> float:
    """When this process was started, in seconds of the monotonic clock; now, where that cannot be known."""
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as stat:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
        return min(now, ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return now

"""The init's event loop: descriptors, timers, signals, calls from other threads. Standard library only.

`asyncio` could do all of it, but costs 80 ms and 11 MB. Callbacks must not block; a callback that raises is logged and
the loop continues.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import signal
import time
from collections import deque

from agent import log
from agent.errors import LEAVING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR
_MOST_AT_ONCE = 256  # most callbacks in one round, so that signals and timers are not delayed
# If the kernel refuses poll() (ENOMEM; EINVAL with a limit of descriptors below those watched, man 2 poll), signals,
# timers and calls are looked at so often.
_WITHOUT_POLL = 0.05


class TimerHandle:
    """A timer that can be cancelled."""

    __slots__ = ("args", "at", "callback", "cancelled")

    def __init__(self, at: float, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        """Takes the time when it fires, and the callback."""
        self.at = at
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        """Cancels the timer; does nothing if it has fired already."""
        self.cancelled = True

    def __lt__(self, other: TimerHandle) -> bool:
        """Whether it is due earlier."""
        return self.at < other.at


class Loop:
    """Runs callbacks until it is stopped. For one thread; only `call_soon_threadsafe` may be called from others."""

    def __init__(self) -> None:
        """Watches nothing yet."""
        self.time = time.monotonic
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._timers: list[TimerHandle] = []
        self._soon: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._signals: deque[tuple[int, float]] = deque()
        self._on_signal: Callable[[int, float], object] = lambda _number, _at: None
        self._code: int | None = None
        # One pipe wakes poll() up for signals (man 2 poll: EINTR is retried by Python) and for other threads.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.add_reader(self._wake_read, self._drain_wakeups)

    # Signals ---------------------------------------------------------------------------------------------------------

    def note_signal(self, number: int, at: float) -> None:
        """For signal handlers: queues a signal with the time it arrived, in seconds of the monotonic clock."""
        self._signals.append((number, at))
        self._wake()

    def on_signal(self, callback: Callable[[int, float], object]) -> None:
        """Calls `callback(number, at)` for each signal, including those that arrived earlier."""
        self._on_signal = callback
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._wake()

    def signalled(self) -> bool:
        """Whether a signal waits to be handled; for a callback that blocks."""
        return bool(self._signals)

    # Descriptors -----------------------------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Calls back whenever `fd` can be read, or its other end is closed."""
        self._readers[fd] = callback
        self._register(fd)

    def remove_reader(self, fd: int) -> None:
        """Watches it no more; harmless where it is not watched."""
        self._readers.pop(fd, None)
        self._register(fd)

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        """Calls back whenever `fd` can be written to."""
        self._writers[fd] = callback
        self._register(fd)

    def remove_writer(self, fd: int) -> None:
        """Watches it no more; harmless where it is not watched."""
        self._writers.pop(fd, None)
        self._register(fd)

    def _register(self, fd: int) -> None:
        wanted = (_READABLE if fd in self._readers else 0) | (select.POLLOUT if fd in self._writers else 0)
        if wanted:
            self._poll.register(fd, wanted)
        else:
            with contextlib.suppress(KeyError, ValueError):
                self._poll.unregister(fd)

    # Calls -----------------------------------------------------------------------------------------------------------

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> TimerHandle:
        """Calls back at the given time of the monotonic clock."""
        handle = TimerHandle(when, callback, args)
        heapq.heappush(self._timers, handle)
        return handle

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> TimerHandle:
        """Calls back after a number of seconds."""
        return self.call_at(self.time() + seconds, callback, *args)

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Calls back in the next round."""
        self._soon.append((callback, args))

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        """The same, from another thread."""
        self._soon.append((callback, args))
        self._wake()

    # Running ---------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Runs until `stop` is called, and returns the exit code that `stop` was given."""
        while self._code is None:
            self._round()
        return self._code

    def stop(self, code: int) -> None:
        """Ends `run` after the callbacks of this round."""
        self._code = code

    def run_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Runs until a condition holds or a deadline has passed; used during shutdown.

        Returns:
            Whether it holds.
        """
        while not condition():
            if self.time() >= deadline:
                return False
            wakeup = self.call_at(deadline, lambda: None)
            self._round()
            wakeup.cancel()
        return True

    def _round(self) -> None:
        for fd, events in self._wait():
            if events & select.POLLNVAL:
                self._readers.pop(fd, None)
                self._writers.pop(fd, None)
                self._register(fd)
                log.error(f"cannot watch descriptor {fd}: it was closed")
                continue
            if events & _READABLE and (reader := self._readers.get(fd)):
                self._call(reader)
            if events & (select.POLLOUT | select.POLLERR | select.POLLHUP) and (writer := self._writers.get(fd)):
                self._call(writer)
        # Signals are handled before timers, so that a stop comes before a timer that is due at the same moment.
        while self._signals:
            self._call(self._on_signal, *self._signals.popleft())
        now = self.time()
        while self._timers and (self._timers[0].cancelled or self._timers[0].at <= now):
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._call(timer.callback, *timer.args)
        for _ in range(min(len(self._soon), _MOST_AT_ONCE)):
            callback, args = self._soon.popleft()
            self._call(callback, *args)

    def _wait(self) -> list[tuple[int, int]]:
        try:
            return self._poll.poll(self._timeout())
        except (OSError, MemoryError):
            time.sleep(_WITHOUT_POLL)
            return []

    def _timeout(self) -> float | None:
        """Milliseconds that poll() may wait."""
        if self._soon or self._signals:
            return 0
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        # Rounded up: with a wait that is too short the loop would spin until the timer is due.
        return max(0.0, (self._timers[0].at - self.time()) * 1000 + 0.5)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except LEAVING:
            raise
        except BaseException as problem:
            log.fault("cannot finish a step of the init", problem)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # the pipe is full: the loop wakes up anyway
            os.write(self._wake_write, b"\0")

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(OSError):
            while len(os.read(self._wake_read, 4096)) == 4096:
                pass

"""Reads the game's output, passes it on, and spools it. Standard library only, quick to import.

One thread reads and never blocks on anything else: the spool and the sinks have separate threads. The game is only ever
slowed down by a consumer of the container's output that reads, but more slowly than the game writes (see
`agent.logs.sink`).
"""

import contextlib
import fcntl
import os
import select
import sys
import threading
import time
from collections import deque

from agent.logs.frames import AGENT
from agent.logs.redact import RedactedStream, Redactor
from agent.logs.shared_counts import LOST_STDERR, LOST_STDOUT, STDERR, STDOUT, SharedCounts
from agent.logs.sink import BUFFER, Sink
from agent.logs.spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.logs.line_matcher import LineMatcher

TAIL = 64 * 1024
_CELLS = {"stdout": STDOUT, "stderr": STDERR}  # of SharedCounts
_FIONREAD = 0x541B  # termios.FIONREAD, without importing termios (man 2 ioctl_tty)
# Bytes that one read takes. If it is filled, the next one takes more, because each read costs CPU besides its bytes:
# threads wake each other, and its end is searched for the beginning of a secret.
_READ = 64 * 1024
_READ_MOST = 1024 * 1024  # all that the pipe holds
_PIPE = 1024 * 1024  # what an unprivileged process may ask for (fs.pipe-max-size, man 5 proc)
_PIPE_DEFAULT = 64 * 1024
_LINGER = 0.001  # how long a pipe of 1 MiB may collect small writes, so that reading does not cost more than writing
_SMALL = 32 * 1024
_ALL_EVENTS = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
# Longest time that the init reads in place of a thread, and the wait of a thread for which there was no memory.
_ROUND_SECONDS = 0.02
# How long a thread waits before it asks another one, often busy with imports, to release the interpreter lock. Python's
# default of 5 ms, several times for each read, would slow the game down.
_SWITCH = 0.0005


class _Stream:
    """The state of one descriptor that is read."""

    __slots__ = ("capacity", "fd", "name", "read_at", "redacted", "sink", "takes")

    def __init__(self, fd: int, name: str, redacted: RedactedStream, sink: "Sink | None") -> None:
        self.fd = fd
        self.name = name
        self.redacted = redacted
        self.sink = sink
        self.read_at = 0.0
        self.takes = _READ
        try:
            self.capacity = fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:
            self.capacity = _PIPE_DEFAULT  # not a pipe, or the user has too many large ones (pipe-user-pages-soft)


class Capture:
    """The game's output on its way to the container's and to the spool."""

    def __init__(
        self,
        spool: Spool,
        redactor: Redactor,
        passthrough: "Mapping[str, int]",
        *,
        redact_passthrough: bool = False,
        buffer_bytes: int = BUFFER,
        sinks: "Mapping[str, Sink] | None" = None,
        counts: "SharedCounts | None" = None,
    ) -> None:
        """Prepares; `start` starts reading.

        Args:
            spool: stores all output, redacted.
            redactor: knows the secrets.
            passthrough: descriptor to pass each stream on to, by stream name; other streams are only spooled. The
                descriptors are written to, but never changed or closed.
            redact_passthrough: whether secrets are also replaced in the output that is passed on.
            buffer_bytes: size of the buffer for each descriptor.
            sinks: existing sinks, by stream name; a descriptor that refers to the same file shares them.
            counts: where to write how much was read, and was not passed on by sinks that are made here.
        """
        self._spool = spool
        self._redactor = redactor
        self._redact_passthrough = redact_passthrough
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._streams: dict[int, _Stream] = {}
        self._new: list[_Stream] = []
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._bytes = {"stdout": 0, "stderr": 0}
        self._counts = counts or SharedCounts()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._wanted: Callable[[], None] | None = None
        self._matchers: dict[str, LineMatcher] = {}
        self._poll = select.poll()
        self._paused: list[_Stream] = []  # their sinks are full
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._sinks: dict[str, Sink] = dict(sinks or {})
        by_file: dict[object, Sink] = {}
        for sink in self._sinks.values():
            sink.on_room(self._wake)
            by_file[_file(sink.fd)] = sink
        for name, fd in passthrough.items():
            if name in self._sinks:
                continue
            sink = by_file.get(_file(fd)) or Sink(
                fd, self._wake, buffer_bytes, self._counts.writer(LOST_STDERR if name == "stderr" else LOST_STDOUT)
            )
            # If stdout and stderr refer to the same file, they share a sink, so that their order is kept.
            by_file[_file(fd)] = self._sinks[name] = sink

    def start(self, streams: "Mapping[str, int]") -> None:
        """Starts the thread, which begins to read; if no thread is to be had, `without_thread` is for that.

        Args:
            streams: read end by stream name; the capture owns them from now on and closes them at their end.
        """
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH))
        self.attach(streams)
        self._poll.register(self._wakeup, select.POLLIN)
        self._start_thread()

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._run, name="capture", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread
        return self._thread is not None

    @property
    def reads(self) -> bool:
        """Whether a thread reads the output."""
        return self._thread is not None and self._thread.is_alive()

    def without_thread(self) -> bool:
        """Reads what the game has written so far, where no thread could be started (pids limit).

        Returns:
            Whether that has to be done again soon: there is still no thread.
        """
        if self._thread is not None or self._start_thread():
            return False
        until = time.monotonic() + _ROUND_SECONDS
        while self._round(0) and time.monotonic() < until:
            pass
        return True

    def attach(self, streams: "Mapping[str, int]") -> None:
        """Also reads these streams: the output of a restarted game."""
        with self._lock:
            self._new += [
                _Stream(fd, name, self._redactor.stream(), self._sinks.get(name)) for name, fd in streams.items()
            ]
        self._wake()

    def note(self, text: str) -> None:
        """Adds a line of the agent to the log at the current position; it is not passed on."""
        self._spool.append(AGENT, self._redactor.text(text).encode("utf-8", "backslashreplace") + b"\n")

    def tail(self) -> bytes:
        """The last 64 KiB of output, redacted, stdout and stderr in the order in which they were read."""
        with self._lock:
            return b"".join(self._tail)[-TAIL:]

    def look_for(self, pattern: bytes, found: "Callable[[], None]", *, from_now: bool = False) -> None:
        """Calls `found()` once, mostly from the reading thread, when a line of the output matches.

        Args:
            pattern: searched for in each line, see `LineMatcher`.
            found: must not block.
            from_now: whether to ignore output from before this call.
        """
        from agent.logs.line_matcher import LineMatcher  # noqa: PLC0415 - only where a line is looked for

        # Lines are matched for each stream separately; earlier output is treated as stdout.
        matchers = {"stdout": LineMatcher(pattern), "stderr": LineMatcher(pattern)}
        with self._lock:
            self._wanted = None
            before = b"" if from_now else b"".join(self._tail)
            if not matchers["stdout"].feed(before):
                self._matchers = matchers
                self._wanted = found
                return
        found()

    def not_found(self) -> str:
        """The output seen instead of the line for `look_for`, as half a sentence; "" if no line is being looked for."""
        from agent.logs.line_matcher import not_matched  # noqa: PLC0415 - as above

        if self._wanted is None:
            return ""
        lines = [line for matcher in self._matchers.values() for line in matcher.last_lines(3)]
        return not_matched(lines)

    def counters(self) -> "dict[str, int]":
        """Bytes read from each stream, bytes passed on and not passed on, and the spool's counters (`spool_...`)."""
        sinks = set(self._sinks.values())
        with self._lock:
            read = {f"{name}_bytes": count for name, count in self._bytes.items()}
        return {
            **read,
            "passed_on": sum(sink.written for sink in sinks),
            "not_passed_on": sum(sink.dropped for sink in sinks),
            **{f"spool_{name}": count for name, count in self._spool.counters().items()},
        }

    def unread(self) -> int:
        """How many bytes the game has written that were not read yet."""
        with self._lock:
            streams = [stream.fd for stream in (*self._streams.values(), *self._new)]
        count = 0
        for fd in streams:
            with contextlib.suppress(OSError):
                count += int.from_bytes(fcntl.ioctl(fd, _FIONREAD, bytes(4)), "little")
        return count

    def drain(self, deadline: float) -> bool:
        """Waits until everything that the game wrote is passed on and spooled, after the game has ended.

        Args:
            deadline: seconds of the monotonic clock, since a process that the game left behind may hold its output open
                forever. A consumer that reads nothing for a second is not waited for.

        Returns:
            Whether all output was passed on and spooled.
        """
        complete = True
        with self._changed:
            while self._streams or self._new:
                left = deadline - time.monotonic()
                if left <= 0 or not self.reads:
                    complete = False
                    break
                self._changed.wait(left)
        complete = self._spool.flush(deadline) and complete
        for sink in set(self._sinks.values()):
            complete = sink.drain(deadline) and complete
        return complete

    def close(self, deadline: "float | None" = None) -> None:
        """Stops reading, and lets the sinks write their buffers. The spool stays open; its owner closes it.

        Args:
            deadline: seconds of the monotonic clock until which to wait; by default one second from now.
        """
        until = time.monotonic() + 1.0 if deadline is None else deadline
        with self._lock:
            self._closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        else:
            self._end_all()
        for sink in set(self._sinks.values()):
            sink.drain(until)
            sink.end()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wakeup, 1)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._round(None)
            except (OSError, MemoryError):  # no memory for poll(): the pipes must be drained when there is some again
                time.sleep(_ROUND_SECONDS)
        self._end_all()

    def _end_all(self) -> None:
        for stream in list(self._streams.values()):
            self._end(stream)

    def _round(self, timeout: "int | None") -> bool:
        """Reads what is there; waits for it so many milliseconds, or for ever.

        Returns:
            Whether anything was read.
        """
        with self._changed:
            for stream in self._new:
                self._streams[stream.fd] = stream
                self._poll.register(stream.fd, _ALL_EVENTS)
            self._new.clear()
            if self._closing:
                return False
        for stream in [stream for stream in self._paused if not (stream.sink and stream.sink.full())]:
            self._paused.remove(stream)
            self._poll.register(stream.fd, _ALL_EVENTS)
        any_read = False
        for fd, _ in self._poll.poll(20 if self._paused and timeout is None else timeout):
            if fd == self._wakeup:
                os.eventfd_read(fd)
                continue
            stream = self._streams[fd]
            if stream.sink is not None and stream.sink.full():
                self._poll.unregister(fd)
                self._paused.append(stream)
                continue
            any_read = True
            if not self._read(stream):
                self._poll.unregister(fd)
                self._end(stream)
        return any_read

    def _read(self, stream: _Stream) -> bool:
        """Reads the available output of one stream; False at its end."""
        try:
            data = os.read(stream.fd, stream.takes)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the other side of a pseudo terminal is closed
        if not data:
            return False
        ts = time.time_ns()
        try:
            shown = stream.redacted.parts(data)
        except Exception as problem:  # whatever the error, the pipe must be drained, and no secret may be spooled
            shown = [f"[arbitrium-agent] cannot keep {len(data)} bytes ({type(problem).__name__})\n".encode()]
        if stream.sink is not None:
            stream.sink.put(b"".join(shown) if self._redact_passthrough else data)
        self._keep(stream.name, shown, ts, len(data))
        if len(data) == stream.takes:
            stream.takes = min(2 * stream.takes, _READ_MOST)
        if len(data) < _SMALL:
            stream.takes = _READ
            now = time.monotonic()
            if now - stream.read_at < 2 * _LINGER:
                time.sleep(_LINGER * stream.capacity / _PIPE)
                now = time.monotonic()
            stream.read_at = now
        return True

    def _keep(self, name: str, shown: "list[bytes | memoryview]", ts: int, count: int) -> None:
        for part in shown:
            self._spool.append(name, part, ts)
        with self._lock:
            self._bytes[name] = read = self._bytes.get(name, 0) + count
            if (cell := _CELLS.get(name)) is not None:
                self._counts[cell] = read
            for part in shown:
                end = bytes(part[-TAIL:])
                if end:
                    self._tail.append(end)
                    self._tail_size += len(end)
            while self._tail and self._tail_size - len(self._tail[0]) >= TAIL:
                self._tail_size -= len(self._tail.popleft())
        if self._wanted is not None:
            self._match(name, b"".join(shown))

    def _match(self, name: str, shown: bytes) -> None:
        """Looks for the line of `look_for`."""
        wanted, matcher = self._wanted, self._matchers.get(name)
        if wanted is not None and matcher is not None and matcher.feed(shown):
            self._wanted = None
            with contextlib.suppress(Exception):  # whatever the error, the pipe must be drained
                wanted()

    def _end(self, stream: _Stream) -> None:
        rest = stream.redacted.flush()
        if rest and stream.sink is not None and self._redact_passthrough:
            stream.sink.put(rest)
        self._keep(stream.name, [rest], time.time_ns(), 0)
        os.close(stream.fd)
        with self._changed:
            del self._streams[stream.fd]
            self._changed.notify_all()


def _file(fd: int) -> object:
    """A key that is equal for descriptors of the same file; unique for a closed one."""
    try:
        status = os.fstat(fd)
    except OSError:
        return fd
    return status.st_dev, status.st_ino

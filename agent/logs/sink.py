"""Passes the game's output on to the container's stdout or stderr. Standard library only, quick to import.

A small piece is written at once if the consumer has room for it, with a write that never blocks (`_write_at_once`). For
everything else, each sink has a thread that writes with plain blocking writes. Making the descriptor non-blocking
instead would change it for every process that shares it (the flag belongs to the open file description, man 2 fcntl),
and poll() alone does not keep a write from blocking where somebody else writes to the same pipe or terminal. A blocked
thread hurts nobody.

Between the reader of the game's output and that thread is a bounded buffer. If it is full, the game has to wait, as it
would without the agent, but only for a consumer that is active: one that read at least 1 MiB within the last second.
If a consumer hangs or reads more slowly, output is dropped instead, oldest first, counted, and reported at that place
when the consumer reads again. The spool still contains it.
"""

import contextlib
import errno
import os
import select
import threading
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BUFFER = 4 * 1024 * 1024
_ALIVE_BYTES = 1024 * 1024
_ALIVE_SECONDS = 1.0
_LINES = 500  # most waiting lines of the agent
_LINE_SECONDS = 1.0  # longest wait for the end of the game's line
# A piece of at most so many bytes is written without the thread if the consumer has room for it. More comes only from a
# flood: reading that would then never wait for anything, and the spool's thread would get too little of the CPU.
_AT_ONCE = 64 * 1024
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)  # missing where Python was built with an old C library
_PIECE = 128 * 1024  # bytes in one write, so that progress can be measured in such steps


class Sink:
    """One descriptor that output is passed on to.

    Attributes:
        fd: the descriptor; never closed here.
        written: bytes passed on.
        dropped: bytes that were dropped.
        closed: whether the reader is gone (or the descriptor was closed from the start).
    """

    __slots__ = (
        "_at_once",
        "_awaited",
        "_busy",
        "_changed",
        "_ending",
        "_here",
        "_hung",
        "_lines",
        "_lines_since",
        "_marked_at",
        "_marked_written",
        "_mid_line",
        "_pieces",
        "_size",
        "_tell_lost",
        "_thread",
        "_unsaid",
        "_wake",
        "closed",
        "dropped",
        "fd",
        "limit",
        "moved_at",
        "written",
    )

    def __init__(
        self,
        fd: int,
        wake: "Callable[[], None]",
        limit: int = BUFFER,
        tell_lost: "Callable[[int], None]" = lambda _: None,
    ) -> None:
        """Starts no thread until there is something to write.

        Args:
            fd: where to write.
            wake: called from the sink's thread when the buffer has space again.
            limit: size of the buffer in bytes.
            tell_lost: called with `dropped` each time that it grows; from any thread.
        """
        self.fd = fd
        self.limit = limit
        self.written = 0
        self.dropped = 0
        self.moved_at = time.monotonic()
        self._wake = wake
        self._tell_lost = tell_lost
        self._changed = threading.Condition(threading.Lock())
        self._pieces: deque[bytes] = deque()
        self._size = 0  # bytes in the buffer and in the write under way
        self._thread: threading.Thread | None = None
        self._ending = False
        self._here = False  # whether a caller passes it on, for want of a thread
        self._at_once = _NOWAIT != 0  # whether this kind of file can be written without waiting
        self._busy = False  # whether `put` is writing at once, so that the thread must not
        self._awaited = False  # whether `drain` waits
        self._hung = False
        self._marked_at = 0.0
        self._marked_written = 0
        self._unsaid = 0  # bytes dropped since the last report
        self._mid_line = False  # whether the last bytes end in the middle of a line
        self._lines: deque[bytes] = deque()  # lines of the agent, which wait for the end of the game's line
        self._lines_since = 0.0
        try:
            os.fstat(fd)
            self.closed = False
        except OSError:
            self.closed = True

    def on_room(self, wake: "Callable[[], None]") -> None:
        """From now on, calls `wake` from the sink's thread when the buffer has space again."""
        self._wake = wake

    @property
    def waiting(self) -> int:
        """Bytes that are not passed on yet."""
        return self._size

    def put(self, data: bytes) -> None:
        """Passes on what it can at once, and adds the rest to the buffer; never waits. Check `full` before.

        Only one thread at a time may call it.
        """
        if self.closed or not data:
            return
        with self._changed:
            at_once = self._at_once and len(data) <= _AT_ONCE and not (self._size or self._lines)
            if at_once:
                self._busy = True
                self._size = len(data)
                self._mid_line = not data.endswith(b"\n")
                self._hung = False
                self._mark()
            else:
                self._add(data)
            alone = self._alone()
        if at_once:
            rest = self._write_at_once(data)
            with self._changed:
                self._busy = False
                self._size -= len(data) - len(rest)
                if rest:
                    self._pieces.appendleft(rest)
                if self._pieces:  # the rest, or a line of the agent that came meanwhile
                    self._wake_thread()
                if self._awaited or self._ending:
                    self._changed.notify_all()
                alone = self._alone()
        if alone:
            self._pass_on_here(time.monotonic() + _ALIVE_SECONDS)

    def _write_at_once(self, data: bytes) -> bytes:
        """Writes what the consumer has room for, without waiting, which saves waking the thread; returns the rest.

        RWF_NOWAIT (man 2 pwritev2) concerns this write alone and not the descriptor. Recent kernels know it for pipes,
        sockets and /dev/null; for other files, or on other kernels, the write fails and the thread does all of it.
        """
        try:
            count = os.pwritev(self.fd, (data,), -1, _NOWAIT)
        except BlockingIOError:
            return data
        except (OSError, NotImplementedError):
            self._at_once = False  # whatever the error: if it is not about RWF_NOWAIT, the thread meets it too
            return data
        self.written += count
        return data[count:]

    def put_line(self, line: bytes) -> None:
        """Adds a whole line of the agent, which is not written inside a line of the game; never waits.

        It is written after the end of the game's line, or after a second, because a prompt has no line break.
        """
        if self.closed:
            return
        with self._changed:
            self._lines.append(line)
            self._lines_since = self._lines_since if len(self._lines) > 1 else time.monotonic()
            while len(self._lines) > _LINES:
                self._lose(len(self._lines.popleft()))
            self._add(b"")

    def _add(self, data: bytes) -> None:
        """Adds the game's bytes, and the agent's lines where a line of the game ends; with the lock held."""
        if self._lines and (not self._mid_line or b"\n" in data or self._waited_long()):
            own = b"".join(self._lines)
            self._lines.clear()
            cut = data.rfind(b"\n") + 1 if self._mid_line else 0
            if self._mid_line and not cut:
                own = b"\n" + own
            data = data[:cut] + own + data[cut:]
        if data:
            self._mid_line = not data.endswith(b"\n")
        if data or self._lines:
            if not self._size:
                self._mark()
                self._hung = False
            if data:
                self._pieces.append(data)
                self._size += len(data)
            # This happens only with a hanging consumer: for others, `full` prevents it.
            while self._hung and self._size > self.limit and len(self._pieces) > 1:
                lost = len(self._pieces.popleft())
                self._size -= lost
                self._lose(lost)
                self._unsaid += lost
            self._wake_thread()

    def _wake_thread(self) -> None:
        """Has the thread write what is in the buffer; with the lock held."""
        if self._thread is None and not self._here:
            thread = threading.Thread(target=self._run, name=f"sink-{self.fd}", daemon=True)
            # No more threads at present (pids limit): tried again next time.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread
        elif self._thread is not None:
            self._changed.notify()

    def _waited_long(self) -> bool:
        return time.monotonic() - self._lines_since >= _LINE_SECONDS

    def full(self) -> bool:
        """Whether the game has to wait: the buffer is full, and its consumer is active."""
        if self.closed or self._size < self.limit:
            return False
        with self._changed:
            now = time.monotonic()
            if self.written - self._marked_written >= _ALIVE_BYTES:
                self._hung = self._hung and now - self._marked_at > _ALIVE_SECONDS
                self._mark()
            elif now - self._marked_at > _ALIVE_SECONDS:
                self._hung = True
                self._mark()
            return not self._hung

    def drain(self, deadline: float) -> bool:
        """Waits until everything is passed on, the deadline (monotonic seconds), or a second without progress."""
        with self._changed:
            if self._lines:
                self._lines_since = 0.0
                self._add(b"")
            alone = self._alone()
        if alone:
            return self._pass_on_here(deadline)
        with self._changed:
            self._awaited = True
            while self._size and not self.closed:
                now = time.monotonic()
                until = min(deadline, max(self.moved_at, self._marked_at) + _ALIVE_SECONDS)
                if now >= until:
                    break
                self._changed.wait(until - now)
            self._awaited = False
            return self.closed or not self._size

    def end(self) -> None:
        """Ends the thread when the buffer is empty; nothing may be added after this."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _mark(self) -> None:
        self._marked_at = time.monotonic()
        self._marked_written = self.written

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._busy or not self._pieces:
                    if self._ending and not self._busy:
                        return
                    self._changed.wait(_LINE_SECONDS / 4 if self._lines else None)
                    if self._lines and self._waited_long():
                        self._add(b"")
                piece = self._pieces.popleft()
                # The dropped bytes were right before this piece.
                unsaid, self._unsaid = self._unsaid, 0
            if unsaid:
                self._write(
                    b"\n[arbitrium-agent] cannot pass on all output: %d bytes are missing here because nobody read "
                    b"fast enough; look for them in the spool or in the shipped log\n" % unsaid
                )
            self._write(piece)
            with self._changed:
                was_full = self._size >= self.limit // 2
                self._size -= len(piece)
                self._drop_rest_if_closed()
                self._changed.notify_all()
                freed = was_full and self._size < self.limit // 2
            if freed or self.closed:
                self._wake()
            if self.closed:
                return

    def _alone(self) -> bool:
        """Whether the caller has to pass on what waits, because there is no thread for it; with the lock held."""
        alone = self._thread is None and not (self._here or self._busy) and self._size > 0
        self._here = self._here or alone
        return alone

    def _pass_on_here(self, deadline: float) -> bool:
        """Passes on what waits where no thread is to be had (pids limit), until the deadline.

        Returns:
            Whether all of it was passed on.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        # So few bytes never make a pipe that has room for any block (man 7 pipe, PIPE_BUF).
        while not self.closed and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            with self._changed:
                if not self._pieces:
                    break
                piece = self._pieces.popleft()
                if len(piece) > select.PIPE_BUF:
                    self._pieces.appendleft(piece[select.PIPE_BUF :])
                    piece = piece[: select.PIPE_BUF]
            self._write(piece)
            with self._changed:
                self._size -= len(piece)
        with self._changed:
            self._drop_rest_if_closed()
            self._here = False
            self._changed.notify_all()
            return not self._pieces

    def _lose(self, count: int) -> None:
        self.dropped += count
        self._tell_lost(self.dropped)

    def _drop_rest_if_closed(self) -> None:
        """Counts what can be passed on no more, and forgets it; with the lock held."""
        if self.closed:
            self._lose(sum(map(len, self._pieces)))
            self._pieces.clear()
            self._size = 0

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            try:
                count = os.write(self.fd, view[:_PIECE])
            except BlockingIOError:
                # Another process made the descriptor non-blocking.
                waiter = select.poll()
                waiter.register(self.fd, select.POLLOUT)
                waiter.poll(1000)
                continue
            except OSError as problem:
                self._lose(len(view))
                # A full disk may have space later; all other errors are final (EPIPE, EIO, EBADF).
                self.closed = problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
                return
            view = view[count:]
            self.written += count
            self.moved_at = time.monotonic()

"""The game's stdin as a pipe of the agent, if a stop method writes a line to it. Standard library only.

Input from the container's stdin is passed on. When that ends, the pipe stays open: a container's stdin is usually
/dev/null, and a game might treat end-of-file as a request to end, long before the stop line.

Only the running game holds the read end, so that a write fails if the game has closed its stdin.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import termios
import threading

_READ = 64 * 1024
_LOOK_MS = 100  # how often a waiting write checks whether the game was restarted


class StdinPipe:
    """The pipe. Everything that reaches the game's stdin goes through it."""

    def __init__(self) -> None:
        """Creates no pipe yet; see `renew`."""
        self._lock = threading.Lock()
        self._write_end = -1
        self._generation = 0
        self._mid_line = False  # whether the input passed on so far ends in the middle of a line
        self._thread: threading.Thread | None = None

    def renew(self) -> int:
        """Creates a new pipe for a game that is started; unread input of the old pipe is discarded.

        Returns:
            The read end, for the game. The caller closes it after the game was started.

        Raises:
            OSError: no pipe can be created.
        """
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        with self._lock:
            old, self._write_end = self._write_end, write_end
            self._generation += 1
        if old >= 0:
            os.close(old)
        return read_end

    def start(self) -> None:
        """Starts passing on the input of descriptor 0, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._pass_on, name="stdin", daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread (pids limit): the stop line works
                self._thread.start()

    def write_line(self, line: str) -> str:
        """Writes a line to the game, without waiting.

        Returns:
            "" if it was written; else the reason: the game has closed its stdin, or does not read it.
        """
        # Ends a half-typed command first, so that it is not joined with the line.
        data = b"\n" * self._mid_line + line.encode() + b"\n"
        with self._lock:
            try:
                written = os.write(self._write_end, data)
            except BlockingIOError:
                return "the game does not read its stdin"
            except OSError as problem:
                return f"the game has closed its stdin ({os.strerror(problem.errno or 0).lower()})"
        return "" if written == len(data) else "the game does not read its stdin"

    def unread(self) -> int:
        """How many bytes in the pipe the game has not read; 0 if that is unknown."""
        with self._lock:
            try:
                # Linux answers on either end of a pipe (man 7 pipe: FIONREAD).
                count = fcntl.ioctl(self._write_end, termios.FIONREAD, bytes(4))
            except OSError:
                return 0
        return int.from_bytes(count, "little")

    def _pass_on(self) -> None:
        while True:
            try:
                data = os.read(0, _READ)
            except OSError:
                return
            if not data:
                return
            self._mid_line = not data.endswith(b"\n")
            self._write_all(memoryview(data))

    def _write_all(self, view: memoryview) -> None:
        """Writes to the current pipe; if the game is restarted meanwhile, the rest is discarded."""
        generation = self._generation
        while view:
            with self._lock:
                if self._generation != generation:
                    return
                try:
                    view = view[os.write(self._write_end, view) :]
                    continue
                except BlockingIOError:
                    waiting = self._write_end
                except OSError:
                    return
            # During the wait, the descriptor may be closed or reused by another pipe, so the generation is checked
            # next.
            poll = select.poll()
            poll.register(waiting, select.POLLOUT)
            poll.poll(_LOOK_MS)

"""The game's stdin as a pipe of ours, where a stop method writes a line to it. Standard library only.

What the container's stdin gives is passed on as it comes. At its end the pipe stays open: a container's stdin is mostly
/dev/null, and a game that reads end-of-file would take it for a wish to end, long before the stop line.

Only the game holds the read end once it runs, so that a write to a game that has closed its stdin fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import termios
import threading

_READ = 64 * 1024
_LOOK_MS = 100  # how often a write that waits looks whether the game was started again


class StdinPipe:
    """The pipe. Everything that reaches the game's stdin goes through it."""

    def __init__(self) -> None:
        """Makes no pipe yet; see `renew`."""
        self._lock = threading.Lock()
        self._write_end = -1
        self._generation = 0
        self._mid_line = False  # whether what was passed on so far ends in the middle of a line
        self._thread: threading.Thread | None = None

    def renew(self) -> int:
        """A new pipe for a game that is started: what an old one left unread is not for it.

        Returns:
            The read end, for the game. Who calls closes it once the game has it.

        Raises:
            OSError: no pipe can be made.
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
        """Begins to pass on what comes in on descriptor 0, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._pass_on, name="stdin", daemon=True)
            with contextlib.suppress(
                RuntimeError
            ):  # no more threads (pids limit): the stop line is written all the same
                self._thread.start()

    def write_line(self, line: str) -> str:
        """Writes a line to the game, without waiting.

        Returns:
            "" when it is written; else why it is not: the game has closed its stdin, or does not read it.
        """
        # A command that somebody has half typed must not become one with the line.
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
        """How many bytes lie in the pipe that the game has not read; 0 where that cannot be known."""
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
        """Writes to the pipe as it is now; what a game that was started again did not read is lost with it."""
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
            # The number may be closed, or be another pipe's, while this waits: a look at the generation follows.
            poll = select.poll()
            poll.register(waiting, select.POLLOUT)
            poll.poll(_LOOK_MS)

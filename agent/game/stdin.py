"""The game's stdin as a pipe of ours, where a stop method writes a line to it. Standard library only.

What the container's stdin gives is passed on as it comes. At its end the pipe stays open: a container's stdin is mostly
/dev/null, and a game that reads end-of-file would take it for a wish to end, long before the stop line.
"""

import os
import threading

_READ = 64 * 1024


class StdinPipe:
    """The pipe. Everything that reaches the game's stdin goes through it."""

    __slots__ = ("_lock", "_mid_line", "_write_end", "read_end")

    def __init__(self) -> None:
        """Makes the pipe and begins to pass on what comes in on descriptor 0."""
        self.read_end, self._write_end = os.pipe()
        self._lock = threading.Lock()
        self._mid_line = False  # whether what was passed on so far ends in the middle of a line
        threading.Thread(target=self._pass_on, name="stdin", daemon=True).start()

    def renew(self) -> None:
        """A new pipe for a game that is started again: what the old one left unread is not for it."""
        read_end, write_end = os.pipe()
        with self._lock:
            old, self._write_end = self._write_end, write_end
        os.close(self.read_end)
        self.read_end = read_end
        os.close(old)

    def write_line(self, line: str) -> str:
        """Writes a line to the game.

        Returns:
            "" when it is written; else why it is not: the game has closed its stdin, or does not read it.
        """
        # A command that somebody has half typed must not become one with the line.
        data = b"\n" * self._mid_line + line.encode() + b"\n"
        descriptor = os.dup(self._write_end)
        try:
            os.set_blocking(descriptor, False)
            written = os.write(descriptor, data)
            return "" if written == len(data) else "the game does not read its stdin"
        except BlockingIOError:
            return "the game does not read its stdin"
        except OSError as problem:
            return f"the game has closed its stdin ({os.strerror(problem.errno or 0).lower()})"
        finally:
            os.close(descriptor)

    def _pass_on(self) -> None:
        while True:
            try:
                data = os.read(0, _READ)
            except OSError:
                return
            if not data:
                return
            view = memoryview(data)
            self._mid_line = not data.endswith(b"\n")
            while view:
                with self._lock:
                    descriptor = self._write_end
                try:
                    view = view[os.write(descriptor, view) :]
                except BlockingIOError:
                    threading.Event().wait(0.02)
                except OSError:
                    break

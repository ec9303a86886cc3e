"""Between the emulator and one game: what a container's kernel namespace does, without one.

Run as a script of its own (`python -I -S shim.py FD LINGER DIRECTORY CLEAN_UP COMMAND...`), standard library only, so
that it starts in some 20 ms. It starts the game in a session of its own, adopts every process the game leaves behind
(a game that forks a daemon, or whose shell dies first), and when the game ends, kills and reaps them all, as the
kernel does when PID 1 of a container ends. FD is one end of a socket pair: the emulator sends `T` (SIGTERM to the
game) and `K` (SIGKILL to all), and reads one JSON object a line: `started`, `failed` or `exited`. When the emulator
is gone, even by SIGKILL, the socket ends and so does everything here; then CLEAN_UP is run, a JSON list (empty for
none): a container of an engine's daemon is not below this process, and every engine keeps a record of what it started.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
KILL_SECONDS = 10.0


def descendants(root: int) -> list[int]:
    """Every live process below `root`, read from `/proc`; zombies do not count."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
            # The name stands in parentheses and may hold anything, spaces and parentheses too.
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state not in b"ZX":
                children.setdefault(int(parent), []).append(int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def spawn(command: list[str], directory: str | None, control: int) -> int:
    """Fork and execute the game; returns its PID.

    Raises:
        OSError: it could not be executed.
    """
    reader, writer = os.pipe()  # closed by a successful exec, carries errno otherwise
    child = os.fork()
    if child == 0:
        try:
            os.close(control)
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (
                signal.SIGINT,
                signal.SIGTERM,
                signal.SIGHUP,
                signal.SIGCHLD,
                signal.SIGPIPE,
                signal.SIGXFSZ,
            ):
                signal.signal(number, signal.SIG_DFL)
            if directory:
                os.chdir(directory)
            os.execvp(command[0], command)  # noqa: S606 - no shell is wanted between
        except OSError as error:
            os.write(writer, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    if told:
        os.waitpid(child, 0)
        raise OSError(int(told), os.strerror(int(told)))
    return child


class Shim:
    """The loop around one game."""

    def __init__(self, control: socket.socket) -> None:
        """`control` is the emulator's end of the conversation."""
        self.control = control
        self.game = 0
        self.status: int | None = None
        self.orphaned = False
        self.wake, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        os.set_blocking(self.wake, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def say(self, **what: object) -> None:
        """Tell the emulator, if it is still there."""
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps(what).encode() + b"\n")

    def reap(self) -> bool:
        """Collect every child that ended; False when no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.game:
                self.status = status

    def pause(self, seconds: float | None) -> bytes | None:
        """Wait for a child's end or a word from the emulator; returns that word, b"" when it is gone."""
        ready, _, _ = select.select([self.control.fileno(), self.wake], [], [], seconds)
        if self.wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
        if self.control.fileno() not in ready:
            return None
        word = b""
        with contextlib.suppress(OSError):
            word = self.control.recv(64)
        self.orphaned = not word
        return word

    def until_the_end(self) -> None:
        """Serve the emulator until the game ends or is to be killed."""
        while self.status is None:
            word = self.pause(None)
            if word is not None:
                if b"T" in word:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.game, signal.SIGTERM)
                if not word or b"K" in word:
                    return
            self.reap()

    def linger(self, seconds: float) -> None:
        """Leave what the game started some time to end by itself (a container engine that tidies up)."""
        deadline = time.monotonic() + seconds
        while self.reap() and time.monotonic() < deadline:
            if self.pause(0.05) == b"":
                return

    def kill_all(self) -> int:
        """SIGKILL until nothing is left; returns how many could not be killed within `KILL_SECONDS`."""
        deadline = time.monotonic() + KILL_SECONDS
        while True:
            left = descendants(os.getpid())
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if (not self.reap() and not left) or time.monotonic() > deadline:
                return len(left)
            select.select([self.wake], [], [], 0.02)
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)

    def clean_up(self, command: list[str]) -> None:
        """Do what the emulator would have done; nobody reads what it says."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        with contextlib.suppress(OSError):
            spawn(command, None, self.control.fileno())
            deadline = time.monotonic() + KILL_SECONDS
            while self.reap() and time.monotonic() < deadline:
                select.select([self.wake], [], [], 0.05)
        self.kill_all()


def main(arguments: list[str]) -> int:
    """Run one game; see the module."""
    control_fd, linger, directory = int(arguments[0]), float(arguments[1]), arguments[2] or None
    clean_up, command = json.loads(arguments[3]), arguments[4:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the emulator tells it what to do
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.set_inheritable(control_fd, False)
    shim = Shim(socket.socket(fileno=control_fd))
    try:
        shim.game = spawn(command, directory, control_fd)
    except OSError as error:
        shim.say(failed=error.strerror or str(error), errno=error.errno)
        return 1
    shim.say(started=shim.game)
    shim.until_the_end()
    ended_by_itself = shim.status is not None
    if ended_by_itself:
        shim.linger(linger)
    left = shim.kill_all()
    if shim.orphaned and clean_up:
        shim.clean_up(clean_up)
        return 0
    status = shim.status if shim.status is not None else signal.SIGKILL
    shim.say(exited=os.waitstatus_to_exitcode(status), left=left)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

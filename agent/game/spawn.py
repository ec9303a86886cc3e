"""Starts the game. Standard library only: this runs before anything heavy is imported.

The game gets a session (and with it a process group) of its own, so that a signal reaches all of it and never the
agent. Where its output is captured it writes into pipes of ours; where it would have written to a terminal it gets a
pseudo terminal instead, so that it sees no difference.
"""

import errno
import os
import subprocess
import time

from agent.errors import EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND, CannotStartError
from agent.game import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.game.user import User


class Game:
    """A game that was started.

    Attributes:
        pid: the process that was executed, which leads its session and its process group.
        main_pid: the one whose end is the game's end: `pid`, unless the game names another one (sd_notify's MAINPID).
        command: what was executed.
        started_at: seconds of the monotonic clock.
        streams: read ends of its captured output by name ("stdout", "stderr"); empty when it is not captured. On a
            terminal both go through "stdout".
    """

    __slots__ = ("_popen", "command", "main_pid", "pid", "started_at", "streams")

    def __init__(self, popen: "subprocess.Popen[bytes]", command: "list[str]", streams: "dict[str, int]") -> None:
        """Takes a process that runs."""
        self.pid = self.main_pid = popen.pid
        self.command = command
        self.started_at = time.monotonic()
        self.streams = streams
        # Popen waits for its process when it is thrown away or asked; with an exit code it believes that it did. The
        # reaper is the only one that waits.
        popen.returncode = 0
        self._popen = popen

    def groups(self) -> "list[int]":
        """The process groups that signals go to: its own, and that of its main process where that made another."""
        if self.main_pid == self.pid:
            return [self.pid]
        try:
            return list(dict.fromkeys((os.getpgid(self.main_pid), self.pid)))
        except ProcessLookupError:
            return [self.pid]


def spawn(
    command: "list[str]",
    env: "dict[str, str]",
    *,
    cwd: "str | None" = None,
    capture: bool = True,
    stdin: "int | None" = None,
    tty: bool = False,
    user: "User | None" = None,
) -> Game:
    """Executes the game.

    Args:
        command: the program (looked up in the PATH of `env`) and its arguments; not empty.
        env: its whole environment.
        cwd: its working directory, or None for the agent's.
        capture: whether its stdout and stderr go through the agent.
        stdin: descriptor for its stdin, or None for the agent's own.
        tty: whether its captured stdout is a pseudo terminal also where the agent's is none.
        user: whom to run as, or None for the agent's user.

    Returns:
        The running game; exec has succeeded when this returns.

    Raises:
        CannotStartError: it cannot be found (127) or executed (126).
    """
    streams: dict[str, int] = {}
    ours: dict[str, int] = {}
    try:
        if capture:
            streams, ours = terminal.open_streams(terminal=tty)
        who = {}
        if user is not None:
            from agent.game.user import identity  # noqa: PLC0415 - most games run as the agent does

            user.own({*ours.values(), *(() if stdin is None else (stdin,))})
            who = identity(user)
        popen = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=ours.get("stdout"),
            stderr=ours.get("stderr"),
            start_new_session=True,
            **who,
            # A game whose stdin is a pipe of ours leaves the terminal to the agent: Ctrl-C is a stop like any other
            # then, beginning with the line that the pipe is for.
            preexec_fn=terminal.taking_over() if stdin is None else None,  # noqa: PLW1509 - with a terminal; one ioctl
        )
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        for fd in streams.values():
            os.close(fd)
        raise _cannot_start(command, cwd, problem) from None
    finally:
        for fd in set(ours.values()):
            os.close(fd)
    return Game(popen, command, streams)


def _cannot_start(command: "list[str]", cwd: "str | None", problem: Exception) -> CannotStartError:
    program = command[0]
    if cwd is not None and isinstance(problem, OSError) and problem.filename == cwd:
        return CannotStartError(
            f"cannot start {program!r}: its working directory {cwd} {_why(problem)}; correct AGENT_WORKDIR",
            EXIT_CANNOT_EXECUTE,
        )
    code = getattr(problem, "errno", None)
    if code in (errno.ENOENT, errno.ENOTDIR):
        if os.path.isfile(program):
            return CannotStartError(
                f"cannot start {program!r}: the file is there, but the interpreter or loader that it names is not; "
                "look at its first line (Windows line endings? then run dos2unix on it) or install what it needs",
                EXIT_NOT_FOUND,
            )
        return CannotStartError(
            f"cannot start {program!r}: no such program; check the path, or the PATH, of CMD in the "
            "Dockerfile, or of what follows `--`",
            EXIT_NOT_FOUND,
        )
    if code == errno.EACCES:
        hint = "it is a directory" if os.path.isdir(program) else "it may not be executed; run chmod +x on it"
        return CannotStartError(f"cannot start {program!r}: {hint}", EXIT_CANNOT_EXECUTE)
    if code == errno.ENOEXEC:
        return CannotStartError(
            f"cannot start {program!r}: it is neither a program for this machine nor a script with a #! line; "
            "build it for this architecture, or start a script as `sh script`",
            EXIT_CANNOT_EXECUTE,
        )
    return CannotStartError(
        f"cannot start {program!r}: {_why(problem)}; correct CMD in the Dockerfile, or what follows `--`",
        EXIT_CANNOT_EXECUTE,
    )


def _why(problem: Exception) -> str:
    return os.strerror(problem.errno).lower() if isinstance(problem, OSError) and problem.errno else str(problem)

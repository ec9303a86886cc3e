"""Starts the game. Standard library only: this runs before anything heavy is imported.

The game gets a separate session (and process group), so that a signal reaches all of it and never the agent. If its
output is captured, it writes into pipes of the agent, or into a pseudo terminal if it would have had a terminal, so
that it behaves in the same way.
"""

import errno
import os
import time

from agent.errors import EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND, CannotStartError
from agent.game import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from agent.game.user import User
else:
    import _signal  # the C part of `signal`, which would import `enum` first: half as long as an interpreter's start


RAISE_LIMITS = "raise the container's limits (descriptors, processes, memory)"
"""What to do where the kernel refuses to start a process for want of something."""

_TOO_LITTLE = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


class Game:
    """A game that was started.

    Attributes:
        pid: the executed process, the leader of its session and process group.
        main_pid: the process whose end is the game's end: `pid`, unless the game names another one (sd_notify's
            MAINPID).
        command: the executed command.
        started_at: seconds of the monotonic clock.
        streams: read ends of its captured output by name ("stdout", "stderr"); empty if it is not captured. On a
            terminal both go through "stdout".
    """

    __slots__ = ("command", "main_pid", "pid", "started_at", "streams")

    def __init__(self, pid: int, command: "list[str]", streams: "dict[str, int]") -> None:
        """Takes a process that runs."""
        self.pid = self.main_pid = pid
        self.command = command
        self.started_at = time.monotonic()
        self.streams = streams

    def groups(self) -> "list[int]":
        """The process groups that signals go to: its own, and that of its main process if it has another one."""
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
        tty: whether its captured stdout is a pseudo terminal even if the agent's is not.
        user: the user to run as, or None for the agent's user.

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
        # If the game's stdin is a pipe of the agent, the terminal stays with the agent: Ctrl-C is then a normal stop,
        # which begins with the line written to the pipe.
        take_terminal = terminal.taking_over() if stdin is None else None
        if cwd is None and user is None and take_terminal is None and _keep_descriptors():
            pid = _execute(command, env, stdin, ours)
        else:
            pid = _execute_as(command, env, stdin, ours, cwd, user, take_terminal)
    except (OSError, ValueError) as problem:
        for fd in streams.values():
            os.close(fd)
        raise _cannot_start(command, cwd, problem) from None
    finally:
        for fd in set(ours.values()):
            os.close(fd)
    return Game(pid, command, streams)


def _execute(command: "list[str]", env: "dict[str, str]", stdin: "int | None", ours: "dict[str, int]") -> int:
    """Executes the game in the usual case without `subprocess`, whose import takes longer than the interpreter's start.

    Like `subprocess`: in a new session, with the signals that Python ignores reset to the default.
    Unlike it, glibc leaves its two internal signals (32 and 33) ignored, as in whatever `make` starts; each program's
    own C library sets them up when it needs them.
    """
    given = {0: stdin, 1: ours.get("stdout"), 2: ours.get("stderr")}
    places = [(os.POSIX_SPAWN_DUP2, fd, as_fd) for as_fd, fd in given.items() if fd is not None]
    program = command[0]
    paths = [program] if "/" in program else [os.path.join(folder, program) for folder in _search_path(env)]
    failure: OSError | None = None
    for path in paths:
        try:
            return os.posix_spawn(
                path, command, env, file_actions=places, setsid=True, setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ)
            )
        except (FileNotFoundError, NotADirectoryError) as problem:
            failure = failure or problem
        except OSError as problem:
            # "Found but not executable" is a better error than "not found" in the other directories.
            if failure is None or failure.errno in (errno.ENOENT, errno.ENOTDIR):
                failure = problem
    raise failure or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)


def _search_path(env: "dict[str, str]") -> "list[str]":
    return env.get("PATH", os.defpath).split(":")


def _keep_descriptors() -> bool:
    """Closes inherited descriptors other than 0 to 2 on exec; False if they cannot be listed.

    Descriptors that Python opens are closed on exec anyway (PEP 446).
    """
    try:
        open_ones = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return False
    for fd in open_ones:
        try:
            if fd > 2 and os.get_inheritable(fd):
                os.set_inheritable(fd, False)
        except OSError:
            continue  # the descriptor that the list was read from
    return True


def _execute_as(
    command: "list[str]",
    env: "dict[str, str]",
    stdin: "int | None",
    ours: "dict[str, int]",
    cwd: "str | None",
    user: "User | None",
    take_terminal: "Callable[[], None] | None",
) -> int:
    """Executes the game in another directory, as somebody else, or on a terminal that it takes over."""
    import subprocess  # noqa: PLC0415 - see above

    who = {}
    if user is not None:
        from agent.game.user import identity  # noqa: PLC0415 - most games run as the agent does

        user.own({*ours.values(), *(() if stdin is None else (stdin,))})
        who = identity(user)
    try:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=ours.get("stdout"),
            stderr=ours.get("stderr"),
            start_new_session=True,
            **who,
            preexec_fn=take_terminal,  # noqa: PLW1509 - one ioctl
        )
    except subprocess.SubprocessError as problem:
        raise ValueError(str(problem)) from None
    # Popen waits for its process when it is deleted or polled; setting an exit code prevents that, since only the
    # reaper may wait.
    process.returncode = 0
    return process.pid


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
        if os.path.isdir(program):
            hint = "it is a directory; name the program in it"
        else:
            hint = "it may not be executed; run chmod +x on it"
        return CannotStartError(f"cannot start {program!r}: {hint}", EXIT_CANNOT_EXECUTE)
    if code == errno.ENOEXEC:
        return CannotStartError(
            f"cannot start {program!r}: it is neither a program for this machine nor a script with a #! line; "
            "build it for this architecture, or start a script as `sh script`",
            EXIT_CANNOT_EXECUTE,
        )
    hint = RAISE_LIMITS if code in _TOO_LITTLE else "correct CMD in the Dockerfile, or what follows `--`"
    return CannotStartError(f"cannot start {program!r}: {_why(problem)}; {hint}", EXIT_CANNOT_EXECUTE)


def _why(problem: Exception) -> str:
    return os.strerror(problem.errno).lower() if isinstance(problem, OSError) and problem.errno else str(problem)

"""Pipes or pseudo terminals for the game's output, and the controlling terminal. Standard library only.

A program on a terminal behaves differently from one on a pipe (colours, line buffering), so the game must get the same
as without the agent: a terminal if the agent has one, otherwise a pipe. AGENT_TTY uses a terminal instead of a pipe,
for servers that buffer their output on a pipe.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def open_streams(*, terminal: bool = False) -> "tuple[dict[str, int], dict[str, int]]":
    """Creates the pipes or pseudo terminals that the game writes to.

    Args:
        terminal: whether stdout is always a pseudo terminal (AGENT_TTY).

    Returns:
        The read ends by name, for the capture; and the write ends by name, for the game (to be closed once it has
        them). If stdout and stderr are terminals, they share one pseudo terminal, as they did before, and all output
        is read as "stdout".
    """
    read_ends: dict[str, int] = {}
    write_ends: dict[str, int] = {}
    shared: int | None = None
    try:
        for name, fd in (("stdout", 1), ("stderr", 2)):
            if not os.isatty(fd) and terminal and name == "stdout":
                read_ends[name], write_ends[name] = _pseudo_terminal(None)
            elif not os.isatty(fd):
                read_ends[name], write_ends[name] = os.pipe()
                _let_others_write(write_ends[name])
            elif shared is not None:
                write_ends[name] = shared
            else:
                read_ends[name], shared = _pseudo_terminal(fd)
                write_ends[name] = shared
    except OSError:
        for fd in {*read_ends.values(), *write_ends.values()}:
            os.close(fd)
        raise
    return read_ends, write_ends


def _let_others_write(pipe: int) -> None:
    """Lets any user of the container open a pipe again, by the name of /dev/stdout, to write to it and not to read.

    A pipe is its maker's alone. A start script that is root's and gives up its rights (gosu, su-exec, setpriv) could
    not have a server that opens /dev/stdout as its log: that fails in plain containers too (moby/moby#31243).
    """
    try:
        os.fchmod(pipe, 0o622)
    except OSError:
        return  # a server that writes to the descriptor it has needs no right


def _pseudo_terminal(like: "int | None") -> "tuple[int, int]":
    import termios  # noqa: PLC0415 - only where there is a terminal

    master, slave = os.openpty()
    try:
        attributes = termios.tcgetattr(slave if like is None else like)
        # The real terminal translates line ends when the bytes are passed on to it; it must not be done twice. Without
        # a real terminal, the log should have the line ends that the game writes.
        attributes[1] &= ~termios.OPOST
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        if like is not None:
            copy_size(like, master)
        else:
            termios.tcsetwinsize(slave, (24, 80))
    except (termios.error, OSError):
        pass  # a terminal with other settings is still a terminal
    return master, slave


def copy_size(source: int, target: int) -> None:
    """Gives terminal `target` the rows and columns of terminal `source`; raises `OSError` if one is not a terminal."""
    import fcntl  # noqa: PLC0415 - only where there is a terminal
    import termios  # noqa: PLC0415

    fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


def taking_over() -> "Callable[[], None] | None":
    """What the game's process must do before exec to own the terminal on stdin; None if stdin is not a terminal.

    With `docker run -it` the agent is the session leader of the container's terminal. The game has a separate session;
    without the terminal as its controlling terminal, Ctrl-C would not reach it and a shell would have no job control.
    So the agent releases the terminal here, and the game takes it after `setsid` (man 2 ioctl_tty). If another session
    owns the terminal (an agent started from a shell), nothing changes and Ctrl-C reaches the agent.
    """
    if not os.isatty(0):
        return None
    import fcntl  # noqa: PLC0415 - only where there is a terminal
    import signal  # noqa: PLC0415
    import termios  # noqa: PLC0415

    if os.getsid(0) == os.getpid():
        # Releasing it sends SIGHUP and SIGCONT to the foreground group, which is the agent; they can be ignored.
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            fcntl.ioctl(0, termios.TIOCNOTTY)
        except OSError:
            pass
        finally:
            signal.signal(signal.SIGHUP, before)

    def take() -> None:
        try:  # noqa: SIM105 - contextlib is not imported before the game is started
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        except OSError:
            pass  # another session has it

    return take

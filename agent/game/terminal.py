"""Pipes or pseudo terminals for the game's output, and the controlling terminal. Standard library only.

A program on a terminal behaves differently from one on a pipe (colours, buffering by line), so the game must find what
it would find without the agent: a terminal where the agent has one, a pipe where it has none. AGENT_TTY makes a
terminal of a pipe, for servers that keep their lines back on one.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def open_streams(*, terminal: bool = False) -> "tuple[dict[str, int], dict[str, int]]":
    """Makes what the game writes to.

    Args:
        terminal: whether stdout is a pseudo terminal in any case (AGENT_TTY).

    Returns:
        The read ends by name, for the capture; and the write ends by name, for the game (to be closed once it has
        them). Where stdout and stderr are terminals both share one pseudo terminal, as they did before, and
        everything is read as "stdout".
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


def _pseudo_terminal(like: "int | None") -> "tuple[int, int]":
    import termios  # noqa: PLC0415 - only where there is a terminal

    master, slave = os.openpty()
    try:
        attributes = termios.tcgetattr(slave if like is None else like)
        # The real terminal translates line ends when the bytes are passed on to it; doing it here too would double it.
        # Where there is none, a log is to have the line ends that the game writes.
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
    """Gives terminal `target` the rows and columns of terminal `source`; raises `OSError` where one is no terminal."""
    import fcntl  # noqa: PLC0415 - only where there is a terminal
    import termios  # noqa: PLC0415

    fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


def taking_over() -> "Callable[[], None] | None":
    """What the game's process has to do before exec to own the terminal that stdin is, or None where it is none.

    With `docker run -it` the agent leads the session of the container's terminal. The game has a session of its own;
    without the terminal as its controlling one, Ctrl-C would not reach it and a shell could not do job control. So the
    agent lets go of it here, and the game takes it after `setsid` (man 2 ioctl_tty). Where another session owns the
    terminal (an agent started from a shell), nothing changes and Ctrl-C comes to the agent.
    """
    if not os.isatty(0):
        return None
    import fcntl  # noqa: PLC0415 - only where there is a terminal
    import signal  # noqa: PLC0415
    import termios  # noqa: PLC0415

    if os.getsid(0) == os.getpid():
        # Letting go of it sends SIGHUP and SIGCONT to the foreground group: that is us, and it means nothing here.
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

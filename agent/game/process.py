"""The game as it runs: started, signalled, reaped, and started again. Standard library only.

The init's main thread is the only one that uses this: starting a process, noting it and reaping it never overlap.
"""

from __future__ import annotations

import os
import time

from agent.errors import EXIT_CANNOT_EXECUTE, CannotStartError
from agent.game.cgroup import read_cgroup
from agent.game.spawn import spawn
from agent.game.tree import descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from agent.game.cgroup import CgroupReading
    from agent.game.reaper import Reaper
    from agent.game.spawn import Game
    from agent.game.stdin import StdinPipe
    from agent.game.user import User
    from agent.logs.capture import Capture
else:
    import _signal as signal  # the C part: see agent.game.spawn

# The kernel takes the process with the highest score when memory runs out: that is to be the game, which the agent can
# tell of, and never the agent. In thousandths of the memory there is (man 5 proc, oom_score_adj).
_OOM_MORE = 300
_OOM_MOST = 1000
_OOM_FILE = "/proc/self/oom_score_adj"
# How long a game that forks without end is listed and suspended before it is killed.
_FREEZE_SECONDS = 0.1
_MANY = 8
# A process group whose parents are all in other sessions is orphaned, and the kernel never suspends it for these (man 7
# credentials, "orphaned process group"): SIGSTOP does what was meant.
_SUSPENDING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class GameProcess:
    """What the game is started with, and its present start.

    Attributes:
        command: its program and arguments.
        env: its environment.
        workdir: its working directory, or None for the agent's.
        user: whom it runs as, or None for the agent's user.
        stdin: its stdin, where a stop method writes to it; else None, and it has the container's.
        tty: whether its captured stdout is a pseudo terminal in any case.
        captured: whether its output is read: not with AGENT_CAPTURE=off.
        capture: what reads it; None before the first start, see `read_output`.
        reaper: the only one that waits for processes.
        ignored: signals that were ignored when the agent was started (`nohup`): the game has to find them so.
        blocked: signals that were blocked then, likewise.
        game: the running game, or None where it could not be started: then `failure` says why.
        cgroup: what the container's cgroup had counted when the game was started.
    """

    def __init__(self, command: list[str], reaper: Reaper) -> None:
        """Starts nothing; the rest is set while the start is prepared."""
        self.command = command
        self.reaper = reaper
        self.env: dict[str, str] = {}
        self.workdir: str | None = None
        self.user: User | None = None
        self.stdin: StdinPipe | None = None
        self.tty = False
        self.captured = True
        self.capture: Capture | None = None
        self.ignored: list[int] = []
        self.blocked: set[int] = set()
        self.game: Game | None = None
        self.failure: CannotStartError | None = None
        self.cgroup: CgroupReading | None = None

    def start(self) -> None:
        """Starts the game; a failure is kept in `failure` for the lifecycle to deal with. Raises nothing."""
        self.game, self.failure = None, None
        read_end: int | None = None
        # What is ignored stays ignored through exec, and what has a handler does not; the mask stays as it is.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in self.ignored}
        signal.pthread_sigmask(signal.SIG_BLOCK, self.blocked)
        try:
            self.cgroup = read_cgroup()
            if self.stdin is not None:
                read_end = self.stdin.renew()
            score = _raise_oom_score()
            try:
                self.game = spawn(
                    self.command,
                    self.env,
                    cwd=self.workdir,
                    capture=self.captured,
                    stdin=read_end,
                    tty=self.tty,
                    user=self.user,
                )
            finally:
                _lower_oom_score(score)
        except CannotStartError as failure:
            self.failure = failure
            return
        except OSError as problem:
            self.failure = CannotStartError(
                f"cannot start {self.command[0]!r}: {os.strerror(problem.errno or 0).lower()}; raise the container's "
                "limits (descriptors, processes, memory)",
                EXIT_CANNOT_EXECUTE,
            )
            return
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.blocked)
            if read_end is not None:
                os.close(read_end)
        if self.stdin is not None:
            self.stdin.start()
        if self.capture is not None:
            self.capture.attach(self.game.streams)

    def read_output(self, capture: Capture | None) -> None:
        """Has the output read from the first start on. What came before waits in the pipes, so this can come after."""
        self.capture = capture
        if capture is not None and self.game is not None:
            capture.start(self.game.streams)

    def pids(self) -> list[int]:
        """Every process of the game."""
        return descendants(os.getpid(), self.reaper.helpers)

    @property
    def main_pid(self) -> int:
        """The process whose end is the game's end; 0 where there is none."""
        return self.game.main_pid if self.game is not None else 0

    # Signals ---------------------------------------------------------------------------------------------------------

    def forward(self, number: int) -> None:
        """Sends a signal on to the game's groups; ones that suspend become SIGSTOP."""
        for group in self.game.groups() if self.game is not None else ():
            signal_group(group, signal.SIGSTOP if number in _SUSPENDING else number)

    def wake(self) -> None:
        """Continues the game's groups, where they were suspended (SIGSTOP): they could not obey otherwise."""
        for group in self.game.groups() if self.game is not None else ():
            signal_group(group, signal.SIGCONT)

    def wake_all(self) -> None:
        """Continues every process of the game, in whatever group it is."""
        for pid in self.pids():
            send(pid, signal.SIGCONT)

    def kill(self) -> int:
        """SIGKILL to the groups at once, then to everything else of the game.

        Where there is much of it, it is suspended first, until nothing new is found: what is killed makes room for what
        forks without end, and what is suspended keeps its place. That takes a tenth of a second at most; a process that
        forks faster than it is listed may still leave a child behind: call it again until nothing is left.

        Returns:
            How many processes were left to kill.
        """
        for group in self.game.groups() if self.game is not None else ():
            signal_group(group, signal.SIGKILL)
        left = self.pids()
        if len(left) > _MANY:
            until = time.monotonic() + _FREEZE_SECONDS
            suspended: set[int] = set()
            while (fresh := [pid for pid in left if pid not in suspended]) and time.monotonic() < until:
                for pid in fresh:
                    send(pid, signal.SIGSTOP)
                suspended.update(fresh)
                left = self.pids()
        return sum(send(pid, signal.SIGKILL) for pid in left)


def _raise_oom_score() -> int | None:
    """What is started from now on inherits a higher score than this process had (man 5 proc, oom_score_adj).

    Returns:
        What it had, for `_lower_oom_score`; None in a sandbox where there is none.
    """
    try:
        with open(_OOM_FILE) as file:
            own = int(file.read())
        _write_score(min(own + _OOM_MORE, _OOM_MOST))
    except (OSError, ValueError):
        return None
    return own


def _lower_oom_score(score: int | None) -> None:
    """Gives this process back what it had, which needs no privilege: only going below one's first value does."""
    if score is not None:
        try:  # noqa: SIM105 - contextlib is not imported before the game is started
            _write_score(score)
        except OSError:
            pass


def _write_score(score: int) -> None:
    with open(_OOM_FILE, "w") as file:
        file.write(str(score))


def send(pid: int, number: int) -> bool:
    """Sends a signal to one process; False when it is gone, or runs as somebody whom we may not signal."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_group(pid: int, number: int) -> bool:
    """Sends a signal to a process group; False when nobody is left in it."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Part of the group runs as another user (a game that changed its own): the others were signalled.
        return True
    return True

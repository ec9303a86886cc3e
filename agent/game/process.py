"""The game as it runs: started, signalled, reaped, and started again. Standard library only.

Only the init's main thread uses this module: starting a process, recording it and reaping it never overlap.
"""

from __future__ import annotations

import os
import time

from agent.errors import EXIT_CANNOT_EXECUTE, CannotStartError
from agent.game.cgroup import read_cgroup
from agent.game.spawn import RAISE_LIMITS, spawn
from agent.game.tree import descendants, is_below

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

# When memory runs out, the kernel kills the process with the highest score. That must be the game, whose end the agent
# can report, and never the agent. In thousandths of the available memory (man 5 proc, oom_score_adj).
_OOM_MORE = 300
_OOM_MOST = 1000
_OOM_FILE = "/proc/self/oom_score_adj"
# How long the processes of a game that forks endlessly are listed and suspended before the kill.
_FREEZE_SECONDS = 0.1
_MANY = 8
# A process group whose parents are all in other sessions is orphaned, and the kernel never suspends it for these (man 7
# credentials, "orphaned process group"): SIGSTOP does what was meant.
_SUSPENDING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class GameProcess:
    """The parameters of the game's process, and its current start.

    Attributes:
        command: its program and arguments.
        env: its environment.
        workdir: its working directory, or None for the agent's.
        user: the user that it runs as, or None for the agent's user.
        stdin: its stdin, if a stop method writes to it; else None, and it has the container's stdin.
        tty: whether its captured stdout is always a pseudo terminal.
        captured: whether its output is read: not with AGENT_CAPTURE=off.
        capture: reads its output; None before the first start, see `read_output`.
        reaper: the only part that waits for processes.
        ignored: signals that were ignored when the agent was started (`nohup`); the game inherits this.
        blocked: signals that were blocked then; likewise.
        game: the running game, or None if it could not be started: then `failure` says why.
        cgroup: the counters of the container's cgroup when the game was started.
        signalled_early: the signal that a process was sent before its stop could be planned (`agent.init.early_stop`),
            by process id; the stop takes it out when it comes to that.
    """

    def __init__(self, command: list[str], reaper: Reaper) -> None:
        """Starts nothing; the other attributes are set while the start is prepared."""
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
        self.signalled_early: dict[int, int] = {}

    def start(self) -> None:
        """Starts the game. Never raises: a failure is stored in `failure` for the lifecycle."""
        self.game, self.failure = None, None
        read_end: int | None = None
        # After exec, ignored signals stay ignored, handlers are reset, and the mask is unchanged.
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
                f"cannot start {self.command[0]!r}: {os.strerror(problem.errno or 0).lower()}; {RAISE_LIMITS}",
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
        """Starts reading the output, also that of the first start, which has waited in the pipes."""
        self.capture = capture
        if capture is not None and self.game is not None:
            capture.start(self.game.streams)

    def has(self, pid: int) -> bool:
        """Whether a process is one of the game's."""
        return is_below(pid, os.getpid(), self.reaper.helpers)

    def pids(self) -> list[int]:
        """Every process of the game."""
        return descendants(os.getpid(), self.reaper.helpers)

    @property
    def main_pid(self) -> int:
        """The process whose end is the game's end; 0 if there is none."""
        return self.game.main_pid if self.game is not None else 0

    # Signals ---------------------------------------------------------------------------------------------------------

    def forward(self, number: int) -> None:
        """Forwards a signal to the game's groups; signals that suspend become SIGSTOP."""
        for group in self.game.groups() if self.game is not None else ():
            signal_group(group, signal.SIGSTOP if number in _SUSPENDING else number)

    def wake(self) -> None:
        """Resumes the game's groups if they are suspended (SIGSTOP): they could not handle a signal otherwise."""
        for group in self.game.groups() if self.game is not None else ():
            signal_group(group, signal.SIGCONT)

    def wake_all(self) -> None:
        """Continues every process of the game, in whatever group it is."""
        for pid in self.pids():
            send(pid, signal.SIGCONT)

    def kill(self) -> int:
        """Sends SIGKILL to the groups, then to all other processes of the game.

        If there are many, they are suspended first, until no new ones are found: killed processes would make space for
        those that fork endlessly, suspended ones do not. This takes a tenth of a second at most. A process that forks
        faster than it is listed may still leave a child: call this again until no process is left.

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
    """Raises the score of this process, which started processes inherit (man 5 proc, oom_score_adj).

    Returns:
        The old score, for `_lower_oom_score`; None in a sandbox without scores.
    """
    try:
        with open(_OOM_FILE) as file:
            own = int(file.read())
        _write_score(min(own + _OOM_MORE, _OOM_MOST))
    except (OSError, ValueError):
        return None
    return own


def _lower_oom_score(score: int | None) -> None:
    """Restores the score, which needs no privilege: only a value below the first one does."""
    if score is not None:
        try:  # noqa: SIM105 - contextlib is not imported before the game is started
            _write_score(score)
        except OSError:
            pass


def _write_score(score: int) -> None:
    with open(_OOM_FILE, "w") as file:
        file.write(str(score))


def send(pid: int, number: int) -> bool:
    """Sends a signal to one process; False if it is gone, or runs as a user whose processes we may not signal."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_group(pid: int, number: int) -> bool:
    """Sends a signal to a process group; False if no process is left in it."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Part of the group runs as another user (a game that changed its own): the others were signalled.
        return True
    return True

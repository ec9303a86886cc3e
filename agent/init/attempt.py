"""Everything that belongs to one start of the game; a restart of the game replaces it as a whole."""

from __future__ import annotations

import os
import signal
from collections import deque

from agent import log
from agent.game.main_process import MainProcess
from agent.game.process import send
from agent.game.stop_signal import is_helper
from agent.game.tree import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.game.autopsy import OtherEnd
    from agent.game.cgroup import CgroupReading
    from agent.game.ends import Ends
    from agent.game.process import GameProcess
    from agent.init.stop_actions import StopActions
    from agent.init.stop_sequence import StopSequence
    from agent.lifecycle.driver import TimerHandle
    from agent.lifecycle.states import ExitStatus, State

    # Plans the stop of this start.
    MakeSequence = Callable[[StopActions, State], StopSequence]

# A game that starts thousands of short helpers must not fill the memory, or exit.json, with them.
_MOST_OTHERS = 10


class Attempt:
    """One start of the game: its main process, its stop, its flush.

    Attributes:
        main: its main process; None where it could not be started.
        actions: what stop methods do to it.
        sequence: its stop, planned or under way; None before that.
        flushing: whether its end is being handled (autopsy and shipping).
        at_stop: what the container's cgroup had counted when its stop was announced; None before that.
        left_behind: names of the processes that the main process left running, and that did not end by themselves;
            helpers are not included.
        ends: how servers ended that the game's own start script waits for; None where nobody looks.
        document: the content of its `exit.json`, once the game is gone.
    """

    def __init__(
        self, process: GameProcess, main: MainProcess | None, actions: StopActions, ends: Ends | None = None
    ) -> None:
        """Takes the parts of a start."""
        self.main = main
        self.ends = ends
        self.actions = actions
        self.sequence: StopSequence | None = None
        self.at_stop: CgroupReading | None = None
        self.flushing = False
        self.left_behind: tuple[str, ...] = ()
        self._others: deque[tuple[float, int, str, int]] = deque(maxlen=_MOST_OTHERS)
        self.document: dict[str, object] | None = None
        self._process = process
        self._killing: TimerHandle | None = None
        self._sweeping: TimerHandle | None = None

    def take(self, ended: Mapping[int, int], *, left: bool, names: Mapping[int, str], at: float) -> ExitStatus | None:
        """Handles reaped processes; returns how the game ended, once.

        Args:
            ended: wait statuses by process.
            left: whether any process of the game is left.
            names: of those that did not end with code 0.
            at: the present moment.
        """
        for pid, status in ended.items():
            self.actions.helper_ended(pid, status)
        main_pid = self._process.main_pid
        for pid, name in names.items():
            if pid != main_pid and pid in ended:
                self._others.append((at, pid, name, os.waitstatus_to_exitcode(ended[pid])))
        return self.main.take(ended, left=left) if self.main is not None else None

    def others(self, end: float) -> tuple[OtherEnd, ...]:
        """The latest processes of the game, besides the main one, that were seen to end without exit code 0.

        Args:
            end: when the game was gone, in seconds of the monotonic clock.
        """
        from agent.game.autopsy import OtherEnd  # noqa: PLC0415 - nothing before the game's end needs it

        behind = self.ends.found(end) if self.ends is not None else []
        seen = {pid for _, pid, _, _ in self._others}
        servers = [
            (at, pid, name, os.waitstatus_to_exitcode(status)) for at, pid, name, status in behind if pid not in seen
        ]
        return tuple(
            OtherEnd(
                name or "a process",
                pid,
                code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                seconds_before_end=max(0.0, end - at),
                helper=is_helper(name),
                behind_script=number < len(servers),
            )
            for number, (at, pid, name, code) in enumerate([*servers, *self._others])
        )

    def sweep(self, call_later: Callable[..., TimerHandle], seconds: float) -> None:
        """After so many seconds, asks the processes that the main process left behind to end."""
        if self._sweeping is None:
            self._sweeping = call_later(seconds, self._sweep_now)

    def _sweep_now(self) -> None:
        pids = self._process.pids()
        servers = [one for one in look(pids) if not is_helper(one.program)]
        self.left_behind = tuple(f"{one.name} (process {one.pid})" for one in servers)
        left = [pid for pid in pids if pid not in self.actions.asked]
        for pid in left:
            self.actions.asked[pid] = signal.SIGTERM
            send(pid, signal.SIGTERM)
            send(pid, signal.SIGCONT)
        if not left:
            return
        many = "processes" if len(left) > 1 else "process"
        sentence = f"the game has ended and left {len(left)} {many} behind: asked to end"
        if servers and self.main is not None and not self.main.follows and self.sequence is None:
            log.warning(
                f"{sentence}. If {', '.join(self.left_behind)} is the server, set AGENT_MAIN=last, port or "
                "pidfile:PATH, and the agent follows it"
            )
        else:
            log.info(sentence)

    def kill(self, call_later: Callable[..., TimerHandle], every: float) -> None:
        """SIGKILL to all of it, again and again until `close`."""
        self._process.kill()
        self._killing = call_later(every, self.kill, call_later, every)

    def end_methods(self) -> None:
        """Ends the stop sequence: no further stop method is applied."""
        if self.sequence is not None:
            self.sequence.end()

    def close(self) -> None:
        """The game is gone: cancels everything that was planned for it."""
        self.end_methods()
        for timer in (self._killing, self._sweeping):
            if timer is not None:
                timer.cancel()
        if self.main is not None:
            self.main.close()
        if self.ends is not None:
            self.ends.close()

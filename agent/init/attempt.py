"""Everything that belongs to one start of the game, replaced as a whole when the game is started again."""

from __future__ import annotations

import signal

from agent import log
from agent.game.main_process import MainProcess
from agent.game.process import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.game.cgroup import CgroupReading
    from agent.game.process import GameProcess
    from agent.init.stop_actions import StopActions
    from agent.init.stop_sequence import StopSequence
    from agent.lifecycle.driver import TimerHandle
    from agent.lifecycle.states import State

    # Makes the stop of this start: plans its turns.
    MakeSequence = Callable[[StopActions, State], StopSequence]


class Attempt:
    """One start of the game: its main process, its stop, its flush.

    Attributes:
        main: its main process; None where it could not be started.
        actions: what stop methods do to it.
        sequence: its stop, planned or under way; None before that.
        flushing: whether its end is being looked into.
        at_stop: what the container's cgroup had counted when its stop was announced; None before that.
        document: the content of its `exit.json`, once the game is gone.
    """

    def __init__(self, process: GameProcess, main: MainProcess | None, actions: StopActions) -> None:
        """Takes the parts of a start."""
        self.main = main
        self.actions = actions
        self.sequence: StopSequence | None = None
        self.at_stop: CgroupReading | None = None
        self.flushing = False
        self.document: dict[str, object] | None = None
        self._process = process
        self._killing: TimerHandle | None = None
        self._sweeping: TimerHandle | None = None

    def take(self, ended: Mapping[int, int], *, left: bool) -> int | None:
        """Looks at what was reaped; the wait status of the game, once."""
        for pid, status in ended.items():
            self.actions.helper_ended(pid, status)
        return self.main.take(ended, left=left) if self.main is not None else None

    def sweep(self, call_later: Callable[..., TimerHandle], seconds: float) -> None:
        """Asks what the main process left behind to end, unless it ends by itself in so many seconds."""
        if self._sweeping is None:
            self._sweeping = call_later(seconds, self._sweep_now)

    def _sweep_now(self) -> None:
        left = [pid for pid in self._process.pids() if pid not in self.actions.asked]
        for pid in left:
            self.actions.asked[pid] = signal.SIGTERM
            send(pid, signal.SIGTERM)
            send(pid, signal.SIGCONT)
        if left:
            many = "processes" if len(left) > 1 else "process"
            log.info(f"the game has ended and left {len(left)} {many} behind: asked to end")

    def kill(self, call_later: Callable[..., TimerHandle], every: float) -> None:
        """SIGKILL to all of it, again and again until `close`."""
        self._process.kill()
        self._killing = call_later(every, self.kill, call_later, every)

    def end_methods(self) -> None:
        """No stop method has its turn any more."""
        if self.sequence is not None:
            self.sequence.end()

    def close(self) -> None:
        """The game is gone: nothing is done to it any more."""
        self.end_methods()
        for timer in (self._killing, self._sweeping):
            if timer is not None:
                timer.cancel()
        if self.main is not None:
            self.main.close()

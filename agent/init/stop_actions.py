"""Implements the stop methods. `agent.init.stop_sequence` decides when each is applied. Standard library only."""

from __future__ import annotations

import os
import signal

from agent.game import stop_signal
from agent.game.ports import owners
from agent.game.process import send, signal_group
from agent.game.tree import look, name_of
from agent.game.user import identity
from agent.lifecycle.stop_plan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from agent.game.process import GameProcess
    from agent.game.tree import Process
    from agent.init.stop_sequence import Turn
    from agent.lifecycle.driver import Clock, TimerHandle
    from agent.lifecycle.states import State
    from agent.lifecycle.stop_methods import Method

    class Remote(Protocol):
        """The agent, for methods that need it; `agent.init.agent_process.AgentProcess` is it."""

        @property
        def heard(self) -> bool:
            """Whether anybody listens to events."""

        def ask_method(self, method: Method, ends: float, failed: Callable[[str], None]) -> str:
            """Has the agent apply a method; returns why it cannot, or ""."""

        def end_method(self) -> None:
            """The method's time slot is over."""


# Subscribers get this long to receive the stop event before the first method; a slow one does not delay it further.
_SETTLE = 0.03
# After the signalled processes have ended, the others get this long to end by themselves (`tee` at the end of its
# input, a script after its server) before they are signalled.
_FOLLOWERS = 0.3
# If the main process was signalled and passes nothing on, the others are signalled after this share of its time.
_PASSES_NOTHING_ON = 0.4
_LOOK_EVERY = 0.1
# A line that stays unread in the pipe for this long, or for this share of the method's time, counts as not read.
_UNREAD_SECONDS = 1.0
_UNREAD_SHARE = 0.5


class StopActions:
    """Applies stop methods to one start of the game, one at a time."""

    def __init__(self, process: GameProcess, remote: Remote, clock: Clock, *, ports: tuple[int, ...] = ()) -> None:
        """Takes what the methods need.

        Args:
            process: the game.
            remote: the agent.
            clock: used for all times.
            ports: the game's ports inside the container, to find the process that serves them.
        """
        self._process = process
        self._remote = remote
        self._clock = clock
        self._ports = ports
        self._hook: int | None = None
        self._hook_failed: Callable[[str], None] | None = None
        self._timer: TimerHandle | None = None
        self.asked: dict[int, int] = {}  # the last signal sent to each process
        self._in_turn: set[int] = set()  # processes signalled in the current turn

    def prepare(self) -> float:
        """Resumes a suspended game, and returns how many seconds subscribers need."""
        self._process.wake()
        # Whatever of the game has left its groups: finding that takes longer than asking the main process to end.
        self._clock.call_at(self._clock.time(), self._process.wake_all)
        return _SETTLE if self._remote.heard else 0.0

    def apply(self, turn: Turn, method: Method, state: State, ends: float, failed: Callable[[str], None]) -> str:
        """Applies a method; see `agent.init.stop_sequence.Actions`."""
        match method.kind:
            case "itself":
                return ""
            case "notify":
                return "" if self._remote.heard else "no client is subscribed to events"
            case "stdin":
                return self._write_line(method, ends, failed)
            case "signal":
                return self._signal(turn, method, ends)
            case "command":
                return self._start_hook(method, state, ends, failed)
            case _:
                return self._remote.ask_method(method, ends, failed)

    def end(self) -> None:
        """Kills the hook with all processes that it started, and ends the agent's work for the method."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._hook is not None:
            signal_group(self._hook, signal.SIGKILL)
            self._hook = self._hook_failed = None
        self._remote.end_method()

    def helper_ended(self, pid: int, status: int) -> None:
        """A hook that failed ends its turn; after one that succeeded, the game gets the rest of the time to end."""
        if pid != self._hook or self._hook_failed is None:
            return
        failed, self._hook_failed = self._hook_failed, None
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            failed(f"the hook ended with {'signal' if code < 0 else 'code'} {abs(code)}")

    # A line ----------------------------------------------------------------------------------------------------------

    def _write_line(self, method: Method, ends: float, failed: Callable[[str], None]) -> str:
        pipe = self._process.stdin
        if pipe is None:
            return "the game's stdin is not a pipe of the agent"
        if wrong := pipe.write_line(method.argument):
            return wrong
        now = self._clock.time()

        def look() -> None:
            if pipe.unread():
                failed("the line was not read")

        wait = min(_UNREAD_SECONDS, (ends - now) * _UNREAD_SHARE)
        self._timer = self._clock.call_at(now + wait, look)
        return ""

    # A signal --------------------------------------------------------------------------------------------------------

    def _signal(self, turn: Turn, method: Method, ends: float) -> str:
        """Signals the processes that handle the signal; later the others, if those have ended or pass nothing on."""
        now = self._clock.time()
        number = method.signum
        everyone = now + (ends - now) * _PASSES_NOTHING_ON
        self._in_turn = set()
        if not self._ask_main(turn, number, method.target) and not self._ask(turn, number, target=method.target):
            return "no process of the game is left"
        self._timer = self._clock.call_at(now + _LOOK_EVERY, self._follow_up, turn, number, everyone, now)
        return ""

    def _follow_up(self, turn: Turn, number: int, everyone: float, since: float) -> None:
        """Signals the other processes, each once.

        Args:
            turn: the present one.
            number: the signal.
            everyone: the time from which all are signalled.
            since: when a signalled process was last seen running.
        """
        now = self._clock.time()
        alive = {process.pid for process in look(self._process.pids())}
        if self._in_turn & alive:
            since = now
        if alive - self._in_turn and (now >= everyone or now - since >= _FOLLOWERS):
            self._ask(turn, number)
        self._timer = self._clock.call_at(now + _LOOK_EVERY, self._follow_up, turn, number, everyone, since)

    def main_ended(self, turn: Turn, ended_by: int | None) -> None:
        """The main process has ended during a turn.

        If the stop signal itself ended it, it had no handler and passed nothing on: the processes that it left are
        signalled at once. No process is signalled twice.

        Args:
            turn: the present one.
            ended_by: the signal that ended the main process, or None.
        """
        if ended_by is not None and ended_by == self.asked.get(self._process.main_pid):
            self._in_turn |= self.asked.keys()
            self._ask(turn, ended_by)

    def _ask_main(self, turn: Turn, number: int, target: str) -> bool:
        """Signals the main process where the choice cannot be another one, whatever else there is; False where it can.

        Most games are like that, and need not wait until all processes that are visible were looked at.
        """
        pid = self._process.main_pid
        if self._process.signalled_early.get(pid) == number:  # it may have ended since
            return self._tell(turn, number, [pid], {pid: name_of(pid)})
        main = look([pid]) if target in ("", "main") else []
        if not main or not (target or stop_signal.hears(main[0], number)):
            return False
        return self._tell(turn, number, [main[0].pid], {main[0].pid: main[0].name})

    def _ask(self, turn: Turn, number: int, *, target: str = "") -> bool:
        """Signals the processes whose time it is and that were not signalled in this turn; False if there are none."""
        processes = [one for one in look(self._process.pids()) if one.pid not in self._in_turn]
        chosen = self._judge(processes, number, target).asked
        names = {one.pid: one.name for one in processes}
        if not processes and not self._in_turn and self._process.main_pid:
            chosen = [self._process.main_pid]  # not seen is not gone: there may be no descriptor left for /proc
        return self._tell(turn, number, chosen, names)

    def _tell(self, turn: Turn, number: int, chosen: list[int], names: dict[int, str]) -> bool:
        early = self._process.signalled_early
        told = [pid for pid in chosen if early.pop(pid, None) == number or send(pid, number)]
        self._in_turn |= set(told)
        self.asked |= dict.fromkeys(told, number)
        turn.asked += [f"{names.get(pid, '?')} ({pid})" for pid in told]
        return bool(told)

    def judge(self, method: Method) -> stop_signal.Judgement:
        """Whom a method's signal would reach now, and how the game would take it."""
        return self._judge(look(self._process.pids()), method.signum, method.target)

    def _judge(self, processes: list[Process], number: int, target: str) -> stop_signal.Judgement:
        found = owners(self._ports, [one.pid for one in processes])
        return stop_signal.judge(processes, self._process.main_pid, number, owners=found, target=target)

    # A hook ----------------------------------------------------------------------------------------------------------

    def _start_hook(self, method: Method, state: State, ends: float, failed: Callable[[str], None]) -> str:
        import shlex  # noqa: PLC0415 - most games have no hook, and PID 1 hears signals 10 ms sooner without these
        import subprocess  # noqa: PLC0415

        process = self._process
        output = os.pipe() if process.capture is not None else None
        try:
            if process.user is not None and output is not None:
                process.user.own([output[1]])
            hook = subprocess.Popen(
                shlex.split(method.argument),
                env=process.env | _told(state, ends, process.main_pid, self._clock.time()),
                cwd=process.workdir,
                stdin=subprocess.DEVNULL,
                stdout=output[1] if output else None,
                stderr=output[1] if output else None,
                start_new_session=True,
                **identity(process.user),
            )
        except (OSError, ValueError, subprocess.SubprocessError) as problem:
            if output:
                os.close(output[0])
            return f"the hook cannot be started ({problem})"
        finally:
            if output:
                os.close(output[1])
        process.reaper.add_helper(hook.pid)
        hook.returncode = 0  # only the reaper waits for processes
        self._hook, self._hook_failed = hook.pid, failed
        if output and process.capture is not None:
            process.capture.attach({"hook": output[0]})
        return ""


def _told(state: State, ends: float, game_pid: int, now: float) -> dict[str, str]:
    """The variables that a hook gets in addition to the game's environment."""
    stop = state.stop
    return {
        "AGENT_PHASE": str(state.phase),
        "AGENT_STOP_REASON": str(stop.reason) if stop else "",
        "AGENT_STOP_SOURCE": str(stop.source) if stop else "",
        "AGENT_STOP_MESSAGE": stop.message if stop else "",
        "AGENT_STOP_DEADLINE_SECONDS": f"{max(0.0, ends - now):.3f}",
        "AGENT_STOP_KILL_SECONDS": f"{max(0.0, state.due(Step.STOP) - now):.3f}",
        "AGENT_GAME_PID": str(game_pid) if game_pid else "",
    }

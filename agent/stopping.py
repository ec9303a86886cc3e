"""Applies the stop methods one after the other, each for its share of the time that the game has to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from agent import log
from agent.boot import Boot
from agent.errors import AgentError
from agent.game.methods import Method, turns, with_last_resort
from agent.game.rcon import RconError, execute
from agent.game.stop import ask_to_end, signal_group
from agent.states import State
from agent.stop_plan import Step

# The game's listeners hear of the stop before anything is done about it; one that takes no event does not hold it up.
_SETTLE = 0.05
# However much more time the game asks for, what comes after its method gets this part of the whole.
_KEPT_FOR_THE_REST = 0.1


@dataclass(slots=True)
class Turn:
    """A method that had its turn.

    Attributes:
        method: as it is shown.
        at: when its turn began, in seconds of the monotonic clock.
        planned_seconds: how long it had.
        outcome: `applied`, or why it had no effect.
        acknowledged: whether the game said that it heard.
        more_seconds: how much longer the game asked for, and got.
    """

    method: str
    at: float
    planned_seconds: float
    outcome: str = "applied"
    acknowledged: bool = False
    more_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Rcon:
    """Where the game's rcon listens; the password is shown nowhere."""

    host: str
    port: int
    password: str = field(repr=False)


class Stopping:
    """One stop of one game.

    Attributes:
        turns: the methods that had their turn so far.
        group_was_asked: whether the game's process group got SIGTERM.
    """

    def __init__(
        self,
        boot: Boot,
        methods: Sequence[Method],
        *,
        settle: Callable[[float], Awaitable[None]],
        listeners: Callable[[], int],
        rcon: Rcon | None = None,
    ) -> None:
        """Takes what the methods need.

        Args:
            boot: the running game.
            methods: as AGENT_STOP has them.
            settle: waits at most so many seconds until everybody who listens has taken what was announced.
            listeners: how many listen at this moment, right after the stop was announced.
            rcon: where `rcon` methods go.
        """
        self.turns: list[Turn] = []
        self.group_was_asked = False
        self._boot = boot
        self._methods = with_last_resort(methods)
        self._settle = settle
        # Asked now: a long poll that was answered does not listen any more, and heard all the same.
        self._heard = listeners() > 0
        self._rcon = rcon
        self._until = 0.0
        self._ends = 0.0
        self._began = 0.0
        self._changed = asyncio.Event()
        self._hook: subprocess.Popen[bytes] | None = None
        self._extended = False

    async def run(self, state: State, until: float) -> None:
        """Applies all methods in turn; cancel it when the game is gone.

        Args:
            state: of the lifecycle, at the beginning of the stop.
            until: moment of the monotonic clock at which the game must be gone; `hurry` moves it.
        """
        loop = asyncio.get_running_loop()
        self._until, self._began = until, loop.time()
        if self._heard:
            await self._settle(_SETTLE)
        try:
            for index, method in enumerate(self._methods):
                now = loop.time()
                self._share_out(index, now)
                turn = Turn(str(method), now, max(0.0, self._ends - now))
                self.turns.append(turn)
                problem = await self._apply(method, state)
                if problem:
                    turn.outcome = problem
                    log.warning(f"cannot stop the game by {method}: {problem}; going on to the next method")
                    continue
                log.debug(f"stop method {method}", seconds=round(turn.planned_seconds, 2))
                await self._wait(index)
                self._end_hook()
        finally:
            self._end_hook()

    def hurry(self, until: float) -> None:
        """Moves the end of the whole: what is left of it is shared out anew."""
        self._until = until
        self._changed.set()

    def acknowledge(self, more_seconds: float) -> float:
        """The game heard the stop and is busy ending.

        Args:
            more_seconds: how much longer than its share it wants before the next method; 0 for no longer.

        Returns:
            How much longer it gets: never beyond the deadline, less what the next methods need.

        Raises:
            AgentError: it asked for more time before.
        """
        if not self.turns:
            return 0.0
        if more_seconds > 0 and self._extended:
            raise AgentError("cannot give more time: it was given once before; end before the deadline")
        self.turns[-1].acknowledged = True
        if more_seconds <= 0:
            return 0.0
        self._extended = True
        latest = self._until - (self._until - self._began) * _KEPT_FOR_THE_REST
        before = self._ends
        self._ends = max(before, min(before + more_seconds, latest))
        granted = self.turns[-1].more_seconds = self._ends - before
        self._changed.set()
        return granted

    def helper_ended(self, pid: int, status: int) -> None:
        """A helper was reaped; a hook that failed leaves its share to the next method."""
        if self._hook is None or self._hook.pid != pid:
            return
        self._hook = None
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            self.turns[-1].outcome = f"the hook ended with {'signal' if code < 0 else 'code'} {abs(code)}"
            log.warning(f"cannot stop the game by {self.turns[-1].method}: {self.turns[-1].outcome}")
            self._ends = 0.0
            self._changed.set()

    def _share_out(self, index: int, now: float) -> None:
        self._ends = now + turns(self._methods[index:], max(0.0, self._until - now))[0]

    async def _wait(self, index: int) -> None:
        """Until the turn is over, however it is moved meanwhile."""
        loop = asyncio.get_running_loop()
        until = self._until
        while (left := self._ends - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()
                    self._changed.clear()
            if self._until != until:
                until = self._until
                self._share_out(index, loop.time())

    async def _apply(self, method: Method, state: State) -> str:
        """Applies one method; returns why it cannot have any effect, or ""."""
        match method.kind:
            case "notify":
                problem = "" if self._heard else "nobody listens for the event"
            case "stdin" if self._boot.stdin is not None:
                problem = self._boot.stdin.write_line(method.argument)
            case "signal":
                problem = self._signal(method)
            case "command":
                problem = self._start_hook(method, state)
            case "rcon":
                problem = await self._call_rcon(method)
            case _:
                problem = "the game's stdin is not a pipe of the agent's"
        return problem

    def _signal(self, method: Method) -> str:
        game = self._boot.game
        if game is None:
            return "there is no game"
        if method.argument == "SIGTERM":
            self.group_was_asked = True
            sent = ask_to_end(game.pid)
        else:
            sent = signal_group(game.pid, method.signum)
        return "" if sent else "no process is left in its group"

    def _start_hook(self, method: Method, state: State) -> str:
        stop, game = state.stop, self._boot.game
        env = self._boot.game_env | {
            "AGENT_PHASE": str(state.phase),
            "AGENT_STOP_REASON": str(stop.reason) if stop else "",
            "AGENT_STOP_SOURCE": str(stop.source) if stop else "",
            "AGENT_STOP_MESSAGE": stop.message if stop else "",
            "AGENT_STOP_DEADLINE_SECONDS": f"{max(0.0, self._ends - asyncio.get_running_loop().time()):.3f}",
            "AGENT_STOP_KILL_SECONDS": f"{max(0.0, state.due(Step.STOP) - asyncio.get_running_loop().time()):.3f}",
            "AGENT_GAME_PID": str(game.pid) if game else "",
        }
        output = os.pipe() if self._boot.capture is not None else None
        try:
            hook = subprocess.Popen(
                shlex.split(method.argument),
                env=env,
                cwd=self._boot.workdir,
                stdin=subprocess.DEVNULL,
                stdout=output[1] if output else None,
                stderr=output[1] if output else None,
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:
            if output:
                os.close(output[0])
            return f"the hook cannot be started ({problem})"
        finally:
            if output:
                os.close(output[1])
        self._boot.reaper.add_helper(hook.pid)
        hook.returncode = 0  # the reaper waits, nobody else
        self._hook = hook
        if output and self._boot.capture is not None:
            self._boot.capture.attach({"hook": output[0]})
        return ""

    def _end_hook(self) -> None:
        """Its time is over: whatever the hook still does ends with it."""
        if self._hook is not None:
            signal_group(self._hook.pid, signal.SIGKILL)
            self._hook = None

    async def _call_rcon(self, method: Method) -> str:
        if self._rcon is None:
            return "AGENT_RCON_ADDRESS and AGENT_RCON_PASSWORD are not set"
        try:
            async with asyncio.timeout_at(self._ends):
                await execute(self._rcon.host, self._rcon.port, self._rcon.password, method.argument)
        except RconError as problem:
            return str(problem)
        except TimeoutError:
            return "the game's rcon does not answer"
        return ""

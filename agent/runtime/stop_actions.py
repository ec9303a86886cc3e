"""Implements the stop methods. `agent.runtime.stop_sequence` decides when each is applied."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.game.rcon import RconError, execute
from agent.game.signals import ask_to_end, signal_group
from agent.game.user import identity
from agent.init.main import Boot
from agent.lifecycle.states import State
from agent.lifecycle.stop_methods import HOSTS, Method
from agent.lifecycle.stop_plan import Step

# The game's listeners hear of the stop before anything is done about it; one that takes no event does not hold it up.
_SETTLE = 0.05


@dataclass(frozen=True, slots=True)
class Rcon:
    """Where the game's rcon listens; the password is shown nowhere."""

    host: str
    port: int
    password: str = field(repr=False)


class GameAsker:
    """Applies stop methods to the running game, one at a time; see `agent.runtime.stop_sequence.Asker`."""

    def __init__(
        self,
        boot: Boot,
        *,
        heard: bool,
        settle: Callable[[float], Awaitable[None]],
        rcon: Rcon | None = None,
        host: Callable[[str, float], str] = lambda _kind, _seconds: "AGENT_COMPAT is not set",
    ) -> None:
        """Takes what the methods need.

        Args:
            boot: the running game.
            heard: whether anybody listened when the stop was announced.
            settle: waits at most so many seconds until everybody who listens has taken what was announced.
            rcon: where `rcon` methods go.
            host: tells the game as another host does; takes which and the seconds that are left, and returns "" or
                why that has no effect.
        """
        self._boot = boot
        self._heard = heard
        self._settle = settle
        self._rcon = rcon
        self._host = host
        self._hook: int | None = None
        self._hook_failed: Callable[[str], None] | None = None
        self._calling: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """Waits a moment for whoever listens."""
        if self._heard:
            await self._settle(_SETTLE)

    def ask(  # noqa: PLR0911 - one return a method
        self, method: Method, state: State, ends: float, failed: Callable[[str], None]
    ) -> str:
        """Applies a method."""
        match method.kind:
            case "itself":
                return ""
            case "notify":
                return "" if self._heard else "nobody listens for the event"
            case "stdin":
                pipe = self._boot.stdin
                return pipe.write_line(method.argument) if pipe is not None else "the game's stdin is no pipe of ours"
            case "signal":
                return self._signal(method)
            case "command":
                return self._start_hook(method, state, ends, failed)
            case "rcon":
                return self._call_rcon(method, ends, failed)
            case kind if kind in HOSTS:
                return self._host(kind, ends - asyncio.get_running_loop().time())
            case unknown:
                raise AssertionError(f"no such stop method: {unknown}")

    async def end(self) -> None:
        """Kills the hook with all it started, and gives up on rcon."""
        if self._hook is not None:
            signal_group(self._hook, signal.SIGKILL)
            self._hook = self._hook_failed = None
        if self._calling is not None:
            calling, self._calling = self._calling, None
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    def helper_ended(self, pid: int, status: int) -> None:
        """A hook that failed leaves its share to the next method; one that did its work is waited for with the game."""
        if pid != self._hook or self._hook_failed is None:
            return
        failed, self._hook_failed = self._hook_failed, None
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            failed(f"the hook ended with {'signal' if code < 0 else 'code'} {abs(code)}")

    def _signal(self, method: Method) -> str:
        game = self._boot.game
        if game is None:
            return "there is no game"
        ask = ask_to_end if method.argument == "SIGTERM" else signal_group
        # Every group is signalled, so no generator in any().
        sent = [ask(group, method.signum) for group in game.groups()]
        return "" if any(sent) else "no process is left in its group"

    def _start_hook(self, method: Method, state: State, ends: float, failed: Callable[[str], None]) -> str:
        boot = self._boot
        output = os.pipe() if boot.capture is not None else None
        try:
            if boot.user is not None and output is not None:
                boot.user.own([output[1]])
            hook = subprocess.Popen(
                shlex.split(method.argument),
                env=boot.game_env | _told(state, ends, boot.game.main_pid if boot.game is not None else None),
                cwd=boot.workdir,
                stdin=subprocess.DEVNULL,
                stdout=output[1] if output else None,
                stderr=output[1] if output else None,
                start_new_session=True,
                **identity(boot.user),
            )
        except (OSError, ValueError, subprocess.SubprocessError) as problem:
            if output:
                os.close(output[0])
            return f"the hook cannot be started ({problem})"
        finally:
            if output:
                os.close(output[1])
        boot.reaper.add_helper(hook.pid)
        hook.returncode = 0  # the reaper waits, nobody else
        self._hook, self._hook_failed = hook.pid, failed
        if output and boot.capture is not None:
            boot.capture.attach({"hook": output[0]})
        return ""

    def _call_rcon(self, method: Method, ends: float, failed: Callable[[str], None]) -> str:
        if self._rcon is None:
            return "AGENT_RCON_ADDRESS is not set"
        self._calling = asyncio.get_running_loop().create_task(
            _say_by_rcon(self._rcon, method.argument, ends, failed), name="rcon"
        )
        return ""


async def _say_by_rcon(rcon: Rcon, command: str, ends: float, failed: Callable[[str], None]) -> None:
    """Sends the command; a game that has it and does not answer may be busy ending."""
    sent = asyncio.Event()
    try:
        await execute(rcon.host, rcon.port, rcon.password, command, sent=sent.set)
    except RconError as problem:
        failed(str(problem))
    except asyncio.CancelledError:
        if not sent.is_set() and asyncio.get_running_loop().time() >= ends:
            failed("the game's rcon does not answer")
        raise


def _told(state: State, ends: float, game_pid: int | None) -> dict[str, str]:
    """What a hook finds in its environment, beside what the game has."""
    stop, now = state.stop, asyncio.get_running_loop().time()
    return {
        "AGENT_PHASE": str(state.phase),
        "AGENT_STOP_REASON": str(stop.reason) if stop else "",
        "AGENT_STOP_SOURCE": str(stop.source) if stop else "",
        "AGENT_STOP_MESSAGE": stop.message if stop else "",
        "AGENT_STOP_DEADLINE_SECONDS": f"{max(0.0, ends - now):.3f}",
        "AGENT_STOP_KILL_SECONDS": f"{max(0.0, state.due(Step.STOP) - now):.3f}",
        "AGENT_GAME_PID": str(game_pid) if game_pid is not None else "",
    }

"""From `arbitrium-agent run` to a running game, and on to the exit code. Standard library only.

In this order: hold signals back until they can be kept, read the settings, bind the sockets, prepare the log rooms,
spawn the game. Then the lifecycle takes over (`agent.init.supervisor`), and the agent's process is forked, which
imports everything heavy beside a game that runs already.
"""

from __future__ import annotations

import gc
import os
import signal
import time

from agent import __version__, log
from agent.config.names import unknown_variables
from agent.errors import EXIT_BAD_SETTINGS, LEAVING, SettingsError
from agent.game.reaper import (
    Reaper,
    adopt_orphans,
    die_with_parent,
    forbid_new_privileges,
    keep_memory_private,
    name_process,
)
from agent.game.signal_handling import deaf_shell_in_front
from agent.init.inputs import read
from agent.init.limits import remember_limits
from agent.init.loop import Loop
from agent.init.output import Output
from agent.init.prepare import bind_sockets, prepare_game
from agent.init.supervisor import STOP_SIGNALS, Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import NoReturn

    from agent.init.inputs import Inputs


# Not sent on to the game: those that stop, those of the kernel about the process itself, those that cannot be caught,
# and SIGCHLD, which is the init's own business.
_NOT_FORWARDED = {
    *STOP_SIGNALS,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGXFSZ,
}
_WATCHED = (
    *STOP_SIGNALS,
    signal.SIGCHLD,
    *(number for number in signal.valid_signals() if number not in _NOT_FORWARDED),
)
_ENTRYPOINT = "/opt/arbitrium-agent/entrypoint.sh"
_AGENT_FAULT = 70  # EX_SOFTWARE of sysexits.h


def main(argv: list[str]) -> int:
    """`arbitrium-agent run`.

    Args:
        argv: what follows `run` on the command line.

    Returns:
        The exit code, once everything is over.
    """
    loop = Loop()
    ignored, blocked = _keep_signals(loop)
    inputs = read(argv)
    log.hide(inputs.secrets)
    log.configure(*inputs.log_style)
    _keep_standard_streams()
    remember_limits()
    adopt_orphans()
    keep_memory_private()
    inputs.check()
    if inputs.setting("no_new_privs"):
        forbid_new_privileges()
    sockets = bind_sockets(inputs)
    output = Output(inputs)
    reaper = Reaper()
    process = prepare_game(inputs, sockets, output, reaper)
    process.ignored, process.blocked = ignored, blocked
    supervisor = Supervisor(loop, inputs, process, output, sockets, _run_agent, _isolate)
    if inputs.problems or not inputs.command:
        return _refuse(supervisor)
    process.start()
    _say_hello(inputs)
    return supervisor.run()


def _say_hello(inputs: Inputs) -> None:
    if shell := deaf_shell_in_front():
        log.warning(
            f"cannot hear SIGTERM: {shell} stands in front of the agent and does not pass it on, so that a stop lasts "
            f'the whole grace and ends in SIGKILL; write ENTRYPOINT as a list, ["{_ENTRYPOINT}"], or put `exec` before '
            "the agent in the line or script that starts it"
        )
    for problem in unknown_variables(inputs.environ):
        log.warning(f"{problem}; it has no effect")
    if inputs.deployment_id:
        log.info(f"version {__version__}, deployment {inputs.deployment_id}")
    else:
        log.info(f"version {__version__}, not on the platform: self-stop, tags and injected values are off")


def _refuse(supervisor: Supervisor) -> int:
    """Says everything that is wrong with the settings; on the platform, the deployment is stopped for it.

    Exiting would let a restart policy start the container again, with the same end, and bill it.
    """
    inputs = supervisor.inputs
    if not inputs.command:
        log.error(
            'cannot start the game: there is no command; add CMD ["/game/server"] to the Dockerfile, or write the '
            "program and its arguments after `arbitrium-agent run --`"
        )
    if inputs.problems:
        log.error(str(SettingsError(inputs.problems)))
    if inputs.on_platform and inputs.setting("on_crash") != "exit":
        return supervisor.refuse()
    supervisor.output.close(supervisor.at_most(1.0))
    supervisor.sockets.close()
    return EXIT_BAD_SETTINGS


def _keep_signals(loop: Loop) -> tuple[list[int], set[int]]:
    """From now on signals are kept with their moment, until the loop takes them in.

    Returns:
        The signals that were ignored until now (`nohup`), and those that were blocked: the game has to find them so.
    """
    clock = loop.time

    def keep(number: int, _frame: object) -> None:
        loop.note_signal(number, clock())

    ignored = []
    for number in _WATCHED:
        try:
            before = signal.signal(number, keep)
        except OSError:
            continue  # two real-time signals belong to the C library
        # SIGCHLD ignored by a parent would let the kernel reap the children, and their exit codes with them.
        if before is signal.SIG_IGN and number != signal.SIGCHLD:
            ignored.append(int(number))
    # What was held back came at some moment since the process was started: the deadline counts from there.
    started = _started()
    for early in sorted({int(number) for number in signal.sigpending()} & {int(number) for number in STOP_SIGNALS}):
        loop.note_signal(early, started)
        signal.signal(early, signal.SIG_IGN)  # discards what is pending (man 2 sigaction)
        signal.signal(early, keep)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Whoever started this may have blocked stop signals, so that none is lost before there are handlers (see
    # `agent.__main__`); that is no wish for the game.
    return ignored, {int(number) for number in blocked if number not in STOP_SIGNALS}


def _started() -> float:
    """When this process was started, in seconds of the monotonic clock; now, where that cannot be known."""
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as stat:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
        return min(now, ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return now


def _keep_standard_streams() -> None:
    """Where 0, 1 or 2 is closed, puts /dev/null there: the next pipe would take the number and become the game's."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free number, which is this one


# Forked processes ----------------------------------------------------------------------------------------------------


def _isolate() -> None:
    """Undoes in a forked process what belongs to the init: its signals, its session."""
    signal.set_wakeup_fd(-1)
    for number in _WATCHED:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            continue
    # A session of its own: Ctrl-C and a terminal that hangs up are for the init and the game.
    os.setsid()
    die_with_parent()


def _run_agent(supervisor: Supervisor, link: socket.socket) -> NoReturn:
    """What the forked agent does; see `agent.runtime.app`."""
    code = _AGENT_FAULT
    try:
        _isolate()
        name_process("arbitrium-agent")
        log.send_to(None)
        # Imports make objects that stay: looking through them again and again costs a tenth of the start. The agent
        # turns it on when it serves.
        gc.disable()
        # It would read the metadata of every package that is installed, and find none.
        os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
        from agent.runtime import app  # noqa: PLC0415 - this import is what the init and the game must not wait for

        code = app.run(supervisor, link)
    except LEAVING:
        pass
    except BaseException as problem:
        log.fault("cannot go on as the agent", problem)
    finally:
        # Nothing of the init's may be flushed, closed or joined here.
        os._exit(code)

"""From `arbitrium-agent run` to a running game, and on to the exit code. Standard library only.

In this order: record signals (`agent.init.signals`), read and check the settings, bind the sockets, spawn the game. The
rest of the init is imported and created only then, while the game starts; output and signals that arrive meanwhile wait
in pipes and in a list. Then the lifecycle takes over (`agent.init.supervisor`), and the agent's process is forked; it
imports the large libraries.
"""

from __future__ import annotations

import gc
import os

from agent import log
from agent.errors import EXIT_BAD_SETTINGS, EXIT_CANNOT_EXECUTE, LEAVING, SettingsError
from agent.game.reaper import (
    Reaper,
    adopt_orphans,
    die_with_parent,
    forbid_new_privileges,
    keep_memory_private,
    name_process,
)
from agent.init.inputs import read
from agent.init.last_resort import EXIT_UNKNOWN, LastResort
from agent.init.limits import remember_limits
from agent.init.prepare import bind_sockets, prepare_game
from agent.init.signals import KeptSignals, forget_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import NoReturn

    from agent.game.process import GameProcess
    from agent.init.inputs import Inputs
    from agent.init.sockets import Sockets
    from agent.init.supervisor import Supervisor


_SCARCE = (OSError, ImportError, MemoryError)
"""No descriptor, memory or process to be had: a module cannot be read either."""
_ENTRYPOINT = "/opt/arbitrium-agent/entrypoint.sh"
_BROKEN = (
    "cannot look after the game as usual: there is no API, exit.json or shipped log from here on, but signals, output, "
    "exit code and the self-stop still work"
)


def main(argv: list[str]) -> int:
    """`arbitrium-agent run`.

    Args:
        argv: what follows `run` on the command line.

    Returns:
        The exit code, once everything is over.
    """
    # Imports make objects that stay: looking through them again and again would only take time.
    gc.disable()
    signals = KeptSignals()
    inputs = read(argv)
    log.hide(inputs.secrets)
    log.configure(*inputs.log_style)
    _keep_standard_streams()
    remember_limits()
    adopt_orphans()
    keep_memory_private()
    inputs.check()
    log.hide(inputs.redacted_variables)
    if inputs.setting("no_new_privs"):
        forbid_new_privileges()
    try:
        sockets = bind_sockets(inputs)
        process = prepare_game(inputs, sockets, Reaper())
    except _SCARCE as problem:
        log.error(f"cannot start the game ({problem}); raise the container's limits (descriptors, processes, memory)")
        return EXIT_CANNOT_EXECUTE
    process.ignored, process.blocked = signals.ignored, signals.blocked
    starts = not inputs.problems and bool(inputs.command)
    if starts:
        process.start()
    try:
        _signal_early(signals, inputs, process)
        supervisor = _supervise(signals, inputs, process, sockets)
        # What is there by now stays: neither a collection nor a forked process has to look at it, or to copy it.
        gc.freeze()
        gc.enable()
        if not starts:
            return _refuse(supervisor)
        _say_hello(inputs)
        signals.on_stop = None  # the loop is about to handle them
        return supervisor.run()
    except LEAVING:
        raise
    except BaseException as problem:
        if process.game is None and process.failure is None:
            raise
        rest = LastResort(process, inputs, signals, sockets)
        if process.failure is not None:
            log.error(str(process.failure))
        if process.failure is None or not isinstance(problem, _SCARCE):
            log.fault(_BROKEN, problem)  # else both have the same cause, which was said
        return rest.run()


def _signal_early(signals: KeptSignals, inputs: Inputs, process: GameProcess) -> None:
    """Lets the game hear a stop that has arrived already, or that arrives before there is a loop."""
    if process.game is None:
        return
    from agent.init.early_stop import signal_early  # noqa: PLC0415 - the game's exec did not have to wait for it

    methods, drain = inputs.setting("stop"), inputs.setting("drain_seconds")
    signals.on_stop = lambda: signal_early(process, methods, drain)
    if signals.stop_at is not None:
        signal_early(process, methods, drain)


def _supervise(signals: KeptSignals, inputs: Inputs, process: GameProcess, sockets: Sockets) -> Supervisor:
    """Imports and makes what looks after the game."""
    from agent.init.loop import Loop  # noqa: PLC0415 - these imports are what a game must not wait for
    from agent.init.output import Output  # noqa: PLC0415
    from agent.init.supervisor import Supervisor  # noqa: PLC0415

    loop = Loop()
    signals.give_to(loop.note_signal)
    output = Output(inputs)
    process.read_output(output.capture)
    return Supervisor(loop, inputs, process, output, sockets, _run_agent, _isolate)


def _say_hello(inputs: Inputs) -> None:
    from agent import __version__  # noqa: PLC0415 - as in `_supervise`
    from agent.config.names import quoted_variables, unknown_variables  # noqa: PLC0415
    from agent.game.signal_handling import deaf_shell_in_front  # noqa: PLC0415

    if shell := deaf_shell_in_front():
        log.warning(
            f"cannot hear SIGTERM: {shell} runs above the agent and does not pass it on, so a stop lasts "
            f'the whole grace and ends in SIGKILL; write ENTRYPOINT as a list, ["{_ENTRYPOINT}"], or put `exec` before '
            "the agent in the line or script that starts it"
        )
    for problem in (*unknown_variables(inputs.environ), *quoted_variables(inputs.environ)):
        log.warning(str(problem))
    if inputs.deployment_id:
        log.info(f"version {__version__}, deployment {inputs.deployment_id}")
    else:
        log.info(f"version {__version__}, not on the platform: self-stop, tags and injected values are off")


def _refuse(supervisor: Supervisor) -> int:
    """Reports everything that is wrong with the settings; on the platform, also stops the deployment.

    If it only exited, a restart policy would start and bill the container again, with the same result.
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


def _keep_standard_streams() -> None:
    """Opens /dev/null as each of 0, 1, 2 that is closed, since a pipe could get that number and reach the game."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free number, which is this one


# Forked processes ----------------------------------------------------------------------------------------------------


def _isolate() -> None:
    """Undoes in a forked process what belongs to the init: its signals, its session."""
    forget_signals()
    # A separate session, so that Ctrl-C and a hangup of the terminal reach the init and the game only.
    os.setsid()
    die_with_parent()


def _run_agent(supervisor: Supervisor, link: socket.socket) -> NoReturn:
    """What the forked agent does; see `agent.runtime.app`."""
    code = EXIT_UNKNOWN
    try:
        _isolate()
        name_process("arbitrium-agent")
        log.send_to(None)
        gc.disable()  # as the init does at its start; the agent turns it on when it serves
        # pydantic would read the metadata of every installed package to look for plugins; there are none.
        os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
        from agent.runtime import app  # noqa: PLC0415 - this import is what the init and the game must not wait for

        code = app.run(supervisor, link)
    except LEAVING:
        pass
    except BaseException as problem:
        log.fault("cannot go on as the agent", problem)
    finally:
        # The forked process must not flush, close or join anything that belongs to the init.
        os._exit(code)

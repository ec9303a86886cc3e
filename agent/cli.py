"""The commands. Each is in the package that it belongs to and is imported only when it is called, to be fast.

A module with one command has `add_arguments(parser)` and `run(arguments) -> exit code`. One with several has
`add_<command>_arguments` and `run_<command>` for each.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from agent import __version__
from agent.errors import EXIT_BAD_SETTINGS, AgentError, SettingsError
from agent.terminal_text import safe_lines

# name: (module, what it does). The order is that of the help.
COMMANDS = {
    "config": ("agent.config.cli", "print the effective settings; --check at build time"),
    "ready": ("agent.api.cli", "tell the agent that the game is ready for players"),
    "health": ("agent.api.cli", "send a heartbeat"),
    "stop": ("agent.api.cli", "ask for the end of the deployment"),
    "status": ("agent.api.cli", "what the agent knows"),
    "deployment": ("agent.api.cli", "what the platform injected"),
    "players": ("agent.api.cli", "report players: set, join, leave"),
    "events": ("agent.api.cli", "print what happens, as it happens"),
    "tags": ("agent.api.cli", "the deployment's own tags"),
    "upload": ("agent.api.cli", "keep a file beyond the end of the deployment"),
    "healthcheck": ("agent.api.cli", "exit 0 if the agent lives; --ready: if the game is ready too"),
    "logs": ("agent.logs.cli", "print, follow or search shipped logs"),
    "autopsy": ("agent.logs.cli", "why a deployment ended"),
    "doctor": ("agent.doctor", "what will fail, and what to do about it"),
    "platform": ("agent.edgegap.cli", "call the platform's API"),
    "discover": ("agent.discover.cli", "tell Prometheus where the organisation's game servers are"),
    "fleet": ("agent.fleet.cli", "why servers ended, over a whole fleet: a report, or SQL"),
    "emulate": ("agent.emulator.cli", "serve the platform's API, to develop without an account"),
    "completion": ("agent.completion", "completion of this command line for bash, zsh or fish"),
    "demo": ("agent.demo", "a whole life of a game server in this terminal"),
}
_RUN = "start the game and look after it: the command of a container"


def main(argv: list[str]) -> int:
    """Runs one command; see `_run` for what it returns."""
    try:
        return _run(argv)
    except ModuleNotFoundError as missing:
        # The runtime directory for game images does not contain what only people at a terminal need.
        where = f"{missing.name} is not part of this installation; use the .venv of a checkout, which `make demo` makes"
        print(f"cannot do this here: {where}", file=sys.stderr)
        return 1


def _run(argv: list[str]) -> int:
    """Runs one command.

    Args:
        argv: the command's name and its arguments.

    Returns:
        The exit code: 0 done, 1 it cannot be done, 2 wrong usage, 78 wrong settings.
    """
    parser = argparse.ArgumentParser(
        prog="arbitrium-agent",
        description="The init for game server containers on Edgegap.",
        epilog="`arbitrium-agent COMMAND --help` says more about each.",
    )
    parser.add_argument("--version", action="version", version=f"arbitrium-agent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help=_RUN,
        description=f"arbitrium-agent run: {_RUN}.",
        epilog=_RUN_EPILOG,
        usage="arbitrium-agent run [--setting VALUE ...] -- COMMAND [ARG ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(run=lambda _: run.error("takes the game's command after --"))
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        if name == asked:
            # Only the module of the requested command is imported.
            room = importlib.import_module(module)
            own = hasattr(room, f"run_{name}")
            getattr(room, f"add_{name}_arguments" if own else "add_arguments")(command)
            command.set_defaults(run=getattr(room, f"run_{name}" if own else "run"))
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except SettingsError as wrong:
        print(safe_lines(str(wrong)), file=sys.stderr)
        return EXIT_BAD_SETTINGS
    except AgentError as problem:
        print(safe_lines(str(problem)), file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has closed the pipe (`... | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130


_RUN_EPILOG = """\
Every setting is a variable AGENT_NAME and an option --name; the option wins. `arbitrium-agent config` lists them with
their values, and says what each is for.

exit codes: the game's own; 128 + n when signal n ended it; 126 cannot be executed; 127 not found; 78 wrong settings
"""

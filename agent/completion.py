"""`arbitrium-agent completion`: completion of the whole command line for a shell."""

from __future__ import annotations

import argparse
import importlib
import sys

from agent.errors import how_to_install

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `completion`."""
    parser.add_argument("shell", choices=SHELLS)
    parser.epilog = (
        'bash, and zsh after compinit: eval "$(arbitrium-agent completion SHELL)"; '
        "fish: arbitrium-agent completion fish | source"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the script for a shell.

    Returns:
        0, or 1 where the extra is not installed.
    """
    try:
        import shtab  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        print(f"cannot complete: shtab is not installed; {how_to_install('completion')}", file=sys.stderr)
        return 1
    print(shtab.complete(whole_parser(), shell=arguments.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """The grammar of every command; the command line itself imports only the one that was asked for."""
    from agent.cli import COMMANDS  # noqa: PLC0415 - it imports this module when it is asked for

    parser = argparse.ArgumentParser(prog="arbitrium-agent")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.add_parser("run", help="start the game and look after it: the command of a container")
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        room = importlib.import_module(module)
        own = f"add_{name}_arguments"
        getattr(room, own if hasattr(room, own) else "add_arguments")(command)
    return parser

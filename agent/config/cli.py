"""`arbitrium-agent config`: the effective settings, and `--check` for build time."""

from __future__ import annotations

import argparse
import json
import os
import sys

from agent.config.model import Settings, is_secret, load
from agent.config.names import unknown_variables, variable
from agent.errors import SettingsError

MASK = "********"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--check", action="store_true", help="print nothing but what is wrong; exit 78 if anything is")
    parser.add_argument("--json", action="store_true", help="values alone, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Prints the settings, secrets masked.

    Returns:
        0, or 78 where a setting is wrong. With `--check` a variable `AGENT_...` that is no setting is wrong as well:
        at build time nobody else sets one.
    """
    unknown = unknown_variables(os.environ)
    problems = list(unknown) if arguments.check else []
    settings = None
    try:
        settings = load()
    except SettingsError as wrong:
        problems += wrong.problems
    if problems:
        raise SettingsError(problems)
    assert settings is not None, "load has returned or raised"
    if arguments.check:
        return 0
    for problem in unknown:
        print(f"warning: {problem}; it has no effect", file=sys.stderr)
    shown = {name: _shown(settings, name) for name in Settings.model_fields}
    if arguments.json:
        print(json.dumps({variable(name): value for name, value in shown.items()}, indent=2))
        return 0
    width = max(len(variable(name)) + len(shown_text(value)) for name, value in shown.items()) + 1
    for name, value in shown.items():
        assignment = f"{variable(name)}={shown_text(value)}"
        mark = "" if name in settings.model_fields_set else " (default)"
        print(f"{assignment:<{width}}  # {Settings.model_fields[name].description}{mark}")
    return 0


def _shown(settings: Settings, name: str) -> object:
    value = getattr(settings, name)
    if is_secret(name):
        return MASK if value else None
    return [str(part) for part in value] if isinstance(value, tuple) else value


def shown_text(value: object) -> str:
    """A value as it would be written in a variable."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)

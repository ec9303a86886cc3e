"""`arbitrium-agent config`: the effective settings, and `--check` for build time."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from agent.config import checks
from agent.config.model import Settings, check_together, is_secret, parse
from agent.config.names import quoted_variables, unknown_variables, variable
from agent.config.table import TABLE
from agent.errors import AgentError, Problem, SettingsError, without_credentials

if TYPE_CHECKING:
    import argparse

MASK = "********"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--check", action="store_true", help="print only what is wrong; exit 78 if anything is wrong")
    parser.add_argument("--json", action="store_true", help="values alone, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Prints the settings, secrets masked.

    Returns:
        0, or 78 if a setting is wrong. With `--check`, a variable `AGENT_...` that is not a setting is also wrong,
        since other programs set none at build time, as are files and libraries of this image that `run` would refuse.
    """
    unknown = unknown_variables(os.environ)
    problems = list(unknown) if arguments.check else []
    settings = None
    try:
        settings = parse({})
        problems += check_together(settings, {})
    except SettingsError as wrong:
        problems += wrong.problems
    if settings is not None and arguments.check:
        problems += _refused_at_the_start(settings)
    if problems:
        raise SettingsError(problems)
    assert settings is not None, "what was not parsed is a problem"
    # With --check, an unknown one was a problem.
    for problem in (*unknown, *quoted_variables(os.environ)):
        print(f"warning: {problem}", file=sys.stderr)
    if arguments.check:
        return 0
    shown = {name: _shown(settings, name) for name in Settings.fields}
    if arguments.json:
        print(json.dumps({variable(name): value for name, value in shown.items()}, indent=2))
        return 0
    width = max(len(variable(name)) + len(shown_text(value)) for name, value in shown.items()) + 1
    for name, value in shown.items():
        assignment = f"{variable(name)}={shown_text(value)}"
        mark = "" if name in settings.given else " (default)"
        print(f"{assignment:<{width}}  # {TABLE[name].text}{mark}")
    return 0


def _refused_at_the_start(settings: Settings) -> list[Problem]:
    """The problems for which `run` would refuse these settings in this image."""

    def value(name: str) -> object:
        return getattr(settings, name)

    wrong = list(checks.places(value))
    try:
        # The code that counts players knows which protocols work; without a port of the mapping, any port is used here.
        from agent.runtime.player_count import counter  # noqa: PLC0415 - imports the library for queries

        counter(settings.players_from, [1])
    except AgentError as problem:
        wrong.append(("players_from", f"takes what can count here: {problem}"))
    for name in checks.unset_in_templates(value, os.environ):
        if not name.startswith(("ARBITRIUM_", "MM_")):
            print(f"note: AGENT_TEMPLATE needs the variable {name}, which is not set in this image", file=sys.stderr)
    return [Problem(variable(name), os.environ.get(variable(name)), takes) for name, takes in wrong]


def shown_settings(settings: Settings) -> dict[str, str]:
    """The effective settings as variables and text; secrets are masked."""
    return {variable(name): shown_text(_shown(settings, name)) for name in Settings.fields}


def _shown(settings: Settings, name: str) -> object:
    value = getattr(settings, name)
    if is_secret(name):
        return MASK if value else None
    if isinstance(value, tuple):
        return [without_credentials(str(part)) for part in value]
    return without_credentials(value) if isinstance(value, str) else value


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

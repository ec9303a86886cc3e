"""Configuration files written from templates before the game starts (AGENT_TEMPLATE). Standard library only.

`${NAME}` is replaced by the game's variable of that name, `$$` is a dollar sign, and everything else stays as it is: no
other syntax, no defaults, no commands.
"""

import os
import re

from agent.game import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.game.user import User

_MARK = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


class TemplateError(ValueError):
    """A file that cannot be written; `str()` says what the setting takes."""


def expand(text: str, variables: "dict[str, str]", source: str) -> str:
    """The text with variables in place.

    Raises:
        TemplateError: names every variable that is not there, with its line.
    """
    missing = []
    for number, line in enumerate(text.split("\n"), 1):
        names = (mark[2] for mark in _MARK.finditer(line))
        missing += [f"line {number}: {name}" for name in names if name and name not in variables]
    if missing:
        raise TemplateError(f"takes templates whose variables the game has; missing in {source}: {', '.join(missing)}")
    return _MARK.sub(lambda mark: "$" if mark[1] else variables[mark[2]], text)


def names(text: str) -> "list[str]":
    """The variables that a template names, in order."""
    return [mark[2] for mark in _MARK.finditer(text) if mark[2]]


def write(source: str, target: str, variables: "dict[str, str]", user: "User | None" = None) -> None:
    """Writes one file: all of it or nothing, with the mode of its template.

    Args:
        source: the template; see `agent.game.files` for whose rights it is read with.
        target: the file; what is there is replaced.
        variables: the game's environment.
        user: whom the game runs as, who gets the file, or None for the agent's user.

    Raises:
        TemplateError: a variable is missing, or a file cannot be read or written.
    """
    try:
        with open(files.open_given(source, user), encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
            mode = os.fstat(file.fileno()).st_mode & 0o777
    except OSError as problem:
        raise TemplateError(f"takes templates that can be read; {source}: {_why(problem)}") from None
    text = expand(text, variables, source)
    try:
        files.replace(target, text.encode("utf-8", "surrogateescape"), mode, user)
    except OSError as problem:
        raise TemplateError(f"takes targets that can be written; {target}: {_why(problem)}") from None


def _why(problem: OSError) -> str:
    # What `agent.game.files` refuses by itself it says in words of its own.
    return problem.strerror or os.strerror(problem.errno or 0)

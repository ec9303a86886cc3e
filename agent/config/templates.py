"""Configuration files written from templates before the game starts (AGENT_TEMPLATE). Standard library only.

`${NAME}` is replaced by the game's variable of that name, `$$` is a dollar sign, and everything else stays as it is: no
other syntax, no defaults, no commands.
"""

import contextlib
import os
import re

from agent.game import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.game.user import User

_MARK = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


class TemplateError(ValueError):
    """A file that cannot be written; `str()` says what the setting takes."""


def expand(text: str, variables: "dict[str, str]", source: str) -> str:
    """The text with variables replaced.

    Raises:
        TemplateError: names every missing variable, with its line.
    """
    missing = []
    for number, line in enumerate(text.split("\n"), 1):
        names = (mark[2] for mark in _MARK.finditer(line))
        missing += [f"line {number}: {name}" for name in names if name and name not in variables]
    if missing:
        raise TemplateError(f"takes templates whose variables the game has; missing in {source}: {', '.join(missing)}")
    return _MARK.sub(lambda mark: "$" if mark[1] else variables[mark[2]], text)


def names(text: str) -> "list[str]":
    """The variables in a template, in order."""
    return [mark[2] for mark in _MARK.finditer(text) if mark[2]]


def write_all(
    pairs: "Iterable[tuple[str, str]]", variables: "dict[str, str]", user: "User | None" = None
) -> "list[TemplateError]":
    """Writes all files, or none: a server must not start with a part of its configuration from an older run.

    Args:
        pairs: pairs of template and file; see `agent.game.files` for the rights with which templates are read. An
            existing file is replaced; for a symbolic link, its target. It gets the mode of its template.
        variables: the game's environment.
        user: the game's user, who will own the files, or None for the agent's user.

    Returns:
        The problems: a variable is missing, or a file cannot be read or written. Then nothing was changed.
    """
    problems: list[TemplateError] = []
    puts: list[tuple[str, Callable[[], None]]] = []
    with contextlib.ExitStack() as stack:
        for source, target in pairs:
            try:
                puts.append((target, _staged(source, target, variables, user, stack)))
            except TemplateError as wrong:
                problems.append(wrong)
        for target, put in () if problems else puts:
            try:
                put()
            except OSError as problem:
                problems.append(_cannot_write(target, problem))
    return problems


def _staged(
    source: str, target: str, variables: "dict[str, str]", user: "User | None", stack: "contextlib.ExitStack"
) -> "Callable[[], None]":
    """Writes a temporary file next to the target, which is removed when `stack` is closed.

    Returns:
        A function that renames it to the target.

    Raises:
        TemplateError: a variable is missing, or a file cannot be read or written.
    """
    try:
        with open(files.open_given(source, user), encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
            mode = os.fstat(file.fileno()).st_mode & 0o777
    except OSError as problem:
        raise TemplateError(f"takes templates that can be read; {source}: {_why(problem)}") from None
    content = expand(text, variables, source).encode("utf-8", "surrogateescape")
    if os.path.isdir(target):
        raise TemplateError(f"takes targets that can be written; {target}: it is a directory")
    try:
        return stack.enter_context(files.staged(target, content, mode, user, through_link=True))
    except OSError as problem:
        raise _cannot_write(target, problem) from None


def _cannot_write(target: str, problem: OSError) -> TemplateError:
    return TemplateError(f"takes targets that can be written; {target}: {_why(problem)}")


def _why(problem: OSError) -> str:
    # For paths that it refuses itself, `agent.game.files` provides the message.
    return problem.strerror or os.strerror(problem.errno or 0)

"""Checks which files can be kept: regular files that the game could read itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.api.problems import FieldProblem, Kind, OperationError
from agent.game.files import NotAFileError, open_regular

if TYPE_CHECKING:
    from agent.game.user import User


def readable_file(given: str, user: User | None = None) -> tuple[str, int]:
    """The path without symbolic links, and the size in bytes, of a file that can be kept.

    Args:
        given: the path from the caller.
        user: the game's user, which must be able to read the file; None for the agent's user.

    Raises:
        OperationError: it cannot be kept.
    """

    def wrong(takes: str, why: str) -> OperationError:
        return OperationError(
            Kind.BAD_INPUT, f"cannot keep {given[:200]}: {why}", [FieldProblem("path", given[:200], takes)]
        )

    if not os.path.isabs(given) or "\0" in given:
        raise wrong("an absolute path", "the path is not absolute")
    try:
        # Opened instead of checked: whether it can be read depends on more than its mode.
        descriptor = open_regular(given, user)
    except NotAFileError:
        raise wrong("a regular file", "it is not a regular file") from None
    except OSError as problem:
        whose = "a file that exists and can be read" if user is None else f"a file that user {user.name} can read"
        raise wrong(whose, problem.strerror or "it cannot be read") from None
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)

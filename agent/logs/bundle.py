"""Finds and reads the files to keep beside the log (replays, crash dumps, a core); lists what is missing."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.game.files import file_rights, open_regular
from agent.logs.redact import Redactor
from agent.record import Record

if TYPE_CHECKING:
    from agent.game.user import User

_PIECE = 1024 * 1024


class Kept(Record):
    """A file to keep.

    Attributes:
        path: where it is.
        size: bytes.
        user: the user with whose rights it is opened; None for the agent's user.
    """

    path: str
    size: int
    user: User | None = None


@dataclass(slots=True)
class Manifest:
    """The result for every path to keep.

    Attributes:
        collected: path, bytes and key of each file that was shipped.
        missing: patterns that match nothing.
        unreadable: paths that cannot be read, each with the reason.
        not_shipped: paths not shipped for lack of time or because the store refused them, each with the reason.
    """

    collected: list[dict[str, object]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    not_shipped: list[dict[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "collected": self.collected,
            "missing": self.missing,
            "unreadable": self.unreadable,
            "not_shipped": self.not_shipped,
        }


def find(patterns: Iterable[str], manifest: Manifest, user: User | None = None) -> list[Kept]:
    """The files that match the patterns, smallest first, so that a large file does not use the time of many small ones.

    Args:
        patterns: paths with `*`, `?`, `[...]` and `**`.
        manifest: records the patterns that match nothing, and paths that cannot be read or are not regular files.
        user: the game's user, whose file permissions apply; None for the agent's user.
    """
    found: dict[tuple[int, int], Kept] = {}
    for pattern in patterns:
        try:
            with file_rights(user):
                paths = glob.glob(pattern, recursive=True, include_hidden=True)
                files = [path for path in paths if not os.path.isdir(path)]
                if not files:
                    manifest.missing.append(pattern)
                for path in files:
                    try:
                        fd = open_regular(path)
                    except OSError as problem:
                        manifest.unreadable.append({"path": path, "why": _why(problem)})
                        continue
                    status = os.fstat(fd)
                    os.close(fd)
                    found.setdefault((status.st_dev, status.st_ino), Kept(os.path.abspath(path), status.st_size, user))
        except PermissionError as problem:
            manifest.unreadable.append({"path": pattern, "why": _why(problem)})
    return sorted(found.values(), key=lambda kept: kept.size)


def read(kept: Kept, redactor: Redactor) -> Iterator[bytes]:
    """The bytes of a file, in pieces, with secrets overwritten so that its length does not change.

    A file that is growing is read up to its size when it was found.

    Raises:
        OSError: it cannot be opened or read.
    """
    stream = redactor.stream(keep_length=True)
    left = kept.size
    fd = open_regular(kept.path, kept.user)
    try:
        while left > 0 and (piece := os.read(fd, min(left, _PIECE))):
            left -= len(piece)
            yield stream.feed(piece)
        yield stream.flush()
    finally:
        os.close(fd)


def key_of(kept: Kept) -> str:
    """The name of a kept file below the run's directory; characters not allowed in a key become `_`."""
    name = kept.path.encode("utf-8", "replace").decode()
    return "keep" + "".join(c if c.isprintable() else "_" for c in name)


def _why(problem: OSError) -> str:
    return os.strerror(problem.errno).lower() if problem.errno else str(problem.strerror)

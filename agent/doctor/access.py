"""Whether a user of the image may enter, read or execute a path, by mode bits: the doctor may run as another user."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

READ, EXECUTE = 4, 1


@dataclass(frozen=True)
class Person:
    """A user of the image.

    Attributes:
        uid: number.
        groups: the numbers of all groups, the first one included.
        name: for messages.
    """

    uid: int
    groups: frozenset[int] = field(default_factory=frozenset)
    name: str = ""

    def __str__(self) -> str:
        """`game` or `1000`."""
        return self.name or str(self.uid)


def find(text: str, root: str = "/") -> Person | None:
    """Looks a user up in the image's /etc/passwd and /etc/group.

    Args:
        text: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`, as USER takes it.
        root: where the image's files are.

    Returns:
        None for a name that the image does not have.
    """
    name, _, group = text.strip().partition(":")
    entry = next((one for one in _lines(root, "passwd") if name in (one[0], one[2])), None)
    if entry is None and not name.isdigit():
        return None
    uid = int(entry[2]) if entry else int(name)
    first = int(entry[3]) if entry else (0 if not group else -1)  # an engine gives gid 0 to a bare number
    if group:
        named = next((one for one in _lines(root, "group") if group in (one[0], one[2])), None)
        first = int(named[2]) if named else int(group) if group.isdigit() else first
    others = {int(one[2]) for one in _lines(root, "group") if entry and entry[0] in one[3].split(",")}
    return Person(uid, frozenset({first, *others}), entry[0] if entry else "")


def _lines(root: str, name: str) -> list[list[str]]:
    try:
        with open(os.path.join(root, "etc", name), encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split(":") for line in file]
    except OSError:
        return []
    return [line for line in lines if len(line) >= 4 and line[2].isdigit() and (name == "group" or line[3].isdigit())]


def allowed(path: str, person: Person, wanted: int) -> bool:
    """Whether somebody may do something with one file or directory, its parents apart.

    Raises:
        OSError: it is not there, or cannot be looked at.
    """
    status = os.stat(path)
    if person.uid == 0:
        return wanted != EXECUTE or stat.S_ISDIR(status.st_mode) or bool(status.st_mode & 0o111)
    if status.st_uid == person.uid:
        bits = status.st_mode >> 6
    elif status.st_gid in person.groups:
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    return bits & wanted == wanted


def barrier(path: str, person: Person, root: str = "/") -> str | None:
    """The first directory above a path that somebody may not enter, or None.

    Args:
        path: as the image has it.
        person: who.
        root: where the image's files are.
    """
    place = root
    folders = [part for part in os.path.dirname(path).split("/") if part]
    for index in range(1, len(folders) + 1):
        place = os.path.join(root, *folders[:index])
        try:
            if not allowed(place, person, EXECUTE):
                return "/" + "/".join(folders[:index])
        except PermissionError:
            return "/" + "/".join(folders[: max(0, index - 1)])
        except OSError:
            return None
    return None

"""The user that the game runs as (AGENT_GAME_USER). Standard library only; imported only if the setting is given."""

import grp
import os
import pwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class User:
    """A user to run as.

    Attributes:
        uid, gid: effective ids.
        groups: supplementary groups.
        name, home: for USER, LOGNAME and HOME.
    """

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, uid: int, gid: int, groups: "list[int]", name: str, home: str) -> None:
        """Takes the values of the lookup."""
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.name = name
        self.home = home

    @property
    def environment(self) -> "dict[str, str]":
        """The environment variables that `su` would set."""
        return {"USER": self.name, "LOGNAME": self.name, "HOME": self.home}

    def own(self, descriptors: "Iterable[int]") -> None:
        """Makes the user the owner of pipes and terminals, who could not open /dev/stdout etc. otherwise."""
        for descriptor in descriptors:
            os.fchown(descriptor, self.uid, self.gid)


def identity(user: "User | None") -> "dict[str, Any]":
    """The arguments of `subprocess.Popen` to start a process as a user; None is the agent's own user."""
    if user is None:
        return {}
    groups = {"extra_groups": user.groups} if os.geteuid() == 0 else {}
    return {"user": user.uid, "group": user.gid, **groups}


def find(text: str) -> User:
    """Looks a user up.

    Args:
        text: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; a UID needs no entry in /etc/passwd.

    Raises:
        ValueError: there is no such user, or the agent may not change to it; the message says what the setting takes.
    """
    name, _, group = text.strip().partition(":")
    entry = _entry(name)
    if entry is None and not _is_number(name):
        raise ValueError(f"takes a user of this image (NAME, UID, NAME:GROUP or UID:GID), and {name!r} is none")
    uid = entry.pw_uid if entry else int(name)
    gid = _group(group) if group else entry.pw_gid if entry else uid
    if os.geteuid() != 0 and (uid, gid) != (os.geteuid(), os.getegid()):
        own = f"{os.geteuid()}:{os.getegid()}"
        raise ValueError(f"takes nobody but {own} here, who the agent is: only root can become somebody else")
    if (uid, gid) != (os.geteuid(), os.getegid()) and (lacking := missing_capabilities()):
        raise ValueError(
            f"takes nobody but root here: this container lacks {' and '.join(lacking)}, which that needs "
            f"(--cap-add {','.join(name.removeprefix('CAP_') for name in lacking)}, or USER in the Dockerfile instead)"
        )
    groups = os.getgrouplist(entry.pw_name, gid) if entry else [gid]
    return User(uid, gid, groups, entry.pw_name if entry else name, entry.pw_dir if entry else "/")


def missing_capabilities(status: str = "/proc/self/status") -> "list[str]":
    """The missing capabilities to change to another user (capabilities(7)); [] if they cannot be read."""
    try:
        with open(status, encoding="ascii", errors="replace") as file:
            effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return []
    return [name for name, bit in (("CAP_SETGID", 6), ("CAP_SETUID", 7)) if not effective & 1 << bit]


def _entry(name: str) -> "pwd.struct_passwd | None":
    try:
        return pwd.getpwuid(int(name)) if _is_number(name) else pwd.getpwnam(name)
    except (KeyError, OverflowError, ValueError):
        return None


def _group(name: str) -> int:
    if _is_number(name):
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"takes a group of this image after the colon, and {name!r} is none") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11

"""Default directories of the socket and the spool: one for each user. Standard library only."""

from __future__ import annotations

import os
import stat

_PARENT = "/tmp"  # noqa: S108 - the directories are made 0700, and looked at before they are used
_PREFIX = "arbitrium-agent-"


def home(uid: int) -> str:
    """The directory of a user's agent."""
    return f"{_PARENT}/{_PREFIX}{uid}"


def homes() -> list[str]:
    """Where to look for an agent: this user's directory, and for root also those of other users.

    `docker exec` may enter a container as another user than the agent's. A directory is used only if it belongs to the
    user in its name, because any user can create one.
    """
    found = [home(os.getuid())]
    if os.getuid() != 0:
        return found
    try:
        names = sorted(os.listdir(_PARENT))
    except OSError:
        return found
    for name in names:
        number = name.removeprefix(_PREFIX)
        if not name.startswith(_PREFIX) or not number.isdigit() or home(int(number)) in found:
            continue
        try:
            status = os.lstat(f"{_PARENT}/{name}")
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == int(number):
            found.append(f"{_PARENT}/{name}")
    return found

"""Which processes belong to the game, read from /proc. Standard library only."""

import os


def parents() -> "dict[int, int]":
    """The parent of every process that is visible, by process id (man 5 proc, `/proc/<pid>/stat`)."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                line = stat.read()
        except OSError:
            continue  # it ended between the listing and here
        # The second field is the command in brackets and may hold spaces and brackets itself: the last ")" ends it.
        state, parent = line[line.rindex(b")") + 2 :].split(None, 2)[:2]
        if state != b"X":
            found[int(name)] = int(parent)
    return found


def descendants(root: int, without: "frozenset[int]" = frozenset()) -> "list[int]":
    """Every process below `root`, zombies included, parents before children.

    Because the agent adopts orphans (as PID 1, or as a subreaper), all that the game ever started is below the agent,
    however often it forked and whatever session it is in.

    Args:
        root: the process to begin at; it is not part of the result.
        without: processes to leave out together with all below them (the agent's own helpers).
    """
    children: dict[int, list[int]] = {}
    try:
        found_now = parents()
    except OSError:
        return []  # no descriptor is left to list /proc with: the group is signalled all the same
    for pid, parent in found_now.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = [pid for pid in children.get(waiting.pop(), ()) if pid not in without]
        found.extend(below)
        waiting.extend(below)
    return found

"""Which ports the game listens on, and how many are connected to it, read from /proc/net. Standard library only."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.game.tree import Process

_ESTABLISHED, _LISTEN = "01", "0A"  # include/net/tcp_states.h


def listening(ports: Iterable[int], pids: Iterable[int]) -> bool:
    """Whether a process of the game listens on one of these ports (TCP), or has bound it (UDP).

    Where the game's descriptors cannot be read (another user), any process on that port counts.
    """
    wanted = set(ports)
    inodes = {
        inode
        for protocol in ("tcp", "tcp6", "udp", "udp6")
        for port, state, inode in _sockets(protocol)
        if port in wanted and (state == _LISTEN or protocol.startswith("udp"))
    }
    if not inodes:
        return False
    owned = _owned(pids)
    return owned is None or bool(inodes & owned)


def owners(ports: Iterable[int], processes: Iterable[Process]) -> list[int]:
    """The processes that hold a socket on one of these ports (TCP listening, UDP bound); empty where that is hidden."""
    wanted = set(ports)
    if not wanted:
        return []
    inodes = {
        inode
        for protocol in ("tcp", "tcp6", "udp", "udp6")
        for port, state, inode in _sockets(protocol)
        if port in wanted and (state == _LISTEN or protocol.startswith("udp"))
    }
    return [process.pid for process in processes if inodes & (_owned([process.pid]) or set())] if inodes else []


def connected(ports: Iterable[int]) -> int:
    """How many TCP connections to these local ports are established."""
    wanted = set(ports)
    return sum(
        port in wanted and state == _ESTABLISHED
        for protocol in ("tcp", "tcp6")
        for port, state, _ in _sockets(protocol)
    )


def _sockets(protocol: str) -> Iterator[tuple[int, str, str]]:
    """Local port, state and inode of each socket (man 5 proc, /proc/net/tcp)."""
    try:
        with open(f"/proc/net/{protocol}", encoding="ascii") as table:
            lines = table.read().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 9:
            yield int(fields[1].rpartition(":")[2], 16), fields[3], fields[9]


def _owned(pids: Iterable[int]) -> set[str] | None:
    """Inodes of the sockets that these processes hold; None where that cannot be read."""
    found: set[str] = set()
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except PermissionError:
            return None
        except OSError:
            continue
        for name in names:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found

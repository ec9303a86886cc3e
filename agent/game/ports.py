"""Which ports the game listens on, and who is connected to it, read from /proc/net. Light enough for PID 1."""

from __future__ import annotations

import os

from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ESTABLISHED, _LISTEN, _UNCONNECTED = "01", "0A", "07"  # include/net/tcp_states.h; a bound UDP socket is in TCP_CLOSE
_PROTOCOLS = ("tcp", "tcp6", "udp", "udp6")
_MAPPED = "0000000000000000FFFF0000"  # ::ffff:a.b.c.d: what a socket of both families has for an IPv4 peer
_PROC_NET = "/proc/net"


class Socket(Record):
    """A line of /proc/net/tcp and the like (man 5 proc).

    Attributes:
        protocol: `tcp` or `udp`.
        local, remote: address as the kernel writes it, in hexadecimal, and port.
        state: as the kernel numbers it.
        inode: identifies the owning process; "0" if no process owns it any more.
    """

    protocol: str
    local: tuple[str, int]
    remote: tuple[str, int]
    state: str
    inode: str

    @property
    def is_open(self) -> bool:
        """Whether clients can reach it: it listens (TCP), or is not connected to a single peer (UDP)."""
        return self.state == (_LISTEN if self.protocol == "tcp" else _UNCONNECTED)


def listening(ports: Iterable[int], pids: Iterable[int]) -> bool:
    """Whether a process of the game listens on one of these ports (TCP), or has bound it (UDP).

    If the game's descriptors cannot be read (another user), any process on that port counts.
    """
    inodes = _open_inodes(ports)
    if not inodes:
        return False
    owned = _owned(pids)
    return owned is None or bool(inodes & owned)


def is_open(ports: Iterable[int]) -> bool:
    """Whether anything here listens on one of these ports (TCP), or has bound it (UDP)."""
    return bool(_open_inodes(ports))


def owners(ports: Iterable[int], pids: Iterable[int]) -> list[int]:
    """The processes that listen on one of these ports (TCP), or have bound it (UDP)."""
    inodes = _open_inodes(ports)
    return [pid for pid in pids if inodes & (_owned([pid]) or set())] if inodes else []


def what_listens(ports: Iterable[int], pids: Iterable[int]) -> str:
    """The ports that the game listens on instead of these, as half a sentence.

    Returns:
        Such as `it listens on UDP 5155, not on 5154`.
    """
    wanted = ", ".join(str(port) for port in sorted(set(ports)))
    sockets = [socket for socket in _visible(_PROTOCOLS) if socket.is_open]
    owned = _owned(pids)
    if owned is None:
        opened = _named(sockets)
        return f"its sockets cannot be read (another user); open here is {opened or 'nothing'}, not {wanted}"
    opened = _named(socket for socket in sockets if socket.inode in owned)
    return f"it listens on {opened or 'no port'}, not on {wanted}"


def connections(ports: Iterable[int], own: Iterable[int], *, net: str = _PROC_NET) -> frozenset[str]:
    """The TCP connections from outside to these local ports.

    Args:
        ports: where players connect to.
        own: processes whose connections do not count: those of the game, which may connect to itself, and the agent.
        net: where the kernel's tables are.

    Returns:
        A name for each, which stays the same while the connection exists.

    Raises:
        OSError: the kernel's table cannot be read.
    """
    wanted = set(ports)
    sockets = _read("tcp", net)
    if os.path.exists(f"{net}/tcp6"):  # otherwise the kernel has no IPv6
        sockets += _read("tcp6", net)
    established = [socket for socket in sockets if socket.state == _ESTABLISHED]
    by_ends = {(socket.local, socket.remote): socket.inode for socket in established}
    found = {}
    for socket in established:
        if socket.local[1] in wanted:
            found[f"{socket.inode} {socket.remote[0]}:{socket.remote[1]}"] = by_ends.get((socket.remote, socket.local))
    # If the other end is in the same container, it is in the same table, and may belong to the game itself.
    if any(found.values()):
        owned = _owned(own) or set()
        return frozenset(name for name, other_end in found.items() if other_end not in owned)
    return frozenset(found)


def _open_inodes(ports: Iterable[int]) -> set[str]:
    wanted = set(ports)
    return {
        socket.inode
        for socket in _visible(_PROTOCOLS)
        if socket.local[1] in wanted and (socket.state == _LISTEN or socket.protocol == "udp")
    }


def _visible(protocols: Iterable[str]) -> list[Socket]:
    """The entries of these tables; a table that cannot be read counts as empty."""
    found = []
    for protocol in protocols:
        try:
            found += _read(protocol, _PROC_NET)
        except OSError:
            continue
    return found


def _read(table: str, net: str) -> list[Socket]:
    with open(f"{net}/{table}", encoding="ascii") as file:
        lines = file.read().splitlines()[1:]
    rows = (line.split() for line in lines)
    return [
        Socket(table.rstrip("6"), _address(row[1]), _address(row[2]), row[3], row[9]) for row in rows if len(row) > 9
    ]


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.removeprefix(_MAPPED) if len(host) == 32 else host, int(port, 16)


def _named(sockets: Iterable[Socket]) -> str:
    """`TCP 80, 443 and UDP 7777`."""
    by_protocol: dict[str, set[int]] = {}
    for socket in sockets:
        by_protocol.setdefault(socket.protocol.upper(), set()).add(socket.local[1])
    return " and ".join(
        f"{protocol} {', '.join(str(port) for port in sorted(ports))}"
        for protocol, ports in sorted(by_protocol.items())
    )


def _owned(pids: Iterable[int]) -> set[str] | None:
    """Inodes of the sockets that these processes hold; None if they cannot be read."""
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

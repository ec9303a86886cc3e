"""Who may talk to the agent: this machine over HTTP, certain users over the socket. Standard library only."""

from __future__ import annotations

import ipaddress
import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from agent.init.sockets import peer_credentials
from agent.record import Record


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a `Host` header names this machine: localhost, 127.0.0.0/8 or [::1], with any port or none.

    The control port listens on loopback only, but an attacker's host name can point a browser on the same machine to it
    (DNS rebinding); then the `Host` is that name.
    """
    try:
        parts = urlsplit(f"//{host}")
        name, _port = parts.hostname, parts.port
    except ValueError:
        return False
    if not name or parts.username is not None or parts.path or parts.query or parts.fragment:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=64)
def is_loopback_origin(origin: str) -> bool:
    """Whether an `Origin` header names a page of this machine.

    Programs send none. A page of another machine is refused, since it could send requests that need no preflight.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and is_loopback(parts.netloc)


class Peer(Record):
    """The process at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED, man 7 unix).

    Attributes:
        pid: 0 if it is not visible in this PID namespace.
        uid, gid: its effective user and group when it connected.
    """

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """The process that connected. Raises `OSError` if the connection is gone."""
    return Peer(*peer_credentials(connection))


def allowed_users(*more: int) -> frozenset[int]:
    """The users that may use the socket: root, the agent's own user, and `more` (the game's user)."""
    return frozenset({0, os.geteuid(), *more})

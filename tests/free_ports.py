"""Ports for programs that have to be told one, which no other test and no other program is given meanwhile."""

import itertools
import os
import random
import socket

_FIRST, _LAST = 10_000, 19_999
"""Below what Linux gives to `bind` without a port and to connections (net.ipv4.ip_local_port_range, 32768 to 60999),
so that nothing on this machine gets one of these by chance, and below what the emulator chooses from."""

_WORKERS = 8
_share = (_LAST - _FIRST + 1) // _WORKERS
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_own = range(_FIRST + _worker * _share, _FIRST + (_worker + 1) * _share)
# Another run of the tests on this machine begins elsewhere.
_next = itertools.count(random.randrange(_share))


def free_port(kind: socket.SocketKind | None = None) -> int:
    """A port that is free on all addresses, and that this function does not return soon again.

    Args:
        kind: the socket's kind, or None for both TCP and UDP.
    """
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM) if kind is None else (kind,)
    for _ in _own:
        port = _own[next(_next) % _share]
        if all(_is_free(one, port) for one in kinds):
            return port
    raise OSError(f"cannot find a free port from {_own[0]} to {_own[-1]}")


def _is_free(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True

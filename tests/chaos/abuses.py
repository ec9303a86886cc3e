"""What a game, or another program beside it, does to the agent without end: `python -m tests.chaos.abuses NAME`.

A process of its own, so that what it costs is not taken from the clients that are measured. It says `at work` once
everything is in place, and goes on until it is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

Abuse = Callable[[], Iterator[object]]
_LINGER = struct.pack("ii", 1, 60)


def _http() -> socket.socket:
    """A new connection to the API."""
    url = urlsplit(os.environ["AGENT_URL"])
    return socket.create_connection((url.hostname or "", url.port or 0))


def _control() -> socket.socket:
    """A new connection to the control socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["AGENT_SOCKET"])
    return connection


def _without_waiting(held: list[socket.socket], data: bytes) -> Iterator[object]:
    """Sends the same again and again, and reads what has come, without waiting for it."""
    for connection in held:
        connection.setblocking(False)
    while True:
        for connection in held:
            with contextlib.suppress(OSError):
                connection.send(data)
            with contextlib.suppress(OSError):
                while connection.recv(1 << 20):
                    pass
        yield None
        time.sleep(0.001)


def nothing() -> Iterator[object]:
    """For comparison: no abuse at all."""
    while True:
        time.sleep(0.1)
        yield None


def half_requests() -> Iterator[object]:
    """Connections that send a part of a request and no more, each replaced when it is closed."""
    held: list[socket.socket] = []
    while True:
        connection = _http()
        connection.sendall(b"POST /v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"[: len(held) % 60 + 1])
        held.append(connection)
        if len(held) >= 400:
            for old in held[:100]:
                old.close()
            del held[:100]
            yield None


def five_thousand_connections() -> Iterator[object]:
    """As many as that, opened without a pause and kept."""
    held: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            held.append(_http())
        if len(held) >= 5000:
            for old in held[:500]:
                old.close()
            del held[:500]
            yield None


def unread_answers() -> Iterator[object]:
    """Two hundred clients of the socket that ask for large answers and read none."""
    held = [_control() for _ in range(200)]
    line = b"".join(
        json.dumps({"jsonrpc": "2.0", "id": number, "method": "status"}).encode() + b"\n" for number in range(400)
    )
    for connection in held:
        connection.setblocking(False)
    for turn in itertools.count():
        for connection in held:
            with contextlib.suppress(OSError):
                connection.send(line)
        yield turn
        time.sleep(0.01)


def large_batches() -> Iterator[object]:
    """Batches of status, as large as a line may be, one after the other on eight connections."""
    held = [_control() for _ in range(8)]
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "status"}).encode()
    line = b"[" + b",".join([call] * (64_000 // (len(call) + 1))) + b"]\n"
    yield from _without_waiting(held, line)


def event_streams() -> Iterator[object]:
    """A thousand streams of events, of which none is read, while events come."""
    held: list[socket.socket] = []
    for _ in range(1000):
        with contextlib.suppress(OSError):
            connection = _http()
            connection.sendall(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
            held.append(connection)
    caller = _control()
    caller.setblocking(False)
    for number in itertools.count():
        call = {"jsonrpc": "2.0", "id": number, "method": "players.set", "params": {"count": number % 7}}
        with contextlib.suppress(OSError):
            caller.send(json.dumps(call).encode() + b"\n")
        with contextlib.suppress(OSError):
            caller.recv(1 << 20)
        yield number
        time.sleep(0.005)


def lingering_descriptors() -> Iterator[object]:
    """Datagrams with a hundred sockets that cannot be closed at once, to the notify socket and the control socket."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while True:
            full: list[socket.socket] = []
            for _ in range(100):
                one = socket.create_connection(silent.getsockname())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                one.setblocking(False)
                with contextlib.suppress(OSError):
                    while True:
                        one.send(bytes(65536))
                full.append(one)
            numbers = [one.fileno() for one in full]
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
                sender.setblocking(False)
                socket.send_fds(sender, [b"BARRIER=1"], numbers, 0, os.environ["NOTIFY_SOCKET"])
            with _control() as connection, contextlib.suppress(OSError):
                socket.send_fds(connection, [b'{"jsonrpc": "2.0", "id": 1, "method": "health"}\n'], numbers)
            for one in full:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
                one.detach()
            for number in numbers:
                os.close(number)
            yield None


def notifications() -> Iterator[object]:
    """Datagrams of sd_notify as fast as they are taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        while True:
            for _ in range(1000):
                sender.send(b"STATUS=busy\nWATCHDOG=1")
            yield None


def pipelined_requests() -> Iterator[object]:
    """Requests without waiting for the answers, on eight connections."""
    held = [_http() for _ in range(8)]
    requests = b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200
    yield from _without_waiting(held, requests)


ABUSES: dict[str, Abuse] = {
    abuse.__name__: abuse
    for abuse in (
        nothing,
        half_requests,
        five_thousand_connections,
        unread_answers,
        large_batches,
        pipelined_requests,
        event_streams,
        lingering_descriptors,
        notifications,
    )
}


def main() -> None:
    """Goes on until it is killed, or its parent is gone."""
    import resource  # noqa: PLC0415 - only here

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    parent = os.getppid()
    turns = ABUSES[sys.argv[1]]()
    next(turns)
    print("at work", flush=True)
    for _ in turns:
        if os.getppid() != parent or not Path("/proc/self").exists():
            return


if __name__ == "__main__":
    main()

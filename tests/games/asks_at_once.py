"""A game that calls the agent in its first breath: HTTP and the socket, thirty times each, all open at once.

It prints how many were answered, and what went wrong with the others, then waits for SIGTERM and exits 0.
"""

import os
import re
import signal
import socket
import sys

COUNT = 30
REQUEST = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CALL = b'{"jsonrpc": "2.0", "id": 1, "method": "health"}\n'


def connect(family: int, address: object, question: bytes) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(address)  # type: ignore[arg-type]
    connection.sendall(question)
    return connection


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
match = re.fullmatch(r"http://([^:/]+):(\d+)/?", os.environ["AGENT_URL"])
assert match
http = (match[1], int(match[2]))
wrong: list[str] = []
open_ones: list[tuple[str, socket.socket]] = []
for _ in range(COUNT):
    for name, family, address, question in (
        ("http", socket.AF_INET, http, REQUEST),
        ("socket", socket.AF_UNIX, os.environ["AGENT_SOCKET"], CALL),
    ):
        try:
            open_ones.append((name, connect(family, address, question)))
        except OSError as error:
            wrong.append(f"{name}: {error}")
print("asked", flush=True)
answered = 0
for name, connection in open_ones:
    with connection:
        try:
            answer = connection.recv(65536)
        except OSError as error:
            wrong.append(f"{name}: {error}")
            continue
        good = answer.startswith(b"HTTP/1.1 20") if name == "http" else b'"result"' in answer
        answered += good
        if not good:
            wrong.append(f"{name}: {answer[:200]!r}")
print("answered", answered, "of", COUNT * 2, *sorted(set(wrong)), flush=True)
while True:
    signal.pause()

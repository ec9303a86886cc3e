"""A game that asks for its own stop a hundred times at once: fifty times over HTTP and fifty times over the socket.

It stays, deaf to SIGTERM, until it has every answer, prints each of the different ones it got as JSON, and exits 0.
"""

import json
import os
import re
import signal
import socket
from threading import Barrier, Thread

signal.signal(signal.SIGTERM, signal.SIG_IGN)
match = re.fullmatch(r"http://([^:/]+):(\d+)/?", os.environ["AGENT_URL"])
assert match
http = (match[1], int(match[2]))
body = json.dumps({"reason": "match over"}).encode()
REQUEST = (
    b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(body), body)
)
CALL = b'{"jsonrpc": "2.0", "id": 1, "method": "stop", "params": {"reason": "match over"}}\n'
together = Barrier(100)
answers: list[str] = []


def everything(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def ask_http() -> None:
    with socket.create_connection(http, timeout=30) as connection:
        together.wait()
        connection.sendall(REQUEST)
        head, _, answer = everything(connection).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    answers.append(json.dumps(["http", status, json.loads(answer)], sort_keys=True))


def ask_socket() -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(os.environ["AGENT_SOCKET"])
        together.wait()
        connection.sendall(CALL)
        with connection.makefile("rb") as lines:
            answer = json.loads(lines.readline())
    answers.append(json.dumps(["socket", answer.get("error"), answer.get("result")], sort_keys=True))


threads = [Thread(target=ask) for ask in (ask_http, ask_socket) for _ in range(50)]
print("ready", flush=True)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("count", len(answers), flush=True)
for text in sorted(set(answers)):
    print("answer", text, flush=True)

"""How long the local API takes to answer and how much it can answer, next to a bare aiohttp app with two routes."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks import Row, percentile, skipped, summary
from benchmarks._tools import CannotMeasureError, Client, agent, bare, first_answer, free_port, rounds, scratch

OPERATIONS = (("POST", "/v1/health", 1.05), ("GET", "/v1/status", 1.1))  # and how much longer than the bare app's
THROUGHPUT = "POST /v1/health a second, 8 connections"
CONNECTIONS = 8
AGONES = "AGONES_SDK_SERVER"  # the environment variable with the path of Agones' sdk-server
_BARE, _AGONES = "bare aiohttp app", "Agones' sdk-server"


def measure(quick: bool) -> list[Row]:
    """Asks all in turns, over one connection each, and then over eight."""
    seconds, requests = (1.5, 250) if quick else (6.0, 500)
    rows = []
    with ExitStack() as stack:
        try:
            ours = stack.enter_context(agent()).port
            with Client(ours) as client:
                size = len(client.ask(client.request("GET", "/v1/status"))[1])
            ports = {"agent": ours, _BARE: stack.enter_context(bare(f"body={size}")).port}
        except CannotMeasureError as problem:
            return [skipped(f"p50 of {method} {path}", "agent", "µs", str(problem)) for method, path, _ in OPERATIONS]
        try:
            ports[_AGONES] = stack.enter_context(_agones())
        except CannotMeasureError as problem:
            rows.append(skipped(THROUGHPUT, _AGONES, "1/s", str(problem)))
        clients = {who: stack.enter_context(Client(port)) for who, port in ports.items()}
        found = []
        for method, path, ratio in OPERATIONS:
            found += _latencies(clients, method, path, requests, seconds, ratio)
        return [*found, *_throughput(ports, quick), *rows]


def _asked(who: str, method: str, path: str) -> tuple[str, str]:
    """The same question in the words of whoever is asked."""
    if who != _AGONES:
        return method, path
    return ("POST", "/health") if path.endswith("health") else ("GET", "/gameserver")


def _latencies(
    clients: dict[str, Client], method: str, path: str, requests: int, seconds: float, ratio: float
) -> list[Row]:
    found: dict[str, list[float]] = {who: [] for who in clients}
    for who, client in clients.items():
        client.timed(*_asked(who, method, path), requests)
    for _ in rounds(seconds, 20, 2):
        for who, client in clients.items():
            found[who] += [each * 1e6 for each in client.timed(*_asked(who, method, path), requests)]
    rows = []
    for percent in (50, 99):
        values = {who: percentile(some, percent) for who, some in found.items()}
        for who, value in values.items():
            aim = ratio * values[_BARE] if (percent, who) == (50, "agent") else None
            rows.append(Row(f"p{percent} of {method} {path}", who, value, "µs", len(found[who]), at_most=aim))
    return rows


def _throughput(ports: dict[str, int], quick: bool) -> list[Row]:
    found: dict[str, list[float]] = {who: [] for who in ports}
    for _ in rounds(2.5 if quick else 8.0, 8, 2):
        for who, port in ports.items():
            found[who].append(_answered_a_second(port, _asked(who, "POST", "/v1/health"), 0.4))
    least = percentile(found[_AGONES], 50) if _AGONES in found else None
    return [
        summary(THROUGHPUT, who, values, "1/s", at_least=least if who == "agent" else None)
        for who, values in found.items()
    ]


def _answered_a_second(port: int, asked: tuple[str, str], seconds: float) -> float:
    """Keeps a request under way on each connection; the client is one thread, and shares the machine."""
    clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(CONNECTIONS)]
    request = f"{asked[0]} {asked[1]} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n".encode()
    by_fd = {client.fileno(): client for client in clients}
    poll = select.epoll()
    try:
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(client.fileno(), select.EPOLLIN)
            client.sendall(request)
        answers, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            for fd, _ in poll.poll(1.0):
                # An answer is far smaller than a segment, and the next one is asked for only after it.
                answer = by_fd[fd].recv(65536)
                assert answer[9:10] == b"2", f"{asked} was answered {answer[:100]!r}"
                answers += 1
                by_fd[fd].sendall(request)
        return answers / passed
    finally:
        poll.close()
        for client in clients:
            client.close()


@contextmanager
def _agones() -> Iterator[int]:
    """Agones' own sidecar in its local mode; gives the port of its REST."""
    binary = os.environ.get(AGONES)
    if not binary:
        raise CannotMeasureError(f"{AGONES} does not name its binary")
    grpc, rest = free_port(), free_port()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        command = [binary, "--local", f"--grpc-port={grpc}", f"--http-port={rest}"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            first_answer(rest, "/gameserver")
            yield rest
        finally:
            process.kill()
            process.wait()

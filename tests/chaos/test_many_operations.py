"""Operations over all transports at once, as many as OPERATIONS says: memory that does not grow, and what one costs.

`make chaos` asks for ten million. A batch of JSON-RPC counts as as many operations as it has calls.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.process.harness import Launcher, Run, agent_process, cpu_seconds, game, status_of

OPERATIONS = int(os.environ.get("OPERATIONS", "200000"))
WARM = min(100_000, OPERATIONS // 2)
"""Operations after which memory is looked at for the first time."""
MOST_GROWTH = 0.03
IN_A_BATCH = 50
CALLS = [
    {"method": "health", "params": {}},
    {"method": "players.set", "params": {"count": 3, "capacity": 16}},
    {"method": "metrics.set", "params": {"metrics": [{"name": "tick_seconds", "value": 0.016}]}},
    {"method": "status", "params": {}},
]


def over_the_socket(run: Run) -> Iterator[int]:
    """Batches of heartbeats, and now and then every other call."""
    heartbeats = [{"jsonrpc": "2.0", "id": number, "method": "health"} for number in range(IN_A_BATCH)]
    others = [{"jsonrpc": "2.0", "id": number, **call} for number, call in enumerate(CALLS)]
    lines = [json.dumps(batch).encode() + b"\n" for batch in (*[heartbeats] * 9, others)]
    sizes = [*[len(heartbeats)] * 9, len(others)]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(run.game_environment["AGENT_SOCKET"])
        answers = connection.makefile("rb")
        for line, size in itertools.cycle(zip(lines, sizes, strict=True)):
            connection.sendall(line)
            answer = json.loads(answers.readline())
            assert len(answer) == size
            assert not any(one.get("error", {}).get("code") == -32603 for one in answer)
            yield size


def over_http(run: Run) -> Iterator[int]:
    """Heartbeats and reports over one connection that is kept."""
    connection = http.client.HTTPConnection(urlsplit(run.game_environment["AGENT_URL"]).netloc)
    with contextlib.closing(connection):
        for path, body in itertools.cycle([("/v1/health", None), ("/v1/players", b'{"count": 2}')]):
            connection.request("POST" if body is None else "PUT", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status < 300, (path, response.status)
            yield 1


def over_notify(run: Run) -> Iterator[int]:
    """Heartbeats as systemd's clients send them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(run.game_environment["NOTIFY_SOCKET"])
        while True:
            sender.send(b"WATCHDOG=1")
            yield 1


def memory(pid: int) -> int:
    """Resident bytes that are no file's: what a leak makes grow."""
    return int(status_of(pid)["RssAnon"].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_memory_does_not_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the first hundred thousand operations to the last, by no more than three in a hundred."""
    with Launcher(tmp_path) as launch:
        _watch_memory(launch, capsys)


def _watch_memory(launch: Launcher, capsys: pytest.CaptureFixture[str]) -> None:
    run = launch(game("polite"), mode="subreaper")
    run.wait_for("ready")
    run.http("POST", "/v1/ready")
    agent = agent_process(run.pid)
    assert agent
    done = {"socket": 0, "http": 0, "notify": 0}
    wrong: list[BaseException] = []
    warm = threading.Event()
    stop = threading.Event()

    def drive(name: str, way: Callable[[Run], Iterator[int]]) -> None:
        try:
            for count in way(run):
                done[name] += count
                if stop.is_set():
                    return
                if sum(done.values()) >= WARM:
                    warm.set()
                if sum(done.values()) >= OPERATIONS:
                    return
        except BaseException as problem:
            wrong.append(problem)
        finally:
            warm.set()

    ways = {"socket": over_the_socket, "http": over_http, "notify": over_notify}
    threads = [threading.Thread(target=drive, args=each) for each in ways.items()]
    for thread in threads:
        thread.start()
    warm.wait()
    before = {"agent": memory(agent), "PID 1": memory(run.pid)}
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    after = {"agent": memory(agent), "PID 1": memory(run.pid)}
    total = sum(done.values())
    cpu = cpu_seconds(agent) + cpu_seconds(run.pid)
    grown = {name: after[name] / before[name] - 1 for name in after}
    with capsys.disabled():
        print(f"\n  {total:,} operations ({', '.join(f'{name} {count:,}' for name, count in done.items())}): ", end="")
        print(f"{cpu / total * 1e6:.0f} us of CPU each; anonymous memory since the first {WARM:,}: ", end="")
        print(", ".join(f"{name} {after[name] / 1e6:.1f} MB ({grown[name]:+.1%})" for name in after))
    assert agent_process(run.pid) == agent, "the agent's process was lost"
    # Less than a hundred thousand operations would not have filled what is bounded.
    if WARM >= 100_000:
        assert max(grown.values()) <= MOST_GROWTH, grown
    assert run.stop().code == 0

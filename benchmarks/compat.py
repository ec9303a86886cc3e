"""What answering for another host costs: instructions of a start, and the memory of a listener's first use.

Memory is that of the agent's own process, before and after. Instructions are counted as in `benchmarks.instructions`.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator

from benchmarks import Row, skipped, summary
from benchmarks._tools import (
    AGENT,
    CannotMeasureError,
    agent_environment,
    first_answer,
    free_port,
    memory,
    new_file,
    own_processes,
    rounds,
    running,
    stamp,
)
from benchmarks.instructions import instructions_of

# Listener, its setting, the host, and a first request; gRPC is imported when somebody connects.
LISTENERS = (
    ("agones REST", "AGENT_AGONES_HTTP_PORT", "agones", b"GET /gameserver HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("agones gRPC", "AGENT_AGONES_GRPC_PORT", "agones", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ("multiplay", "AGENT_MULTIPLAY_PORT", "multiplay", b"GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("playfab", "AGENT_PLAYFAB_PORT", "playfab", b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
)
HOSTS = ("agones", "multiplay", "playfab", "auto")
START = "instructions of a start, other hosts"


def measure(quick: bool) -> list[Row]:
    """Measures fresh processes."""
    rows = [] if quick else _starts()
    for listener, setting, host, request in LISTENERS:
        what = f"PSS, first use of {listener}"
        grown: list[float] = []
        try:
            for _ in rounds(1.0 if quick else 4.0, 1 if quick else 3):
                with _agent(host, setting) as (pid, port):
                    before = memory(pid)[1]
                    _use(port, request)
                    grown.append(memory(pid)[1] - before)
        except CannotMeasureError as problem:
            rows.append(skipped(what, "agent", "MB", str(problem)))
        else:
            rows.append(summary(what, "agent", grown, "MB", note="growth of the agent's own process"))
    return rows


def _starts() -> list[Row]:
    """A start with an answer, with nothing of this, and with each of it."""
    rows = []
    for host in ("off", *HOSTS):
        control = free_port()
        with tempfile.TemporaryDirectory() as home:
            environment = agent_environment(control, 0)
            if host != "off":
                environment |= {name: "0" for _, name, _, _ in LISTENERS}
                environment |= {"AGENT_COMPAT": host, "HOME": home, "TMPDIR": home}
            try:
                value = instructions_of([AGENT, "run", "--", stamp(), "wait", new_file(), "0"], environment, control)
            except CannotMeasureError as problem:
                return [skipped(START, "agent", "M", str(problem))]
            rows.append(Row(START, f"AGENT_COMPAT={host}", value / 1e6, "M"))
    return rows


@contextlib.contextmanager
def _agent(host: str, setting: str) -> Iterator[tuple[int, int]]:
    """An agent that answers for a host: its own process, and the listener's port."""
    control, metrics, port = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as home:
        others = {name: "0" for _, name, _, _ in LISTENERS if name != setting}
        environment = agent_environment(control, metrics) | others
        environment |= {"AGENT_COMPAT": host, setting: str(port), "HOME": home, "TMPDIR": home}
        with running([AGENT, "run", "--", stamp(), "wait", new_file(), "0"], environment) as process:
            first_answer(control, "/healthz")
            _, *agents = own_processes(process.pid)
            if not agents:
                raise CannotMeasureError("the agent's process is not found")
            yield agents[0], port


def _use(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(request)
        if not client.recv(65536):
            raise CannotMeasureError("the listener hung up")
        time.sleep(0.3)  # what is done right after the answer counts as well

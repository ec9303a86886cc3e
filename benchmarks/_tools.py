"""What several benchmarks need: programs with exact moments, agents to measure, a client that costs next to nothing."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import psutil

# Where the environment forbids bytecode, every start of a Python program would compile it anew: no image does that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

HERE = Path(__file__).parent
AGENT = str(Path(sys.executable).with_name("arbitrium-agent"))
PATIENCE = 20.0  # seconds after which something that should have happened will not happen any more


class CannotMeasureError(Exception):
    """Something is missing on this machine; the message says what."""


@cache
def scratch() -> Path:
    """A directory that is gone when the benchmarks are."""
    path = Path(tempfile.mkdtemp(prefix="arbitrium-benchmarks-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def stamp() -> str:
    """The program with exact moments, compiled; see `_stamp.c`.

    Raises:
        CannotMeasureError: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotMeasureError("no C compiler (Debian: apt install gcc libc6-dev)")
    program = str(scratch() / "stamp")
    subprocess.run([compiler, "-O2", "-o", program, str(HERE / "_stamp.c")], check=True)
    return program


PEERS = {"tini": ["-s", "--"], "dumb-init": ["--"]}  # -s: as a subreaper, since it is not PID 1 here


def peer(name: str) -> list[str]:
    """The command of another init, to which the game's is added.

    Raises:
        CannotMeasureError: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise CannotMeasureError(f"{name} is not installed (Debian: apt install {name})")
    return [path, *PEERS[name]]


def rounds(seconds: float, most: int, least: int = 1) -> Iterator[int]:
    """Numbers of rounds from 0 on: `most`, or fewer (`least` at least) where these would take more than `seconds`."""
    began = time.monotonic()
    for number in range(most):
        passed = time.monotonic() - began
        if number >= least and passed + passed / number > seconds:
            return
        yield number


def new_file() -> str:
    """The path of a file that is not there yet."""
    descriptor, path = tempfile.mkstemp(dir=scratch())
    os.close(descriptor)
    os.unlink(path)
    return path


def moments(path: str) -> dict[str, float]:
    """The moments in a file that `stamp` wrote, in seconds of the monotonic clock."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {word: int(number) / 1e9 for word, _, number in (line.partition(" ") for line in lines)}


def moment(path: str, word: str) -> float:
    """Waits until `stamp` has written a moment, and returns it.

    Raises:
        CannotMeasureError: it did not.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if word in (found := moments(path)):
            return found[word]
        time.sleep(0.002)
    raise CannotMeasureError(f"{word} did not happen within {PATIENCE:g} s")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def agent_environment(control: int, metrics: int) -> dict[str, str]:
    """An environment for an agent that shares nothing with any other."""
    place = tempfile.mkdtemp(dir=scratch())
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("AGENT_", "ARBITRIUM_"))}
    return {
        **kept,
        "AGENT_CONTROL_PORT": str(control),
        "AGENT_METRICS_PORT": str(metrics),
        "AGENT_METRICS_HOST": "127.0.0.1",
        "AGENT_SOCKET_PATH": f"{place}/agent.sock",
        "AGENT_SPOOL_DIR": f"{place}/spool",
        "AGENT_LOG_LEVEL": "error",
        "AGENT_ON_EXIT": "exit",
    }


@dataclass(frozen=True)
class Running:
    """A process that is measured.

    Attributes:
        pid: its id.
        port: where it answers HTTP.
        metrics_port: where it answers `/metrics`.
        file: where the game writes its moments.
    """

    pid: int
    port: int
    metrics_port: int
    file: str


@contextlib.contextmanager
def running(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command as long as the block does."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=HERE.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        process.kill()
        process.wait()


@contextlib.contextmanager
def agent(children: int = 0, program: Sequence[str] = (AGENT,), **settings: str) -> Iterator[Running]:
    """An agent that answers, with a game that waits.

    Args:
        children: processes that the game has besides itself.
        program: what is run as the agent.
        settings: more of the agent's environment.
    """
    control, metrics, file = free_port(), free_port(), new_file()
    command = [*program, "run", "--", stamp(), "wait", file, str(children)]
    with running(command, agent_environment(control, metrics) | settings) as process:
        first_answer(control, "/healthz")
        moment(file, "started")
        yield Running(process.pid, control, metrics, file)


@contextlib.contextmanager
def contained(children: int = 0) -> Iterator[Running]:
    """As `agent`, as PID 1 of a PID namespace of its own: as in a container, it sees no processes of others.

    Raises:
        CannotMeasureError: that is not permitted here.
    """
    namespace = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    tried = [*namespace, "true"]
    if shutil.which(tried[0]) is None or subprocess.run(tried, check=False, capture_output=True).returncode:
        raise CannotMeasureError("a PID namespace is not permitted here (unshare --pid --fork --mount-proc)")
    with agent(children, (*namespace, AGENT)) as it:
        init = next(child.pid for child in psutil.Process(it.pid).children())
        try:
            yield Running(init, it.port, it.metrics_port, it.file)
        finally:
            os.kill(init, signal.SIGTERM)  # unshare does not pass it on


@contextlib.contextmanager
def bare(*options: str) -> Iterator[Running]:
    """The bare aiohttp app, answering."""
    port = free_port()
    with running([sys.executable, "-m", "benchmarks._bare", str(port), *options]) as process:
        first_answer(port, "/v1/status")
        yield Running(process.pid, port, port, "")


class Client:
    """HTTP over one connection, with as little of its own as possible: what is measured is the server."""

    def __init__(self, port: int) -> None:
        """Connects to 127.0.0.1.

        Raises:
            OSError: nobody listens.
        """
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        """Gives itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self._socket.close()

    def request(self, method: str, path: str, *headers: str) -> bytes:
        """The bytes of a request."""
        lines = (f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}", "Content-Length: 0", *headers)
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Sends a request and reads its answer: status and body."""
        self._socket.sendall(request)
        data = self._socket.recv(262144)
        head, separator, body = data.partition(b"\r\n\r\n")
        while not separator:
            if not data:
                raise ConnectionError("cannot read the answer: the connection was closed")
            data += self._socket.recv(262144)
            head, separator, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        assert length is not None, "what is measured here announces its length"
        while len(body) < int(length[1]):
            body += self._socket.recv(262144)
        return int(head[9:12]), body

    def timed(self, method: str, path: str, times: int, *headers: str, pause: float = 0.0) -> list[float]:
        """How long each of so many requests took, in seconds.

        Args:
            method: of the requests.
            path: likewise.
            times: how many.
            headers: whole lines beside those that every request has.
            pause: seconds between an answer and the next request.
        """
        request = self.request(method, path, *headers)
        durations = []
        for _ in range(times):
            began = time.perf_counter()
            status, _ = self.ask(request)
            durations.append(time.perf_counter() - began)
            assert status < 400, f"{method} {path} was answered {status}"
            if pause:
                time.sleep(pause)
        return durations


def first_answer(port: int, path: str, patience: float = PATIENCE) -> float:
    """Asks until there is an answer, and returns the moment of it, in seconds of the monotonic clock.

    Raises:
        CannotMeasureError: there is none.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            with Client(port) as client:
                client.ask(client.request("GET", path))
                return time.monotonic()
        except OSError:
            time.sleep(0.001)
    raise CannotMeasureError(f"no answer on port {port} within {patience:g} s")


def memory(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process in MB (10^6 bytes)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = dict(re.findall(r"^(Rss|Pss): +(\d+) kB$", text, re.MULTILINE))
    return int(kilobytes["Rss"]) * 1024 / 1e6, int(kilobytes["Pss"]) * 1024 / 1e6


def peak(pid: int) -> float:
    """The most that a process was resident with, in MB (10^6 bytes)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, "Linux has it (man 5 proc_pid_status)"
    return int(found[1]) * 1024 / 1e6


def own_processes(pid: int) -> list[int]:
    """A program and those processes below it that run the same program: the init and the agent, without the game."""
    first = psutil.Process(pid)
    return [pid, *(each.pid for each in first.children(recursive=True) if each.name() == first.name())]


def cpu_seconds(pid: int) -> float:
    """CPU time of a program's own processes."""
    return sum(sum(psutil.Process(each).cpu_times()[:2]) for each in own_processes(pid))

"""Runs the installed command as a container would, and looks at it from outside: processes, streams, HTTP, the socket.

Nothing here imports the product. A run is PID 1 of a PID namespace of its own (`unshare`), or a plain process that has
to be a subreaper. Whatever a run starts carries a mark in its environment, so that a test can tell what was left.
"""

import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import pytest

DEADLINE = 30.0
"""Seconds until a test gives up on what should long have happened. Generous: nothing here measures speed with it."""

KILLED_SECONDS = 1.0
"""What was sent SIGKILL is gone after so long."""

GAMES = Path(__file__).parent.parent / "games"
COMMAND = os.environ.get("ARBITRIUM_AGENT", str(Path(sys.executable).with_name("arbitrium-agent")))
"""The installed command; another one can be tested by naming it in `ARBITRIUM_AGENT`."""

PYTHON = (sys.executable, "-S", "-E")
"""An interpreter that is quick to start: no site packages, no user environment."""

MARK = "PROCESS_TEST_MARK"
Mode = Literal["pid1", "subreaper"]
T = TypeVar("T")


def game(name: str, *arguments: str) -> list[str]:
    """The command line of a program in `tests/games`."""
    if name.endswith(".sh"):
        return [str(GAMES / name), *arguments]
    return [*PYTHON, str(GAMES / f"{name}.py"), *arguments]


def eventually(look: Callable[[], T | None], what: str, deadline_seconds: float = DEADLINE) -> T:
    """Look again and again until what is seen is true.

    Args:
        look: returns something true once it has happened.
        what: what should be seen, for the message when it is not.
        deadline_seconds: how long to look.

    Returns:
        What was seen.

    Raises:
        AssertionError: it did not happen in time.
    """
    end = time.monotonic() + deadline_seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {deadline_seconds:g} s: {what}"
        time.sleep(0.005)
    return seen


@functools.cache
def pid_namespace() -> tuple[str, ...] | None:
    """The command that makes its argument PID 1 of a fresh PID namespace, or None where that is not permitted."""
    base = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    for command in (base, (*base, "--user", "--map-root-user")):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if subprocess.run([*command, "true"], capture_output=True, timeout=DEADLINE, check=False).returncode == 0:
                return command
    return None


def children(pid: int) -> list[int]:
    """The direct children of a process, zombies included; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


AGENT_NAME = "arbitrium-agent"


def descendants(pid: int) -> list[int]:
    """All children of a process, theirs, and so on; without the process of the agent's own."""
    found = [child for child in children(pid) if status_of(child).get("Name") != AGENT_NAME]
    return found + [below for child in found for below in descendants(child)]


def agent_process(pid: int) -> int | None:
    """The agent's own process below an init; None while there is none."""
    return next((child for child in children(pid) if status_of(child).get("Name") == AGENT_NAME), None)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process until now."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status_of(pid: int) -> dict[str, str]:
    """The fields of `/proc/<pid>/status`; empty when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def started_at(pid: int) -> tuple[int, int]:
    """Something to sort processes by their age: clock ticks since boot, then the number; the oldest is least."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return sys.maxsize, pid
    return int(fields[19]), pid


def state_of(pid: int) -> str:
    """The state letter of a process (`R`, `S`, `T`, `Z`, ...), `gone` when there is none of that number."""
    return status_of(pid).get("State", "gone").split(" ")[0]


def agent_catches(pid: int, signum: int) -> bool:
    """Whether the agent has a handler for a signal, or holds it back for later.

    Until the command is executed, the process is still what starts it, and holds back signals for reasons of its own.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if command[0].endswith(b"unshare") or os.fsencode(COMMAND) not in command:
        return False
    status = status_of(pid)
    mask = int(status.get("SigCgt", "0"), 16) | int(status.get("SigBlk", "0"), 16)
    return bool(mask & (1 << (signum - 1)))


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was executed with; empty when it is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def marked(mark: str) -> list[int]:
    """All living processes on this machine that were started with a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    return found


class Stream:
    """Collects what a descriptor delivers, in a thread, and lets a test wait for a part of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data = bytearray()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    @property
    def data(self) -> bytes:
        """What came until now."""
        with self._changed:
            return bytes(self._data)

    @property
    def text(self) -> str:
        """What came until now, for people."""
        return self.data.decode(errors="replace")

    def wait_for(self, *parts: str | bytes, deadline_seconds: float = DEADLINE) -> str:
        """Wait until all the parts were seen; returns everything seen until then.

        Raises:
            AssertionError: the stream ended or the deadline passed without them.
        """
        wanted = [part.encode() if isinstance(part, str) else part for part in parts]
        with self._changed:
            self._changed.wait_for(lambda: self._ended or all(part in self._data for part in wanted), deadline_seconds)
            missing = [part for part in wanted if part not in self._data]
            assert not missing, f"{missing} never came; instead: {self._data[-2000:].decode(errors='replace')!r}"
            return self._data.decode(errors="replace")

    def ends(self, deadline_seconds: float = DEADLINE) -> bool:
        """Wait for the end of the stream; False when it is still open after the deadline."""
        self._thread.join(deadline_seconds)
        return not self._thread.is_alive()

    def _collect(self) -> None:
        while True:
            try:
                part = os.read(self._descriptor, 1 << 16)
            except OSError:  # a terminal whose other end is closed
                part = b""
            with self._changed:
                self._data += part
                self._ended = not part
                self._changed.notify_all()
            if not part:
                return


@dataclass(frozen=True)
class Answer:
    """What the local API said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def type(self) -> str:
        """The media type without parameters."""
        return self.headers.get("content-type", "").split(";")[0].strip()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Rpc:
    """A client of the Unix socket: JSON-RPC 2.0, one object a line."""

    def __init__(self, path: str | Path, timeout_seconds: float = DEADLINE) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_seconds)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")
        self._last_id = 0

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call an operation and return the whole answer, with `result` or `error`."""
        self._last_id += 1
        question: dict[str, object] = {"jsonrpc": "2.0", "id": self._last_id, "method": method}
        if params:
            question["params"] = params
        self.send(json.dumps(question).encode())
        while True:
            answer = self.receive()
            assert answer is not None, f"the agent hung up instead of answering {method}"
            if "id" in answer:
                assert answer["id"] == self._last_id
                assert answer["jsonrpc"] == "2.0"
                return answer

    def send(self, line: bytes) -> None:
        """Send one line, whatever it says."""
        self._socket.sendall(line + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next line; None when the agent hung up."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()


@dataclass(frozen=True)
class Finished:
    """How a run ended: its exit code, what it wrote, and the seconds since the last signal that was sent to it."""

    code: int
    stdout: bytes
    stderr: str
    seconds: float


class Run:
    """One run of `arbitrium-agent run`, from its start until nothing of it is left."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str, mode: Mode, files: Path) -> None:
        self.process = process
        self.mode = mode
        self.files = files
        self.socket_path = files / "agent.sock"
        self.spool = files / "spool"
        self._mark = mark
        self._pid: int | None = None
        self._game_pid: int | None = None
        self._signalled_at = time.monotonic()
        self._game_environment: dict[str, str] = {}
        assert process.stderr is not None
        self.stdout = Stream(process.stdout.fileno()) if process.stdout else None
        self.stderr = Stream(process.stderr.fileno())

    @property
    def pid(self) -> int:
        """The agent's process id as this machine sees it (inside its namespace it is 1)."""
        # Not functools.cached_property: up to Python 3.11 its lock is one for all runs of all threads.
        if self._pid is None:
            self._pid = (
                self.process.pid
                if self.mode == "subreaper"
                else eventually(lambda: children(self.process.pid), "unshare has forked")[0]
            )
        return self._pid

    @property
    def game_pid(self) -> int:
        """The game's process id as this machine sees it."""
        if self._game_pid is None:
            self._game_pid = eventually(self._find_game, "the game is executed")
        return self._game_pid

    def _find_game(self) -> int | None:
        assert self.process.poll() is None, f"the agent exited {self.process.returncode}: {self.stderr.text}"
        found = {child: environment_of(child) for child in children(self.pid)}
        games = [child for child, environment in found.items() if "AGENT_URL" in environment]
        if not games:
            return None
        oldest = min(games, key=started_at)  # the others are orphans of it that the agent adopted
        self._game_environment = found[oldest]
        return oldest

    @property
    def game_environment(self) -> dict[str, str]:
        """What the game was executed with. Asked for the first time, the game has to be alive."""
        assert self.game_pid
        return self._game_environment

    def say(self, line: bytes) -> None:
        """Write to the run's stdin; it has to be a pipe."""
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close the run's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_for(self, *parts: str | bytes) -> str:
        """Wait until the game's output has all the parts."""
        assert self.stdout is not None
        try:
            return self.stdout.wait_for(*parts)
        except AssertionError as missing:
            pytest.fail(f"{missing}; the agent's code is {self.process.poll()}, it said: {self.stderr.text[-4000:]}")

    def signal(self, signum: int) -> None:
        """Send a signal to the agent, as the container engine does."""
        self._signalled_at = time.monotonic()
        os.kill(self.pid, signum)

    def stop(self) -> Finished:
        """Do what the platform does at a stop, without its SIGKILL, and see how it ends."""
        self.signal(signal.SIGTERM)
        return self.finish()

    def finish(self, deadline_seconds: float = DEADLINE) -> Finished:
        """Wait for the end of the run and of both its streams.

        Raises:
            AssertionError: it did not end, or a process of it was left behind.
        """
        try:
            code = self.process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            tree = [f"{pid} {state_of(pid)} {status_of(pid).get('Name')}" for pid in descendants(self.pid)]
            pytest.fail(f"the agent still runs after {deadline_seconds:g} s, with {tree}: {self.stderr.text[-4000:]}")
        seconds = time.monotonic() - self._signalled_at
        # What was killed last is there until the kernel has taken it apart, which takes its time on a loaded machine.
        until = time.monotonic() + KILLED_SECONDS
        while (left := marked(self._mark)) and time.monotonic() < until:
            time.sleep(0.005)
        names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left if Path(f"/proc/{pid}").exists()]
        assert not left, f"left behind: {names}"
        for stream in filter(None, (self.stdout, self.stderr)):
            assert stream.ends(), "a stream is still open although every process is gone"
        return Finished(code, self.stdout.data if self.stdout else b"", self.stderr.text, seconds)

    def http(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        url: str = "AGENT_URL",
    ) -> Answer:
        """Ask the local API.

        Args:
            method: the HTTP method.
            path: the route.
            body: sent as JSON; bytes are sent as they are; None sends no body.
            headers: replace or add to those that are sent anyway.
            url: which of the game's variables says where, or the URL itself.
        """
        target = self.game_environment.get(url, url)
        host, _, port = target.removeprefix("http://").split("/")[0].rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=DEADLINE)
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if raw is not None else {}
        sent.update(headers or {})
        with contextlib.closing(connection), self._with_its_words():
            connection.putrequest(method, path, skip_host="Host" in sent)
            for name, value in sent.items():
                connection.putheader(name, value)
            if "Content-Length" not in sent and (raw is not None or method in {"POST", "PUT", "PATCH"}):
                connection.putheader("Content-Length", str(len(raw or b"")))
            connection.endheaders(raw)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    @contextlib.contextmanager
    def _with_its_words(self) -> Iterator[None]:
        """Add what the agent said to a failure to speak to it."""
        try:
            yield
        except OSError as error:
            pytest.fail(f"the agent did not answer ({error!r}); it said: {self.stderr.text[-4000:]}")

    def rpc(self) -> Rpc:
        """Connect to the socket that the game was told of."""
        return Rpc(self.game_environment["AGENT_SOCKET"])

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the product next to the game, with the game's environment."""
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.game_environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def story(self) -> dict[str, Any]:
        """What its `exit.json` says, of which there has to be one."""
        (path,) = self.files.glob("**/exit.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def is_ready_to_answer(self) -> bool:
        """Wait until the API answers; for tests that are not about the first moments."""
        return self.http("GET", "/healthz").status == 200

    def clean_up(self) -> None:
        """End whatever is left and close the pipes; the last thing a test does with a run."""
        self.process.kill()  # not where it was waited for: its number may be a thread's of ours by now
        for pid in marked(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in filter(None, (self.stdout, self.stderr)):
            stream.ends()
        for pipe in filter(None, (self.process.stdin, self.process.stdout, self.process.stderr)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def base_environment(files: Path) -> dict[str, str]:
    """What every run gets: nothing of the developer's own environment, and no path or port that another test has."""
    socket_path = files / "agent.sock"
    assert len(str(socket_path)) < 100, "a Unix socket path has at most 107 bytes: run with a shorter --basetemp"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(files),
        "TMPDIR": str(files),
        "LANG": "C.UTF-8",
        "AGENT_CONTROL_PORT": "0",
        "AGENT_METRICS_PORT": "0",
        "AGENT_METRICS_HOST": "127.0.0.1",
        "AGENT_SOCKET_PATH": str(socket_path),
        "AGENT_SPOOL_DIR": str(files / "spool"),
    }


class Launcher:
    """Starts runs for one test and cleans up after all of them."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self._runs: list[Run] = []

    def __call__(
        self,
        command: Iterable[str | bytes],
        *,
        env: Mapping[str, str | None] | None = None,
        options: Sequence[str] = (),
        mode: Mode = "pid1",
        prefix: Sequence[str] = (),
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        preexec: Callable[[], None] | None = None,
    ) -> Run:
        """Start `arbitrium-agent run [options] -- command`.

        Args:
            command: the game's command line.
            env: added to the environment; None as a value removes the variable.
            options: of `run`, before the `--`.
            mode: PID 1 of a namespace of its own, or a plain process.
            prefix: a command that starts the agent, in place of starting it directly.
            stdin: as for `subprocess.Popen`.
            stdout: likewise; where it is no pipe, `Run.stdout` is None.
            cwd: the working directory.
            pass_fds: descriptors that stay open, for `prefix` to redirect to.
            preexec: called in the child before anything is executed.
        """
        mark = uuid.uuid4().hex
        environment = base_environment(self.files) | {MARK: mark}
        for name, value in (env or {}).items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        namespace: Sequence[str] = ()
        if mode == "pid1":
            namespace = pid_namespace() or ()
            if not namespace:
                pytest.skip("a PID namespace is not permitted here (unshare --pid --fork --mount-proc)")
        process = subprocess.Popen(
            [*namespace, *prefix, COMMAND, "run", *options, "--", *command],
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=cwd or self.files,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=preexec,  # noqa: PLW1509 - only used for signal masks, before any thread matters
        )
        run = Run(process, mark, mode, self.files)
        self._runs.append(run)
        return run

    def clean_up(self) -> None:
        """End whatever the test left running."""
        for run in self._runs:
            run.clean_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clean_up()


def everything_written(*roots: Path) -> bytes:
    """The names and contents of all files below some directories, one after the other."""
    found = b""
    for root in roots:
        for path in sorted(root.rglob("*")):
            found += os.fsencode(path) + b"\n"
            if path.is_file() and not path.is_symlink():
                found += path.read_bytes()
    return found

"""The game's output is passed on and spooled unchanged, and nobody makes the game wait who should not."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.logs import frames
from agent.logs.capture import TAIL, Capture
from agent.logs.redact import Redactor
from agent.logs.shared_counts import LOST_STDERR, LOST_STDOUT, STDERR, STDOUT, SharedCounts
from agent.logs.sink import Sink
from agent.logs.spool import Spool


def soon(seconds: float = 20.0) -> float:
    """A deadline that only a failing test reaches."""
    return time.monotonic() + seconds


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something is so, or fails."""
    until = soon()
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.005)


class Rig:
    """A capture with its pipes: we are the game at one end and the container's log reader at the other."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.spool = Spool(str(directory), 1 << 27)
        self.capture: Capture | None = None
        self.game: dict[str, int] = {}
        self._open: set[int] = set()
        stack.callback(self._shut_all)

    def _shut_all(self) -> None:
        for fd in list(self._open):
            self.shut(fd)

    def mine(self, *fds: int) -> None:
        """Closes these at the end, unless the test did."""
        self._open.update(fds)

    def pipe(self) -> tuple[int, int]:
        """A pipe: the end to read from, the end to write to."""
        ends = os.pipe()
        self.mine(*ends)
        return ends

    def shut(self, fd: int) -> None:
        """Closes a descriptor once: its number may be somebody else's afterwards."""
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)

    def start(
        self, passthrough: dict[str, int], *, secrets: tuple[str, ...] = (), redact: bool = False, buffer: int = 1 << 22
    ) -> Capture:
        """Starts the capture with the game's stdout and stderr."""
        shown = SharedCounts()
        capture = self.capture = Capture(
            self.spool, Redactor(secrets), passthrough, redact_passthrough=redact, buffer_bytes=buffer, counts=shown
        )

        def close() -> None:
            capture.close(time.monotonic())
            end = soon()
            while (seen := self.shown(shown)) != (counted := self.counted(capture)) and time.monotonic() < end:
                time.sleep(0.001)  # a thread may still count what was read before the end
            assert seen == counted, "the agent's process is shown the same counts"

        self.stack.callback(close)
        capture.start(self.streams())
        return capture

    @staticmethod
    def shown(counts: SharedCounts) -> tuple[int, int, int]:
        """Bytes of stdout and stderr, and bytes not passed on, as the agent's process sees them."""
        return counts[STDOUT], counts[STDERR], counts[LOST_STDOUT] + counts[LOST_STDERR]

    @staticmethod
    def counted(capture: Capture) -> tuple[int, int, int]:
        """The same as the capture counts them."""
        counted = capture.counters()
        return counted["stdout_bytes"], counted["stderr_bytes"], counted["not_passed_on"]

    def streams(self) -> dict[str, int]:
        """New pipes for a game; ours are in `game`, the reading ends are returned."""
        reading = {}
        for name in ("stdout", "stderr"):
            reading[name], self.game[name] = os.pipe()
            self.mine(self.game[name])
        return reading

    def end_game(self) -> None:
        """The game closes its output."""
        for fd in self.game.values():
            self.shut(fd)

    def spooled(self, stream: str = "stdout") -> bytes:
        """All that the spool has of one stream."""
        self.spool.seal()
        assert self.spool.flush(soon())
        return b"".join(
            body
            for segment in self.spool.segments()
            for kind, _, name, body in frames.parse(segment.pieces())
            if kind == frames.DATA and name == stream
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A rig whose parts are taken apart at the end."""
    with contextlib.ExitStack() as stack:
        made = Rig(tmp_path / "spool", stack)
        stack.callback(lambda: made.spool.close(soon()))
        yield made


def collect(
    fd: int, into: bytearray, pace: Callable[[], object] = lambda: None, size: int = 1 << 16
) -> threading.Thread:
    """Reads a descriptor to its end in a thread; the container's log reader."""

    def read() -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(fd, size):
                into.extend(piece)
                pace()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def write_all(fd: int, data: bytes) -> float:
    """Writes like a game does, blocking; returns the seconds of the longest single write."""
    longest = 0.0
    view = memoryview(data)
    while view:
        began = time.monotonic()
        view = view[os.write(fd, view[:65536]) :]
        longest = max(longest, time.monotonic() - began)
    return longest


def test_both_streams_arrive_unchanged_on_the_terminal_and_in_the_spool(rig: Rig) -> None:
    """Any bytes, long lines, no line break at the end, writes of any size."""
    out_read, out_write = rig.pipe()
    err_read, err_write = rig.pipe()
    capture = rig.start({"stdout": out_write, "stderr": err_write})
    dice = random.Random(7)
    sent = {"stdout": b"", "stderr": b""}
    seen = {"stdout": bytearray(), "stderr": bytearray()}
    threads = [collect(out_read, seen["stdout"]), collect(err_read, seen["stderr"])]
    for _ in range(300):
        name = dice.choice(["stdout", "stderr"])
        data = dice.randbytes(dice.choice([1, 10, 1000, 100_000])) + dice.choice([b"", b"\n"])
        write_all(rig.game[name], data)
        sent[name] += data
    rig.end_game()
    assert capture.drain(soon())
    capture.close()
    rig.shut(out_write)
    rig.shut(err_write)
    for thread in threads:
        thread.join()
    for name in ("stdout", "stderr"):
        assert bytes(seen[name]) == sent[name]
        assert rig.spooled(name) == sent[name]
    counts = capture.counters()
    assert (counts["stdout_bytes"], counts["stderr_bytes"]) == (len(sent["stdout"]), len(sent["stderr"]))
    assert counts["passed_on"] == len(sent["stdout"]) + len(sent["stderr"])
    assert counts["not_passed_on"] == 0


def test_output_is_passed_on_at_once(rig: Rig) -> None:
    """A prompt without a line break is seen before anything else is written."""
    out_read, out_write = rig.pipe()
    rig.start({"stdout": out_write})
    os.write(rig.game["stdout"], b"name? ")
    assert os.read(out_read, 100) == b"name? "


def test_a_slow_reader_that_lives_gets_every_byte(rig: Rig) -> None:
    """The game waits for it, as it would without the agent."""
    out_read, out_write = rig.pipe()
    capture = rig.start({"stdout": out_write}, buffer=1 << 20)
    seen = bytearray()
    thread = collect(out_read, seen, pace=lambda: time.sleep(0.002))  # 30 MB/s at most
    data = random.Random(1).randbytes(1 << 20) * 16
    write_all(rig.game["stdout"], data)
    rig.end_game()
    assert capture.drain(soon())
    rig.shut(out_write)
    thread.join()
    assert seen == data


def test_a_reader_that_hangs_stops_nobody_and_is_told_what_it_missed(rig: Rig) -> None:
    """The game goes on, the spool has everything, and the gap is marked once the reader is back."""
    out_read, out_write = rig.pipe()
    capture = rig.start({"stdout": out_write}, buffer=1 << 20)
    data = b"".join(b"%07d\n" % number for number in range(1 << 20))  # 8 MiB
    began = time.monotonic()
    write_all(rig.game["stdout"], data)
    assert time.monotonic() - began < 10
    eventually(lambda: capture.counters()["stdout_bytes"] == len(data))
    dropped = capture.counters()["not_passed_on"]
    assert dropped >= len(data) - (2 << 20)
    seen = bytearray()
    thread = collect(out_read, seen)
    rig.end_game()
    assert capture.drain(soon())
    rig.shut(out_write)
    thread.join()
    head, mark, rest = bytes(seen).partition(b"\n[arbitrium-agent] cannot pass on all output: ")
    assert mark
    said, _, tail = rest.partition(b"\n")
    assert int(said.split()[0]) == dropped
    assert data.startswith(head)
    assert data.endswith(tail)
    assert len(head) + dropped + len(tail) == len(data)
    assert rig.spooled() == data


def test_a_reader_that_trickles_is_not_waited_for_either(rig: Rig) -> None:
    """One that takes a few KiB a second would slow the game down to that."""
    out_read, out_write = rig.pipe()
    rig.start({"stdout": out_write}, buffer=1 << 20)
    seen = bytearray()
    over = threading.Event()

    def pace() -> None:
        if over.wait(0.02):
            raise OSError("the test is over")

    thread = collect(out_read, seen, pace=pace, size=1024)
    began = time.monotonic()
    write_all(rig.game["stdout"], b"t" * (8 << 20))
    assert time.monotonic() - began < 10
    assert len(seen) < 4 << 20
    over.set()
    thread.join()


def test_a_reader_that_is_gone_ends_passing_on_and_nothing_else(rig: Rig) -> None:
    """`run -- game | head -1` must not end the game."""
    out_read, out_write = rig.pipe()
    capture = rig.start({"stdout": out_write})
    rig.shut(out_read)
    data = b"line\n" * 100_000
    write_all(rig.game["stdout"], data)
    rig.end_game()
    assert capture.drain(soon())
    assert rig.spooled() == data
    assert capture.counters()["not_passed_on"] > 0


def test_a_closed_descriptor_is_no_place_to_write_to(rig: Rig) -> None:
    """`run -- game >&-`: the log is kept all the same."""
    fd, _ = rig.pipe()
    rig.shut(fd)
    capture = rig.start({"stdout": fd})
    write_all(rig.game["stdout"], b"hello\n")
    rig.end_game()
    assert capture.drain(soon())
    assert rig.spooled() == b"hello\n"


@pytest.mark.parametrize("kind", ["file", "null", "terminal", "non-blocking pipe", "named pipe", "socket"])
def test_it_writes_to_whatever_stdout_is(rig: Rig, tmp_path: Path, kind: str) -> None:
    """A file, nothing, a terminal, a pipe that somebody made non-blocking, a named one, a socket."""
    seen = bytearray()
    thread: threading.Thread | None = None
    if kind == "terminal":
        reading, writing = pty.openpty()
        rig.mine(reading, writing)
    elif kind == "non-blocking pipe":
        reading, writing = rig.pipe()
        os.set_blocking(writing, False)
    elif kind == "named pipe":
        os.mkfifo(tmp_path / "out")
        reading = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reading, True)
        writing = os.open(tmp_path / "out", os.O_WRONLY)
        rig.mine(reading, writing)
    elif kind == "socket":
        reading, writing = (end.detach() for end in socket.socketpair())
        rig.mine(reading, writing)
    else:
        reading = -1
        writing = os.open("/dev/null" if kind == "null" else tmp_path / "out", os.O_RDWR | os.O_CREAT)
        rig.mine(writing)
    if reading >= 0:
        thread = collect(reading, seen)
    flags = os.get_blocking(writing)
    capture = rig.start({"stdout": writing})
    data = b"".join(b"%07d\n" % number for number in range(100_000))
    write_all(rig.game["stdout"], data)
    rig.end_game()
    assert capture.drain(soon())
    assert os.get_blocking(writing) is flags
    if thread is not None:
        expected = len(data) if kind != "terminal" else len(data.replace(b"\n", b"\r\n"))
        eventually(lambda: len(seen) >= expected)
        assert bytes(seen).replace(b"\r\n", b"\n") == data
    elif kind == "file":
        assert (tmp_path / "out").read_bytes() == data
    assert rig.spooled() == data


def test_streams_that_lead_to_the_same_place_keep_their_order(rig: Rig) -> None:
    """`2>&1`: what was written first is seen first."""
    read, write = rig.pipe()
    other = os.dup(write)
    rig.mine(other)
    rig.start({"stdout": write, "stderr": other})
    for number in range(50):
        os.write(rig.game["stdout" if number % 2 else "stderr"], b"%02d\n" % number)
        assert os.read(read, 100) == b"%02d\n" % number


def test_secrets_stay_out_of_the_spool_and_are_passed_on_as_they_are(rig: Rig) -> None:
    """Passing on changes nothing, unless it is asked for; also where a secret comes in two reads."""
    read, write = rig.pipe()
    capture = rig.start({"stdout": write}, secrets=("topsecrettoken",))
    os.write(rig.game["stdout"], b"a topsecret")
    assert os.read(read, 100) == b"a topsecret"
    os.write(rig.game["stdout"], b"token b")
    assert os.read(read, 100) == b"token b"
    rig.end_game()
    assert capture.drain(soon())
    assert rig.spooled() == b"a [redacted] b"
    assert capture.tail() == b"a [redacted] b"
    capture.note("the agent saw topsecrettoken")
    assert rig.spooled("agent") == b"the agent saw [redacted]\n"


def test_secrets_are_not_passed_on_where_that_is_asked_for(rig: Rig) -> None:
    """AGENT_REDACT_STDOUT=on; the end of the stream comes too, though it looks like the beginning of a secret."""
    read, write = rig.pipe()
    capture = rig.start({"stdout": write}, secrets=("topsecrettoken",), redact=True)
    os.write(rig.game["stdout"], b"x topsecrettoken y tops")
    rig.end_game()
    assert capture.drain(soon())
    assert os.read(read, 100) == b"x [redacted] y tops"


def test_the_tail_is_the_last_64_kib(rig: Rig) -> None:
    """However it was written."""
    capture = rig.start({})
    data = b"".join(b"%07d\n" % number for number in range(50_000))
    assert capture.tail() == b""
    for at in range(0, len(data), 1000):
        os.write(rig.game["stdout"], data[at : at + 1000])
    rig.end_game()
    assert capture.drain(soon())
    assert capture.tail() == data[-TAIL:]


def test_somebody_who_holds_the_output_open_delays_the_end_no_longer_than_the_deadline(rig: Rig) -> None:
    """A process that the game left behind; what it writes is taken until the end."""
    capture = rig.start({})
    orphan = os.dup(rig.game["stdout"])
    rig.mine(orphan)
    os.write(rig.game["stdout"], b"last words\n")
    rig.end_game()
    began = time.monotonic()
    assert capture.drain(began + 0.5) is False
    assert 0.5 <= time.monotonic() - began < 5
    assert rig.spooled() == b"last words\n"
    os.write(orphan, b"from the orphan\n")
    eventually(lambda: b"orphan" in capture.tail())


def test_a_listener_that_fails_costs_no_output(rig: Rig) -> None:
    """Whoever looks for a line of the output may have gone (its loop is closed): the game is read all the same."""
    capture = rig.start({})
    found: list[bool] = []

    def fail() -> None:
        found.append(True)
        raise RuntimeError("the event loop is closed")

    capture.look_for(b"^ready$", fail)
    os.write(rig.game["stdout"], b"ready\n")
    eventually(lambda: bool(found))
    write_all(rig.game["stdout"], b"x" * (1 << 21))
    rig.end_game()
    assert capture.drain(soon())
    assert capture.counters()["stdout_bytes"] == len(b"ready\n") + (1 << 21)


def test_a_game_that_is_started_again_is_captured_again(rig: Rig) -> None:
    """Its output follows the first one's."""
    capture = rig.start({})
    os.write(rig.game["stdout"], b"first\n")
    rig.end_game()
    assert capture.drain(soon())
    capture.attach(rig.streams())
    os.write(rig.game["stdout"], b"second\n")
    rig.end_game()
    assert capture.drain(soon())
    assert rig.spooled() == b"first\nsecond\n"


def test_closing_does_not_wait_for_a_reader_that_hangs(rig: Rig) -> None:
    """The agent has to leave."""
    _, write = rig.pipe()
    capture = rig.start({"stdout": write})
    write_all(rig.game["stdout"], b"z" * (1 << 20))
    rig.end_game()
    began = time.monotonic()
    capture.close(began + 0.3)
    assert time.monotonic() - began < 5


def test_a_game_that_writes_single_bytes_costs_few_reads(rig: Rig) -> None:
    """Small writes are collected for a moment, so that capturing costs less than writing them."""
    capture = rig.start({})
    for _ in range(20_000):
        os.write(rig.game["stdout"], b"x")
    rig.end_game()
    assert capture.drain(soon())
    assert rig.spooled() == b"x" * 20_000
    reads = sum(
        1 for segment in rig.spool.segments() for kind, *_ in frames.parse(segment.pieces()) if kind == frames.DATA
    )
    assert reads < 5_000


def test_nothing_is_left_open_after_the_end(rig: Rig) -> None:
    """No descriptor of the game's pipes stays with the agent."""
    capture = rig.start({})
    rig.end_game()
    assert capture.drain(soon())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        capture.attach(rig.streams())
        rig.end_game()
        assert capture.drain(soon())
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_boot_needs_is_quick_to_import() -> None:
    """It is imported before the game is spawned: standard library only, and nothing heavy of that."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); before = set(sys.modules)\n"
        "import agent.logs.capture, agent.logs.target, agent.game.cgroup\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('agent')))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {
        *("_collections", "_functools", "_heapq", "_operator", "_struct", "_thread", "_weakrefset", "binascii"),
        *(
            "encodings.utf_16_le",
            "encodings.utf_16_be",
            "collections",
            "collections.abc",
            "contextlib",
            "errno",
            "fcntl",
            "functools",
            "itertools",
            "keyword",
        ),
        *("operator", "reprlib", "select", "struct", "threading", "types", "time", "math", "os", "stat", "posixpath"),
        "warnings",  # of threading, since Python 3.13
        *("abc", "_abc", "_collections_abc", "genericpath", "os.path", "io", "codecs", "_stat", "_weakref"),
    }


def test_a_sink_without_a_thread_passes_on_and_gives_up_what_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is to be had (pids limit): the caller passes bytes on, and lost ones are counted and forgotten."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reading, writing = os.pipe()
    try:
        told: list[int] = []
        sink = Sink(writing, lambda: None, tell_lost=told.append)
        sink.put(b"x" * 10_000)
        assert os.read(reading, 20_000) == b"x" * 10_000
        os.close(reading)
        sink.put(b"y" * 10_000)
        assert (sink.written, sink.dropped, sink.waiting, sink.closed) == (10_000, 10_000, 0, True)
        assert told[-1] == 10_000
        assert sink.drain(time.monotonic() + 5.0)
    finally:
        os.close(writing)


def test_without_a_thread_the_caller_reads(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is to be had (pids limit): nothing is lost, and a thread takes over as soon as there is one."""
    reading, write = rig.pipe()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        capture = rig.start({"stdout": write})
        os.write(rig.game["stdout"], b"without\n")
        assert capture.without_thread()
        assert os.read(reading, 100) == b"without\n"
    os.write(rig.game["stdout"], b"with one\n")
    assert not capture.without_thread()
    rig.end_game()
    assert capture.drain(soon())
    assert os.read(reading, 100) == b"with one\n"
    assert rig.spooled() == b"without\nwith one\n"


def _no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_the_consumer_has_room_for_needs_no_thread_and_the_rest_keeps_its_order() -> None:
    """Lines are passed on at once; where the pipe is full the thread has the rest, and what comes after it."""
    reading, writing = os.pipe()
    try:
        sink = Sink(writing, lambda: None)
        sink.put(b"a line\n")
        assert (os.read(reading, 100), sink.written, sink.waiting) == (b"a line\n", 7, 0)
        assert f"sink-{writing}" not in [thread.name for thread in threading.enumerate()]
        pieces = [bytes((number,)) * 50_000 for number in range(10)]  # more than a pipe has room for
        for piece in pieces:
            sink.put(piece)
        sink.put_line(b"[the agent]\n")
        assert sink.waiting
        seen = bytearray()
        thread = collect(reading, seen)
        assert sink.drain(soon())
        assert (sink.waiting, sink.dropped) == (0, 0)
        sink.put(b"the last\n")
        sink.end()
    finally:
        os.close(writing)
    thread.join(10.0)
    os.close(reading)
    assert bytes(seen) == b"".join(pieces) + b"\n[the agent]\nthe last\n"


def test_agent_lines_come_whole_and_in_order_between_the_games() -> None:
    """They are added by other threads while the game's output is passed on at once."""
    reading, writing = os.pipe()
    seen = bytearray()
    thread = collect(reading, seen)
    try:
        sink = Sink(writing, lambda: None)

        def agent() -> None:
            for number in range(300):
                sink.put_line(b"agent %d\n" % number)
                time.sleep(0)

        other = threading.Thread(target=agent)
        other.start()
        for number in range(3000):
            sink.put(b"game %d" % number)
            sink.put(b"\n")
        other.join()
        assert sink.drain(soon())
        sink.end()
    finally:
        os.close(writing)
    thread.join(10.0)
    os.close(reading)
    lines = bytes(seen).splitlines()
    assert [line for line in lines if line.startswith(b"game")] == [b"game %d" % number for number in range(3000)]
    assert [line for line in lines if line.startswith(b"agent")] == [b"agent %d" % number for number in range(300)]

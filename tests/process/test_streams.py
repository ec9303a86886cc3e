"""stdin, stdout and stderr of the game behave as they would without the agent."""

import fcntl
import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.process.harness import PYTHON, Launcher, Mode, Stream, cpu_seconds, eventually, game, status_of
from tests.variants import one_fast

MEGABYTES = 64
CAPTURE = pytest.mark.parametrize("capture", ["on", "off"])


def expected_flood() -> str:
    """The SHA-256 of what `floods_stdout` writes."""
    digest = hashlib.sha256()
    for number in range(MEGABYTES):
        digest.update(number.to_bytes(8, "little") * (1_000_000 // 8))
    return digest.hexdigest()


@CAPTURE
def test_bytes_pass_unchanged(launch: Launcher, capture: str) -> None:
    """Whatever bytes a game writes to stdout and stderr come out the same, the missing newline included."""
    done = launch(game("speaks_binary"), env={"AGENT_CAPTURE": capture}, options=["--log-level", "error"])
    finished = done.finish()
    assert finished.stdout == bytes(range(256)) + b"\r\n\x00\xff\xfe out, no newline"
    assert done.stderr.data == bytes(range(256)) + b"\r\n\x00\xff\xfe err, no newline"


def test_nothing_of_the_agent_is_on_stdout(launch: Launcher) -> None:
    """The agent says what it has to say on stderr, also when it is talkative: stdout is the game's alone."""
    run = launch(game("polite"), env={"AGENT_LOG_LEVEL": "debug"})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    done = run.stop()
    assert done.stdout == b"ready\nbye\n"
    assert done.stderr


@pytest.mark.slow
def test_a_flood_passes_unchanged(launch: Launcher) -> None:
    """64 MB through `sha256sum` are complete and in order, and neither memory nor the spool exceed their bounds."""
    with subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as digest:
        assert digest.stdin
        run = launch(
            game("floods_stdout", str(MEGABYTES)), stdout=digest.stdin.fileno(), env={"AGENT_SPOOL_MAX": "1MiB"}
        )
        digest.stdin.close()
        peaks = [0]

        def ended() -> bool:
            peaks.append(int(status_of(run.pid).get("VmHWM", "0 kB").split()[0]))
            return run.process.poll() is not None

        eventually(ended, "the flood is over", 50)
        assert run.finish().code == 0
        assert digest.stdout
        assert digest.stdout.read().split()[0].decode() == expected_flood()
    spooled = sum(path.stat().st_size for path in run.spool.rglob("*") if path.is_file())
    assert spooled <= 4 << 20, "the spool is bounded"
    assert 0 < max(peaks) < 150_000, "memory is bounded (kB)"


def test_a_game_that_closes_its_stdout_lives_on(launch: Launcher, mode: Mode) -> None:
    """The end of its output is not the end of the game, and the agent does not spin over it."""
    run = launch(game("closes_stdout"), mode=mode)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    before = cpu_seconds(run.pid)
    asked = [run.http("GET", "/healthz").status for _ in range(20)]
    assert set(asked) == {200}
    assert cpu_seconds(run.pid) - before < 1.0, "nothing spins over a closed pipe"
    assert run.stop().code == 5


def test_a_reader_that_went_away_does_not_end_the_agent(launch: Launcher, mode: Mode) -> None:
    """When whoever read the container's stdout is gone, the agent stays, answers, and still stops the game properly."""
    reading, writing = os.pipe()
    run = launch(game("chatters"), mode=mode, stdout=writing)
    os.close(writing)
    assert os.read(reading, 100) == b"ready\n"
    os.close(reading)
    assert run.is_ready_to_answer()
    for _ in range(3):
        run.signal(signal.SIGUSR1)
        assert run.http("GET", "/healthz").status == 200
    done = run.stop()
    assert done.code in {0, 3}, "the game either never noticed, or got the error it would have got without the agent"
    assert "Traceback" not in done.stderr


@CAPTURE
@pytest.mark.parametrize(
    "closed",
    [
        pytest.param((0,), marks=pytest.mark.slow, id="stdin"),
        pytest.param((1,), marks=pytest.mark.slow, id="stdout"),
        pytest.param((0, 1), id="stdin and stdout"),
    ],
)
def test_started_with_closed_descriptors(launch: Launcher, capture: str, closed: tuple[int, ...]) -> None:
    """An agent whose own stdin or stdout is closed still runs the game, and puts nothing of its own in their place."""
    redirections = " ".join({0: "<&-", 1: ">&-"}[fd] for fd in closed)
    run = launch(
        game("exits", "0"),
        prefix=["sh", "-c", f'exec "$@" {redirections}', "sh"],
        env={"AGENT_CAPTURE": capture},
    )
    done = run.finish()
    assert done.code == 0
    assert done.stdout == (b"" if 1 in closed else b"ready\n")
    assert "Traceback" not in done.stderr


def test_an_output_that_takes_nothing(launch: Launcher) -> None:
    """A full disk behind the container's output costs the game nothing: the log is kept all the same."""
    run = launch(game("exits", "3"), prefix=["sh", "-c", 'exec "$@" >/dev/full', "sh"])
    done = run.finish()
    assert done.code == 3
    assert "Traceback" not in done.stderr
    assert run.story()["exit_code"] == 3


@CAPTURE
def test_stdin_reaches_the_game_line_by_line(launch: Launcher, mode: Mode, capture: str) -> None:
    """A console game answers each line as it comes, and sees the end of its input as the end."""
    run = launch(game("reads_stdin"), stdin=subprocess.PIPE, mode=mode, env={"AGENT_CAPTURE": capture})
    run.wait_for("ready\n")
    run.say(b"say hello\n")
    run.wait_for("SAY HELLO\n")
    run.say(b"\xff\xfe bytes\n")
    run.wait_for(b"\xff\xfe BYTES\n")
    run.say(b"no newline")
    run.end_input()
    done = run.finish()
    assert done.code == 0
    assert done.stdout == b"ready\nSAY HELLO\n\xff\xfe BYTES\nNO NEWLINEend of input\n"


def test_input_from_a_file(launch: Launcher) -> None:
    """Redirected input, and no input at all, are what the game sees."""
    with (launch.files / "input").open("w+b") as file:
        file.write(b"abc\ndef\n")
        file.seek(0)
        done = launch(game("reads_stdin"), stdin=file.fileno()).finish()
    assert done.stdout == b"ready\nABC\nDEF\nend of input\n"
    assert launch(game("reads_stdin")).finish().stdout == b"ready\nend of input\n"


@CAPTURE
def test_no_terminal_is_made_up(launch: Launcher, capture: str) -> None:
    """Without a terminal in front, the game has none: no colours, no progress bars in the logs."""
    assert launch(game("checks_tty"), env={"AGENT_CAPTURE": capture}).finish().stdout == b"tty False False False\n"


def test_a_terminal_by_choice(launch: Launcher) -> None:
    """`AGENT_TTY=on`: a server that would keep its lines back on a pipe writes them at once; line ends stay its own."""
    done = launch(game("checks_tty"), env={"AGENT_TTY": "on"}).finish()
    assert done.stdout == b"tty False True False\nsize 80 24\n"


@contextmanager
def terminal() -> Iterator[tuple[int, int, Stream]]:
    """A terminal of 100 columns and 30 lines: its two ends, and what comes out of it."""
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    termios.tcsetwinsize(theirs, (30, 100))
    try:
        yield ours, theirs, Stream(ours)
    finally:
        os.close(ours)


@CAPTURE
def test_with_a_terminal_in_front(launch: Launcher, capture: str) -> None:
    """With `docker run -it` the game has the terminal that it would have without the agent, with its size."""
    with terminal() as (_, theirs, screen):
        run = launch(game("checks_tty"), stdin=theirs, stdout=theirs, env={"AGENT_CAPTURE": capture})
        os.close(theirs)
        assert run.finish().code == 0
        screen.ends()
    assert screen.text.startswith("tty True True ")
    assert "size 100 30" in screen.text


@CAPTURE
def test_typing_into_a_terminal(launch: Launcher, capture: str) -> None:
    """What is typed reaches the game, and ^D is the end of its input."""
    with terminal() as (ours, theirs, screen):
        run = launch(["tac"], stdin=theirs, stdout=theirs, env={"AGENT_CAPTURE": capture})
        os.close(theirs)
        eventually(lambda: run.game_pid, "the game runs")
        os.write(ours, b"1\n2\n3\n\x04")
        assert run.finish().code == 0
        screen.ends()
    assert screen.data.replace(b"\r\n", b"\n") == b"3\n2\n1\n"


def test_the_games_last_words_are_never_cut(launch: Launcher, mode: Mode) -> None:
    """What was written in the last moment before death, with the pipe still full, arrives whole."""
    script = "import os, signal; os.write(1, b'x' * 60000); os.kill(os.getpid(), signal.SIGKILL)"
    done = launch([*PYTHON, "-c", script], mode=mode).finish()
    assert done.code == 137
    assert done.stdout == b"x" * 60000


@pytest.mark.parametrize("name", one_fast("stdout", "stderr"))
def test_nobody_reads_the_output(launch: Launcher, mode: Mode, name: str) -> None:
    """A log pipe that nobody empties, full to the brim with the game's output, keeps the agent from nothing."""
    reading, writing = os.pipe()
    number = {"stdout": 1, "stderr": 2}[name]
    flood = f"import os\nos.write(1, b'ready')\nwhile True: os.write({number}, b'x' * 65536)"
    prefix = ["bash", "-c", f'exec "$@" {number}>&{writing} {writing}>&-', "bash"]
    run = launch([*PYTHON, "-c", flood], mode=mode, prefix=prefix, pass_fds=[writing], env={"AGENT_GRACE_SECONDS": "5"})
    os.close(writing)
    try:
        eventually(lambda: pipe_is_full(reading), "the pipe is full")
        assert run.is_ready_to_answer()
        done = run.stop()
        assert done.code == 143
        assert done.seconds <= 5.0
    finally:
        os.close(reading)


def pipe_is_full(descriptor: int) -> bool:
    """Whether a pipe of the default size holds as much as it can."""
    waiting = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(waiting, sys.byteorder) >= 60_000


def take_the_terminal() -> None:
    """Make stdin the controlling terminal, as the container engine does for `docker run -it`."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("capture", "stop", "script"),
    one_fast(
        ("on", "signal:SIGTERM", "exec sleep 1000"),
        ("off", "signal:SIGTERM", "exec sleep 1000"),
        ("on", "stdin:quit", "read line; test $line = quit && exit 130"),
    ),
)
def test_control_c_reaches_the_game_or_stops_it(launch: Launcher, capture: str, stop: str, script: str) -> None:
    """^C at a controlling terminal is SIGINT to the game, or a stop by the agent: the game is gone in either case."""
    with terminal() as (ours, theirs, screen):
        run = launch(
            ["sh", "-c", f"echo ready; {script}"],
            stdin=theirs,
            stdout=theirs,
            preexec=take_the_terminal,
            mode="subreaper",
            env={"AGENT_CAPTURE": capture, "AGENT_STOP": stop},
        )
        os.close(theirs)
        screen.wait_for("ready")
        assert run.is_ready_to_answer()
        os.write(ours, b"\x03")
        assert run.finish().code in {130, 143}
        screen.ends()


def test_a_shell_has_job_control_without_capture(launch: Launcher) -> None:
    """An interactive shell as the game can do job control, as `docker run -it image bash` wants it.

    With capture it cannot: its output is a second terminal then; see docs/architecture.md.
    """
    with terminal() as (ours, theirs, screen):
        run = launch(
            ["bash", "--norc", "-m"],
            prefix=["sh", "-c", 'exec "$@" 2>&1', "sh"],
            stdin=theirs,
            stdout=theirs,
            preexec=take_the_terminal,
            mode="subreaper",
            env={"AGENT_CAPTURE": "off"},
        )
        os.close(theirs)
        os.write(ours, b'echo "flags [[$-]]"\nsleep 1000 &\njobs\nkill %1\nexit 7\n')
        assert run.finish().code == 7
        screen.ends()
    flags = re.search(r"flags \[\[(\w+)\]\]", screen.text)
    assert flags, screen.text
    assert "m" in flags[1]

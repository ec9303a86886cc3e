"""entrypoint.sh under every shell that is here, with a stand-in for the agent that prints its arguments."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "entrypoint.sh"
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"], "mksh": ["mksh"], "ksh": ["ksh"]}
AVAILABLE = {name: argv for name, argv in SHELLS.items() if shutil.which(argv[0])} or {"sh": ["sh"]}

AGENT = """#!/bin/sh
[ "$1" != --check-runtime ] || exit 0
printf '<%s>' "$@"
echo " pid $$"
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=sorted(AVAILABLE))
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A runtime directory with a stand-in agent; `home / "shell"` names the shell to use."""
    shutil.copy(SCRIPT, tmp_path / "entrypoint.sh")
    for folder in ("bin", "share"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin/arbitrium-agent").write_text(AGENT)
    (tmp_path / "bin/arbitrium-agent").chmod(0o755)
    (tmp_path / "share/machine").write_text(os.uname().machine + "\n")
    (tmp_path / "shell").write_text("\n".join(AVAILABLE[request.param]))
    return tmp_path


@pytest.fixture
def run(home: Path) -> Run:
    """Calls the entrypoint with the given arguments, as a container engine would."""

    def call(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        shell = (home / "shell").read_text().split("\n")
        return subprocess.run(
            [*shell, str(home / "entrypoint.sh"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
            env={"PATH": os.environ["PATH"], **environ},
            timeout=20,
        )

    return call


def test_it_becomes_the_agent(home: Path) -> None:
    """By exec: the process keeps its id, so that the agent is PID 1 and gets the signals."""
    shell = (home / "shell").read_text().split("\n")
    with subprocess.Popen(
        [*shell, str(home / "entrypoint.sh"), "/game/server"], stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate(timeout=20)
    assert output == f"<run><--></game/server> pid {process.pid}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["/game/server", "-batchmode"],
        ["/game/server", "", "a b", "  ", "*", "$HOME", "`id`", "--", "-c", "'\"\\", "line\nline", "ü", ""],
        ["/bin/sh", "-c", "exec /game/server $ARGS > /dev/null && true; *"],
        ["-batchmode"],
        [],
    ],
    ids=["list", "difficult", "shell form", "option first", "none"],
)
def test_arguments_arrive_as_they_are(run: Run, arguments: list[str]) -> None:
    """Empty ones, too, and nothing is expanded."""
    done = run(*arguments, HOME="/x", ARGS="y")
    shown = "".join(f"<{argument}>" for argument in ["run", "--", *arguments])
    assert done.stdout.rpartition(" pid ")[0] == shown
    assert done.stderr == ""


def test_the_environment_is_left_alone(home: Path, run: Run) -> None:
    """No variable of the script's gets into the game."""
    (home / "bin/arbitrium-agent").write_text('#!/bin/sh\n[ "$1" != --check-runtime ] || exit 0\nexec env\n')
    done = run("/game/server", A="1")
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names <= {"A", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}  # what shells add by themselves


@pytest.mark.parametrize(
    "make",
    [
        lambda script: [script],
        lambda script: ["/bin/bash", script, "-x"],
        lambda script: ["/bin/sh", "-c", f"exec {script} $ARGS"],
        lambda script: ["/bin/sh", "-c", f"cd /\n{script}\t-x"],
    ],
    ids=["direct", "argument", "line", "lines"],
)
def test_a_start_script_from_windows_is_reported(home: Path, run: Run, make: Callable[[str], list[str]]) -> None:
    """With what to do; the game is started all the same, since it may work."""
    script = home / "start.sh"
    script.write_bytes(b"#!/bin/sh\r\necho hello\r\n")
    done = run(*make(str(script)))
    assert f"{script} has Windows line endings (CRLF)" in done.stderr
    assert f"RUN sed -i 's/\\r$//' {script}" in done.stderr
    assert done.stderr.count("Windows") == 1
    assert "<run><-->" in done.stdout


def test_what_is_no_script_from_windows_is_not_reported(home: Path, run: Run) -> None:
    """A proper script, a program, a folder, a file without a line, and one that nobody may read."""
    (home / "unix.sh").write_bytes(b"#!/bin/sh\necho hello\r\n")
    (home / "program").write_bytes(b"\x7fELF\x02\0\0\r\r\0\n#!\r\n")
    (home / "empty").write_bytes(b"")
    (home / "endless").write_bytes(b"x" * 10)
    for name in ("unix.sh", "program", "empty", "endless", "share"):
        assert run(str(home / name)).stderr == ""


def test_a_script_without_a_first_line_is_reported_by_its_name(home: Path, run: Run) -> None:
    """`bash start.sh` reads it, and stumbles over each line."""
    (home / "start.sh").write_bytes(b"echo hello\r\n")
    assert "CRLF" in run("bash", "start.sh").stderr


def removed(home: Path) -> None:
    """Only a part of the directory was copied."""
    (home / "bin/arbitrium-agent").unlink()


def not_executable(home: Path) -> None:
    """Copied without its mode."""
    (home / "bin/arbitrium-agent").chmod(0o644)


def incomplete(home: Path) -> None:
    """The launcher finds that something is missing."""
    (home / "bin/arbitrium-agent").write_text("#!/bin/sh\necho 'cannot start the runtime' >&2\nexit 1\n")


def other_machine(home: Path) -> None:
    """Built for another processor. What stands in for it would do harm if a shell took it for a script."""
    (home / "share/machine").write_text("pdp11\n")
    (home / "bin/arbitrium-agent").write_bytes(b"\x7fELF\x01\necho harm done\n")


@pytest.mark.parametrize("break_it", [removed, not_executable, incomplete, other_machine])
def test_without_a_runtime_the_game_is_started_anyway(home: Path, run: Run, break_it: Callable[[Path], None]) -> None:
    """Fail open: a game server without its agent is better than none; its exit code and arguments are kept."""
    break_it(home)
    done = run("/bin/sh", "-c", "printf '<%s>' \"$@\"; exit 7", "sh", "", "a b")
    assert done.stdout == "<><a b>"
    assert done.returncode == 7
    assert "cannot start the agent" in done.stderr
    assert "the game runs without the agent" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130)])
def test_a_stop_that_comes_while_the_script_runs(home: Path, run: Run, name: str, code: int) -> None:
    """The agent's launcher is told of it; a game without an agent is not started any more."""
    agent = home / "bin/arbitrium-agent"
    asked = '#!/bin/sh\n[ "$1" != --check-runtime ] || { kill -%s $PPID; exit %d; }\n%s\n'
    agent.write_text(asked % (name, 0, 'echo "stop=$_ARBITRIUM_STOP"'))
    done = run("/game/server")
    assert (done.stdout, done.returncode) == (f"stop={name}\n", 0)
    agent.write_text(asked % (name, 1, ""))
    done = run("echo", "started")
    assert (done.stdout, done.returncode) == ("", code)
    assert f"SIG{name} came first" in done.stderr


def test_without_a_runtime_and_a_command_it_says_so(home: Path, run: Run) -> None:
    """There is nothing to start then, and 0 would look like success."""
    removed(home)
    done = run()
    assert done.returncode == 78
    assert "add CMD" in done.stderr

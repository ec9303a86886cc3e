"""The same life on every base image: PID 1, stops, exit codes, users, file systems, variables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.image.engine import AGENT, HOME, PYTHON, Engine, eventually

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]


def game(name: str, *arguments: str) -> list[str]:
    """The command of a test game; the runtime brings the interpreter."""
    return [PYTHON, f"/game/{name}.py", *arguments]


def kept(folder: Path) -> list[str]:
    """Options of a container whose logs are shipped to a directory of this machine."""
    folder.chmod(0o777)
    return ["--volume", f"{folder}:/kept", "--env", "AGENT_LOG_URL=file:///kept"]


def story(folder: Path) -> dict[str, Any]:
    """The `exit.json` that was shipped."""
    (path,) = eventually(lambda: list(folder.rglob("exit.json")), "exit.json was shipped")
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def test_the_agent_is_pid_1_with_libraries_of_its_own(engine: Engine, game_image: str) -> None:
    """The entrypoint became it; nothing of the image's own libraries is in it, and it bears its name."""
    container = engine.run(game_image)
    container.said("ready")
    comm, argv = container.python(
        "print(open('/proc/1/comm').read().strip()); print(open('/proc/1/cmdline').read().split(chr(0))[:-1])"
    ).splitlines()
    assert comm == "arbitrium-agent"
    assert argv == str([AGENT, "run", "--", *game("polite")])
    mapped = set(re.findall(r"(/\S+)$", Path(f"/proc/{container.pid()}/maps").read_text(), re.MULTILINE))
    assert mapped
    assert {path for path in mapped if not path.startswith(f"{HOME}/")} <= {"/dev/zero (deleted)"}
    assert Path(f"/proc/{container.pid()}/exe").readlink() == Path(f"{HOME}/libexec/arbitrium-agent")


def test_a_game_that_obeys_is_stopped_cleanly(engine: Engine, game_image: str, tmp_path: Path) -> None:
    """`stop -t 20`: the game hears SIGTERM, its exit code is the container's, and the story is kept."""
    container = engine.run(game_image, *game("polite", "9"), options=[*kept(tmp_path), "--env=AGENT_GRACE_SECONDS=20"])
    container.said("ready")
    container.stop(20)
    assert container.wait() == 9
    assert "bye" in container.output()
    told = story(tmp_path)
    assert told["code"] == 9
    assert told["reason"] == "platform_stop"


def test_a_game_that_ignores_the_stop_is_killed_inside_the_grace(
    engine: Engine, game_image: str, tmp_path: Path
) -> None:
    """Escalation, autopsy and shipping all come before the engine's own SIGKILL, or nothing would be written."""
    container = engine.run(game_image, *game("ignores_sigterm"), options=kept(tmp_path))
    container.said("ready")
    container.stop(5)
    assert container.wait() == 137
    told = story(tmp_path)
    assert told["signal"] in {9, "SIGKILL"}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (game("exits", "7"), 7),
        (game("dies_of_signal", "SIGSEGV"), 139),
        (["/game/none"], 127),
        (["/game"], 126),
        (["/bin/sh", "-c", "exit 3"], 3),
    ],
    ids=["code", "signal", "not found", "not executable", "shell form"],
)
def test_the_exit_code_is_the_games(engine: Engine, game_image: str, command: list[str], code: int) -> None:
    """As every engine and shell has it."""
    assert engine.run(game_image, *command, options=["--env=AGENT_ON_CRASH=exit"]).wait() == code


def test_arguments_arrive_as_they_are(engine: Engine, game_image: str) -> None:
    """Empty ones, too: through the engine, the entrypoint, the launcher and the agent."""
    arguments = ["", "a b", "*", "$HOME", "--", "-x", "'\"\\", "ü", ""]
    container = engine.run(game_image, *game("describes_itself", *arguments))
    container.wait()
    described = next(line for line in container.output().splitlines() if line.startswith("{"))
    shown = [argument.encode("latin-1").decode() for argument in json.loads(described)["arguments"]]
    assert shown[2:] == arguments


def test_the_games_environment_is_the_containers(engine: Engine, game_image: str) -> None:
    """LD_* variables reach the game unchanged and the agent not at all; nothing is added but the agent's addresses."""
    given = {"LD_LIBRARY_PATH": "/game/evil", "LD_PRELOAD": "/game/none.so", "PYTHONHOME": "/none", "EMPTY": ""}
    options = [f"--env={name}={value}" for name, value in given.items()]
    container = engine.run(game_image, "/bin/sh", "-c", "echo ready; env; sleep 1000", options=options)
    container.said("AGENT_URL=")
    pid = container.pid()
    shown = dict(line.split("=", 1) for line in container.output().splitlines() if "=" in line and " " not in line)
    assert {name: shown.get(name) for name in given} == given
    agents_own = {"AGENT_URL", "AGENT_METRICS_URL", "AGENT_SOCKET", "NOTIFY_SOCKET", "WATCHDOG_USEC"}
    shells_own = {"PWD", "OLDPWD", "SHLVL", "_"}
    engines_own = {"PATH", "HOME", "HOSTNAME", "TERM", "container"}
    assert set(shown) - set(given) - agents_own - shells_own - engines_own == set()
    assert "/game/evil" not in Path(f"/proc/{pid}/maps").read_text()


def test_read_only_root_any_user_no_folders(engine: Engine, game_image: str) -> None:
    """A user without a name, a read-only root, /tmp and /run unwritable: no socket, it says so, and all else works."""
    options = ["--read-only", "--user=12345:12345", *(["--read-only-tmpfs=false"] if engine.is_podman else [])]
    container = engine.run(game_image, options=options)
    container.said("ready")
    assert "cannot make the Unix socket" in container.output()
    answer = container.python(
        "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9370/healthz').status)"
    )
    assert answer.strip() == "200"
    container.stop(20)
    assert container.wait() == 0
    assert "bye" in container.output()


def test_the_command_works_in_the_container(engine: Engine, game_image: str, tmp_path: Path) -> None:
    """By its full path, as another user than root, through the socket; a stop by the operator ends the container."""
    tmp_path.chmod(0o1777)
    container = engine.run(game_image, options=["--user=12345:12345", f"--volume={tmp_path}:/tmp"])
    container.said("ready")
    container.execute(AGENT, "ready")
    assert "ready" in container.execute(AGENT, "status").stdout
    container.execute(AGENT, "healthcheck", "--ready")
    # The container may end before this command in it does.
    stopped = container.execute(AGENT, "stop", "--reason", "match over", check=False)
    assert "stopping" in stopped.stdout
    assert container.wait() == 0
    assert "bye" in container.output()


def test_certificates_are_there_and_a_setting_wins(engine: Engine, game_image: str) -> None:
    """Images without any get the agent's own, unseen by the game; SSL_CERT_FILE is taken as it is."""
    code = """
import ctypes, os
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
folder = getenv(b"SSL_CERT_DIR")
print(getenv(b"SSL_CERT_FILE").decode(), len(os.listdir(folder)) if folder else 0, "SSL_CERT_DIR" in os.environ)
"""
    container = engine.run(game_image)
    container.said("ready")
    file, count, seen = container.python(code).split()
    # A directory with all of them, or the one file that the base image has.
    assert (file == "/dev/null" and int(count) > 100) or file.startswith("/etc/")
    assert seen == "False"
    named = engine.run(game_image, options=["--env=SSL_CERT_FILE=/game/none.crt"])
    named.said("ready")
    assert named.python(code).split() == ["/game/none.crt", "0", "False"]


@pytest.mark.parametrize("start", ["entrypoint", "exec form"])
def test_a_broken_runtime_does_not_stop_the_game(engine: Engine, game_image: str, tmp_path: Path, start: str) -> None:
    """The libraries are missing, as after a partial copy: the game runs without the agent, which is said."""
    entrypoint = f"{HOME}/entrypoint.sh" if start == "entrypoint" else AGENT
    before = [] if start == "entrypoint" else ["run", "--"]
    broken = engine.run(
        game_image,
        *before,
        "/bin/sh",
        "-c",
        "echo playing; exit 4",
        options=["--entrypoint", entrypoint, "--volume", f"{tmp_path}:{HOME}/lib:ro"],
    )
    assert broken.wait() == 4
    output = broken.output()
    assert "playing" in output
    assert "the game runs without the agent" in output


def test_an_idle_agent_is_small_in_memory(engine: Engine, game_image: str) -> None:
    """Resident memory of both processes, the most that the agent's had since its start, and what a scrape adds."""
    container = engine.run(game_image)
    container.said("ready")
    container.execute(AGENT, "healthcheck")
    init = psutil.Process(container.pid())
    # Forked, so with the same command line; the game here runs on the same interpreter.
    (agent,) = (child for child in init.children() if child.cmdline() == init.cmdline())

    def most(process: psutil.Process, line: str) -> float:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(each.split()[1]) * 1024 / 1e6 for each in lines if each.startswith(line))

    assert most(init, "VmRSS:") <= 16
    assert most(agent, "VmRSS:") <= 35.5
    assert most(agent, "VmHWM:") <= 1.1 * most(agent, "VmRSS:")
    container.python("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/metrics').read()")
    assert most(agent, "VmRSS:") <= 37

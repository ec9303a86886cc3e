"""What a game finds when it starts: its arguments, environment, descriptors, signals and session."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import Launcher, Mode, game

EXPORTED = {"AGENT_URL", "AGENT_SOCKET", "AGENT_METRICS_URL"}
MAY_COME_LATER = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


def described(output: bytes) -> dict[str, Any]:
    """What `describes_itself` printed."""
    description: dict[str, Any] = json.loads(output.splitlines()[0])
    return description


def test_arguments_arrive_byte_by_byte(launch: Launcher) -> None:
    """Empty arguments, spaces, line ends, bytes that are no text, and options of the game's own arrive as they were."""
    awkward = [
        b"",
        b"two words",
        b"line\nend",
        b"\xff\xfe",
        b"--",
        b"--log-level",
        b"-x",
        "Köln".encode(),
        b"$HOME",
        b"*",
    ]
    seen = described(launch([*game("describes_itself"), *awkward]).finish().stdout)
    assert [text.encode("latin-1") for text in seen["arguments"][4:]] == awkward


def test_the_users_environment_arrives_byte_by_byte(launch: Launcher) -> None:
    """The user's own variables reach the game whatever they hold; of `AGENT_*` only what the agent exports is there."""
    own = {
        "GAME_EMPTY": "",
        "GAME_LINES": "a\nb",
        "GAME_BYTES": os.fsdecode(b"\xff\xfe"),
        "game.dotted-name": "x=y=z",
        "MM_MATCH_ID": "match-1",
        "ARBITRIUM_PUBLIC_IP": "172.236.117.196",
        "PYTHONUNBUFFERED": "1",
    }
    settings = {"AGENT_GRACE_SECONDS": "7", "AGENT_LOG_LEVEL": "info"}
    seen = described(launch(game("describes_itself"), env={**own, **settings}).finish().stdout)["environment"]
    for name, value in own.items():
        assert seen[name].encode("latin-1") == os.fsencode(value), name
    assert {name for name in seen if name.startswith("AGENT_")} == EXPORTED


@pytest.mark.parametrize("language", ["C.UTF-8", None], ids=["with a locale", "without a locale"])
def test_the_environment_is_otherwise_untouched(launch: Launcher, language: str | None) -> None:
    """Apart from the agent's own names the game has the container's environment, not one more (LC_CTYPE, say)."""
    run = launch(["env", "-0"], env={"LANG": language})
    seen = dict(entry.split("=", 1) for entry in run.finish().stdout.decode().split("\0") if entry)
    started = {"PATH", "HOME", "TMPDIR", "PROCESS_TEST_MARK"} | ({"LANG"} if language else set())
    assert started <= set(seen)
    assert set(seen) - started - MAY_COME_LATER == EXPORTED


def test_the_agent_is_found_by_what_it_exported(launch: Launcher, mode: Mode) -> None:
    """`AGENT_URL`, `AGENT_SOCKET` and `AGENT_METRICS_URL` lead to the running agent."""
    run = launch(game("polite"), mode=mode)
    run.wait_for("ready")
    assert run.http("GET", "/healthz").status == 200
    with run.rpc() as rpc:
        assert "result" in rpc.call("status")
    metrics = run.game_environment["AGENT_METRICS_URL"]
    assert run.http("GET", "/metrics", url=metrics).status == 200
    assert run.game_environment["AGENT_URL"].startswith("http://127.0.0.1:")


def test_the_game_has_a_session_of_its_own(launch: Launcher, mode: Mode) -> None:
    """The game leads its own session and group, so that a signal to the group is one to the game and nothing else."""
    seen = described(launch(game("describes_itself"), mode=mode).finish().stdout)
    assert seen["sid"] == seen["pgid"] == seen["pid"]
    if mode == "pid1":
        assert seen["ppid"] == 1


@pytest.mark.parametrize("capture", ["on", "off"])
def test_no_descriptor_of_the_agent_leaks(launch: Launcher, capture: str) -> None:
    """The game has stdin, stdout and stderr and nothing else: no listening socket it could hold open or close."""
    seen = described(launch(game("describes_itself"), env={"AGENT_CAPTURE": capture}).finish().stdout)
    assert set(seen["descriptors"]) <= {"0", "1", "2", "3"}, seen["descriptors"]
    assert "socket:" not in "".join(seen["descriptors"].values())
    assert "3" not in seen["descriptors"] or "/proc/" in seen["descriptors"]["3"]


# Whoever starts programs by glibc's posix_spawn (make does) leaves its two internal signals ignored.
OF_THE_C_LIBRARY = 1 << (32 - 1) | 1 << (33 - 1)


def test_signals_are_as_without_the_agent(launch: Launcher, mode: Mode) -> None:
    """No signal is blocked or ignored in the game because the agent does so for itself (SIGPIPE above all)."""
    done = launch(["cat", "/proc/self/status"], mode=mode).finish()
    fields = dict(line.split(":\t") for line in done.stdout.decode().splitlines() if line.startswith("Sig"))
    assert int(fields["SigBlk"], 16) == 0
    assert int(fields["SigIgn"], 16) & ~OF_THE_C_LIBRARY == 0
    assert int(fields["SigCgt"], 16) == 0


def test_what_the_container_ignores_the_game_ignores(launch: Launcher) -> None:
    """A signal that was ignored or blocked before the agent was started stays so in the game, as through any `exec`."""

    def ignore_and_block() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    done = launch(["cat", "/proc/self/status"], mode="subreaper", preexec=ignore_and_block).finish()
    fields = dict(line.split(":\t") for line in done.stdout.decode().splitlines() if line.startswith("Sig"))
    ignored, blocked = int(fields["SigIgn"], 16) & ~OF_THE_C_LIBRARY, int(fields["SigBlk"], 16)
    assert ignored == 1 << (signal.SIGHUP - 1) | 1 << (signal.SIGUSR2 - 1)
    assert blocked == 1 << (signal.SIGUSR1 - 1)


def test_working_directory_umask_and_limits_are_inherited(launch: Launcher, tmp_path: Path) -> None:
    """The game starts where the container started, with its umask, its open file limit and its priority."""
    (tmp_path / "place").mkdir()
    run = launch(
        game("describes_itself"),
        cwd=tmp_path / "place",
        prefix=["sh", "-c", 'umask 027; ulimit -n 777; exec "$@"', "sh"],
    )
    seen = described(run.finish().stdout)
    assert seen["cwd"] == str(tmp_path / "place")
    assert seen["umask"] == 0o027
    assert seen["open_files"] == [777, 777]
    assert seen["nice"] == os.getpriority(os.PRIO_PROCESS, 0)


def test_the_games_python_is_not_the_agents(launch: Launcher) -> None:
    """A game written in Python is started without a trace of the agent's own interpreter settings."""
    seen = described(launch(game("describes_itself")).finish().stdout)["environment"]
    assert not {name for name in seen if name.startswith(("PYTHON", "VIRTUAL_ENV", "LD_"))}

"""Ports and paths: the defaults where they are free, others where they are not, and no agent disturbs another."""

import contextlib
import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import COMMAND, DEADLINE, PYTHON, Launcher, Rpc, Run, game

SANDBOX = ["unshare", "--net", "--mount", *PYTHON, str(Path(__file__).with_name("sandbox.py"))]
DEFAULTS: dict[str, str | None] = dict.fromkeys(
    ("AGENT_CONTROL_PORT", "AGENT_METRICS_PORT", "AGENT_METRICS_HOST", "AGENT_SOCKET_PATH", "AGENT_SPOOL_DIR")
)
ASK = """
import os, socket, sys
def ask(host, port, path):
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET %b HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n" % path)
        return connection.recv(100).split(b"\\r")[0].decode()
url, metrics = os.environ["AGENT_URL"], os.environ["AGENT_METRICS_URL"]
print("url", url, "metrics", metrics, "socket", os.environ["AGENT_SOCKET"])
for target, path in ((url, b"/healthz"), (metrics, b"/metrics")):
    host, _, port = target.split("/")[2].rpartition(":")
    print("answer", ask(host, port, path))
"""


@functools.cache
def sandbox_is_permitted() -> bool:
    """Whether this machine lets us have a network and mounts of our own."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return not subprocess.run(
            [*SANDBOX, "--", "true"], capture_output=True, timeout=DEADLINE, check=False
        ).returncode
    return False


@pytest.fixture
def sandbox() -> list[str]:
    """The command in front of an agent that shall be alone on its machine."""
    if not sandbox_is_permitted():
        pytest.skip("a network namespace is not permitted here (unshare --net --mount)")
    return SANDBOX


@pytest.mark.slow
def test_the_default_ports_and_path(launch: Launcher, sandbox: list[str]) -> None:
    """Alone on a machine the agent is where the documentation says: 9370, 9464, /run/arbitrium-agent/agent.sock."""
    done = launch([*PYTHON, "-c", ASK], env=DEFAULTS, prefix=[*sandbox, "--"]).finish()
    assert done.code == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    words = lines[0].split()
    assert words[1].rstrip("/") == "http://127.0.0.1:9370"
    assert ":9464" in words[3]
    assert words[5] == "/run/arbitrium-agent/agent.sock"
    assert lines[1:] == ["answer HTTP/1.1 200 OK"] * 2


@pytest.mark.slow
def test_default_ports_that_are_taken(launch: Launcher, sandbox: list[str]) -> None:
    """A default that somebody else has is no error: another port is used, said, exported, and answers."""
    occupied = ["--occupy", "9370", "--occupy", "9464"]
    done = launch([*PYTHON, "-c", ASK], env=DEFAULTS, prefix=[*sandbox, *occupied, "--"]).finish()
    assert done.code == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    words = lines[0].split()
    for url, taken in ((words[1], "9370"), (words[3], "9464")):
        port = url.split("/")[2].rpartition(":")[2]
        assert port != taken
        assert [line for line in done.stderr.splitlines() if taken in line and port in line], done.stderr
    assert lines[1:] == ["answer HTTP/1.1 200 OK"] * 2


def test_where_nothing_can_be_written(launch: Launcher, sandbox: list[str]) -> None:
    """With a read-only root there is no socket and no spool: that is said, not exported, and the rest works."""
    if COMMAND.startswith(("/tmp/", "/run/")):
        pytest.skip("the package itself lies where nothing is to be seen here")
    prefix = [*sandbox, "--read-only", "/run", "--read-only", "/tmp", "--"]
    environment = {**DEFAULTS, "TMPDIR": None, "HOME": "/"}
    script = ASK.replace('os.environ["AGENT_SOCKET"]', 'os.environ.get("AGENT_SOCKET")')
    done = launch([*PYTHON, "-c", script], env=environment, prefix=prefix).finish()
    assert done.code == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].endswith("socket None")
    assert lines[1:] == ["answer HTTP/1.1 200 OK"] * 2
    assert [line for line in done.stderr.splitlines() if "socket" in line and "cannot" in line]
    assert [line for line in done.stderr.splitlines() if "spool" in line and "cannot" in line]
    assert "Traceback" not in done.stderr


def test_a_default_written_out_is_explicit(launch: Launcher, sandbox: list[str]) -> None:
    """`AGENT_CONTROL_PORT=9370` was asked for: taken, it is an error, although the number is the default."""
    prefix = [*sandbox, "--occupy", "9370", "--"]
    done = launch(game("polite"), env={**DEFAULTS, "AGENT_CONTROL_PORT": "9370"}, prefix=prefix).finish()
    assert done.code == 78
    assert "9370" in done.stderr


@pytest.fixture
def machine(sandbox: list[str]) -> Iterator[list[str]]:
    """A machine with nothing on it: the command that executes another one there, as often as one likes."""
    if not shutil.which("nsenter"):
        pytest.skip("nsenter is not installed (Debian: util-linux)")
    with subprocess.Popen([*sandbox, "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write(b"up\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"up\n"
        yield ["nsenter", f"--target={holder.pid}", "--net", "--mount", "--"]


def asked(machine: list[str], run: Run) -> list[str]:
    """What a process on that machine sees of a run, when it uses what the run exported."""
    command = [*machine, *PYTHON, "-c", ASK]
    done = subprocess.run(command, env=run.game_environment, capture_output=True, timeout=DEADLINE, check=True)
    return done.stdout.decode().splitlines()


@pytest.mark.slow
def test_two_agents_with_nothing_but_defaults(launch: Launcher, machine: list[str]) -> None:
    """Two agents on one machine each have their own ports and socket, and the end of one leaves the other alone."""
    runs = [launch(game("polite", code), env=DEFAULTS, prefix=machine, mode="subreaper") for code in ("1", "2")]
    for run in runs:
        run.wait_for("ready")
    where = [asked(machine, run) for run in runs]
    assert [lines[1:] for lines in where] == [["answer HTTP/1.1 200 OK"] * 2] * 2
    assert not set(where[0][0].split()[1::2]) & set(where[1][0].split()[1::2]), "nothing is shared"
    one, two = runs
    sockets = [f"/proc/{run.pid}/root{run.game_environment['AGENT_SOCKET']}" for run in runs]
    with Rpc(sockets[0]) as rpc:
        assert "result" in rpc.call("ready")
    assert one.stop().code == 1
    with Rpc(sockets[1]) as rpc:
        assert rpc.call("status")["result"]["phase"] == "starting"
    assert asked(machine, two)[1:] == ["answer HTTP/1.1 200 OK"] * 2
    assert two.stop().code == 2


def test_the_socket_of_a_living_agent_is_not_taken_from_it(launch: Launcher) -> None:
    """A second agent with the same socket path does not steal it: the first answers as before, the second says why."""
    first = launch(game("polite"), mode="subreaper")
    first.wait_for("ready")
    assert first.is_ready_to_answer()
    second = launch(game("polite"), mode="subreaper").finish()
    assert second.code == 78
    assert str(first.socket_path) in second.stderr
    with first.rpc() as rpc:
        assert rpc.call("status")["result"]["phase"] == "starting"
    assert first.stop().code == 0


@pytest.mark.slow
def test_two_agents_do_not_hear_each_other(launch: Launcher) -> None:
    """A stop of one is no stop of the other, and neither is a report."""
    one = launch(game("polite", "1"), mode="subreaper")
    two = launch(game("polite", "2"), mode="subreaper", env={"AGENT_SOCKET_PATH": str(launch.files / "two.sock")})
    for run in (one, two):
        run.wait_for("ready")
        assert run.is_ready_to_answer()
    one.http("POST", "/v1/ready")
    assert two.http("GET", "/v1/status").json()["phase"] == "starting"
    assert one.stop().code == 1
    assert two.http("GET", "/v1/status").json()["phase"] == "starting"
    assert two.stop().code == 2

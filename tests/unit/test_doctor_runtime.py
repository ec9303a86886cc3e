"""`doctor` over made-up containers: trees that look like /proc."""

import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.doctor import runtime
from agent.doctor.findings import Finding, Level
from agent.doctor.runtime import Process

TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"


HEARS = 1 << (signal.SIGTERM - 1)
GAME = Process(pid=7, argv=["/game/server"], uid=1000, caught=HEARS, ignored=0, core_limit=None)


def levels(findings: Iterable[Finding]) -> dict[str, Level]:
    """The level of each check."""
    return {finding.check: finding.level for finding in findings}


def test_this_very_process_is_read() -> None:
    """The real /proc has what the doctor expects there."""
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        found = runtime.read_process(os.getpid())
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert found is not None
    assert found.uid == os.geteuid()
    assert found.caught & 1 << (signal.SIGUSR2 - 1)
    assert not found.ignored & 1 << (signal.SIGUSR2 - 1)
    assert runtime.read_process(2**22 + 1) is None


def test_this_machines_open_ports_are_read() -> None:
    """TCP ports that listen and UDP ports that are bound; a TCP port that is only bound is not open."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listens,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound,
        socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        listens.bind(("127.0.0.1", 0))
        listens.listen()
        bound.bind(("127.0.0.1", 0))
        datagrams.bind(("::1" if socket.has_ipv6 else "127.0.0.1", 0))
        found = runtime.listening()
        assert ("tcp", listens.getsockname()[1]) in found
        assert ("tcp", bound.getsockname()[1]) not in found
        assert ("udp", datagrams.getsockname()[1]) in found


@pytest.mark.parametrize(
    ("argv", "check", "level"),
    [
        (["/opt/arbitrium-agent/bin/arbitrium-agent", "run", "--", "/game/server"], "init", Level.OK),
        (["/bin/sh", "-c", "/opt/arbitrium-agent/entrypoint.sh"], "entrypoint", Level.ERROR),
        (["/usr/bin/python3", "/usr/local/bin/arbitrium-agent", "run", "--", "/game/server"], "init", Level.OK),
        (["/usr/local/bin/python3.12", "-X", "utf8", "-m", "agent", "run"], "init", Level.OK),
        (["/usr/bin/python3", "server.py"], "init", Level.WARNING),
        (["/usr/bin/tini", "--", "/opt/arbitrium-agent/entrypoint.sh"], "init", Level.WARNING),
    ],
)
def test_pid_1_is_judged(argv: list[str], check: str, level: Level) -> None:
    """The agent itself, the shell of an ENTRYPOINT in shell form, another init."""
    assert levels(runtime.check_init(replace(GAME, pid=1, argv=argv))) == {check: level}


@pytest.mark.parametrize(("ignored", "says"), [(0, "does not handle SIGTERM"), (HEARS, "ignores it")])
def test_a_game_that_does_not_hear_sigterm_is_warned_of(ignored: int, says: str) -> None:
    """From SigCgt and SigIgn of the kernel, not from what anybody says."""
    (finding,) = (
        found for found in runtime.check_game(replace(GAME, caught=0, ignored=ignored)) if found.check == "signals"
    )
    assert finding.level is Level.WARNING
    assert says in finding.message
    assert finding.remedy


def test_the_server_behind_a_shell_counts() -> None:
    """The signal goes to the whole group."""
    shell = replace(GAME, argv=["sh", "-c", "server; true"], caught=0)
    assert levels(runtime.check_game(shell))["signals"] is Level.WARNING
    assert levels(runtime.check_game(shell, [GAME]))["signals"] is Level.OK


@pytest.mark.parametrize(
    ("stop", "level"),
    [
        ("stdin:stop", Level.OK),
        ("notify,signal:SIGTERM", Level.OK),
        ("signal:SIGINT", Level.WARNING),
        ("signal:SIGFOO", Level.ERROR),
    ],
)
def test_what_agent_stop_says_is_looked_at(stop: str, level: Level) -> None:
    """A game that is stopped on its console need not hear any signal; one that gets SIGINT has to hear that."""
    (finding,) = (found for found in runtime.check_game(GAME, stop=stop) if found.check == "signals")
    assert finding.level is level


def test_a_game_that_is_set_up_well_is_fine() -> None:
    """It handles SIGTERM and is not root."""
    assert set(levels(runtime.check_game(GAME)).values()) == {Level.OK}
    assert levels(runtime.check_game(replace(GAME, uid=0)))["user"] is Level.NOTE


@pytest.mark.parametrize(
    ("limit", "pattern", "level"),
    [
        (0, "core", Level.NOTE),
        (None, "|/usr/share/apport/apport -p%p", Level.NOTE),
        (None, "core.%p", Level.OK),
        (1 << 30, None, Level.OK),
    ],
)
def test_where_a_core_file_goes_is_said(limit: int | None, pattern: str | None, level: Level) -> None:
    """Nowhere, to the host, or into the container."""
    assert levels(runtime.check_core(replace(GAME, core_limit=limit), pattern)) == {"core": level}


@pytest.mark.parametrize(
    ("grace", "level"), [("", Level.NOTE), ("30", Level.OK), ("30s", Level.OK), ("thirty", Level.ERROR)]
)
def test_the_grace_is_judged(grace: str, level: Level) -> None:
    """Not set, it is a guess."""
    assert levels(runtime.check_grace({"AGENT_GRACE_SECONDS": grace})) == {"grace": level}


def test_logs_without_a_place_are_warned_of() -> None:
    """They are gone at the stop."""
    assert levels(runtime.check_storage({})) == {"storage": Level.WARNING}
    assert levels(runtime.check_storage({"AGENT_LOG_URL": "s3://logs/games"})) == {"storage": Level.OK}


def test_ports_where_nobody_listens_are_warned_of() -> None:
    """Of the platform's mapping, by their protocol."""
    mapping = (
        '{"ports": {"gameport": {"name": "gameport", "internal": 7777, "external": 32013, "protocol": "UDP"},'
        ' "web": {"name": "web", "internal": 80, "external": 32014, "protocol": "WS"},'
        ' "both": {"name": "both", "internal": 5000, "external": 32015, "protocol": "TCP/UDP"}}}'
    )
    environ = {"ARBITRIUM_PORTS_MAPPING": mapping}
    found = list(runtime.check_ports(environ, {("udp", 7777), ("tcp", 5000)}))
    assert [finding.level for finding in found] == [Level.OK, Level.WARNING, Level.WARNING]
    assert "80 (tcp) of web" in found[1].message
    assert "5000 (udp) of both" in found[2].message


@pytest.mark.parametrize("mapping", ["", "{", "[]", "{}", '{"ports": 1}', '{"ports": {"a": {"internal": "x"}}}'])
def test_a_mapping_that_cannot_be_read_is_noted(mapping: str) -> None:
    """Outside the platform there is none."""
    assert levels(runtime.check_ports({"ARBITRIUM_PORTS_MAPPING": mapping}, set())) == {"ports": Level.NOTE}


def made_proc(folder: Path) -> Callable[[int, str, str], None]:
    """Gives a function that adds a process to a tree that looks like /proc."""

    def add(pid: int, argv: str, status: str) -> None:
        (folder / str(pid)).mkdir(parents=True)
        (folder / str(pid) / "cmdline").write_text(argv.replace(" ", "\0") + "\0")
        (folder / str(pid) / "status").write_text(status)

    return add


def test_a_container_without_an_agent_is_looked_at_as_far_as_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fails for what is missing; the missing agent is the error."""
    add = made_proc(tmp_path)
    add(1, "/usr/bin/tini -- x", "Uid:\t0\t0\t0\t0\nPPid:\t0\nSigCgt:\t0000000000000000\nSigIgn:\t0000000000000000\n")
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(TCP + "\n   0: 0100007F:1F90 00000000:0000 0A 0 0 0\n")
    monkeypatch.setenv("AGENT_SOCKET", str(tmp_path / "none.sock"))
    found = levels(runtime.check_runtime({}, str(tmp_path)))
    assert found["agent"] is Level.ERROR
    assert found["init"] is Level.WARNING
    assert found["ports"] is Level.NOTE
    assert runtime.listening(str(tmp_path)) == {("tcp", 8080)}

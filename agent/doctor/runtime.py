"""`doctor`: checks the running container. Reads /proc, the environment and the agent's own status."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.api.client import AgentClient, RefusedError
from agent.config import parsers
from agent.config.game_ports import name_in_variables
from agent.config.table import TABLE
from agent.doctor.findings import Finding, error, note, ok, warning
from agent.doctor.image import shell_form_of
from agent.doctor.places import ENTRYPOINT
from agent.errors import AgentError
from agent.game import signal_handling, stop_signal, tree
from agent.lifecycle import stop_methods

_LISTENING = {"tcp": "0A", "udp": "07"}  # `st` of /proc/net: TCP_LISTEN; UDP sockets that are bound (TCP_CLOSE)


@dataclass(frozen=True)
class Process:
    """What /proc tells of one process.

    Attributes:
        argv: its command line.
        uid: its effective user.
        caught, ignored: signals that it handles and ignores, as bit masks (`SigCgt`, `SigIgn`).
        parent: its parent's id.
        core_limit: soft limit of a core file in bytes; None is unlimited.
        program: the name of its executable, "" where that cannot be seen.
    """

    pid: int
    argv: list[str]
    uid: int
    caught: int
    ignored: int
    core_limit: int | None
    program: str = ""
    parent: int = 0

    @property
    def name(self) -> str:
        """Of its program."""
        return self.program or os.path.basename(self.argv[0])


def read_process(pid: int, proc: str = "/proc") -> Process | None:
    """Reads one process; None where it is gone or not to be seen."""
    try:
        argv = _read(f"{proc}/{pid}/cmdline").rstrip("\0").split("\0")
        status = dict(line.split(":", 1) for line in _read(f"{proc}/{pid}/status").splitlines() if ":" in line)
    except OSError:
        return None
    core: int | None = None
    try:
        for line in _read(f"{proc}/{pid}/limits").splitlines():
            if line.startswith("Max core file size"):
                soft = line.split()[4]
                core = None if soft == "unlimited" else int(soft)
    except OSError:
        core = None
    return Process(
        pid=pid,
        argv=argv,
        uid=int(status["Uid"].split()[1]),
        caught=int(status["SigCgt"], 16),
        ignored=int(status["SigIgn"], 16),
        core_limit=core,
        program=tree.executable(f"{proc}/{pid}/exe"),
        parent=int(status["PPid"]),
    )


def check_runtime(environ: Mapping[str, str], proc: str = "/proc") -> list[Finding]:
    """Runs every check.

    Args:
        environ: the container's variables.
        proc: where procfs is mounted.
    """
    findings = list(check_init(read_process(1, proc)))
    game: Process | None = None
    try:
        with AgentClient(timeout=3.0) as agent:
            status = agent.call("status")
        findings.append(ok("agent", f"the agent answers; the game is {status['phase']}"))
        described = status.get("game")
        pid = described.get("pid") if isinstance(described, dict) else None
        game = read_process(pid, proc) if isinstance(pid, int) else None
    except (AgentError, RefusedError) as problem:
        findings.append(error("agent", str(problem), "look at the container's log"))
    if game is not None:
        others = [read_process(pid, proc) for pid in (tree.descendants(game.pid) if proc == "/proc" else [])]
        findings += check_game(game, [other for other in others if other], environ.get("AGENT_STOP", ""))
        findings += check_core(game, _quietly(f"{proc}/sys/kernel/core_pattern"))
    findings += check_grace(environ)
    findings += check_storage(environ)
    findings += check_ports(environ, listening(proc))
    return findings


def check_init(first: Process | None) -> Iterator[Finding]:
    """What PID 1 is."""
    if first is None:
        yield note("init", "PID 1 cannot be seen from here: is this the container?")
    elif shell_form_of(first.argv):
        yield error(
            "entrypoint",
            "PID 1 is a shell: ENTRYPOINT is in shell form, so that SIGTERM does not reach the agent",
            f"write it as a list: {ENTRYPOINT}",
        )
    elif is_agent(first.argv):
        yield ok("init", "the agent is PID 1")
    else:
        yield warning(
            "init",
            f"PID 1 is {first.argv[0] or 'a kernel thread'}, not the agent: it has to pass SIGTERM on",
            f"start the agent directly: {ENTRYPOINT}",
        )


def is_agent(argv: Sequence[str]) -> bool:
    """Whether a command line is the agent's: the runtime's own, or that of a pip install.

    A pip install is a script of its interpreter (`python3 /usr/local/bin/arbitrium-agent run`) or a module
    (`python3 -m agent run`).
    """
    if os.path.basename(argv[0]) == "arbitrium-agent":
        return True
    if not os.path.basename(argv[0]).startswith("python"):
        return False
    words = list(argv[1:])
    while words and words[0].startswith("-") and words[0] != "-m":
        words = words[2:] if words[0] in ("-X", "-W") else words[1:]
    return bool(words) and (os.path.basename(words[0]) == "arbitrium-agent" or words[:2] == ["-m", "agent"])


def check_game(game: Process, others: Sequence[Process] = (), stop: str = "") -> Iterator[Finding]:
    """Whether the game hears a stop, and who it is.

    Args:
        game: its main process.
        others: the rest of it: behind a shell, one of these is the server.
        stop: AGENT_STOP.
    """
    try:
        first = stop_methods.parse(stop)[0] if stop else stop_methods.SIGTERM
    except ValueError as wrong:
        yield error("signals", f"AGENT_STOP {wrong}", "correct it")
    else:
        yield from _hearing(first, [game, *others])
    if game.uid == 0:
        yield note("user", "the game runs as root", "set AGENT_GAME_USER, or add USER to the Dockerfile")
    else:
        yield ok("user", f"the game runs as user {game.uid}")


def _hearing(first: stop_methods.Method, processes: Sequence[Process]) -> Iterator[Finding]:
    if first.kind != "signal":
        yield ok("signals", f"the game is asked to end by {first}")
        return
    seen = [
        tree.Process(one.pid, one.parent, caught=one.caught, ignored=one.ignored, file=one.name) for one in processes
    ]
    found = stop_signal.judge(seen, processes[0].pid, first.signum, target=first.target)
    if wrong := signal_handling.verdict(found, first.signum):
        yield warning("signals", wrong, signal_handling.REMEDY)
    elif unclear := signal_handling.unclear(found, first.signum):
        yield note("signals", unclear, "stop the container once and look at its log: `docker stop`, then the stop plan")
    else:
        yield ok("signals", f"the game ({found.name}) handles {first.argument}")


def check_core(game: Process, pattern: str | None) -> Iterator[Finding]:
    """Whether a crash leaves a core file that the agent can find."""
    if game.core_limit == 0:
        yield note(
            "core", "a crash leaves no core file (the limit is 0)", "run the container with --ulimit core=-1 to get one"
        )
    elif pattern is not None and pattern.startswith("|"):
        yield note("core", f"core files go to a program of the host ({pattern.split()[0][1:]}), not into the container")
    else:
        yield ok("core", f"a crash leaves a core file ({pattern or 'core'})")


def check_grace(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the agent knows how long a stop may take."""
    raw = environ.get("AGENT_GRACE_SECONDS", "")
    try:
        grace = parsers.duration(raw) if raw else None
    except ValueError as wrong:
        yield error("grace", f"AGENT_GRACE_SECONDS {wrong}", "correct it")
        return
    if grace is None:
        yield note(
            "grace",
            f"AGENT_GRACE_SECONDS is not set: {TABLE['grace_seconds'].default:g} s are assumed, since the platform "
            "does not inject it",
            "set it to the version's termination_grace_period_seconds",
        )
    else:
        yield ok("grace", f"a stop may take {grace:g} s")


def check_storage(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether logs survive the stop."""
    if environ.get("AGENT_LOG_URL"):
        yield ok("storage", "logs are shipped to AGENT_LOG_URL")
    else:
        yield warning(
            "storage",
            "AGENT_LOG_URL is not set: logs and exit.json are gone at the stop, unless the version has a storage",
            "set it to s3://BUCKET/PREFIX, or give the version an endpoint_storage",
        )


def check_ports(environ: Mapping[str, str], open_ports: set[tuple[str, int]]) -> Iterator[Finding]:
    """Whether something listens where players arrive."""
    raw = environ.get("ARBITRIUM_PORTS_MAPPING", "")
    try:
        ports = [
            (str(port.get("name") or key), str(port.get("protocol") or "").upper(), int(port["internal"]))
            for key, port in json.loads(raw)["ports"].items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        yield note("ports", "ARBITRIUM_PORTS_MAPPING is missing or malformed: not on the platform?")
        return
    for name, protocol, number in ports:
        # WS, HTTP and so on are TCP; TCP/UDP is both.
        wanted = [kind for kind in ("tcp", "udp") if kind.upper() in protocol] or ["tcp"]
        silent = [kind for kind in wanted if (kind, number) not in open_ports]
        if silent:
            yield warning(
                "ports",
                f"nothing listens on port {number} ({'/'.join(silent)}) of {name}: players cannot connect",
                f"let the game listen on ARBITRIUM_PORT_{name_in_variables(name)}_INTERNAL, "
                "or correct the version's ports",
            )
        else:
            yield ok("ports", f"something listens on port {number} ({'/'.join(wanted)}) of {name}")


def listening(proc: str = "/proc") -> set[tuple[str, int]]:
    """Every port that is open in this network namespace, as ("tcp" or "udp", number)."""
    found = set()
    for kind, state in _LISTENING.items():
        for family in ("", "6"):
            text = _quietly(f"{proc}/net/{kind}{family}") or ""
            for line in text.splitlines()[1:]:
                fields = line.split()
                if len(fields) > 3 and fields[3] == state:
                    found.add((kind, int(fields[1].rpartition(":")[2], 16)))
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _quietly(path: str) -> str | None:
    try:
        return _read(path).strip()
    except OSError:
        return None

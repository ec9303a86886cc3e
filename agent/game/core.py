"""Cores: makes one possible before the game starts, finds it after a crash, and reads a stack summary from it.

The kernel's rules (man 5 core): the limit must permit one; `core_pattern` says where it goes, in the namespace of the
*host*. A pattern with `|` sends it to a program on the host, where a container never sees it again. What stands in the
way is said; nothing of it is an error.
"""

from __future__ import annotations

import contextlib
import glob
import os
import resource
import select
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

_PATTERN = "/proc/sys/kernel/core_pattern"
_USES_PID = "/proc/sys/kernel/core_uses_pid"
_STACK_LINES = 60


@dataclass(frozen=True, slots=True)
class CoreOutlook:
    """Whether a crash would leave a core.

    Attributes:
        pattern: the kernel's `core_pattern`, or None where it cannot be read.
        why_not: why there would be none, as a sentence; "" when there would be one.
    """

    pattern: str | None
    why_not: str


def core_outlook(workdir: str, *, pattern_file: str = _PATTERN, hard_limit: int | None = None) -> CoreOutlook:
    """Looks whether a crash of the game would leave a core that can be kept.

    Args:
        workdir: the game's working directory, which a relative pattern refers to.
        pattern_file: where the pattern is read from.
        hard_limit: bytes that a core may have at most, -1 for no limit; the process's own hard limit by default.
    """
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1] if hard_limit is None else hard_limit
    pattern = _read(pattern_file)
    why_not = ""
    if limit == 0:
        why_not = "cannot get a core: the hard limit is 0; start the container with --ulimit core=-1"
    elif pattern is None:
        why_not = f"cannot tell where a core would go: {pattern_file} cannot be read"
    elif pattern.startswith("|"):
        program = pattern[1:].split()[0] if pattern[1:].split() else "a program"
        why_not = (
            f"cannot get a core: the host's core_pattern pipes it to {program}, outside this container; keep the "
            "game's own crash dumps with AGENT_KEEP instead"
        )
    elif not pattern:
        why_not = "cannot get a core: the host's core_pattern is empty, which switches them off"
    else:
        directory = os.path.dirname(os.path.join(workdir, pattern)) or workdir
        if "%" not in directory and not os.access(directory, os.W_OK):
            why_not = f"cannot get a core: it would go to {directory}, which is not there or cannot be written to"
    return CoreOutlook(pattern, why_not)


def permit_core() -> None:
    """Raises the soft limit to the hard one; for this process, and what it starts from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@dataclass(frozen=True, slots=True)
class Core:
    """What became of the core.

    Attributes:
        path: the file, or None.
        summary: one sentence.
        stack: what gdb says of it; "" without gdb.
    """

    path: str | None
    summary: str
    stack: str = ""

    def as_dict(self) -> dict[str, object]:
        """For `exit.json`."""
        return {"path": self.path, "summary": self.summary, "stack": self.stack}


def look_for_core(
    outlook: CoreOutlook,
    *,
    crashed: bool,
    workdir: str,
    pid: int,
    since: float,
    program: str,
    deadline: float,
    started: Callable[[int], None] = lambda _: None,
) -> Core:
    """Finds the core of a game that is gone, and reads its stacks. May take until the deadline; never raises.

    Args:
        outlook: from before the game was started.
        crashed: whether it ended in a way that may have left one: by a signal, or with a code above 128, which is how
            a shell reports that its child did.
        workdir: the game's working directory.
        pid: its main process.
        since: when it was started, in seconds since 1970.
        program: what was executed.
        deadline: seconds of the monotonic clock.
        started: called with the process id of the debugger, so that it is not taken for the game's.
    """
    if outlook.why_not or outlook.pattern is None:
        return Core(None, outlook.why_not)
    if not crashed:
        return Core(None, "no core: the game did not crash")
    path = find_core(outlook.pattern, workdir, pid, since)
    if path is None:
        return Core(None, f"no core was found by the host's core_pattern, {outlook.pattern}")
    stack = stack_summary(path, program, deadline, started=started)
    without = "" if stack else "; without gdb in the image there is no stack summary"
    return Core(path, f"a core of {os.path.getsize(path)} bytes{without}", stack)


def find_core(pattern: str, workdir: str, pid: int, since: float, *, uses_pid_file: str = _USES_PID) -> str | None:
    """The core of a process that crashed, or of one of its children; None without one.

    Args:
        pattern: `core_pattern`.
        workdir: the game's working directory.
        pid: the process, as this PID namespace numbers it.
        since: seconds since 1970; older files are somebody else's.
        uses_pid_file: says whether `.PID` is appended to a pattern without `%p`.
    """
    if pattern.startswith("|") or not pattern:
        return None
    end = ".%p" if "%p" not in pattern and _read(uses_pid_file) == "1" else ""
    for process in (str(pid), "*"):
        wanted = os.path.join(glob.escape(workdir), _as_glob(pattern + end, process))
        found = [path for path in glob.glob(wanted) if os.path.isfile(path) and os.stat(path).st_mtime >= since - 1]
        if found:
            return max(found, key=lambda path: os.stat(path).st_mtime)
    return None


def stack_summary(
    core: str,
    program: str,
    deadline: float,
    *,
    started: Callable[[int], None] = lambda _: None,
    debugger: str | None = None,
) -> str:
    """What `gdb` says about the threads of a core; "" where there is no gdb, or it takes too long.

    Nothing waits for the debugger's process here: whoever reaps children reaps it. Its output ends when it does.

    Args:
        core: the core file.
        program: the program that crashed.
        deadline: seconds of the monotonic clock.
        started: called with the debugger's process id, so that it is not taken for the game's.
        debugger: path of gdb; looked up by default.
    """
    gdb = debugger or shutil.which("gdb")
    executable = shutil.which(program) or program
    if gdb is None:
        return ""
    reading, writing = os.pipe()
    command = [gdb, "-nx", "-batch", "-ex", "thread apply all -s backtrace 30", "-core", core]
    if _is_elf(executable):  # of a script's child, gdb shows what it can without
        command.append(executable)
    try:
        pid = os.posix_spawn(
            gdb,
            command,
            {**os.environ, "DEBUGINFOD_URLS": ""},  # it would look for symbols in the net
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writing, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
        )
    except OSError:
        os.close(reading)
        os.close(writing)
        return ""
    os.close(writing)
    started(pid)
    try:
        output, ended = _read_until(reading, deadline)
        if not ended:
            _kill(pid)
    finally:
        os.close(reading)
    return _interesting(output)


def _read_until(fd: int, deadline: float) -> tuple[bytes, bool]:
    """What comes until the end or the deadline, and whether the end came."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    output = b""
    while (left := deadline - time.monotonic()) > 0 and len(output) < 1 << 20:
        if poll.poll(left * 1000):
            piece = os.read(fd, 65536)
            if not piece:
                return output, True
            output += piece
    return output, False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _interesting(output: bytes) -> str:
    lines = [
        line.rstrip()
        for line in output.decode("utf-8", "replace").splitlines()
        if line.startswith(("Program terminated", "Thread", "#", "*", "  ")) and line.strip()
    ]
    return "\n".join(lines[:_STACK_LINES])


def _as_glob(pattern: str, pid: str) -> str:
    """The pattern with what is known filled in and stars for the rest (`%e`, `%t`, `%h` and so on)."""
    out = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "%" and position + 1 < len(pattern):
            position += 1
            # The process's number in its own namespace is %p; %P is the host's, which nobody here knows.
            out += {"p": pid, "%": "%"}.get(pattern[position], "*")
        else:
            out += glob.escape(character)
        position += 1
    return out


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None

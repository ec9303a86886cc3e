"""Cores: makes one possible before the game starts, finds it after a crash, and reads a stack summary from it.

The kernel's rules (man 5 core): the limit must permit one; `core_pattern` says where it goes, in the namespace of the
*host*. A pattern with `|` sends it to a program on the host, where a container never sees it again. What stands in the
way is said; nothing of it is an error.
"""

from __future__ import annotations

import os
import resource

from agent.game.files import file_rights, open_regular
from agent.game.user import identity
from agent.lifecycle.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from agent.game.user import User

_PATTERN = "/proc/sys/kernel/core_pattern"
_USES_PID = "/proc/sys/kernel/core_uses_pid"
_STACK_LINES = 60
_STACK_BYTES = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class CoreOutlook(Record):
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
    pattern = _text(pattern_file)
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


class Core(Record):
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


async def look_for_core(
    outlook: CoreOutlook,
    *,
    crashed: bool,
    workdir: str,
    pid: int,
    since: float,
    program: str,
    deadline: float,
    env: Mapping[str, str] | None = None,
    user: User | None = None,
) -> Core:
    """Finds the core of a game that is gone, and reads its stacks. May take until the deadline; never raises.

    Args:
        outlook: from before the game was started.
        crashed: whether something of it ended in a way that may have left one; see `autopsy.may_have_left_core`.
        workdir: the game's working directory.
        pid: its main process.
        since: when it was started, in seconds since 1970.
        program: what was executed.
        deadline: seconds of the monotonic clock.
        env: the game's environment, which the debugger gets too; the agent has secrets in its own.
        user: whom the game runs as, and the debugger; None for the agent's user.
    """
    if not crashed:
        return Core(None, "no core: the game did not crash")
    if outlook.why_not or outlook.pattern is None:
        return Core(None, outlook.why_not)
    try:
        with file_rights(user):
            path = find_core(outlook.pattern, workdir, pid, since)
        if path is None:
            return Core(None, f"no core was found by the host's core_pattern, {outlook.pattern}")
        said = f"a core of {_size(path, user)} bytes"
        stack, problem = await stack_summary(path, program, deadline, env=env, user=user)
    except OSError as error:
        return Core(None, f"cannot look at the core: {error}")
    if problem:
        said += f"; the stack summary is cut short: {problem}" if stack else f"; there is no stack summary: {problem}"
    return Core(path, said, stack)


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
    import glob  # noqa: PLC0415 - it imports what PID 1 does without, and few games leave a core

    end = ".%p" if "%p" not in pattern and _text(uses_pid_file) == "1" else ""
    for process in (str(pid), "*"):
        wanted = os.path.join(glob.escape(workdir), _as_glob(pattern + end, process))
        found = [path for path in glob.glob(wanted) if os.path.isfile(path) and os.stat(path).st_mtime >= since - 1]
        if found:
            return max(found, key=lambda path: os.stat(path).st_mtime)
    return None


async def stack_summary(
    core: str,
    program: str,
    deadline: float,
    *,
    debugger: str | None = None,
    env: Mapping[str, str] | None = None,
    user: User | None = None,
) -> tuple[str, str]:
    """What `gdb` says about the threads of a core, and why it says no more.

    To be awaited on the main thread: the debugger is killed when the thread that started it ends.

    Args:
        core: the core file.
        program: the program that crashed.
        deadline: seconds of the monotonic clock; the debugger is killed then, and what it had said is kept.
        debugger: path of gdb; by default it is looked for where distributions put it: the PATH is the image's, and may
            begin with a directory that the game can write.
        env: the debugger's environment; none by default.
        user: whom it runs as; None for the agent's user.

    Returns:
        The summary, "" without one, and a sentence where something is missing.
    """
    import asyncio  # noqa: PLC0415 - for the agent's process; PID 1 imports this module for `permit_core`
    import shutil  # noqa: PLC0415 - likewise
    import subprocess  # noqa: PLC0415 - likewise

    gdb = debugger or shutil.which("gdb", path=_PATH)
    if gdb is None:
        return "", "gdb is not in the image"
    environment = {"PATH": _PATH, **(env or {}), "DEBUGINFOD_URLS": ""}  # it would look for symbols in the net
    executable = shutil.which(program, path=environment["PATH"]) or program
    command = [gdb, "-nx", "-batch", "-ex", "thread apply all -s backtrace 30", "-core", core]
    if _is_elf(executable, user):  # of a script's child, gdb shows what it can without
        command.append(executable)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            **identity(user),
            preexec_fn=_die_with_parent(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return "", f"gdb cannot be started: {error}"
    output = bytearray()
    problem = ""
    try:
        async with asyncio.timeout_at(deadline):  # the event loop's clock is the monotonic one
            await _read(process, output)
            await process.wait()
    except TimeoutError:
        problem = "gdb did not end in time"
    finally:
        await _end(process)
    stack = _interesting(bytes(output))
    return stack, problem or ("" if stack else "gdb found no thread in it")


def _die_with_parent() -> Callable[[], None]:
    """What a child calls before it executes: it is killed when its parent is gone (man 2 prctl)."""
    import ctypes  # noqa: PLC0415 - likewise

    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
        if os.getppid() != parent:  # it went before that took effect
            os._exit(1)

    return prepare


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout is not None, "it is a pipe"
    while len(output) < _STACK_BYTES and (piece := await process.stdout.read(65536)):
        output += piece


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills it where it still runs, together with what it started, and waits for it."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, 9)
        except (ProcessLookupError, PermissionError):
            return
        await process.wait()


def _size(path: str, user: User | None) -> int:
    with open(open_regular(path, user), "rb") as file:
        return os.fstat(file.fileno()).st_size


def _is_elf(path: str, user: User | None) -> bool:
    try:
        with open(open_regular(path, user), "rb") as file:
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
            out += f"[{character}]" if character in "*?[" else character
        position += 1
    return out


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None

"""Core dumps: enables them before the game starts, finds one after a crash, and reads a stack summary from it.

The kernel's rules (man 5 core): the limit must permit a core; `core_pattern`, a setting of the *host*, says where it is
written. A pattern with `|` sends it to a program on the host, where the container cannot read it. Obstacles are
reported, but none of them is an error.
"""

from __future__ import annotations

import os
import resource

from agent.game.files import file_rights, open_regular
from agent.game.user import identity
from agent.record import Record

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
        why_not: why there would be none, as a sentence; "" if there would be one.
    """

    pattern: str | None
    why_not: str


def core_outlook(workdir: str, *, pattern_file: str = _PATTERN, hard_limit: int | None = None) -> CoreOutlook:
    """Checks whether a crash of the game would leave a core that can be kept.

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
    """Raises the soft limit to the hard limit, for this process and the processes that it starts from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


class Core(Record):
    """The result of the search for a core.

    Attributes:
        path: the file, or None.
        summary: one sentence.
        stack: gdb's output about it; "" without gdb.
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
        crashed: whether one of its processes may have left a core; see `autopsy.may_have_left_core`.
        workdir: the game's working directory.
        pid: its main process.
        since: when it was started, in seconds since 1970.
        program: what was executed.
        deadline: seconds of the monotonic clock.
        env: the game's environment, also used for the debugger, because the agent's contains secrets.
        user: the user of the game and the debugger; None for the agent's user.
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
        since: seconds since 1970; older files belong to something else.
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
    """The output of `gdb` about the threads of a core, and why it is incomplete, if it is.

    To be awaited on the main thread: the debugger is killed when the thread that started it ends.

    Args:
        core: the core file.
        program: the program that crashed.
        deadline: seconds of the monotonic clock; the debugger is killed then, and its output so far is kept.
        debugger: path of gdb; by default the usual directories of distributions are searched, and not the PATH, which
            may begin with a directory that the game can write.
        env: the debugger's environment; none by default.
        user: the user that it runs as; None for the agent's user.

    Returns:
        The summary, or "", and a sentence if something is missing.
    """
    import asyncio  # noqa: PLC0415 - for the agent's process; PID 1 imports this module for `permit_core`
    import shutil  # noqa: PLC0415 - likewise
    import subprocess  # noqa: PLC0415 - likewise

    gdb = debugger or shutil.which("gdb", path=_PATH)
    if gdb is None:
        return "", "gdb is not in the image"
    environment = {"PATH": _PATH, **(env or {}), "DEBUGINFOD_URLS": ""}  # or it would download symbols from the web
    executable = shutil.which(program, path=environment["PATH"]) or program
    command = [gdb, "-nx", "-batch", "-ex", "thread apply all -s backtrace 30", "-core", core]
    if _is_elf(executable, user):  # for the child of a script, gdb works without the program
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
    """Called in the child before exec, so that it is killed when its parent ends (man 2 prctl)."""
    import ctypes  # noqa: PLC0415 - likewise

    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before that took effect
            os._exit(1)

    return prepare


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout is not None, "it is a pipe"
    while len(output) < _STACK_BYTES and (piece := await process.stdout.read(65536)):
        output += piece


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills it if it is still running, together with its children, and waits for it."""
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
    """The pattern with known values filled in, and `*` for the rest (`%e`, `%t`, `%h` and so on)."""
    out = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "%" and position + 1 < len(pattern):
            position += 1
            # %p is the process id in its own namespace; %P is the one on the host, which is unknown here.
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

"""Recognises what runtimes and engines print when they crash. Pure; standard library only, light enough for PID 1.

A wait status says little if a runtime handles its own crash: Go exits with 2, Python with 1, a JVM aborts, and a shell
that started the server may return 0 whatever happened. Their output describes the crash. Only the end of the output is
checked: a traceback that was followed by an hour of play did not end the game.
"""

from __future__ import annotations

import signal as signals

from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Quote = Callable[[Sequence[str], int], str]

_LONGEST = 400  # characters that are quoted
_LINES_AFTER = 40  # ordinary lines that may follow the report of a fatal crash: other threads, atexit, a wrapper
_LINES_AFTER_SHELL = 5  # a script prints more only if it continues after its child was killed
_ESCAPE = "\x1b"


class Crash(Record):
    """A crash report that was found in the output.

    Attributes:
        reporter: which runtime, engine or shell printed it.
        quote: the lines that say what happened, joined.
        fatal: whether the program cannot have continued after it; a traceback may have been only logged.
        out_of_memory: whether it reports that memory ran out.
        signal: the number of the signal that a shell reports, or None.
    """

    reporter: str
    quote: str
    fatal: bool = True
    out_of_memory: bool = False
    signal: int | None = None

    def __str__(self) -> str:
        """For people."""
        return f"{self.reporter}: {self.quote}"


class _Sign(Record):
    """How one crash report is recognised: each of `parts` is in the line, the first one at its beginning (`starts`).

    A `vague` one is quoted only if no other is found above it; `followed_by` is in one of the lines below it.
    """

    reporter: str
    parts: tuple[str, ...]
    starts: bool = False
    fatal: bool = True
    out_of_memory: bool = False
    vague: bool = False
    quote: Quote | None = None
    followed_by: str = ""


def find_crash(tail: bytes) -> Crash | None:
    """The crash report that the output ends with, or None.

    Args:
        tail: the last output of the game, such as its last 64 KiB.
    """
    lines = [plain(line) for line in tail.decode("utf-8", "replace").split("\n")]
    ordinary = 0
    vague: Crash | None = None
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        if not line:
            continue
        crash, is_vague = _crash_at(lines, index)
        if crash is not None and not is_vague:
            return crash
        vague = crash or vague or (_said_by_a_shell(line) if ordinary <= _LINES_AFTER_SHELL else None)
        if not is_dump(line) and not lines[index - 1].startswith("File "):  # the source line of a frame is below it
            ordinary += 1
            if ordinary > _LINES_AFTER:
                break
    return vague


def plain(line: str) -> str:
    """A line without escape sequences, carriage returns, surrounding spaces, and prefixes in square brackets."""
    if _ESCAPE in line:
        line = _without_escapes(line)
    line = line.replace("\r", "").strip()
    while line.startswith("[") and 0 < (end := line.find("]")) < 40 and line[end + 1 :].strip():
        # "[2026.11.28-05.12.01:123][  0]LogCore: ..." and "[12:00:01 INFO] ...", but not "[signal SIGSEGV: ...]".
        line = line[end + 1 :].lstrip(": ")
    return line


def is_dump(line: str) -> bool:
    """Whether a line is part of a dump (stack frame, register, separator, address), meaningless by itself.

    Args:
        line: as `plain` returns it.
    """
    if line.startswith(("#", "at ", "goroutine ", "File ", "0x", "created by ", "---", "===", "***", "^", "~~", "...")):
        return True
    if " 0x" in line or "+0x" in line or line.startswith(("note: ", "exit status ")):
        return True
    before, bracket, _ = line.partition("(")
    if bracket and line.endswith(")") and " " not in before and ("." in before or ":" in before):
        return True  # main.main(), or java.lang.Thread.run(Thread.java:840)
    number, colon, _ = line.partition(": ")
    return bool(colon and number.isdigit()) or not says_something(line)


def says_something(line: str) -> bool:
    """Whether a line contains at least one word or number."""
    return any(character.isalnum() for character in line)


def _without_escapes(line: str) -> str:
    """Removes control sequences (`ESC [ ... letter`) and control strings (`ESC ] ... BEL`) of ECMA-48."""
    kept, position = "", 0
    while (found := line.find(_ESCAPE, position)) >= 0:
        kept += line[position:found]
        position = found + 2
        kind = line[found + 1 : found + 2]
        if kind == "[":
            while position < len(line) and not "@" <= line[position] <= "~":
                position += 1
            position += 1
        elif kind == "]":
            while position < len(line) and line[position] not in "\x07\x1b":
                position += 1
            position += 1
    return kept + line[position:]


# What is quoted ------------------------------------------------------------------------------------------------------


def _with_next(lines: Sequence[str], index: int) -> str:
    """The line and the next meaningful one."""
    following = next((line for line in lines[index + 1 : index + 5] if says_something(line)), "")
    return f"{lines[index]} {following}".strip()


def _raised(lines: Sequence[str], index: int) -> str:
    """The exception at the end of a Python traceback: the first line that is not a frame or the code of one."""
    for before, line in zip(lines[index:], lines[index + 1 :], strict=False):
        name = line.split(":")[0].split("(")[0]
        if not before.startswith("File ") and " " not in name and _is_class(name):
            return line
        if not before and not line:
            break
    return lines[index]


def _is_class(name: str) -> bool:
    """Whether a word can be the name of an exception, as in `package.module.SomeError`."""
    last = name.rpartition(".")[2]
    return last[:1].isupper() and last.replace("_", "").isalnum()


def _hs_err(lines: Sequence[str], index: int) -> str:
    """The JVM's lines about the problem, and where its report is."""
    said = []
    for line in lines[index + 1 : index + 30]:
        if not line.startswith("#"):
            break
        text = line.lstrip("# ")
        if ("pc=" in text or text.startswith(("Internal Error", "Native memory", "SIG"))) or "hs_err" in text:
            said.append(text)
    return ", ".join(said[:3]) or lines[index].lstrip("# ")


def _above(lines: Sequence[str], index: int) -> str:
    """The error that Node.js printed before its version."""
    for line in reversed(lines[max(0, index - 40) : index]):
        name = line.partition(":")[0].removeprefix("Uncaught ").split(" ")[0]
        if name.endswith(("Error", "Exception")) or line.startswith(("throw ", "Uncaught ")):
            return line
    return lines[index]


# The signatures -------------------------------------------------------------------------------------------------------

# In the order in which they are tried for one line. Each is taken from the runtime's source; see the tests.
_SIGNS = (
    _Sign("JVM", ("A fatal error has been detected by the Java Runtime Environment",), quote=_hs_err),
    _Sign(
        "JVM",
        ("There is insufficient memory for the Java Runtime Environment",),
        out_of_memory=True,
        quote=_hs_err,
    ),
    _Sign("JVM", ("Terminating due to java.lang.OutOfMemoryError",), out_of_memory=True),
    _Sign("JVM", ("java.lang.OutOfMemoryError",), fatal=False, out_of_memory=True),
    _Sign("JVM", ('Exception in thread "',), starts=True, fatal=False),
    _Sign("Go", ("fatal error: ", "out of memory"), starts=True, out_of_memory=True),
    _Sign("Go", ("fatal error: ", "cannot allocate memory"), starts=True, out_of_memory=True),
    _Sign("Go", ("panic: ",), starts=True, followed_by="goroutine "),
    _Sign("Go", ("fatal error: ",), starts=True, followed_by="goroutine "),
    _Sign("Python", ("Fatal Python error: ",), starts=True),
    _Sign("Python", ("Traceback (most recent call last):",), fatal=False, quote=_raised),
    _Sign("Node.js", ("JavaScript heap out of memory",), out_of_memory=True),
    _Sign("Node.js", ("Node.js v",), starts=True, quote=_above),
    _Sign(".NET", ("Unhandled exception. ", "OutOfMemoryException"), starts=True, out_of_memory=True),
    _Sign(".NET", ("Unhandled exception. ",), starts=True),
    _Sign("Unreal", ("Unhandled Exception: ", "SIG")),
    _Sign("Mono", ("Unhandled Exception:",), starts=True, quote=_with_next),
    _Sign("Mono", ("Got a SIG", "while executing native code"), starts=True),
    _Sign("Mono", ("Native Crash Reporting",), starts=True),
    _Sign("Rust", ("thread '", "panicked at"), starts=True, fatal=False, quote=_with_next),
    _Sign("Rust", ("memory allocation of ", " bytes failed"), starts=True, out_of_memory=True),
    _Sign("C++", ("terminate called ",), starts=True, quote=_with_next),
    _Sign("C++", ("libc++abi: terminating",), starts=True),
    _Sign("glibc", ("*** stack smashing detected ***",)),
    _Sign("glibc", ("free(): ",), starts=True),
    _Sign("glibc", ("malloc(): ",), starts=True),
    _Sign("glibc", ("realloc(): ",), starts=True),
    _Sign("glibc", ("munmap_chunk(): ",), starts=True),
    _Sign("glibc", ("double free or corruption",), starts=True),
    _Sign("glibc", ("corrupted size vs. prev_size",), starts=True),
    _Sign("glibc", (": Assertion `", "' failed.")),
    _Sign("sanitizer", ("ERROR: ", "Sanitizer")),
    _Sign("Unity", ("Caught fatal signal - signo:",)),
    _Sign("Unity", ("Could not allocate memory: System out of memory",), out_of_memory=True),
    _Sign("Unity", ("Crash!!!",), starts=True),
    _Sign("Unreal", ("Ran out of memory allocating",), out_of_memory=True),
    _Sign("Unreal", ("=== Critical error: ===",), quote=_with_next),
    _Sign("Unreal", ("CommonUnixCrashHandler: Signal=",)),
    _Sign("Unreal", ("Low level fatal error",)),
    _Sign("Unreal", ("Assertion failed: ", "[File:")),
    _Sign("Unreal", ("Fatal error!",), vague=True),
    _Sign("Godot", ("handle_crash: Program crashed with signal",)),
    _Sign("Lua", ("PANIC: unprotected error in call to Lua API", "not enough memory"), out_of_memory=True),
    _Sign("Lua", ("PANIC: unprotected error in call to Lua API",)),
    _Sign("PHP", ("Allowed memory size of ", " bytes exhausted"), out_of_memory=True),
    _Sign("PHP", ("PHP Fatal error: ",), starts=True),
    _Sign("Wine", ("wine: Unhandled ",), starts=True),
)

# The names that strsignal(3) gives to signals that end a process; bash, dash and BusyBox print them for a child.
_SHELL_WORDS = (
    ("Segmentation fault", signals.SIGSEGV),
    ("Aborted", signals.SIGABRT),
    ("Killed", signals.SIGKILL),
    ("Bus error", signals.SIGBUS),
    ("Illegal instruction", signals.SIGILL),
    ("Floating point exception", signals.SIGFPE),
    ("Trace/breakpoint trap", signals.SIGTRAP),
    ("Bad system call", signals.SIGSYS),
    ("Terminated", signals.SIGTERM),
    ("Hangup", signals.SIGHUP),
)


def _crash_at(lines: Sequence[str], index: int) -> tuple[Crash | None, bool]:
    line = lines[index]
    for sign in _SIGNS:
        first = sign.parts[0]
        if not (line.startswith(first) if sign.starts else first in line):
            continue
        if not all(part in line for part in sign.parts[1:]):
            continue
        if sign.followed_by and not any(sign.followed_by in later for later in lines[index + 1 : index + 40]):
            continue
        quote = sign.quote(lines, index) if sign.quote is not None else line
        memory = sign.out_of_memory or quote.startswith("MemoryError") or "std::bad_alloc" in quote
        return Crash(sign.reporter, quote[:_LONGEST], sign.fatal, memory), sign.vague
    return None, False


def _said_by_a_shell(line: str) -> Crash | None:
    """`./start.sh: line 3:  1234 Segmentation fault      (core dumped) ./server` of bash, and dash's bare words."""
    words = line.removesuffix("(core dumped)").rstrip()
    before, colon, rest = words.rpartition(": ") if ": " in words else ("", "", words)
    pid, _, after = rest.lstrip().partition(" ")
    named = bool(before and colon and pid.isdigit())
    for name, signum in _SHELL_WORDS:
        if (after.lstrip().startswith(name)) if named else words == name:
            return Crash("shell", line[:_LONGEST], signal=int(signum))
    return None

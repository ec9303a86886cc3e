"""The agent's own log: one line per message on stderr, as text or JSON. Standard library only, quick to import.

`logging` would be the usual choice; this module is used because it must never block: if stderr is a pipe that nobody
reads, a blocked write would prevent PID 1 from handling SIGTERM. The init passes its lines to the thread that writes
the game's stderr (`agent.logs.sink`), and the agent's process sends its lines to the init. Before that, a line that
cannot be written at once is dropped and counted. The secrets passed to `hide` are replaced in every line.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.logs.redact import Redactor

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_level = LEVELS["info"]
_as_json = False
_hidden: tuple[str, ...] = ()
_redactor: "Redactor | None" = None
_dropped = 0
_output: "Callable[[bytes], object] | None" = None
# A pipe that poll() reports as writable accepts at least this much without blocking (PIPE_BUF, man 7 pipe).
_ATOMIC = 4096


def configure(level: str = "info", style: str = "text") -> None:
    """Sets the lowest level that is written (`debug` to `error`) and the style (`text` or `json`)."""
    global _level, _as_json  # noqa: PLW0603 - stderr is one, and so is its log
    _level = LEVELS[level]
    _as_json = style == "json"


def send_to(output: "Callable[[bytes], object] | None") -> None:
    """Passes each line to `output`, which must not block, from now on; None for stderr itself."""
    global _output  # noqa: PLW0603 - as above
    _output = output


def hide(secrets: "list[str]") -> None:
    """Replaces these values by `[redacted]` in all lines from now on, in every form that `agent.logs.needles` lists."""
    global _hidden, _redactor  # noqa: PLW0603 - as above
    _redactor = None
    _hidden = tuple(sorted({*_hidden, *(secret for secret in secrets if len(secret) >= 4)}, key=len, reverse=True))


def scrub(text: str) -> str:
    """The text without the hidden values."""
    global _redactor  # noqa: PLW0603 - as above
    if not _hidden:
        return text
    for secret in _hidden:
        text = text.replace(secret, "[redacted]")
    if _redactor is None:
        from agent.logs.redact import Redactor  # noqa: PLC0415 - not on the way to the game, where nothing is said

        _redactor = Redactor(_hidden)
    return _redactor.text(text)


def debug(message: str, **fields: object) -> None:
    """Logs details for debugging the agent."""
    _write("debug", message, fields)


def info(message: str, **fields: object) -> None:
    """Logs what an operator wants to read in the log of a healthy deployment."""
    _write("info", message, fields)


def warning(message: str, **fields: object) -> None:
    """Logs a problem that limits a function, and what to do about it."""
    _write("warning", message, fields)


def error(message: str, **fields: object) -> None:
    """Logs what cannot be done."""
    _write("error", message, fields)


def fault(doing: str, problem: BaseException) -> None:
    """Logs an error in the agent itself, with its traceback; `doing` is what failed, starting with "cannot"."""
    try:
        import traceback  # noqa: PLC0415 - only where something is wrong

        trace = "".join(traceback.format_exception(problem))
    except Exception:  # such as no descriptor for the import; a log message must not end PID 1
        trace = "(no traceback available)"
    error(f"{doing} ({type(problem).__name__}: {problem}); going on. Please report this:\n{trace}")


def _write(level: str, message: str, fields: "dict[str, object]") -> None:
    global _dropped  # noqa: PLW0603 - as above
    if LEVELS[level] < _level:
        return
    try:
        data = _line(level, message, fields)
        written = _write_now(data) if _output is None else _passed_on(_output, data)
    except (OSError, ImportError, MemoryError, RuntimeError):
        # No descriptor for an import, no thread, no memory: whoever has something to say must not end for that.
        written = False
    _dropped = 0 if written else _dropped + 1


def _passed_on(output: "Callable[[bytes], object]", data: bytes) -> bool:
    output(data)
    return True


def _line(level: str, message: str, fields: "dict[str, object]") -> bytes:
    if _as_json:
        import json  # noqa: PLC0415 - only where this style is asked for

        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"ts": stamp, "level": level, "msg": message, **fields}, default=str)
    else:
        mark = "" if level == "info" else f"{level}: "
        details = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"arbitrium-agent: {mark}{message}{details}"
    if _dropped:
        line = (
            f"arbitrium-agent: {_dropped} lines were dropped: they could not be written at once\n{line}"
            if not _as_json
            else line
        )
    return scrub(line).encode("utf-8", "backslashreplace") + b"\n"


def _write_now(data: bytes) -> bool:
    import select  # noqa: PLC0415 - not on the way to the game, where nothing is said

    poll = select.poll()
    poll.register(2, select.POLLOUT)
    view = memoryview(data)
    try:
        while view:
            if not poll.poll(0):
                return False
            view = view[os.write(2, view[:_ATOMIC]) :]
    except OSError:
        return False
    return True

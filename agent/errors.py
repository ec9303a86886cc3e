"""Errors that are shown to people: each message starts with what cannot be done and ends with what to do."""

from __future__ import annotations

EXIT_BAD_SETTINGS = 78  # EX_CONFIG of sysexits.h
EXIT_CANNOT_EXECUTE = 126  # as shells have it
EXIT_NOT_FOUND = 127


# Exceptions that end a program or task on purpose. Anything else that is not an Exception (a panic of a library in
# another language) is treated like any other error, and must not end PID 1.
LEAVING = (KeyboardInterrupt, SystemExit, GeneratorExit)


class AgentError(Exception):
    """An error to show to a person; `str()` is the sentence to print."""


def how_to_install(extra: str) -> str:
    """What to do for an optional part that is not installed, as the end of a sentence: "run ...".

    The command is for the very Python that runs, which knows the package already. The package is on no index: any other
    pip would not find it, or would find somebody else's.
    """
    import sys  # noqa: PLC0415 - as the next one, only for an error
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("pip") is None:
        return f"run .venv/bin/pip install 'arbitrium-agent[{extra}]' in a checkout, since this Python has no pip"
    return f"run {sys.executable} -m pip install 'arbitrium-agent[{extra}]'"


class Problem:
    """One wrong setting or variable.

    Attributes:
        name: the name that the user wrote: `AGENT_GRACE_SECONDS` or `--grace-seconds`.
        got: the value, or None if it is a secret or there is nothing to show.
        takes: what it takes, as a sentence without a subject ("takes ...").
    """

    __slots__ = ("got", "name", "takes")

    def __init__(self, name: str, got: str | None, takes: str) -> None:
        """Takes the three parts as they are."""
        self.name = name
        self.got = got
        self.takes = takes

    def __str__(self) -> str:
        """One line."""
        if self.got is None:
            return f"{self.name}: {self.takes}"
        quoted = f"; {KEPT_QUOTES}" if is_quoted(self.got) else ""
        return f"{self.name}: got {_shorten(without_credentials(self.got))!r} and {self.takes}{quoted}"


KEPT_QUOTES = "the quotes around it are part of it (docker's --env-file keeps them): write it without them"


def is_quoted(text: str) -> bool:
    """Whether a value is in quotes, which a shell would have removed."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


class SettingsError(AgentError):
    """Wrong settings: all of them at once.

    Attributes:
        problems: one entry for each setting.
    """

    def __init__(self, problems: list[Problem]) -> None:
        """Takes at least one problem."""
        self.problems = problems
        count = len(problems)
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"cannot start with these settings ({count} {'is' if count == 1 else 'are'} wrong):\n{lines}\n"
            "Correct them and start again; `arbitrium-agent config --check` finds them at build time."
        )


class CannotStartError(AgentError):
    """The game could not be executed.

    Attributes:
        exit_code: 126 or 127, as shells have it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        """Takes the sentence and the code."""
        self.exit_code = exit_code
        super().__init__(message)


def without_credentials(text: str) -> str:
    """A value for messages: in URLs, without user, password and the values of the query."""
    if "://" not in text:
        return text
    import re  # noqa: PLC0415 - this module is on the way to the game

    text = re.sub(r"(://)[^/@\s]+@", r"\1********@", text)
    return re.sub(r"([?&][^=&\s,]+=)[^&\s,]+", r"\1********", text)


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

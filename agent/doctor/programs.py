"""Analyses programs and start scripts without running them. Pure: bytes and text in, facts out."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})

# What the engine's packager makes: a start script beside Engine/, and the server in <Project>/Binaries/Linux*.
_UNREAL = re.compile(r"/Binaries/Linux|-Linux-(Shipping|Test|Debug|DebugGame|Development)\b|UE4?_PROJECT_ROOT")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")


def foreign_kind(data: bytes) -> str | None:
    """Names what a file is that no Linux can execute, or None."""
    if data[:2] == b"MZ":
        return "a Windows program"
    if data[:4] in {b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe"}:
        return "a macOS program"
    return None


@dataclass(frozen=True)
class Script:
    """A file that starts with `#!`, or that a shell is told to run.

    Attributes:
        interpreter: what its first line names, without a carriage return; "" where there is no such line.
        argument: the rest of that line.
        crlf: whether lines end as on Windows.
        text: all of it.
    """

    interpreter: str
    argument: str
    crlf: bool
    text: str

    @property
    def program(self) -> str:
        """What has to be in the image: with `#!/usr/bin/env NAME` that NAME, to be found in PATH."""
        words = [word for word in self.argument.split() if not word.startswith("-") and "=" not in word]
        return words[0] if self.interpreter.endswith("/env") and words else self.interpreter


def read_script(data: bytes) -> Script | None:
    """Reads a script; None for a file with NUL bytes, which is no text."""
    if b"\0" in data:
        return None
    text = data.decode("utf-8", "surrogateescape")
    first, _, _ = text.partition("\n")
    interpreter, argument = "", ""
    if first.startswith("#!"):
        interpreter, _, argument = first[2:].strip().partition(" ")
    return Script(interpreter, argument.strip(), "\r\n" in text or text.endswith("\r"), text.replace("\r\n", "\n"))


@dataclass(frozen=True)
class Shell:
    """A command that is a shell with something to run.

    Attributes:
        line: what stands behind -c, or None.
        script: the script file, or None.
    """

    line: str | None
    script: str | None


def read_shell(command: list[str]) -> Shell | None:
    """Understands `sh -c LINE`, `bash SCRIPT ...` and `/usr/bin/env bash ...`; None where no shell is called."""
    words = list(command)
    if words and words[0].rpartition("/")[2] == "env":
        words = words[1:]
        while words and (words[0].startswith("-") or _ASSIGNMENT.match(words[0])):
            words = words[1:]
    if not words or words[0].rpartition("/")[2] not in SHELLS:
        return None
    rest = words[1:]
    takes_line = False
    while rest and rest[0][:1] in {"-", "+"} and rest[0] not in {"-", "--"}:
        flags = rest.pop(0)
        takes_line = takes_line or (not flags.startswith("--") and "c" in flags)
        if flags.endswith("o") and not flags.startswith("--") and rest:
            rest.pop(0)  # -o pipefail
    if rest and rest[0] == "--":
        rest = rest[1:]
    first = rest[0] if rest else None
    return Shell(first, None) if takes_line else Shell(None, first)


def looks_unreal(text: str) -> bool:
    """Whether a path or a start script is one of an Unreal server."""
    return bool(_UNREAL.search(text))


def starts_agent(text: str) -> bool:
    """Whether a command or a line is that of the agent itself."""
    return "arbitrium-agent" in text

"""Looks into programs and start scripts without running them. Pure: bytes and text in, facts out."""

from __future__ import annotations

import contextlib
import re
import shlex
import struct
from dataclasses import dataclass

# e_machine of the ELF header (elf.h) and what `uname -m` calls it.
MACHINES = {0x03: "i386", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv64"}
RUNS_TOO = {"x86_64": {"i386"}}  # given a 32-bit loader in the image, which is looked for separately

SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})

# What the engine's packager makes: a start script beside Engine/, and the server in <Project>/Binaries/Linux*.
_UNREAL = re.compile(r"/Binaries/Linux|-Linux-(Shipping|Test|Debug|DebugGame|Development)\b|UE4?_PROJECT_ROOT")
_UNREAL_ROOT = re.compile(r"\$\{?UE4?_PROJECT_ROOT\}?")
_TRAP = re.compile(r"^\s*trap\s+.*\b(SIG)?TERM\b|^\s*trap\s+.*\s15\b", re.MULTILINE)
_PRINTS_ENVIRONMENT = re.compile(r"^\s*(printenv|env|export -p|declare -x|set)\s*(#.*)?$", re.MULTILINE)
_BACKGROUND = re.compile(r"(?<!&)&\s*(#.*)?$|^\s*exec\s", re.MULTILINE)
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
_SEPARATORS = ";&|\n"
_BEFORE_COMMAND = ("exec", "command", "nice", "nohup", "stdbuf", "then", "do", "else", "{", "(")


@dataclass(frozen=True)
class Elf:
    """What the header of an ELF file says.

    Attributes:
        machine: as `uname -m` would name it, or the number in hexadecimal.
        loader: the dynamic loader it asks the kernel for, or None for a static program.
    """

    machine: str
    loader: str | None


def read_elf(data: bytes) -> Elf | None:
    """Reads an ELF header; None for anything else, and for what is cut short.

    Args:
        data: the beginning of the file; the program headers must be in it.
    """
    if len(data) < 52 or data[:4] != b"\x7fELF":
        return None
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", data, 18)
    try:
        loader = _loader(data, wide, order)
    except (struct.error, UnicodeDecodeError):
        loader = None
    return Elf(MACHINES.get(machine, hex(machine)), loader)


def _loader(data: bytes, wide: bool, order: str) -> str | None:
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    for entry in range(table, table + size * count, size):
        (kind,) = struct.unpack_from(order + "I", data, entry)
        if kind == 3:  # PT_INTERP
            (start,) = struct.unpack_from(order + ("Q" if wide else "I"), data, entry + (8 if wide else 4))
            (length,) = struct.unpack_from(order + ("Q" if wide else "I"), data, entry + (32 if wide else 16))
            return data[start : start + length].rstrip(b"\0").decode()
    return None


def can_run(machine: str, program: str) -> bool:
    """Whether a machine runs programs that were built for `program`; both as `uname -m` has them."""
    return program == machine or program in RUNS_TOO.get(machine, set())


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


def programs_of(line: str) -> list[str]:
    """Returns the programs that a shell line names by path, in order, as far as that can be told without a shell."""
    found: list[str] = []
    command: list[str] = []
    for word in [*_words(line), ";"]:
        if word.strip(_SEPARATORS):
            command.append(word)
            continue
        while command and (command[0] in _BEFORE_COMMAND or _ASSIGNMENT.match(command[0])):
            command.pop(0)
        if command and "/" in command[0] and not re.search(r"[$`*?(){}<>]", command[0]) and command[0] not in found:
            found.append(command[0])
        command = []
    return found


def _words(line: str) -> list[str]:
    """Splits a line (or a script) into words and what stands between commands."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=_SEPARATORS)
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    words: list[str] = []
    with contextlib.suppress(ValueError):  # a quote that does not end: a here-document, or a mistake for the shell
        words.extend(lexer)
    return words


def with_unreal_root(text: str, folder: str) -> str:
    """Puts the folder of an Unreal start script where the script has a variable for it."""
    return _UNREAL_ROOT.sub(folder, text)


def looks_unreal(text: str) -> bool:
    """Whether a path or a start script is one of an Unreal server."""
    return bool(_UNREAL.search(text))


def starts_agent(text: str) -> bool:
    """Whether a command or a line is that of the agent itself."""
    return "arbitrium-agent" in text


def traps_in_foreground(text: str) -> bool:
    """Whether a script handles SIGTERM by a trap while it runs its commands in the foreground.

    A shell runs a trap only when the command in its foreground has ended (POSIX, 2.11 "Signals and Error Handling").
    """
    return bool(_TRAP.search(text)) and not _BACKGROUND.search(_without_comments(text))


def prints_environment(text: str) -> bool:
    """Whether a script prints all variables, the delete token among them."""
    return bool(_PRINTS_ENVIRONMENT.search(text))


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))

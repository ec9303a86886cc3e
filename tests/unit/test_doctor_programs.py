"""What the doctor reads off programs, start scripts and commands."""

import io
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.doctor import elf as elf_reader
from agent.doctor import programs
from agent.doctor.elf import Elf
from agent.doctor.programs import Shell


def elf(machine: int, loader: bytes | None = b"/lib64/ld-linux-x86-64.so.2\0", *, wide: bool = True) -> bytes:
    """Makes the beginning of an ELF file, as small as one can be."""
    entry = 56 if wide else 32
    header = bytearray(64 if wide else 52)
    header[:6] = b"\x7fELF" + bytes([2 if wide else 1, 1])
    struct.pack_into("<H", header, 18, machine)
    struct.pack_into("<Q" if wide else "<I", header, 32 if wide else 28, len(header))
    struct.pack_into("<HH", header, 54 if wide else 42, entry, 0 if loader is None else 1)
    if loader is None:
        return bytes(header)
    start = len(header) + entry
    if wide:
        segment = struct.pack("<IIQQQQQQ", 3, 4, start, 0, 0, len(loader), len(loader), 1)
    else:
        segment = struct.pack("<IIIIIIII", 3, start, 0, 0, len(loader), len(loader), 4, 1)
    return bytes(header) + segment + loader


def test_a_real_program_is_read() -> None:
    """The interpreter that runs this test is a program for this machine."""
    with open(sys.executable, "rb") as file:
        found = elf_reader.read_elf(file)
    assert found is not None
    assert found.machine in elf_reader.MACHINES.values()
    assert found.loader is not None
    assert found.loader.startswith("/")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (elf(0x3E), Elf("x86_64", "/lib64/ld-linux-x86-64.so.2")),
        (elf(0xB7, b"/lib/ld-musl-aarch64.so.1\0"), Elf("aarch64", "/lib/ld-musl-aarch64.so.1")),
        (elf(0x03, b"/lib/ld-linux.so.2\0", wide=False), Elf("i386", "/lib/ld-linux.so.2")),
        (elf(0x3E, None), Elf("x86_64", None)),
        (elf(0x16), Elf("0x16", "/lib64/ld-linux-x86-64.so.2")),
        (b"\x7fELF", None),
        (b"#!/bin/sh\n" * 10, None),
        (b"", None),
    ],
)
def test_an_elf_header_names_machine_and_loader(data: bytes, expected: Elf | None) -> None:
    """Both widths, static programs, machines that have no name here, and files that are something else."""
    assert elf_reader.read_elf(io.BytesIO(data)) == expected


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(tail: bytes) -> None:
    """Whatever stands behind the magic number: a damaged file is a finding, not a traceback."""
    elf_reader.read_elf(io.BytesIO(b"\x7fELF" + tail))
    programs.read_script(tail)
    programs.foreign_kind(tail)


@pytest.mark.parametrize(
    ("machine", "program", "runs"),
    [("x86_64", "x86_64", True), ("x86_64", "i386", True), ("x86_64", "aarch64", False), ("aarch64", "x86_64", False)],
)
def test_a_machine_runs_its_own_programs(machine: str, program: str, runs: bool) -> None:
    """An x86-64 machine runs 32-bit programs too; nothing else crosses."""
    assert elf_reader.can_run(machine, program) is runs


def test_a_script_is_read_with_its_interpreter_and_line_endings() -> None:
    """The carriage return of a Windows file is not taken for a part of the interpreter's name."""
    script = programs.read_script(b"#!/bin/bash -e\r\necho hello\r\n")
    assert script is not None
    assert (script.interpreter, script.argument, script.crlf) == ("/bin/bash", "-e", True)
    assert script.text == "#!/bin/bash -e\necho hello\n"


@pytest.mark.parametrize(
    ("first_line", "program"),
    [
        (b"#!/bin/sh", "/bin/sh"),
        (b"#!/usr/bin/env bash", "bash"),
        (b"#!/usr/bin/env -S LANG=C python3 -u", "python3"),
        (b"#! /bin/sh", "/bin/sh"),
        (b"echo no shebang", ""),
    ],
)
def test_the_program_behind_a_first_line_is_found(first_line: bytes, program: str) -> None:
    """`env` is looked through: what has to be installed is what it is asked for."""
    script = programs.read_script(first_line + b"\n")
    assert script is not None
    assert script.program == program


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/bin/sh", "-c", "/game/server -x"], Shell("/game/server -x", None)),
        (["/bin/bash", "-lc", "exec /game/server"], Shell("exec /game/server", None)),
        (["bash", "-eu", "-o", "pipefail", "/game/start.sh", "-c"], Shell(None, "/game/start.sh")),
        (["/usr/bin/env", "A=1", "sh", "start.sh"], Shell(None, "start.sh")),
        (["sh", "--", "start.sh"], Shell(None, "start.sh")),
        (["bash"], Shell(None, None)),
        (["/game/server", "-c", "x"], None),
        (["/usr/bin/env", "/game/server"], None),
        ([], None),
    ],
)
def test_a_shell_in_the_command_is_understood(command: list[str], expected: Shell | None) -> None:
    """Lines and scripts, with options before them and without."""
    assert programs.read_shell(command) == expected


def test_unreal_servers_are_recognised_by_where_the_packager_puts_them() -> None:
    """By path and by start script, and nothing else is taken for one."""
    assert programs.looks_unreal("/game/Lyra/Binaries/Linux/LyraServer-Linux-Shipping")
    assert programs.looks_unreal('"$UE_PROJECT_ROOT/Lyra/Binaries/Linux/LyraServer" Lyra "$@"')
    assert not programs.looks_unreal("/game/ServerBuild.x86_64")

"""Reads the requirements of a Linux program: its loader, shared libraries and their versions. Nothing is executed.

Sources: elf(5), the System V ABI on dynamic linking, and the LSB on symbol versions (`.gnu.version_r` and
`.gnu.version_d`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

# e_machine of the ELF header (elf.h) and what `uname -m` calls it.
MACHINES = {0x03: "i386", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv64"}
RUNS_TOO = {"x86_64": {"i386"}}  # given a 32-bit loader in the image, which is looked for separately
_MULTIARCH = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "i386": "i386-linux-gnu",
              "arm": "arm-linux-gnueabihf", "riscv64": "riscv64-linux-gnu"}  # fmt: skip
_INTERP, _DYNAMIC, _LOAD = 3, 2, 1
_NEEDED, _STRTAB, _STRSZ, _RPATH, _RUNPATH = 1, 5, 10, 15, 29
_VERNEED, _VERNEEDNUM, _VERDEF, _VERDEFNUM = 0x6FFFFFFE, 0x6FFFFFFF, 0x6FFFFFFC, 0x6FFFFFFD
_MOST = 4096  # entries of any table; a damaged file must not keep the doctor
_LARGEST_TABLE = 16 * 1024 * 1024  # bytes of strings
_MOST_LIBRARIES = 400  # of one program


@dataclass(frozen=True)
class Elf:
    """What an ELF file says of itself.

    Attributes:
        machine: as `uname -m` would name it, or the number in hexadecimal.
        loader: the dynamic loader it asks the kernel for, or None for a static program or a library.
        needed: the shared libraries it was linked with.
        search: its RPATH or RUNPATH, `$ORIGIN` as it stands.
        versions: library to the versions that it needs of it, such as `GLIBC_2.38`.
        defines: the versions that this library has.
    """

    machine: str
    loader: str | None
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defines: frozenset[str] = frozenset()


def can_run(machine: str, program: str) -> bool:
    """Whether a machine runs programs that were built for `program`; both as `uname -m` has them."""
    return program == machine or program in RUNS_TOO.get(machine, set())


def read_elf(file: BinaryIO) -> Elf | None:
    """Reads a program or a shared library; None for anything else.

    What is damaged or cut short is left out: then there is less to find, and no error.
    """
    head = file.read(64)
    if len(head) < 52 or head[:4] != b"\x7fELF":
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    (number,) = struct.unpack_from(order + "H", head, 18)
    machine = MACHINES.get(number, hex(number))
    try:
        return _Reader(file, wide, order).read(head, machine)
    except (struct.error, OSError, ValueError, OverflowError, MemoryError):
        return Elf(machine, None)


class _Reader:
    def __init__(self, file: BinaryIO, wide: bool, order: str) -> None:
        self.file = file
        self.wide = wide
        self.order = order
        self.loads: list[tuple[int, int, int]] = []  # address, offset, size

    def _at(self, offset: int, size: int) -> bytes:
        if offset < 0 or size < 0 or size > _LARGEST_TABLE:
            raise ValueError(size)
        self.file.seek(offset)
        return self.file.read(size)

    def read(self, head: bytes, machine: str) -> Elf:
        (table,) = struct.unpack_from(self.order + ("Q" if self.wide else "I"), head, 32 if self.wide else 28)
        size, count = struct.unpack_from(self.order + "HH", head, 54 if self.wide else 42)
        loader, dynamic = None, None
        for index in range(min(count, _MOST)):
            entry = self._at(table + size * index, size)
            if self.wide:
                kind, _, offset, address, _, length = struct.unpack_from(self.order + "IIQQQQ", entry)
            else:
                kind, offset, address, _, length = struct.unpack_from(self.order + "IIIII", entry)
            if kind == _INTERP:
                loader = self._at(offset, min(length, 4096)).rstrip(b"\0").decode("utf-8", "replace")
            elif kind == _DYNAMIC:
                dynamic = offset, length
            elif kind == _LOAD:
                self.loads.append((address, offset, length))
        if dynamic is None:
            return Elf(machine, loader)
        try:
            return self._dynamic(machine, loader, *dynamic)
        except (struct.error, ValueError, OverflowError):
            return Elf(machine, loader)

    def _dynamic(self, machine: str, loader: str | None, offset: int, length: int) -> Elf:
        form = self.order + ("qQ" if self.wide else "iI")
        step = struct.calcsize(form)
        data = self._at(offset, min(length, _MOST * step))
        entries: list[tuple[int, int]] = []
        for place in range(0, len(data) - step + 1, step):
            tag, value = struct.unpack_from(form, data, place)
            if tag == 0:
                break
            entries.append((tag, value))
        values = dict(entries)
        if _STRTAB not in values:
            return Elf(machine, loader)
        strings = self._at(self._offset(values[_STRTAB]), min(values.get(_STRSZ, 0), _LARGEST_TABLE))

        def text(start: int) -> str:
            return strings[start : strings.find(b"\0", start)].decode("utf-8", "replace")

        search = values.get(_RUNPATH, values.get(_RPATH))
        return Elf(
            machine,
            loader,
            tuple(text(value) for tag, value in entries if tag == _NEEDED),
            tuple(part for part in text(search).split(":") if part) if search is not None else (),
            self._versions_needed(values, text),
            self._versions_defined(values, text),
        )

    def _offset(self, address: int) -> int:
        for start, offset, size in self.loads:
            if start <= address < start + size:
                return address - start + offset
        return address

    def _versions_needed(self, values: Mapping[int, int], text: Callable[[int], str]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        if _VERNEED not in values:
            return found
        place = self._offset(values[_VERNEED])
        for _ in range(min(values.get(_VERNEEDNUM, 0), _MOST)):
            _, count, library, first, following = struct.unpack(self.order + "HHIII", self._at(place, 16))
            names, entry = [], place + first
            for _ in range(min(count, _MOST)):
                _, flags, _, name, after = struct.unpack(self.order + "IHHII", self._at(entry, 16))
                if not flags & 2:  # VER_FLG_WEAK
                    names.append(text(name))
                entry += after
            found[text(library)] = tuple(names)
            place += following
        return found

    def _versions_defined(self, values: Mapping[int, int], text: Callable[[int], str]) -> frozenset[str]:
        found = set()
        if _VERDEF in values:
            place = self._offset(values[_VERDEF])
            for _ in range(min(values.get(_VERDEFNUM, 0), _MOST)):
                _, _, _, _, _, first, following = struct.unpack(self.order + "HHHHIII", self._at(place, 20))
                (name,) = struct.unpack(self.order + "I", self._at(place + first, 4))
                found.add(text(name))
                place += following
        return frozenset(found)


@dataclass(frozen=True)
class Missing:
    """A library, or a version of one, that is not there.

    Attributes:
        library: its name.
        version: what is missing of it, or "" where it is missing itself.
        of: the file that needs it.
        newest: the newest version of that family that the library has, or "".
    """

    library: str
    version: str
    of: str
    newest: str = ""


def missing_libraries(
    program: str,
    elf: Elf,
    *,
    open_elf: Callable[[str], Elf | None],
    configured: list[str],
    preferred: list[str],
) -> list[Missing]:
    """What the dynamic loader would not find (ld.so(8)).

    Args:
        program: path of the program in the image.
        elf: what was read of it.
        open_elf: reads a file of the image; None where it is none.
        configured: directories of /etc/ld.so.conf, or of the musl loader's own file.
        preferred: directories of LD_LIBRARY_PATH.
    """
    architecture = _MULTIARCH.get(elf.machine, "")
    defaults = [*configured, f"/lib/{architecture}", f"/usr/lib/{architecture}", "/lib64", "/usr/lib64", "/lib",
                "/usr/lib", "/usr/local/lib"]  # fmt: skip
    if elf.machine == "i386":
        defaults += ["/lib32", "/usr/lib32"]
    found: list[Missing] = []
    loaded: dict[str, Elf | None] = {}
    queue: list[tuple[str, Elf, tuple[str, ...]]] = [(program, elf, ())]
    while queue and len(loaded) < _MOST_LIBRARIES:
        path, this, inherited = queue.pop(0)
        origin = path.rpartition("/")[0] or "/"
        own = tuple(part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for part in this.search)
        for library in this.needed:
            if library not in loaded:
                where, library_elf = _find(library, [*preferred, *own, *inherited, *defaults], elf.machine, open_elf)
                loaded[library] = library_elf
                if library_elf is None:
                    if library != (elf.loader or "").rpartition("/")[2]:
                        found.append(Missing(library, "", path))
                    continue
                queue.append((where, library_elf, (*own, *inherited)))
            there = loaded[library]
            if there is None or not there.defines:
                continue
            found.extend(
                Missing(library, version, path, _newest(version, there.defines))
                for version in this.versions.get(library, ())
                if version not in there.defines
            )
    return found


def _find(
    library: str, folders: list[str], machine: str, open_elf: Callable[[str], Elf | None]
) -> tuple[str, Elf | None]:
    candidates = [library] if "/" in library else [f"{folder.rstrip('/')}/{library}" for folder in folders]
    for candidate in candidates:
        elf = open_elf(candidate)
        if elf is not None and elf.machine == machine:
            return candidate, elf
    return "", None


def _newest(version: str, defined: frozenset[str]) -> str:
    family = version.partition("_")[0] + "_"
    numbered = []
    for name in defined:
        parts = name.removeprefix(family).split(".")
        if name.startswith(family) and all(part.isdigit() for part in parts):
            numbered.append(([int(part) for part in parts], name))
    return max(numbered)[1] if numbered else ""

"""Gives back memory that only the start needed. Standard library only.

Starting touches nearly every page of the interpreter's executable and of the extension modules; serving touches a
fifth of them. The kernel keeps all of them mapped, and they count as the agent's resident memory (15 of 47 MB) until
the machine itself runs short. Dropped here, a page that is needed after all is mapped again from the page cache, in
about a microsecond: no disk is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

_MADV_DONTNEED = 4  # asm-generic/mman-common.h, the same on every architecture


def give_back(smaps: str = "/proc/self/smaps") -> int:
    """Drops the pages of files that are mapped and cannot have been changed, and what malloc holds but does not use.

    Call it once, when everything has started; it takes a few milliseconds.

    Args:
        smaps: the list of this process's mappings.

    Returns:
        How many bytes of mapped files were looked at; 0 where nothing can be done (no /proc, another C library).
    """
    dropped = 0
    with contextlib.suppress(OSError, AttributeError, ValueError):
        import ctypes  # noqa: PLC0415 - not needed before the game runs

        libc = ctypes.CDLL(None)
        madvise = libc.madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        with open(smaps, encoding="utf-8", errors="replace") as lines:
            ranges = list(unchanged_files(lines))
        for start, end in ranges:
            if madvise(start, end - start, _MADV_DONTNEED) == 0:
                dropped += end - start
        libc.malloc_trim(ctypes.c_size_t(0))  # glibc's alone
    return dropped


def unchanged_files(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Finds the mappings whose pages are those of the file.

    Only read-only ones without an anonymous page will do: the part of a library that the loader has relocated and then
    write-protected looks read-only too, and what was written there would be lost (man 2 madvise, MADV_DONTNEED).

    Args:
        smaps: lines of /proc/self/smaps (man 5 proc_pid_smaps).

    Yields:
        First address and the one behind the last.
    """
    candidate: tuple[int, int] | None = None
    for line in smaps:
        fields = line.split(None, 5)
        if not fields:
            continue
        if not fields[0].endswith(":"):
            candidate = None
            if len(fields) == 6 and fields[5].startswith(os.sep) and fields[1] in {"r--p", "r-xp"}:
                start, _, end = fields[0].partition("-")
                candidate = (int(start, 16), int(end, 16))
        elif fields[0] == "Anonymous:" and candidate is not None:
            if fields[1] == "0":
                yield candidate
            candidate = None

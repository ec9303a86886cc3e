"""Which files can be kept: those that are files."""

from __future__ import annotations

import os
import stat

from agent.api.problems import FieldProblem, Kind, OperationError

# What lies in there is the kernel's: small secrets (the agent's own environment) and endless streams.
_NOT_FILES = ("/proc/", "/sys/", "/dev/")


def readable_file(given: str) -> tuple[str, int]:
    """The path without symbolic links, and the size in bytes, of a file that can be kept."""

    def wrong(takes: str, why: str) -> OperationError:
        return OperationError(
            Kind.BAD_INPUT, f"cannot keep {given[:200]}: {why}", [FieldProblem("path", given[:200], takes)]
        )

    if not os.path.isabs(given) or "\0" in given:
        raise wrong("an absolute path", "the path is not absolute")
    path = os.path.realpath(given)
    if path.startswith(_NOT_FILES):
        raise wrong("a regular file", "it is not a regular file")
    try:
        # Opened rather than asked about: whether it can be read depends on more than its mode. Without blocking: it may
        # be a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as problem:
        raise wrong("a file that exists and can be read", problem.strerror or "it cannot be read") from None
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise wrong("a regular file", "it is not a regular file")
    return path, found.st_size

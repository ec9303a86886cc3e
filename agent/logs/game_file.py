"""Opens files that the game named, or that lie where the game can write: regular files only."""

from __future__ import annotations

import os
import stat

# What lies in there is the kernel's: small secrets (the agent's own environment) and endless streams.
_NOT_FILES = ("/proc/", "/sys/", "/dev/")
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NotAFileError(OSError):
    """What was found is no regular file."""


def open_regular(path: str) -> int:
    """A descriptor of a regular file.

    Links are followed, but never into `/proc`, `/sys` or `/dev`: there stands what is the agent's own.

    Raises:
        OSError: it cannot be opened.
        NotAFileError: it is something else than a regular file.
    """
    # Without O_NONBLOCK, opening a FIFO that nobody writes to would wait for ever.
    descriptor = os.open(path, _FLAGS)
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or real.startswith(_NOT_FILES):
            raise NotAFileError(0, "is not a regular file", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

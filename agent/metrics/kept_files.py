"""Reads the container's files in the kernel, and keeps them open: opening one takes longer than reading it.

The files of a process are not among them: processes come and go, and would need three descriptors each. A file of a
cgroup that was removed answers ENODEV, also where another cgroup has taken its name.
"""

from __future__ import annotations

import os
import resource

_LONGEST = 16384
# Kept files are a few dozen: where there are fewer descriptors than this, connections and logs need them more.
_LEAST_DESCRIPTORS = 512


class KeptFiles:
    """Files by path. Must not be used by two threads at once."""

    def __init__(self) -> None:
        """Opens nothing yet."""
        self._open: dict[str, int] = {}
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._keep = soft == resource.RLIM_INFINITY or soft >= _LEAST_DESCRIPTORS

    def text(self, path: str) -> str | None:
        """The beginning of a file, as much as the kernel gives with one read (a page or more); None where it cannot.

        Without the white space around it.
        """
        file = self._open.get(path)
        try:  # in one function, since a scrape reads twenty files
            data = os.pread(file, _LONGEST, 0) if file is not None else self._read_new(path)
        except OSError:  # another one may be in its place
            data = self._read_new(path)
        return None if data is None else data.decode("ascii", "replace").strip()

    def whole_text(self, path: str) -> str | None:
        """All of a file; None where it cannot be read."""
        file = self._open.get(path)
        try:
            data = _whole(file) if file is not None else self._read_new(path, whole=True)
        except OSError:
            data = self._read_new(path, whole=True)
        return None if data is None else data.decode("ascii", "replace")

    def _read_new(self, path: str, *, whole: bool = False) -> bytes | None:
        """Opens a file, whether or not it was open, and reads it."""
        if path in self._open:
            os.close(self._open.pop(path))
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        kept = False
        try:
            data = _whole(file) if whole else os.pread(file, _LONGEST, 0)
            kept = self._keep
        except OSError:  # such as pressure that is switched off (EOPNOTSUPP)
            return None
        finally:
            if kept:
                self._open[path] = file
            else:
                os.close(file)
        return data

    def close(self) -> None:
        """Closes them; the next reading opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        """Closes them."""
        self.close()


def _whole(file: int) -> bytes:
    """Reads from the beginning: the kernel writes the file anew for that."""
    # It gives at most a page or two of a table with each read.
    parts: list[bytes] = []
    size = 0
    while part := os.pread(file, _LONGEST, size):
        parts.append(part)
        size += len(part)
    return b"".join(parts)

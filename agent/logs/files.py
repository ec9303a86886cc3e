"""Follows the log files of a game that does not log to its stdout, into the same spool (AGENT_LOG_FILES).

The files are found by patterns, which are searched repeatedly, and followed through rotation (the name now refers to
another file) and truncation (the file starts again). A file is identified by device and inode while it is held open, so
that a renamed file is neither read twice nor abandoned before its end.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from agent.game.files import file_rights, open_regular
from agent.logs.redact import RedactedStream, Redactor

if TYPE_CHECKING:
    from agent.game.user import User

_EVERY = 0.5  # seconds between two reads
_FIND_EVERY = 0.5  # seconds between two searches for new files
_FIND_SHARE = 0.02  # share of a core for searches: patterns with ** may match a hundred thousand files
_SAY_FROM = 5.0  # from this many seconds between two searches, a warning is logged
_PIECE = 256 * 1024
_AT_ONCE = 8 * 1024 * 1024  # bytes read from one file before the next one is read
_BEGINNING = 64  # bytes at the beginning that show whether a file was rewritten
_MOST = 100  # most files held open; beyond that, the files unchanged for longest are closed
_HOLE = bytes(512)
_PACKED = (".gz", ".xz", ".bz2", ".zst", ".zip")  # names that a rotation gives to files that were already read


KEPT = "file "
"""Prefix of the keys under which positions are stored."""


def _kept_key(key: tuple[int, int]) -> str:
    return f"{KEPT}{key[0]}:{key[1]}"


class _File:
    """One file that is followed."""

    __slots__ = ("beginning", "changed_at", "fd", "key", "offset", "path", "redacted")

    def __init__(self, path: str, key: tuple[int, int], fd: int, offset: int, redacted: RedactedStream) -> None:
        self.path = path
        self.key = key
        self.fd = fd
        self.offset = offset
        self.redacted = redacted
        self.beginning = b""
        self.changed_at = time.monotonic()


class Appendable(Protocol):
    """Where the bytes read from files go."""

    def append(self, stream: str, data: bytes, ts: int | None = None) -> None:
        """Takes redacted bytes of a stream."""


class FileFollower:
    """Reads files into the spool, each as a stream named by its path.

    Attributes:
        bytes_read: so far, of all files.
    """

    def __init__(
        self,
        patterns: Iterable[str],
        spool: Appendable,
        redactor: Redactor,
        *,
        since: float | None = None,
        user: User | None = None,
        kept: Mapping[str, str] | None = None,
        keep: Callable[[str, str], object] = lambda _key, _value: None,
        say: Callable[[str], object] = lambda _text: None,
    ) -> None:
        """Prepares; `start` begins.

        Args:
            patterns: paths with `*`, `?`, `[...]` and `**`.
            spool: stores the bytes read, redacted.
            redactor: knows the secrets.
            since: seconds since 1970; the content of files last changed before (by default: before now) does not belong
                to this run and is skipped.
            user: the game's user, whose file permissions apply; None for the agent's user.
            kept: data stored by an earlier process of this agent.
            keep: stores a value beyond this process, by key; "" deletes it. Called after `append`.
            say: called with a message if searching takes so long that new files are found late.
        """
        self._keep = keep
        self._say = say
        self._pause = _FIND_EVERY
        self._left: dict[tuple[int, int], int] = {}  # positions in files that are not open here
        for key, value in (kept or {}).items():
            if key.startswith(KEPT):
                device, inode = key.removeprefix(KEPT).split(":")
                self._left[int(device), int(inode)] = int(value)
        self.bytes_read = 0
        self._patterns = list(patterns)
        self._spool = spool
        self._redactor = redactor
        self._user = user
        self._since = time.time() if since is None else since
        self._made = time.monotonic()
        self._files: dict[tuple[int, int], _File] = {}
        self._until = float("inf")
        self._found_at = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        if self._patterns:
            self._thread = threading.Thread(target=self._run, name="files", daemon=True)
            self._thread.start()

    def finish(self, deadline: float) -> bool:
        """Reads everything to its end, once, and closes.

        Args:
            deadline: seconds of the monotonic clock.

        Returns:
            False when the deadline came first.
        """
        self._until = deadline
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def look(self) -> bool:
        """Looks for new files and reads new data in all; True if more can be read at once. Called by the thread."""
        now = time.monotonic()
        if now - self._found_at >= self._pause or self._stop.is_set():
            began = time.thread_time()
            self._find()
            self._found_at = time.monotonic()
            self._bound(time.thread_time() - began)
        more = [self._read(file) for file in list(self._files.values())]
        self._close_deleted()
        return any(more)

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            while self.look() and not self._stop.is_set():
                pass
        while self.look() and time.monotonic() < self._until:
            pass
        for key in list(self._files):
            self._close(key)

    def _bound(self, took: float) -> None:
        """Searches only so often that all searches together use a fiftieth of a core."""
        before, self._pause = self._pause, max(_FIND_EVERY, took / _FIND_SHARE)
        if before < _SAY_FROM <= self._pause and not self._stop.is_set():
            self._say(
                f"cannot find new log files quickly: looking for those of AGENT_LOG_FILES takes {took:.1f} s of CPU "
                f"and is done every {self._pause:.0f} s; use patterns that mean fewer files and directories (** is all "
                "below a directory)"
            )

    def _find(self) -> None:
        with contextlib.suppress(PermissionError), file_rights(self._user):
            for pattern in self._patterns:
                for path in glob.iglob(pattern, recursive=True, include_hidden=True):
                    if path.endswith(_PACKED):
                        continue
                    with contextlib.suppress(OSError):
                        self._open(os.path.abspath(path))

    def _open(self, path: str) -> None:
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        if key in self._files or not stat.S_ISREG(status.st_mode) or self._left.get(key) == status.st_size:
            return
        fd = open_regular(path)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != key:  # it was replaced in between; the next search finds the new one
            os.close(fd)
            return
        # If the clock was set back since, a new file's time is before that start. One second, because file systems use
        # the time of the last timer tick, not the exact time.
        since = min(self._since, time.time() - (time.monotonic() - self._made)) - 1
        old = status.st_size if status.st_mtime < since else 0
        file = _File(path, key, fd, self._left.pop(key, old), self._redactor.stream())
        file.beginning = os.pread(fd, min(_BEGINNING, file.offset), 0)
        self._files[key] = file
        if len(self._files) > _MOST:
            idle = min(self._files, key=lambda key: self._files[key].changed_at)
            self._left[idle] = self._files[idle].offset
            self._close(idle)

    def _read(self, file: _File) -> bool:
        """Reads new data in one file; True if there is more."""
        try:
            size = os.fstat(file.fd).st_size
            if size < file.offset or not os.pread(file.fd, len(file.beginning), 0).startswith(file.beginning):
                # It was truncated (copytruncate), and may since have grown beyond the old position.
                file.offset = 0
                file.beginning = b""
            if size > file.offset:
                file.changed_at = time.monotonic()
            until = min(size, file.offset + _AT_ONCE)
            while file.offset < until and (piece := os.pread(file.fd, min(_PIECE, until - file.offset), file.offset)):
                if len(file.beginning) < _BEGINNING and file.offset < _BEGINNING:
                    file.beginning = (file.beginning + piece)[:_BEGINNING]
                file.offset += len(piece)
                self.bytes_read += len(piece)
                if piece.startswith(_HOLE):
                    # A writer without O_APPEND leaves a hole at the beginning after the file was truncated.
                    piece = piece.lstrip(b"\0")
                self._spool.append(file.path, file.redacted.feed(piece))
                self._keep(_kept_key(file.key), str(file.offset))
        except OSError:
            return False
        return file.offset < size

    def _close_deleted(self) -> None:
        """Closes deleted files that were read to their end: they use disk space while they are open."""
        for key, file in list(self._files.items()):
            status = os.fstat(file.fd)
            if status.st_nlink == 0 and file.offset >= status.st_size:
                self._close(key)
                self._keep(_kept_key(key), "")

    def _close(self, key: tuple[int, int]) -> None:
        file = self._files.pop(key)
        self._spool.append(file.path, file.redacted.flush())
        os.close(file.fd)

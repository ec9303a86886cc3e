"""Follows the log files of a game that does not log to its stdout, into the same spool (AGENT_LOG_FILES).

Found by patterns again and again, followed through rotation (the name belongs to another file now) and truncation (the
file begins anew). A file is known by its device and inode while it is held open, so that one that was only renamed is
neither read twice nor left before its end.
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

_EVERY = 0.5  # seconds between two looks
_FIND_EVERY = 0.5  # seconds between two searches for new files
_FIND_SHARE = 0.02  # of a core, for searches: patterns with ** may mean a hundred thousand files
_SAY_FROM = 5.0  # seconds between two searches from which it is said that they are rare
_PIECE = 256 * 1024
_AT_ONCE = 8 * 1024 * 1024  # read from one file before the others have their turn
_BEGINNING = 64  # bytes at the beginning that tell whether a file was written anew
_MOST = 100  # files that are held open; of more, those are closed that have not changed for longest
_HOLE = bytes(512)
_PACKED = (".gz", ".xz", ".bz2", ".zst", ".zip")  # what a rotation makes of files that were read already


KEPT = "file "
"""What the keys begin with under which positions are kept."""


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
    """Where what is read goes."""

    def append(self, stream: str, data: bytes, ts: int | None = None) -> None:
        """Takes redacted bytes of a stream."""


class FileFollower:
    """Reads files into the spool, each as a stream that is named by its path.

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
            spool: takes what is read, redacted.
            redactor: knows the secrets.
            since: seconds since 1970; what was in a file that was last changed before (by default: before now) was
                written by somebody else, and is left out.
            user: whom the game runs as, whose rights to files count; None for the agent's user.
            kept: what an earlier process of this agent has had kept.
            keep: keeps something beyond this process, by key; "" for nothing any more. Called after `append`.
            say: called with a line for people where searching takes so long that new files are found late.
        """
        self._keep = keep
        self._say = say
        self._pause = _FIND_EVERY
        self._left: dict[tuple[int, int], int] = {}  # how far those were read that are not open here
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
        """Looks for new files and reads what is new in all; True when there is more at once. Called by the thread."""
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
        """Searches so seldom that all of them together take a fiftieth of a core."""
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
        # One second, because file systems take the time of the last timer tick, not of now.
        old = status.st_size if status.st_mtime < self._since - 1 else 0
        file = _File(path, key, fd, self._left.pop(key, old), self._redactor.stream())
        file.beginning = os.pread(fd, min(_BEGINNING, file.offset), 0)
        self._files[key] = file
        if len(self._files) > _MOST:
            idle = min(self._files, key=lambda key: self._files[key].changed_at)
            self._left[idle] = self._files[idle].offset
            self._close(idle)

    def _read(self, file: _File) -> bool:
        """Reads what is new in one file; True when there is more."""
        try:
            size = os.fstat(file.fd).st_size
            if size < file.offset or not os.pread(file.fd, len(file.beginning), 0).startswith(file.beginning):
                # It was truncated (copytruncate), and perhaps has grown beyond where it was since.
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
                    # Whoever writes without O_APPEND leaves a hole at the beginning when the file was truncated.
                    piece = piece.lstrip(b"\0")
                self._spool.append(file.path, file.redacted.feed(piece))
                self._keep(_kept_key(file.key), str(file.offset))
        except OSError:
            return False
        return file.offset < size

    def _close_deleted(self) -> None:
        """Closes files without a name, at their end: nobody opens them any more, but they take space until then."""
        for key, file in list(self._files.items()):
            status = os.fstat(file.fd)
            if status.st_nlink == 0 and file.offset >= status.st_size:
                self._close(key)
                self._keep(_kept_key(key), "")

    def _close(self, key: tuple[int, int]) -> None:
        file = self._files.pop(key)
        self._spool.append(file.path, file.redacted.flush())
        os.close(file.fd)

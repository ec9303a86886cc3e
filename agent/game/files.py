"""Opens and writes files that the game named, or that are in places where the game can write. Standard library only.

If the game runs as another user than the agent (AGENT_GAME_USER), a file is opened with the game's rights, so that
nothing is read that the game could not read itself. When the agent writes a file in the game's directories, it does not
follow symbolic links that the game could have created. If both have the same user, links are followed as usual: the
game could access their targets itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.game.user import User

# Files of the kernel: some contain secrets (the agent's environment), others are endless streams.
_NOT_FILES = ("/proc/", "/sys/", "/dev/")
_FOUND = os.O_PATH | os.O_CLOEXEC
_FOLDER = _FOUND | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as many as the kernel follows (man 7 path_resolution)
# Number of the system call setgroups() by machine name (64 bits), because the function of the C library changes all
# threads.
_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159}
_UNCHANGED = 0xFFFFFFFF  # setfsuid(-1) changes nothing, and returns the current value (man 2 setfsuid)


class NotAFileError(OSError):
    """The path is not a regular file."""


@contextlib.contextmanager
def file_rights(user: User | None) -> Iterator[None]:
    """Context manager in which this thread has exactly a user's rights to files; other threads are not affected.

    Args:
        user: the user; None and the agent's own user change nothing.

    Raises:
        PermissionError: the agent cannot change to that user.
    """
    if user is None or os.geteuid() != 0 or (user.uid, user.gid) == (0, 0):
        yield
        return
    before = os.getgroups()
    try:
        _take_on(user.uid, user.gid, user.groups)
        yield
    finally:
        _take_on(0, os.getegid(), before)


def _take_on(uid: int, gid: int, groups: list[int]) -> None:
    import ctypes  # noqa: PLC0415 - 3 ms, and most games run as the agent does

    number = _SETGROUPS.get(os.uname().machine) if sys.maxsize > 2**32 else None
    if number is None:
        raise PermissionError(errno.EPERM, "cannot take on the rights of the game's user on this kind of machine")
    c = ctypes.CDLL(None)
    # When changing back, the user comes first, because changing groups needs root's capabilities. The effective user id
    # stays root's, so that groups can be changed at any time (man 7 capabilities, "Effect of user ID changes on
    # capabilities").
    c.setfsuid(ctypes.c_uint(uid))
    c.setfsgid(ctypes.c_uint(gid))
    failed = c.syscall(ctypes.c_long(number), ctypes.c_size_t(len(groups)), (ctypes.c_uint * len(groups))(*groups))
    now = [call(ctypes.c_uint(_UNCHANGED)) & _UNCHANGED for call in (c.setfsuid, c.setfsgid)]
    if failed or now != [uid, gid]:
        raise PermissionError(errno.EPERM, "cannot take on the rights of the game's user")


def open_regular(path: str, user: User | None = None) -> int:
    """A descriptor of a regular file, to read.

    Links are followed, but never into `/proc`, `/sys` or `/dev`, which contain data of the agent itself.

    Args:
        path: the file.
        user: the user with whose rights it is opened; None for the agent's user.

    Raises:
        OSError: it cannot be opened.
        NotAFileError: it is not a regular file.
    """
    with file_rights(user):
        return _regular(os.open(path, _FOUND), path)


def _regular(found: int, path: str) -> int:
    """Reopens a path descriptor for reading, and closes it. Only regular files: opening others may have effects."""
    try:
        handle = f"/proc/self/fd/{found}"
        if not stat.S_ISREG(os.fstat(found).st_mode) or os.readlink(handle).startswith(_NOT_FILES):
            raise NotAFileError(0, "is not a regular file", path)
        return os.open(handle, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)


def open_given(path: str, user: User | None = None) -> int:
    """As `open_regular`, for a file that the operator named: a file that only the agent may read is opened too.

    This is done only if the game cannot have changed any part of the path.
    """
    try:
        return open_regular(path, user)
    except PermissionError:
        if user is None:
            raise
    with _resolved(path, user) as (folder, name):
        return _regular(os.open(name, _FOUND | os.O_NOFOLLOW, dir_fd=folder), path)


def replace(path: str, content: bytes, mode: int, user: User | None = None) -> None:
    """Writes a file atomically. An existing file or link of that name is replaced.

    Args:
        path: the file; its directory must exist.
        content: the new content.
        mode: its permissions.
        user: who owns it; None for the agent's own user.

    Raises:
        OSError: it cannot be written, or only through a link that the game could have put there.
    """
    with staged(path, content, mode, user) as put:
        put()


@contextlib.contextmanager
def staged(
    path: str, content: bytes, mode: int, user: User | None = None, *, through_link: bool = False
) -> Iterator[Callable[[], None]]:
    """As `replace`, in two steps: the context manager writes a temporary file, and yields a function that renames it.

    Args:
        path: the file; its directory must exist.
        content: the new content.
        mode: its permissions.
        user: who owns it; None for the agent's own user.
        through_link: whether a symbolic link of that name is kept and its target replaced; never for a link that the
            game could have created.

    Raises:
        OSError: it cannot be written, or only through a link that the game could have put there.
    """
    parent, name = os.path.split(path)
    with contextlib.ExitStack() as stack:
        folder, _ = stack.enter_context(_resolved(f"{parent}/.", user))
        if through_link:
            with contextlib.suppress(OSError):  # nothing is there, or a link of the game, which is replaced
                folder, name = stack.enter_context(_resolved(path, user))
        part = f".arbitrium-{os.urandom(8).hex()}"
        descriptor = os.open(part, _NEW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if user is not None:
                    os.fchown(file.fileno(), user.uid, user.gid)
                os.fchmod(file.fileno(), mode)
            yield lambda: os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(OSError):  # it is in its place
                os.unlink(part, dir_fd=folder)


def make_folder(path: str, user: User | None = None) -> None:
    """Creates a directory and its missing parents, which belong to the user.

    Raises:
        OSError: it cannot be created, or only through a link that the game could have put there.
    """
    with _resolved(f"{path}/.", user, make=True):
        pass


@contextlib.contextmanager
def _resolved(path: str, user: User | None, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The directory of a file, and its name there, which is not a link; `.` if the path ends with it.

    Each part is opened relative to the one before, so that no part of the path can be replaced meanwhile.
    """
    rest = path.split("/")[::-1]
    folder = os.open("/" if path.startswith("/") else ".", _FOLDER)
    links = 0
    try:
        while True:
            name = rest.pop()
            if name in ("", ".") and rest:
                continue
            name = name or "."
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                if not make:
                    raise
                os.mkdir(name, 0o755, dir_fd=folder)
                if user is not None:
                    os.chown(name, user.uid, user.gid, dir_fd=folder, follow_symlinks=False)
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _MOST_LINKS or (user is not None and _may_change(user, found, os.fstat(folder))):
                    why = "leads through a symbolic link that the game's user could have put there"
                    raise OSError(errno.ELOOP, why, path)
                target = os.readlink(name, dir_fd=folder)
                if target.startswith("/"):
                    folder = _step(folder, "/")
                rest += target.split("/")[::-1]
            elif rest:
                folder = _step(folder, name)
            else:
                yield folder, name
                return
    finally:
        os.close(folder)


def _step(folder: int, name: str) -> int:
    inner = os.open(name, _FOLDER, dir_fd=folder)
    os.close(folder)
    return inner


def _may_change(user: User, link: os.stat_result, folder: os.stat_result) -> bool:
    """Whether a user could have created a link at this place, or can replace it."""
    if user.uid in (link.st_uid, folder.st_uid):
        return True
    # In a directory with the sticky bit, users may change only their own files (man 7 inode). An access list for a user
    # shows in the group bits (man 5 acl).
    return bool(folder.st_mode & 0o022) and not folder.st_mode & stat.S_ISVTX

"""Which processes belong to the game, read from /proc. Standard library only."""

from __future__ import annotations

import errno
import os

from agent.record import Record

# Enough for 52 numbers of up to 20 digits and a name of up to 64 bytes, so that one read is sufficient.
_STAT_BYTES = 4096


class Process(Record):
    """A process at one time (man 5 proc: `/proc/<pid>/stat` and `/proc/<pid>/status`).

    Attributes:
        pid: its process id.
        parent: its parent's process id.
        group: its process group.
        state: one letter: R, S, D, T (stopped), Z (zombie) and others.
        started: when it was started, in clock ticks since the machine's boot.
        name: of its program, at most 15 bytes.
        caught: the signals that it has a handler for, as a bit mask.
        ignored: the signals that it ignores, as a bit mask.
        file: the name of its executable, or "" if unknown. It can differ from `name`: a runtime may rename its main
            thread, and a script has its own name, not the shell's.
    """

    pid: int
    parent: int
    group: int = 0
    state: str = "S"
    started: int = 0
    name: str = ""
    caught: int = 0
    ignored: int = 0
    file: str = ""

    @property
    def program(self) -> str:
        """What runs: `bash` for a script, `node` for a server in Node.js."""
        return self.file or self.name.partition(":")[0]

    def handles(self, signum: int) -> bool:
        """Whether it has a handler for a signal."""
        return bool(self.caught >> (signum - 1) & 1)

    def ignores(self, signum: int) -> bool:
        """Whether it ignores a signal."""
        return bool(self.ignored >> (signum - 1) & 1)


def parents() -> dict[int, int]:
    """The parent of every process that is visible, by process id.

    Raises:
        OSError: processes cannot be listed, or not all of them: no descriptor or no memory is left, or /proc is not
            mounted, or is that of another PID namespace.
    """
    if os.readlink("/proc/self") != str(os.getpid()):
        raise OSError(errno.ESRCH, "it is that of another PID namespace", "/proc")
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = _stat(name, strict=True)
        if fields is not None and fields[0] != b"X":
            found[int(name)] = int(fields[1])
    return found


def descendants(root: int, without: frozenset[int] = frozenset()) -> list[int]:
    """Every process below `root`, zombies included, parents before children.

    Because the init adopts orphans (as PID 1, or as a subreaper), all processes that the game ever started are below
    it, regardless of forks and sessions.

    Args:
        root: the process to begin at; it is not part of the result.
        without: processes to leave out together with all below them (the agent's own).
    """
    try:
        return all_descendants(root, without)
    except OSError:
        return []  # no descriptor is left to list /proc: the group can still be signalled


def all_descendants(root: int, without: frozenset[int] = frozenset()) -> list[int]:
    """The same, for whoever must not take "not seen" for "gone".

    Raises:
        OSError: processes cannot be listed, or not all of them.
    """
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = [pid for pid in children.get(waiting.pop(), ()) if pid not in without]
        found.extend(below)
        waiting.extend(below)
    return found


def is_below(pid: int, root: int, without: frozenset[int] = frozenset()) -> bool:
    """Whether a process is below `root`: what `descendants` would have, for a few files instead of all of /proc.

    A parent that ends while its line is followed hands its children to `root`, which is then followed anew.
    """
    for _ in range(3):
        at = pid
        while at not in (0, 1, root) and at not in without:
            fields = _stat(str(at))
            if fields is None:
                break
            at = int(fields[1])
        else:
            return at == root and pid != root
        if at == pid:
            return False  # it has ended itself
    return False


def look(pids: list[int]) -> list[Process]:
    """The data of these processes, without zombies and those that have ended."""
    found = []
    for pid in pids:
        fields = _stat(str(pid))
        if fields is None or fields[0] in (b"X", b"Z"):
            continue
        masks = {"SigCgt": 0, "SigIgn": 0}
        name = ""
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
                for line in status:
                    key, _, value = line.partition(":")
                    if key in masks:
                        masks[key] = int(value, 16)
                    elif key == "Name":
                        name = value.strip()
        except (OSError, ValueError):
            continue
        found.append(
            Process(
                pid,
                int(fields[1]),
                group=int(fields[2]),
                state=fields[0].decode(),
                started=int(fields[19]),
                name=name,
                caught=masks["SigCgt"],
                ignored=masks["SigIgn"],
                file=executable(f"/proc/{pid}/exe"),
            )
        )
    return found


def executable(link: str) -> str:
    """The name of the file that a process runs (`/proc/<pid>/exe`); "" if unknown."""
    try:
        return os.path.basename(os.readlink(link)).removesuffix(" (deleted)")
    except OSError:
        return ""


def name_of(pid: int) -> str:
    """The name of a process's program, even after its end until it is reaped; "" if it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return ""


def _stat(pid: str, *, strict: bool = False) -> list[bytes] | None:
    """The fields of a process's stat from the third (its state) on; None when it is gone.

    With `strict`, raises OSError where it may be there and cannot be read.
    """
    try:
        # This delays a stop signal, once for each visible process: `open()` would need three times as many system
        # calls.
        stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(stat, _STAT_BYTES)
        finally:
            os.close(stat)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # it ended between the listing and here, or is another user's (hidepid)
    except OSError:
        if strict:
            raise
        return None
    # The second field is the command in brackets and may hold spaces and brackets itself: the last ")" ends it.
    return line[line.rindex(b")") + 2 :].split()

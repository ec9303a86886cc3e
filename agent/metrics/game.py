"""What the game costs: all its processes together, those that have ended included.

Counters of a group of processes go backwards when they are merely added up, because a process that ends takes its
numbers with it. So the numbers of the dead are kept, and three facts about Linux decide where they are found:

- CPU time and I/O of a process that its parent has waited for become part of the parent's own (`cutime` and `cstime`
  in `/proc/<pid>/stat`; `/proc/<pid>/io` includes them, see `wait_task_zombie` in `kernel/exit.c`). They must not be
  kept a second time, unless the parent ignores SIGCHLD: then nobody waits, and they vanish.
- What the init has reaped is in its own `cutime` and `cstime`, with all that was waited for below it, also where a
  whole life fell between two scrapes.
- Context switches in `/proc/<pid>/status` are those of one thread and go with it; what is seen of each is kept.

Every way to add these up can only miss something, not count it twice, so the highest sum is the truest, and none is
ever below the one before it.

Nothing here depends on which process it runs in: the game is what is below a process that the caller names.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Unix time of the machine's start. Read once: two readings differ by microseconds, and a process's start must not move.
_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class Cpu(NamedTuple):
    """Seconds of CPU time in the game's code, and in the kernel on its behalf."""

    user: float = 0.0
    system: float = 0.0


class Switches(NamedTuple):
    """Context switches: because a thread waited, and because its time was up."""

    voluntary: int = 0
    involuntary: int = 0


class Io(NamedTuple):
    """What `/proc/<pid>/io` counts.

    Attributes:
        read_bytes: what read calls moved, from anything: files, pipes, the page cache (not recv on a socket).
        written_bytes: likewise what write calls moved.
        read_calls: how many read calls were made.
        write_calls: how many write calls were made.
        storage_read_bytes: what really came from storage.
        storage_written_bytes: what really went to storage.
    """

    read_bytes: int = 0
    written_bytes: int = 0
    read_calls: int = 0
    write_calls: int = 0
    storage_read_bytes: int = 0
    storage_written_bytes: int = 0


# Without the NamedTuple's own constructor, a Python function that would be called five times a process.
_new = tuple.__new__

_NO_CPU = Cpu()
_NO_SWITCHES = Switches()
_NO_IO = Io()


class Stat(NamedTuple):
    """One process, from a single read of `/proc/<pid>/stat` (man 5 proc).

    Attributes:
        pid: its id.
        parent: its parent's.
        born: when it started, in clock ticks since boot; with the pid it names one process, whatever the wall clock
            does.
        zombie: whether it has ended and was not waited for; its numbers are there until it is.
        cpu: what it used itself.
        children_cpu: what the children used that it has waited for, and those below them.
        threads: how many it has.
        resident_bytes: its memory in RAM.
        virtual_bytes: its address space.
    """

    pid: int
    parent: int
    born: int
    zombie: bool
    cpu: Cpu
    children_cpu: Cpu
    threads: int
    resident_bytes: int
    virtual_bytes: int

    @property
    def start_time(self) -> float:
        """When it started, in Unix time, as exactly as the kernel says it; the same at each call."""
        return round(_BOOTED + self.born / _TICKS, 2)


Stats: TypeAlias = dict[int, Stat]


def read_stat(pid: int) -> Stat | None:
    """The process `pid`, or None where there is none."""
    data = _read(f"/proc/{pid}/stat")
    return _parse(pid, data) if data else None


class ProcessTable:
    """Reads the processes that are visible. Not for two threads at once."""

    def __init__(self) -> None:
        """Nothing was read yet."""
        # What in /proc is beside the init, by name, with the number of the inode of its directory, which listing /proc
        # gives without another call, and which a later process of the same pid does not get.
        self._beside: dict[str, int] = {}

    def read(self, root: int) -> Stats:
        """Every process that is visible, by id. In a container these are the container's own.

        Outside a container most have nothing to do with the game. Who is not below the init never gets there, because
        an orphan is adopted by an ancestor: so such a process is read only once. Where the init is PID 1, which is
        everybody's ancestor, all are read.

        Args:
            root: the init; it is read before all others.
        """
        if root == 1:  # the lowest number, and so the first of the list
            return stats_of([int(name) for name in os.listdir("/proc") if name.isdigit()])
        beside = self._beside
        with os.scandir("/proc") as entries:
            seen = {entry.name: entry.inode() for entry in entries}
        new = [int(name) for name, inode in seen.items() if beside.get(name) != inode and name.isdigit()]
        found = stats_of(dict.fromkeys((root, *new)))
        for pid in (root, os.getpid(), *below(found, root)):
            seen.pop(str(pid), None)
        self._beside = seen
        return found


def below(processes: Stats, root: int, without: Collection[int] = ()) -> Stats:
    """The processes below `root`, parents before their children.

    Args:
        processes: all there are.
        root: where to begin; it is no part of the result.
        without: processes to leave out together with all below them.
    """
    children: dict[int, list[Stat]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat)
    found: Stats = {}
    waiting = [root]
    while waiting:
        for stat in children.get(waiting.pop(), ()):
            if stat.pid not in without and stat.pid not in found:
                found[stat.pid] = stat
                waiting.append(stat.pid)
    return found


def _parse(pid: int, data: bytes) -> Stat | None:
    # The second field is the command in brackets and may hold spaces and brackets itself: the last ")" ends it.
    fields = data[data.rindex(b")") + 2 :].split(None, 23)
    if fields[0] in b"Xx":
        return None
    return _new(
        Stat,
        (
            pid,
            int(fields[1]),
            int(fields[19]),
            fields[0] == b"Z",
            _new(Cpu, (int(fields[11]) / _TICKS, int(fields[12]) / _TICKS)),
            _new(Cpu, (int(fields[13]) / _TICKS, int(fields[14]) / _TICKS)),
            int(fields[17]),
            int(fields[21]) * _PAGE,
            int(fields[20]),
        ),
    )


class Usage(NamedTuple):
    """All processes of the game at one moment.

    Attributes:
        cpu: CPU time since the agent started; never less than before.
        switches: context switches, likewise.
        io: I/O, likewise; None where the kernel does not let the agent see it (the game runs as another user and the
            container lacks `CAP_SYS_PTRACE`).
        resident_bytes: memory in RAM. Pages that several processes share are counted once for each.
        threads: threads there are now.
        open_files: file descriptors there are now, or None where the agent may not see them.
        files_used: of the process that is nearest to its own limit: open descriptors as a part of that limit, 0 to 1.
        processes: processes there are now.
    """

    cpu: Cpu = _NO_CPU
    switches: Switches = _NO_SWITCHES
    io: Io | None = None
    resident_bytes: int = 0
    threads: int = 0
    open_files: int | None = None
    files_used: float | None = None
    processes: int = 0


class Reaped(NamedTuple):
    """What those children of the init have used that it has waited for."""

    cpu: Cpu = _NO_CPU
    switches: Switches = _NO_SWITCHES


def reaped_here() -> Reaped:
    """What this process has reaped. Of another one the context switches are not known (man 5 proc, `stat`)."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Reaped(Cpu(usage.ru_utime, usage.ru_stime), Switches(usage.ru_nvcsw, usage.ru_nivcsw))


class _Seen(NamedTuple):
    """One process as it was at the last look; `cpu` and `io` with those of the children it has waited for."""

    parent: int
    cpu: Cpu
    io: Io | None
    switches: dict[int, Switches]  # by thread
    alive: bool  # a zombie is not, but its numbers are there until it is reaped
    resident_bytes: int
    threads: int
    open_files: int | None
    files_used: float | None


class GameProcesses:
    """Adds up what the game's processes use. Not for two threads at once."""

    def __init__(self, reaped: Callable[[], Reaped] | None = None) -> None:
        """Takes what says how much reaped children have used; what it says now is where counting begins."""
        self._reaped = reaped or reaped_here
        self._before = self._reaped()
        # Keyed by pid and start: the kernel gives a pid away again.
        self._seen: dict[tuple[int, int], _Seen] = {}
        self._dead_cpu = _NO_CPU
        self._dead_switches = _NO_SWITCHES
        self._dead_io: Io | None = None
        self._last = Usage()

    def sample(self, processes: Callable[[], Mapping[int, Stat]]) -> Usage:
        """Looks at the processes of the game and says what they, and those before them, have used.

        It reads `status` and `io` of each process once, about 60 µs a process and 20 µs a further thread: a caller with
        an event loop does this in a thread of its own.

        Args:
            processes: reads all processes of the game, parents before children. Those that end meanwhile are no
                problem. Called after the reaped ones are read: what is reaped in between is then missed this once,
                rather than counted twice. (Parents come first for the same reason.)
        """
        reaped = self._reaped()
        live: dict[tuple[int, int], _Seen] = {}
        for stat in processes().values():
            key = (stat.pid, stat.born)
            live[key] = _look(stat, self._seen.get(key))
        self._bury(live)
        self._seen = live
        self._last = self._usage(live.values(), reaped)
        return self._last

    def _usage(self, live: Collection[_Seen], reaped: Reaped) -> Usage:
        # One pass with plain numbers: sums of tuples cost as much as reading a process.
        user = system = 0.0
        resident_bytes = threads = processes = 0
        open_files: int | None = None if live else 0
        files_used: float | None = None
        switches: list[Switches] = []
        io: list[Io] = [] if self._dead_io is None else [self._dead_io]
        for seen in live:
            user += seen.cpu.user
            system += seen.cpu.system
            resident_bytes += seen.resident_bytes
            threads += seen.threads
            processes += seen.alive
            switches += seen.switches.values()
            if seen.open_files is not None:
                open_files = (open_files or 0) + seen.open_files
            if seen.files_used is not None and (files_used is None or seen.files_used > files_used):
                files_used = seen.files_used
            if seen.io is not None:
                io.append(seen.io)
        last, before = self._last, self._before
        return Usage(
            cpu=_most(last.cpu, _new(Cpu, (user, system)), self._dead_cpu, before.cpu, reaped.cpu),
            switches=_most(
                last.switches, _sum(_NO_SWITCHES, *switches), self._dead_switches, before.switches, reaped.switches
            ),
            io=_highest(last.io or _NO_IO, _sum(_NO_IO, *io)) if io else last.io,
            resident_bytes=resident_bytes,
            threads=threads,
            open_files=open_files,
            files_used=files_used,
            processes=processes,
        )

    def _bury(self, live: dict[tuple[int, int], _Seen]) -> None:
        """Keeps the numbers of those that have ended since the last look, unless a parent has them now."""
        parents = {pid for pid, _ in live}
        for key, seen in self._seen.items():
            if key in live:
                continue
            self._dead_switches = _sum(self._dead_switches, *seen.switches.values())
            if seen.parent in parents and not _ignores_children(seen.parent):
                continue
            self._dead_cpu = _sum(self._dead_cpu, seen.cpu)
            if seen.io is not None:
                self._dead_io = _sum(self._dead_io or _NO_IO, seen.io)


_T = TypeVar("_T", Cpu, Switches, Io)


def _sum(first: _T, *more: _T) -> _T:
    return type(first)(*map(sum, zip(first, *more, strict=True))) if more else first


def _highest(first: _T, *more: _T) -> _T:
    return type(first)(*map(max, zip(first, *more, strict=True)))


def _most(last: _T, live: _T, dead: _T, before: _T, reaped: _T) -> _T:
    """The highest of what was said last, of the living and the dead, and of the living and what was reaped since."""
    together = zip(last, live, dead, before, reaped, strict=True)
    return type(last)(*[max(said, alive + max(lost, now - then)) for said, alive, lost, then, now in together])


def _look(stat: Stat, before: _Seen | None) -> _Seen:
    # A process whose first thread has ended is shown as a zombie too, but has others.
    alive = not stat.zombie or stat.threads > 1
    open_files = count_files(stat.pid) if alive else 0
    limit = files_limit(stat.pid) if alive else None
    cpu, children = stat.cpu, stat.children_cpu
    return _new(
        _Seen,
        (
            stat.parent,
            _new(Cpu, (cpu.user + children.user, cpu.system + children.system)),
            _io(stat.pid) or (before.io if before else None),
            _switches(stat, before.switches if before else {}),
            alive,
            stat.resident_bytes,
            stat.threads if alive else 0,
            open_files,
            open_files / limit if open_files is not None and limit else None,
        ),
    )


def count_files(pid: int) -> int | None:
    """How many file descriptors a process has open; None where this process may not see that, or it is gone."""
    path = f"/proc/{pid}/fd"
    try:
        # Since Linux 6.2 the size of the directory is their number; before that it is 0.
        return os.stat(path).st_size or len(os.listdir(path))
    except OSError:
        return None


def files_limit(pid: int) -> int | None:
    """How many file descriptors a process may have open (its soft limit); None where that is not known."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:
        return None
    return None if soft == resource.RLIM_INFINITY else soft


def _io(pid: int) -> Io | None:
    data = _read(f"/proc/{pid}/io")
    if not data:
        return None
    # rchar, wchar, syscr, syscw, read_bytes, write_bytes, cancelled_write_bytes: `name: number` each.
    read_bytes, written_bytes, read_calls, write_calls, storage_read, storage_written, *_ = map(int, data.split()[1::2])
    return _new(Io, (read_bytes, written_bytes, read_calls, write_calls, storage_read, storage_written))


_ENDED = 0  # no thread has this id


def _switches(stat: Stat, before: dict[int, Switches]) -> dict[int, Switches]:
    """Reads the context switches of each thread of a process.

    Args:
        stat: the process.
        before: what was seen of its threads before.

    Returns:
        What is seen now, by thread id, with the sum of the threads that have ended under `_ENDED`.
    """
    now: dict[int, Switches] = {}
    if stat.threads == 1 and not stat.zombie:
        data = _read(f"/proc/{stat.pid}/status")
        if data:
            now[stat.pid] = _switches_in(data)
    else:
        try:
            threads = os.listdir(f"/proc/{stat.pid}/task")
        except OSError:
            return before
        for thread in threads:
            if data := _read(f"/proc/{stat.pid}/task/{thread}/status"):
                now[int(thread)] = _switches_in(data)
    # A thread whose number went down is another one, with an id that was given away again.
    ended = [each for thread, each in before.items() if thread not in now or now[thread].voluntary < each.voluntary]
    return now | {_ENDED: _sum(_NO_SWITCHES, *ended)} if ended else now


def _switches_in(status: bytes) -> Switches:
    # They are the last two lines: `voluntary_ctxt_switches:` and `nonvoluntary_ctxt_switches:`.
    numbers = status[status.rfind(b"\nvoluntary_ctxt_switches:") + 1 :].split()
    return _new(Switches, (int(numbers[1]), int(numbers[3]))) if len(numbers) == 4 else _NO_SWITCHES


def _ignores_children(pid: int) -> bool:
    """Whether the process `pid` lets the kernel discard its children as they end (SIGCHLD is ignored)."""
    _, found, rest = _read(f"/proc/{pid}/status").partition(b"\nSigIgn:")
    return bool(found) and bool(int(rest.split(None, 1)[0], 16) & 1 << (signal.SIGCHLD - 1))


def _read(path: str) -> bytes:
    """A small file of `/proc` in one read; empty where it is not there or not for us."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, 8192)
        finally:
            os.close(file)
    except OSError:
        return b""


def stats_of(pids: Iterable[int]) -> Stats:
    """These processes, in this order, without those that are gone."""
    return {pid: stat for pid in pids if (stat := read_stat(pid)) is not None}


class OwnProcesses(NamedTuple):
    """The agent's own processes, by what they are (`agent`, and `init` where that is another one).

    Attributes:
        processes: each as it is now.
        files: how many file descriptors each has open, or None.
        files_limit: how many each may have open, or None.
    """

    processes: Mapping[str, Stat]
    files: Mapping[str, int | None]
    files_limit: Mapping[str, int | None]


def own_processes(processes: Stats, root: int) -> OwnProcesses:
    """Picks the agent's own processes: this one, and the init where that is another one.

    Args:
        processes: all there are.
        root: the init.
    """
    pids = {"agent": os.getpid()} | ({"init": root} if root != os.getpid() else {})
    return OwnProcesses(
        {name: processes[pid] for name, pid in pids.items() if pid in processes},
        {name: count_files(pid) for name, pid in pids.items()},
        {name: files_limit(pid) for name, pid in pids.items()},
    )

"""What the game costs: all its processes together, those that have ended included.

Counters of a group of processes go backwards when they are merely added up, because a process that ends takes its
numbers with it. So the numbers of the dead are kept, and three facts about Linux decide where they are found:

- CPU time and I/O of a process that its parent has waited for become part of the parent's own (`cutime` and `cstime`
  in `/proc/<pid>/stat`; `/proc/<pid>/io` includes them, see `wait_task_zombie` in `kernel/exit.c`). They must not be
  kept a second time, unless the parent ignores SIGCHLD: then nobody waits, and they vanish.
- What the agent itself has reaped is in its own `RUSAGE_CHILDREN`, exactly, with all that was waited for below it,
  also where a whole life fell between two scrapes.
- Context switches in `/proc/<pid>/status` are those of one thread and go with it; what is seen of each is kept.

Every way to add these up can only miss something, not count it twice, so the highest sum is the truest, and none is
ever below the one before it.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    import psutil


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


_NO_CPU = Cpu()
_NO_SWITCHES = Switches()
_NO_IO = Io()


@dataclass(frozen=True, slots=True)
class Usage:
    """All processes of the game at one moment.

    Attributes:
        cpu: CPU time since the agent started; never less than before.
        switches: context switches, likewise.
        io: I/O, likewise; None where the kernel does not let the agent see it (the game runs as another user and the
            container lacks `CAP_SYS_PTRACE`).
        resident_bytes: memory in RAM. Pages that several processes share are counted once for each.
        threads: threads there are now.
        open_files: file descriptors there are now, or None where the agent may not see them.
        processes: processes there are now.
    """

    cpu: Cpu = _NO_CPU
    switches: Switches = _NO_SWITCHES
    io: Io | None = None
    resident_bytes: int = 0
    threads: int = 0
    open_files: int | None = None
    processes: int = 0


class Reaped(NamedTuple):
    """What those children of the agent have used that it has waited for."""

    cpu: Cpu = _NO_CPU
    switches: Switches = _NO_SWITCHES


def reaped_children() -> Reaped:
    """Reads `RUSAGE_CHILDREN` of this process."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Reaped(Cpu(usage.ru_utime, usage.ru_stime), Switches(usage.ru_nvcsw, usage.ru_nivcsw))


@dataclass(frozen=True, slots=True)
class _Seen:
    """One process as it was at the last look; `cpu` and `io` with those of the children it has waited for."""

    parent: int
    cpu: Cpu
    io: Io | None
    switches: dict[int, Switches]  # by thread
    alive: bool  # a zombie is not, but its numbers are there until it is reaped
    resident_bytes: int
    threads: int
    open_files: int | None


class GameProcesses:
    """Adds up what the game's processes use. Not for two threads at once."""

    def __init__(self, reaped: Callable[[], Reaped] = reaped_children) -> None:
        """Takes what says how much reaped children have used; what it says now is where counting begins."""
        self._reaped = reaped
        self._before = reaped()
        # Keyed by process and not by pid: the kernel gives a pid away again. psutil compares pid and start in clock
        # ticks since boot, which no change of the wall clock moves.
        self._seen: dict[psutil.Process, _Seen] = {}
        self._dead_cpu = _NO_CPU
        self._dead_switches = _NO_SWITCHES
        self._dead_io: Io | None = None
        self._last = Usage()

    def sample(self, pids: Iterable[int]) -> Usage:
        """Looks at the processes of the game and says what they, and those before them, have used.

        It reads files below `/proc`, about 100 µs a process and 20 µs a thread: a caller with an event loop does this
        in a thread of its own.

        Args:
            pids: all processes of the game, parents before their children. Those that end meanwhile are no problem.
        """
        reaped = self._reaped()  # first: what is reaped meanwhile is then missed this once, rather than counted twice
        live: dict[psutil.Process, _Seen] = {}
        for pid in pids:  # parents before their children, for the same reason
            self._look(pid, live)
        self._bury(live)
        self._seen = live
        now = list(live.values())
        cpu = _sum(_NO_CPU, *(seen.cpu for seen in now))
        switches = _sum(_NO_SWITCHES, *(each for seen in now for each in seen.switches.values()))
        files = [seen.open_files for seen in now if seen.open_files is not None]
        self._last = Usage(
            cpu=_highest(self._last.cpu, _sum(cpu, self._dead_cpu), _sum(cpu, _since(self._before.cpu, reaped.cpu))),
            switches=_highest(
                self._last.switches,
                _sum(switches, self._dead_switches),
                _sum(switches, _since(self._before.switches, reaped.switches)),
            ),
            io=self._all_io([seen.io for seen in now if seen.io is not None]),
            resident_bytes=sum(seen.resident_bytes for seen in now),
            threads=sum(seen.threads for seen in now),
            open_files=sum(files) if files or not now else None,
            processes=sum(seen.alive for seen in now),
        )
        return self._last

    def _look(self, pid: int, live: dict[psutil.Process, _Seen]) -> None:
        """Adds the process `pid` to `live`, unless it is gone."""
        import psutil  # noqa: PLC0415 - 11 ms that only a scrape should cost

        try:
            process = psutil.Process(pid)
            before = self._seen.get(process)
            with process.oneshot():
                times = process.cpu_times()
                threads = process.num_threads()
                # A process whose first thread has ended is shown as a zombie too, but has others.
                alive = process.status() != psutil.STATUS_ZOMBIE or threads > 1
                live[process] = _Seen(
                    parent=process.ppid(),
                    cpu=Cpu(times.user + times.children_user, times.system + times.children_system),
                    io=_io(process) or (before.io if before else None),
                    switches=_switches(pid, before.switches if before else {}),
                    alive=alive,
                    resident_bytes=process.memory_info().rss,
                    threads=threads if alive else 0,
                    open_files=_open_files(process),
                )
        except psutil.Error:  # it is gone, or the kernel hides it
            return

    def _bury(self, live: dict[psutil.Process, _Seen]) -> None:
        """Keeps the numbers of those that have ended since the last look, unless a parent has them now."""
        parents = {process.pid for process in live}
        for process, seen in self._seen.items():
            if process in live:
                continue
            self._dead_switches = _sum(self._dead_switches, *seen.switches.values())
            if seen.parent in parents and not _ignores_children(seen.parent):
                continue
            self._dead_cpu = _sum(self._dead_cpu, seen.cpu)
            if seen.io is not None:
                self._dead_io = _sum(self._dead_io or _NO_IO, seen.io)

    def _all_io(self, live: list[Io]) -> Io | None:
        known = live if self._dead_io is None else [self._dead_io, *live]
        if not known:
            return self._last.io
        return _highest(self._last.io or _NO_IO, _sum(_NO_IO, *known))


_T = TypeVar("_T", Cpu, Switches, Io)


def _sum(first: _T, *more: _T) -> _T:
    return type(first)(*map(sum, zip(first, *more, strict=True)))


def _highest(first: _T, *more: _T) -> _T:
    return type(first)(*map(max, zip(first, *more, strict=True)))


def _since(before: _T, now: _T) -> _T:
    return type(now)(*(max(0, later - earlier) for earlier, later in zip(before, now, strict=True)))


def _open_files(process: psutil.Process) -> int | None:
    import psutil  # noqa: PLC0415 - as above

    try:
        return process.num_fds()
    except psutil.AccessDenied:
        return None


def _io(process: psutil.Process) -> Io | None:
    import psutil  # noqa: PLC0415 - as above

    try:
        io = process.io_counters()
    except psutil.AccessDenied:
        return None
    return Io(io.read_chars, io.write_chars, io.read_count, io.write_count, io.read_bytes, io.write_bytes)


_ENDED = 0  # no thread has this id


def _switches(pid: int, before: dict[int, Switches]) -> dict[int, Switches]:
    """Reads the context switches of each thread of a process; psutil reads those of the first one only.

    Args:
        pid: the process.
        before: what was seen of its threads before.

    Returns:
        What is seen now, by thread id, with the sum of the threads that have ended under `_ENDED`.
    """
    now: dict[int, Switches] = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return before
    for thread in threads:
        try:
            voluntary, involuntary = _status(
                f"/proc/{pid}/task/{thread}/status", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"
            )
        except (OSError, ValueError):  # it ended meanwhile
            continue
        now[int(thread)] = Switches(int(voluntary), int(involuntary))
    # A thread whose number went down is another one, with an id that was given away again.
    ended = [each for thread, each in before.items() if thread not in now or now[thread].voluntary < each.voluntary]
    return now | {_ENDED: _sum(_NO_SWITCHES, *ended)} if ended else now


def _ignores_children(pid: int) -> bool:
    """Whether the process `pid` lets the kernel discard its children as they end (SIGCHLD is ignored)."""
    try:
        (ignored,) = _status(f"/proc/{pid}/status", "SigIgn")
    except (OSError, ValueError):
        return False
    return bool(int(ignored, 16) & 1 << (signal.SIGCHLD - 1))


def _status(path: str, *names: str) -> list[str]:
    """The values of the lines `names`, in the order of the file at `path`, a `status` below `/proc`."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return [value.strip() for name, _, value in (line.partition(":") for line in file) if name in names]

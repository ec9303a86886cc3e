"""Whether the game would hear a signal, read from /proc. Light enough for PID 1.

A signal that no process of the game handles ends each of them in the middle of whatever it does; one that is ignored
does nothing at all. Who is asked is the server: a shell in front of it, `tee` behind it and a display beside it answer
for nobody. A bit in the kernel's mask is not an answer either where a runtime sets it for every program: the doctor,
the warning when the game is ready and the plan of a stop ask here, so that all of them say the same.
"""

from __future__ import annotations

import os
import signal

from agent.lifecycle.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Programs that pass a server on: they start it, wait for it, or hold its terminal.
_LAUNCHERS = """
    sh bash dash ash ksh mksh zsh busybox tini tini-static docker-init dumb-init catatonit gosu su-exec su sudo runuser
    setpriv setsid env nice ionice nohup timeout stdbuf unbuffer script tmux screen dtach abduco xvfb-run s6-svscan
    s6-supervise runsv runsvdir supervisord proot bwrap firejail start-stop-daemon numactl taskset chrt faketime
    gamemoderun
"""
# Programs that stand beside a server, and whose end is not its end.
_HELPERS = """
    tee tail cat sed awk gawk mawk grep egrep sleep ts logger rotatelogs cronolog multilog svlogd Xvfb Xorg Xvnc
    dbus-daemon dbus-launch pulseaudio pipewire x11vnc cron crond inotifywait socat websockify sshd gdb strace less more
    tr cut head yes jq date curl wget nginx wineserver services.exe explorer.exe plugplay.exe winedevice.exe svchost.exe
    rpcss.exe
"""
LAUNCHERS = frozenset(_LAUNCHERS.split())
HELPERS = frozenset(_HELPERS.split())
# Runtimes that catch a signal for every program, so that the mask does not say what the program does with it.
_NODE = (signal.SIGINT, signal.SIGTERM)  # src/node.cc, RegisterSignalHandler: it resets the terminal, and ends
_REMARKS = {
    "node": "Node.js catches {name} for every program and ends it at once, unless the program has a handler "
    "(process.on('{name}', …))",
    "go": "Go catches {name} for every program and ends it at once, unless the program asks for it (signal.Notify)",
    "wine": "Wine catches {name} itself, and what the Windows program makes of it is not known",
}
_NAMED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
# The note that the Go linker writes near the beginning of each executable: name size 4, type 4, "Go"
# (cmd/link/internal/ld/elf.go, elfwritegobuildid).
_GO_NOTE = b"\x04\0\0\0Go\0\0"
_HEAD = 8192

REMEDY = (
    "handle it, or set AGENT_STOP to what the game understands: "
    "stdin:LINE, notify, command:HOOK, rcon:COMMAND or another signal"
)


class Process(Record):
    """One process, as far as signals are concerned.

    Attributes:
        pid: its process id.
        parent: its parent's.
        name: the base name of what it executes, or of its script's interpreter.
        caught: the signals that it handles, as a bit mask (man 5 proc: `SigCgt`).
        ignored: those that it ignores, likewise (`SigIgn`).
        runtime: `node`, `go`, `wine`: one that catches signals for every program; or "".
    """

    pid: int
    parent: int
    name: str
    caught: int
    ignored: int
    runtime: str = ""

    def reaction(self, signum: int) -> str:
        """`handled`, `ignored`, `default`, or `runtime` where only its runtime is known to handle the signal."""
        bit = 1 << (signum - 1)
        if self.caught & bit:
            return "runtime" if signum in _caught_by(self.runtime) else "handled"
        return "ignored" if self.ignored & bit else "default"

    @property
    def handles(self) -> tuple[str, ...]:
        """The names of the signals that it handles itself, of those that a stop may be asked for with."""
        numbers = ((name, signal.Signals[name]) for name in _NAMED)
        return tuple(name for name, number in numbers if self.reaction(number) == "handled")


class Hearing(Record):
    """How a game takes a signal.

    Attributes:
        signum: the signal.
        how: `handled` where a process that counts has a handler; `script` where only the script in front of the server
            has one; `runtime` where only the server's runtime is known to have one; `ignored`; `default`: it ends the
            server at once; `unknown` where there is no process to look at.
        who: the process that this is said of, such as `server (process 12)`; "" where there is none.
        runtime: its runtime, where `how` is `runtime`.
        handles: the signals that the server does handle.
    """

    signum: int
    how: str
    who: str = ""
    runtime: str = ""
    handles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.signum).name

    @property
    def is_wrong(self) -> bool:
        """Whether a stop by this signal is known to lose what the game has not saved."""
        return self.how in ("ignored", "default")

    @property
    def verdict(self) -> str:
        """What is wrong, or not known, in words; "" where all is well, or nothing can be said."""
        name, who = self.name, self.who or "the game"
        if self.how == "ignored":
            return f"the game does not handle {name} but ignores it: a stop lasts the whole grace and ends in SIGKILL"
        if self.how == "default":
            return f"the game does not handle {name}: a stop ends {who} at once, in the middle of whatever it does"
        if self.how == "runtime":
            return f"it cannot be seen whether the game handles {name}: {_REMARKS[self.runtime].format(name=name)}"
        if self.how == "script":
            return f"only the script in front of {who} handles {name}: it has to tell the server in its own way"
        return ""

    @property
    def remedy(self) -> str:
        """What to do about it; "" where there is nothing."""
        if not self.is_wrong:
            return ""
        others = [name for name in self.handles if name != self.name]
        if others:
            return f"set AGENT_STOP=signal:{others[0]}, which it handles ({', '.join(others)}), or {REMEDY}"
        return REMEDY

    @property
    def advice(self) -> str:
        """The sentence for an operator; "" where nothing is known to be wrong."""
        return f"{self.verdict}. {self.remedy[0].upper()}{self.remedy[1:]}" if self.is_wrong else ""


def read(pids: Iterable[int], proc: str = "/proc") -> list[Process]:
    """These processes, without those that are gone or only wait to be reaped.

    Args:
        pids: which.
        proc: where procfs is mounted.
    """
    found = []
    for pid in pids:
        try:
            with open(f"{proc}/{pid}/status", encoding="ascii", errors="replace") as file:
                fields = dict(line.split(":", 1) for line in file if ":" in line)
            if fields.get("State", "").strip()[:1] in ("Z", "X"):
                continue
            parent, caught, ignored = int(fields["PPid"]), int(fields["SigCgt"], 16), int(fields["SigIgn"], 16)
        except (OSError, KeyError, ValueError):
            continue
        name = _name(f"{proc}/{pid}", fields.get("Name", "").strip())
        found.append(Process(pid, parent, name, caught, ignored, runtime_of(pid, name, proc)))
    return found


def servers(processes: Sequence[Process]) -> list[Process]:
    """Those that count: neither helpers nor, where there is anything else, launchers; all, where nothing is left."""
    candidates = [process for process in processes if not is_helper(process.name)]
    counting = [process for process in candidates if process.name not in LAUNCHERS]
    # Shells below shells: without a server, the innermost is what does the work.
    in_front = {process.parent for process in candidates}
    return counting or [process for process in candidates if process.pid not in in_front] or list(processes)


def is_helper(name: str) -> bool:
    """Whether a program of this name only stands beside a server."""
    return name in HELPERS


def judge(processes: Sequence[Process], signum: int) -> Hearing:
    """How a game takes a signal that reaches all of it.

    Args:
        processes: the whole game, from `read`.
        signum: the signal.
    """
    counting = servers(processes)
    if not counting:
        return Hearing(signum, "unknown")
    reactions = {process: process.reaction(signum) for process in counting}
    for how in ("handled", "runtime"):
        for process, reaction in reactions.items():
            if reaction == how:
                return _hearing(signum, how, process)
    main = counting[0]
    if any(process.reaction(signum) == "handled" for process in processes if process.name in LAUNCHERS):
        return _hearing(signum, "script", main)
    ignoring = next((process for process, reaction in reactions.items() if reaction == "ignored"), None)
    return _hearing(signum, "default", main) if ignoring is None else _hearing(signum, "ignored", ignoring)


def _hearing(signum: int, how: str, process: Process) -> Hearing:
    who = f"{process.name} (process {process.pid})"
    return Hearing(signum, how, who, process.runtime if how == "runtime" else "", process.handles)


def _caught_by(runtime: str) -> Iterable[int]:
    if runtime == "node":
        return _NODE
    # Go installs a handler for nearly every signal (runtime/signal_unix.go); Wine for those that end a program.
    return range(1, 32) if runtime in ("go", "wine") else ()


def _name(base: str, comm: str) -> str:
    """The base name of what is executed; a script has its own name only where it is in front of nothing else."""
    try:
        with open(f"{base}/cmdline", "rb") as file:
            first = file.read(4096).split(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        first = ""
    try:
        executed = os.path.basename(os.readlink(f"{base}/exe")).removesuffix(" (deleted)")
    except OSError:
        executed = ""
    # A Windows program under Wine is known by its own name, whatever loads it; so is an applet of BusyBox.
    if first.lower().endswith(".exe") or executed == "busybox":
        return os.path.basename(first.replace("\\", "/")).lstrip("-") or comm
    return executed or os.path.basename(first) or comm


def runtime_of(pid: int, name: str, proc: str = "/proc") -> str:
    """Which runtime that catches signals for every program a process is, of those in `Process`; "" for all others."""
    if name in ("node", "nodejs"):
        return "node"
    if name.lower().endswith(".exe") or name.startswith("wine"):
        return "wine"
    try:
        with open(f"{proc}/{pid}/exe", "rb") as file:
            return "go" if _GO_NOTE in file.read(_HEAD) else ""
    except OSError:
        return ""


def threads(pids: Iterable[int]) -> list[str]:
    """One line a thread: what it is called, its state, and what it waits for in the kernel (man 5 proc)."""
    lines = []
    for pid in pids:
        try:
            tasks = sorted(os.listdir(f"/proc/{pid}/task"), key=int)
        except OSError:
            continue
        for task in tasks:
            base = f"/proc/{pid}/task/{task}"
            name, state, waits = _first(f"{base}/comm"), _first(f"{base}/status", "State:"), _first(f"{base}/wchan")
            lines.append(f"hung: process {pid} thread {task} {name!r} {state or '?'} waits in {waits or '?'}")
    return lines


def _first(path: str, field: str = "") -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.removeprefix(field).strip() for line in file if line.startswith(field)), "")
    except OSError:
        return ""

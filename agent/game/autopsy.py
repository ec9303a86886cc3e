"""Finds the one cause of a game's end from evidence. Pure: facts in, a verdict out. Light enough for PID 1.

The order of the checks is important. An OOM kill has the same wait status as any other SIGKILL; if only a child was
killed, the main process ends with an exit code; and a game that hung is finally killed by the agent. The verdict names
what happened first, and lists everything else as evidence.
"""

from __future__ import annotations

import signal
from enum import StrEnum

from agent.game.cgroup import CgroupReading, oom_kills_between
from agent.game.crash_reports import Crash
from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# If the game ends by itself, an OOM kill older than this was not the cause.
_OOM_RECENT = 15.0
# Policies that stop a game which does not behave as expected; an OOM kill of one of its processes may be the cause.
_FELL_SILENT = ("heartbeat_lost", "not_ready")
# Signals whose default action is to write a core (man 7 signal).
_CORE_SIGNALS = frozenset(
    int(number)
    for number in (
        signal.SIGQUIT,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGSEGV,
        signal.SIGXCPU,
        signal.SIGXFSZ,
        signal.SIGSYS,
    )
)


class Cause(StrEnum):
    """Why the game ended, in one word."""

    CLEAN = "clean"  # exit code 0 of the server itself
    STOPPED_AS_ASKED = "stopped_as_asked"  # 128 + the signal that it was asked to end with
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    CRASHED = "crashed"  # exit code 0 of the main process, although its server crashed
    OUT_OF_MEMORY = "out_of_memory"
    KILLED_BY_AGENT = "killed_by_agent"
    HEARTBEAT_LOST = "heartbeat_lost"
    COULD_NOT_START = "could_not_start"
    UNKNOWN = "unknown"  # it ended; only its parent, which waited for it, knows how


class OtherEnd(Record):
    """How another process of the game than its main process ended, if the agent reaped it.

    Attributes:
        name: what it is called.
        pid: its process id.
        code: its exit code, or None when a signal ended it.
        signal: the number of that signal, or None.
        seconds_before_end: how long before the game's end that was.
        helper: whether it is only a helper of the server, such as `tee`; see `stop_signal.is_helper`.
        behind_script: whether it was the server behind the start script, which waited for it; see `agent.game.ends`.
    """

    name: str
    pid: int
    code: int | None = None
    signal: int | None = None
    seconds_before_end: float = 0.0
    helper: bool = False
    behind_script: bool = False

    @property
    def stands_for(self) -> int | None:
        """The number of the signal that ended it, or that its exit code stands for."""
        return self.signal if self.signal is not None else _as_signal(self.code)

    def __str__(self) -> str:
        """`server (process 12)`."""
        return f"{self.name} (process {self.pid})"


class Evidence(Record):
    """The facts about a game that is gone.

    Attributes:
        code: exit code of the main process, or None.
        signal: number of the signal that ended it, or None.
        core_dumped: whether the kernel says that it wrote a core.
        could_not_start: why the game could not be executed, or None.
        stop_source, stop_reason, stop_message: the stop request that counts, or None.
        stopped_seconds: seconds between the stop request and the end.
        killed: whether the agent used SIGKILL.
        kill_after_seconds: how long the game had to stop before that.
        sent_signals: names of the signals that the agent sent before SIGKILL.
        heartbeat_age_seconds: age of the last heartbeat at the end, or None if there was none.
        before, after: the cgroup's counters when the game was started and when it was gone.
        at_stop: its counters when the stop was requested; None if they were not read, or no stop was requested.
        own_oom_kills, own_oom_kills_since_stop: how many of the counted OOM kills hit the agent's own process.
        oom_kill_age_seconds: how long before the end an OOM kill was last seen, or None where nobody looked.
        others: other processes of the game whose end the agent saw.
        left_behind: names of the processes that the main process left running, without helpers.
        crash: the crash report at the end of the output, from `crash_reports.find_crash`.
        last_line: the last meaningful line of output.
    """

    code: int | None = None
    signal: int | None = None
    core_dumped: bool = False
    could_not_start: str | None = None
    stop_source: str | None = None
    stop_reason: str | None = None
    stop_message: str = ""
    stopped_seconds: float | None = None
    killed: bool = False
    kill_after_seconds: float | None = None
    sent_signals: tuple[str, ...] = ()
    heartbeat_age_seconds: float | None = None
    before: CgroupReading | None = None
    after: CgroupReading | None = None
    at_stop: CgroupReading | None = None
    own_oom_kills: int = 0
    own_oom_kills_since_stop: int = 0
    oom_kill_age_seconds: float | None = None
    others: tuple[OtherEnd, ...] = ()
    left_behind: tuple[str, ...] = ()
    crash: Crash | None = None
    last_line: str = ""


class Autopsy(Record):
    """The verdict.

    Attributes:
        cause: one word.
        summary: one sentence for people.
        evidence: the facts behind the verdict, and other findings; one sentence each.
    """

    cause: Cause
    summary: str
    evidence: tuple[str, ...]

    def as_dict(self) -> Mapping[str, object]:
        """For JSON."""
        return {"cause": str(self.cause), "summary": self.summary, "evidence": list(self.evidence)}


def examine(evidence: Evidence) -> Autopsy:
    """Names one cause.

    In this order: it never started; the OOM killer ended it; it was stopped because its heartbeat was lost; the agent
    had to kill it; a signal; an exit code; clean.
    """
    cause, summary = _verdict(evidence)
    return Autopsy(cause, summary, _facts(evidence))


def may_have_left_core(evidence: Evidence) -> bool:
    """Whether a process of the game crashed in a way that makes the kernel write a core."""
    numbers = [evidence.signal, _as_signal(evidence.code), *(other.signal for other in evidence.others)]
    if evidence.crash is not None:
        numbers.append(evidence.crash.signal)
    return evidence.core_dumped or any(number in _CORE_SIGNALS for number in numbers)


def _verdict(evidence: Evidence) -> tuple[Cause, str]:
    main_killed = evidence.signal == signal.SIGKILL
    crash = evidence.crash
    said = f"; {crash}" if crash is not None else ""
    if evidence.could_not_start is not None:
        verdict = Cause.COULD_NOT_START, evidence.could_not_start
    elif _oom_is_the_cause(evidence):
        whose = "the game" if main_killed and not evidence.killed else "one of the game's processes"
        limit = evidence.after.memory_limit if evidence.after is not None else None
        at = f" at the limit of {_mebibytes(limit)}" if limit else ""
        verdict = Cause.OUT_OF_MEMORY, f"the kernel's OOM killer ended {whose}{at}"
    elif evidence.stop_reason == Cause.HEARTBEAT_LOST:
        age = evidence.heartbeat_age_seconds
        ago = f"; the last one came {age:.1f} s before the end" if age is not None else ""
        verdict = Cause.HEARTBEAT_LOST, f"the game was stopped because its heartbeat was lost{ago}"
    elif evidence.killed and (main_killed or (evidence.code is None and evidence.signal is None)):
        after = evidence.kill_after_seconds
        had = f" {after:.1f} s after it was asked to end" if after is not None else ""
        verdict = Cause.KILLED_BY_AGENT, f"the agent killed the game{had}, because it did not end by itself"
    elif evidence.code == 0:
        verdict = _ended_with_0(evidence)
    elif _is_as_asked(evidence):
        name = signal_name(_as_signal(evidence.code) or 0)
        verdict = (
            Cause.STOPPED_AS_ASKED,
            f"the game was asked to end with {name} and ended with exit code {evidence.code}, which stands for it",
        )
    elif crash is not None and crash.out_of_memory:
        how = f"exit code {evidence.code}" if evidence.signal is None else signal_name(evidence.signal)
        verdict = (
            Cause.OUT_OF_MEMORY,
            f"the game ran out of the memory that its runtime gives it and ended with {how}; {crash}",
        )
    elif evidence.signal is not None:
        name = signal_name(evidence.signal)
        by = ", which the agent had sent to stop it" if name in evidence.sent_signals else ""
        verdict = Cause.SIGNAL, f"the game was ended by {name} ({evidence.signal}){by}{said}"
    elif evidence.code:
        verdict = Cause.EXIT_CODE, f"the game ended with exit code {evidence.code}{said}"
    else:
        verdict = _ended_somehow(crash)
    return verdict


def _ended_somehow(crash: Crash | None) -> tuple[Cause, str]:
    """A main process whose exit code is known only to its parent, which waited for it."""
    if crash is not None and crash.fatal:
        return Cause.CRASHED, f"the game crashed; {crash}"
    return Cause.UNKNOWN, (
        "the game ended; how is not known, because its start script waited for it: let the script pass the exit code "
        "on, or start the server with exec"
    )


def _ended_with_0(evidence: Evidence) -> tuple[Cause, str]:
    """Exit code 0 of the main process, which is clean only if that is the server, or the server ended with 0 too."""
    left = ", ".join(evidence.left_behind)
    if left and evidence.killed:
        return Cause.KILLED_BY_AGENT, (
            f"the main process ended with exit code 0 and left {left} behind, which the agent had to kill"
        )
    ended = [
        other
        for other in evidence.others
        if other.signal is not None
        and not other.helper
        and not (other.signal == signal.SIGTERM and str(other) in evidence.left_behind)  # it ended as it was asked to
    ]
    # What the agent's own signal ended says less than what ended of itself.
    ended.sort(key=lambda other: signal_name(other.signal or 0) in evidence.sent_signals)
    failed = next((other for other in evidence.others if other.behind_script and other.code), None)
    server = ended[0] if ended else failed
    if server is not None:
        return _server_ended(server, evidence)
    crash = evidence.crash if evidence.crash is not None and evidence.crash.fatal else None
    if crash is not None and crash.signal == signal.SIGKILL and _was_killed_before_the_stop(evidence):
        crash = None
    named = signal_name(crash.signal) if crash is not None and crash.signal is not None else ""
    if named and named in evidence.sent_signals:
        return Cause.STOPPED_AS_ASKED, (
            f"the main process ended with exit code 0, and {named}, which the agent had sent to stop the game, ended "
            "its server"
        )
    if crash is not None:
        return Cause.CRASHED, f"the main process ended with exit code 0, but its server had crashed; {crash}"
    if left:
        return Cause.STOPPED_AS_ASKED, (
            f"the main process ended with exit code 0 and left {left} behind, which ended when the agent asked it to; "
            "if that is the server, set AGENT_MAIN so that the agent follows it"
        )
    return Cause.CLEAN, "the game ended with exit code 0"


def _kills(evidence: Evidence) -> int | None:
    """How many processes of the game the OOM killer took while it ran; None where that cannot be known."""
    kills = oom_kills_between(evidence.before, evidence.after)
    return kills if kills is None else max(0, kills - evidence.own_oom_kills)


def _kills_since_stop(evidence: Evidence) -> int | None:
    """Likewise, since the stop was asked for."""
    kills = oom_kills_between(evidence.at_stop, evidence.after)
    return kills if kills is None else max(0, kills - evidence.own_oom_kills_since_stop)


def _server_ended(server: OtherEnd, evidence: Evidence) -> tuple[Cause, str]:
    """The main process ended with 0, and its server did not."""
    name = signal_name(server.stands_for) if server.stands_for is not None else ""
    if name and name in evidence.sent_signals:
        how = (
            f"ended {server}"
            if server.signal is not None
            else f"is what exit code {server.code} of {server} stands for"
        )
        return Cause.STOPPED_AS_ASKED, (
            f"the main process ended with exit code 0, and {name}, which the agent had sent to stop the game, {how}"
        )
    if server.signal is not None:
        return Cause.CRASHED, (
            f"the main process ended with exit code 0, but {name} ({server.signal}) had ended {server}"
        )
    return Cause.EXIT_CODE, (
        f"the main process ended with exit code 0, but its server, {server}, had ended with exit code {server.code}"
    )


def _was_killed_before_the_stop(evidence: Evidence) -> bool:
    """Whether a shell's "Killed" refers to an OOM kill that the game survived until it was asked to end."""
    killed = _kills(evidence)
    return bool(killed) and _kills_since_stop(evidence) == 0


def _is_as_asked(evidence: Evidence) -> bool:
    """Whether the exit code stands for a signal sent by the agent; a JVM ends like this after its shutdown hooks."""
    number = _as_signal(evidence.code)
    return number is not None and signal_name(number) in evidence.sent_signals


def _as_signal(code: int | None) -> int | None:
    """The signal that an exit code stands for: 128 + n, the convention of shells and runtimes."""
    return code - 128 if code is not None and 128 < code <= 128 + 64 else None


def _oom_is_the_cause(evidence: Evidence) -> bool:
    """Whether an OOM kill ended the game: a kill that the game survived is evidence, and not the cause."""
    if not _kills(evidence):
        return False
    ended_by_kill = not evidence.killed and (evidence.signal == signal.SIGKILL or evidence.code == 128 + signal.SIGKILL)
    age = evidence.oom_kill_age_seconds
    if evidence.stop_source is None:
        return ended_by_kill or age is None or age <= _OOM_RECENT
    if evidence.stop_source == "policy" and evidence.stop_reason in _FELL_SILENT:
        # A game stops sending heartbeats when it loses a process; the final kill of the rest is not the cause.
        heard = evidence.heartbeat_age_seconds
        return age is None or heard is None or age <= heard + _OOM_RECENT
    # A stop was requested, and the game was running until then: only a kill since then can have ended it.
    since = _kills_since_stop(evidence)
    if since is None:
        return ended_by_kill
    return since > 0 and not (evidence.killed and evidence.signal == signal.SIGKILL)


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, and so on, also for real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return (
            f"SIGRTMIN+{number - signal.SIGRTMIN}" if signal.SIGRTMIN <= number <= signal.SIGRTMAX else f"SIG{number}"
        )


def _facts(evidence: Evidence) -> tuple[str, ...]:
    return (
        *_status_facts(evidence),
        *_memory_facts(evidence),
        *_stop_facts(evidence),
        *(f"left behind by the main process: {name}" for name in evidence.left_behind),
        *(_other_fact(other) for other in evidence.others),
        *_said_facts(evidence),
    )


def _status_facts(evidence: Evidence) -> list[str]:
    facts = []
    if evidence.signal is not None:
        core = "; the kernel says that it wrote a core" if evidence.core_dumped else ""
        facts.append(f"wait status: ended by signal {evidence.signal} ({signal_name(evidence.signal)}){core}")
    elif evidence.code is not None:
        facts.append(f"wait status: exit code {evidence.code}")
        number = _as_signal(evidence.code)
        if number is not None:
            name = signal_name(number)
            if _is_as_asked(evidence):
                facts.append(f"exit code {evidence.code}: 128 and {number}, the number of {name}")
            else:
                facts.append(f"exit code {evidence.code}: this is how a shell reports that {name} ended its child")
    return facts


def _stop_facts(evidence: Evidence) -> list[str]:
    facts = []
    if evidence.stop_source is not None:
        message = f' "{evidence.stop_message}"' if evidence.stop_message else ""
        when = f", {evidence.stopped_seconds:.1f} s before the end" if evidence.stopped_seconds is not None else ""
        facts.append(f"stop request: by {evidence.stop_source}, {evidence.stop_reason}{message}{when}")
    else:
        facts.append("stop request: none; it ended by itself")
    if evidence.sent_signals:
        facts.append(f"sent by the agent: {', '.join(evidence.sent_signals)}")
    if evidence.killed:
        facts.append("sent by the agent: SIGKILL, to what was left")
    return facts


def _said_facts(evidence: Evidence) -> list[str]:
    facts = []
    if evidence.heartbeat_age_seconds is not None:
        facts.append(f"last heartbeat: {evidence.heartbeat_age_seconds:.1f} s before the end")
    if evidence.crash is not None:
        facts.append(f"crash report in the output, {evidence.crash}")
    if evidence.last_line:
        facts.append(f"last line of output: {evidence.last_line}")
    return facts


def _other_fact(other: OtherEnd) -> str:
    how = f"exit code {other.code}" if other.signal is None else f"ended by {signal_name(other.signal)}"
    return f"another process of the game: {other}, {how}, {other.seconds_before_end:.1f} s before the end"


def _memory_facts(evidence: Evidence) -> list[str]:
    facts = []
    kills = _kills(evidence)
    after = evidence.after
    if kills is None:
        if evidence.signal == signal.SIGKILL and not evidence.killed:
            facts.append("OOM kills: unknown, because the kernel shows no memory counters here; SIGKILL may be one")
    elif kills:
        assert after is not None, "it was compared with"
        what = "process" if kills == 1 else "processes"
        source = "memory.events" if after.version == 2 else "memory.oom_control"
        facts.append(
            f"OOM kills: {kills} {what} while it ran{_oom_moment(evidence)} (oom_kill in {after.memory_path}/{source})"
        )
    elif evidence.signal == signal.SIGKILL:
        facts.append("OOM kills: none of the game while it ran")
    if evidence.own_oom_kills:
        facts.append(f"OOM kills of the agent's own process, which does not end the game: {evidence.own_oom_kills}")
    if after is not None and after.memory_peak is not None:
        of = f" of {_mebibytes(after.memory_limit)}" if after.memory_limit else ", without a limit"
        facts.append(f"peak memory of the container: {_mebibytes(after.memory_peak)}{of}")
    return facts


def _oom_moment(evidence: Evidence) -> str:
    if evidence.oom_kill_age_seconds is not None:
        return f", the last one {evidence.oom_kill_age_seconds:.0f} s before the end"
    since = _kills_since_stop(evidence)
    if since is None:
        return ""
    return f", {since} of them after the stop was asked for" if since else ", all before the stop was asked for"


def _mebibytes(size: int | None) -> str:
    return f"{(size or 0) / 1024**2:.0f} MiB"

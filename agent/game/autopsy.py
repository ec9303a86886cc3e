"""Finds the one cause of a game's end from evidence. Pure: facts in, a verdict out.

The order of the questions is the point. An OOM kill leaves the same wait status as any other SIGKILL, and when only a
child was killed, the main process ends with a code of its own; a game that hung is killed by the agent in the end. The
verdict names what came first, and lists everything else as evidence.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.game.cgroup import CgroupReading, oom_kills_between


class Cause(StrEnum):
    """Why the game ended, in one word."""

    CLEAN = "clean"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    KILLED_BY_AGENT = "killed_by_agent"
    HEARTBEAT_LOST = "heartbeat_lost"
    COULD_NOT_START = "could_not_start"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known when the game is gone.

    Attributes:
        code: exit code of the main process, or None.
        signal: number of the signal that ended it, or None.
        core_dumped: whether the kernel says that it wrote a core.
        could_not_start: why the game could not be executed, or None.
        stop_source, stop_reason, stop_message: the stop request that counts, or None.
        stopped_seconds: seconds between the stop request and the end.
        killed: whether the agent used SIGKILL.
        kill_after_seconds: how long the game had to obey before that.
        sent_signals: names of the signals that the agent sent before SIGKILL.
        heartbeat_age_seconds: age of the last heartbeat at the end, or None where there never was one.
        before, after: what the cgroup counted when the game was started and when it was gone.
        last_line: the last line of output.
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
    last_line: str = ""


@dataclass(frozen=True, slots=True)
class Autopsy:
    """The verdict.

    Attributes:
        cause: one word.
        summary: one sentence for people.
        evidence: what it rests on, and what else was found; one sentence each.
    """

    cause: Cause
    summary: str
    evidence: tuple[str, ...]

    def as_dict(self) -> Mapping[str, object]:
        """For JSON."""
        return {"cause": str(self.cause), "summary": self.summary, "evidence": list(self.evidence)}


def examine(evidence: Evidence) -> Autopsy:
    """Names one cause.

    In this order: it never started; the OOM killer took one of its processes (unless it went on and ended as it was
    asked to); it was stopped because its heartbeat was lost; the agent had to kill it; a signal; an exit code; clean.
    """
    cause, summary = _verdict(evidence)
    return Autopsy(cause, summary, _facts(evidence))


def _verdict(evidence: Evidence) -> tuple[Cause, str]:
    main_killed = evidence.signal == signal.SIGKILL
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
    elif evidence.signal is not None:
        name = signal_name(evidence.signal)
        by = ", which the agent had sent to stop it" if name in evidence.sent_signals else ""
        verdict = Cause.SIGNAL, f"the game was ended by {name} ({evidence.signal}){by}"
    elif evidence.code:
        verdict = Cause.EXIT_CODE, f"the game ended with exit code {evidence.code}"
    else:
        verdict = Cause.CLEAN, "the game ended with exit code 0"
    return verdict


def _oom_is_the_cause(evidence: Evidence) -> bool:
    if not oom_kills_between(evidence.before, evidence.after):
        return False
    # A child that was killed long ago is no cause of an orderly end, nor of one that the agent forced because somebody
    # wanted the game to end: the game lived on. A policy's is different: a game falls silent when it loses a child.
    asked = evidence.stop_source is not None and evidence.stop_source != "policy"
    orderly = evidence.code == 0 and evidence.stop_source is not None
    forced = evidence.killed and evidence.signal == signal.SIGKILL and asked
    return not orderly and not forced


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, and so on, also for real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return (
            f"SIGRTMIN+{number - signal.SIGRTMIN}" if signal.SIGRTMIN <= number <= signal.SIGRTMAX else f"SIG{number}"
        )


def _facts(evidence: Evidence) -> tuple[str, ...]:
    facts = []
    if evidence.signal is not None:
        core = "; the kernel says that it wrote a core" if evidence.core_dumped else ""
        facts.append(f"wait status: ended by signal {evidence.signal} ({signal_name(evidence.signal)}){core}")
    elif evidence.code is not None:
        facts.append(f"wait status: exit code {evidence.code}")
        if 128 < evidence.code <= 128 + 64:
            name = signal_name(evidence.code - 128)
            facts.append(f"exit code {evidence.code}: this is how a shell reports that {name} ended its child")
    facts += _memory_facts(evidence)
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
    if evidence.heartbeat_age_seconds is not None:
        facts.append(f"last heartbeat: {evidence.heartbeat_age_seconds:.1f} s before the end")
    if evidence.last_line:
        facts.append(f"last line of output: {evidence.last_line}")
    return tuple(facts)


def _memory_facts(evidence: Evidence) -> list[str]:
    facts = []
    kills = oom_kills_between(evidence.before, evidence.after)
    after = evidence.after
    if kills is None:
        if evidence.signal == signal.SIGKILL and not evidence.killed:
            facts.append("OOM kills: unknown, because the kernel shows no memory counters here; SIGKILL may be one")
    elif kills:
        assert after is not None, "it was compared with"
        what = "process" if kills == 1 else "processes"
        source = "memory.events" if after.version == 2 else "memory.oom_control"
        facts.append(f"OOM kills: {kills} {what} while it ran (oom_kill in {after.memory_path}/{source})")
    elif evidence.signal == signal.SIGKILL:
        facts.append("OOM kills: none while it ran")
    if after is not None and after.memory_peak is not None:
        of = f" of {_mebibytes(after.memory_limit)}" if after.memory_limit else ", without a limit"
        facts.append(f"peak memory of the container: {_mebibytes(after.memory_peak)}{of}")
    return facts


def _mebibytes(size: int | None) -> str:
    return f"{(size or 0) / 1024**2:.0f} MiB"

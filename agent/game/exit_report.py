"""The content of `exit.json`: everything that is known about a game's end, in one document. Light enough for PID 1."""

from __future__ import annotations

import time

from agent.game.autopsy import Autopsy, signal_name
from agent.game.cgroup import CgroupReading, oom_kills_between
from agent.game.crash_reports import is_dump, plain, says_something

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = 1
_LOOKED_AT = 200  # lines from the end


def build_report(
    *,
    autopsy: Autopsy,
    reason: str | None,
    exit_code: int,
    code: int | None = None,
    signal: int | None = None,
    core_dumped: bool = False,
    wall_offset: float = 0.0,
    started_at: float | None = None,
    ready_at: float | None = None,
    ended_at: float | None = None,
    phases: Sequence[tuple[str, float]] = (),
    stop: Mapping[str, object] | None = None,
    plan: Mapping[str, object] | None = None,
    happened: Sequence[Mapping[str, object]] = (),
    tail: bytes = b"",
    heartbeat: Mapping[str, object] | None = None,
    players: Mapping[str, object] | None = None,
    before: CgroupReading | None = None,
    after: CgroupReading | None = None,
    attempt: int = 1,
    restarts: int = 0,
    logs: Mapping[str, int] | None = None,
    core: Mapping[str, object] | None = None,
    deployment: Mapping[str, object] | None = None,
    command: Sequence[str] = (),
    agent_version: str = "",
    application: str = "",
    version: str = "",
) -> dict[str, object]:
    """Builds the document. `agent.logs.ship` adds the result of shipping, and redacts secrets.

    Args:
        autopsy: the verdict.
        reason: why the deployment ended, a `Reason` of the lifecycle.
        exit_code: the agent's exit code.
        code: exit code of the game's main process, or None.
        signal: number of the signal that ended it, or None.
        core_dumped: whether the kernel says that it wrote a core.
        wall_offset: seconds to add to the monotonic clock to get seconds since 1970.
        started_at: when the game was started, on the monotonic clock, or None.
        ready_at: when it was ready, likewise.
        ended_at: when it was gone, likewise.
        phases: each phase that was entered and when, on the monotonic clock.
        stop: the stop request that counts; `at`, if it is there, on the monotonic clock.
        plan: the plan of the stop, as numbers.
        happened: what really happened, for each step.
        tail: the last 64 KiB of output, redacted.
        heartbeat: of the last one; `at`, if it is there, on the monotonic clock.
        players: the players at the end.
        before: the cgroup's counters when the game was started.
        after: its counters when the game was gone.
        attempt: which start of the game this was.
        restarts: restarts in all.
        logs: counters of the capture.
        core: the result of the search for a core, from `agent.game.core`.
        deployment: the known facts about the deployment, without secrets.
        command: the game's program and arguments.
        agent_version: of this agent.
        application: AGENT_APP_NAME, which is nowhere else in the document; "" if it is not set.
        version: AGENT_APP_VERSION, likewise.
    """

    def wall(at: object) -> str | None:
        return iso(float(at) + wall_offset) if isinstance(at, int | float) else None

    def with_time(value: Mapping[str, object] | None) -> dict[str, object] | None:
        return None if value is None else {**value, **({"at": wall(value["at"])} if "at" in value else {})}

    end = ended_at if ended_at is not None else (phases[-1][1] if phases else None)
    uptime = end - started_at if end is not None and started_at is not None else None
    return {
        "schema": SCHEMA,
        "agent_version": agent_version,
        "application": application or None,
        "version": version or None,
        "reason": reason,
        **autopsy.as_dict(),
        "exit_code": exit_code,
        "code": code,
        "signal": signal_name(signal) if signal is not None else None,
        "signal_number": signal,
        "core_dumped": core_dumped,
        "deployment": dict(deployment or {}),
        "command": list(command),
        "times": {
            "started": wall(started_at),
            "ready": wall(ready_at),
            "stop_requested": wall(stop.get("at")) if stop else None,
            "ended": wall(ended_at),
        },
        "uptime_seconds": None if uptime is None else round(uptime, 3),
        "stop": with_time(stop),
        "plan": dict(plan) if plan is not None else None,
        "happened": [dict(step) for step in happened],
        "phases": [
            {
                "phase": phase,
                "at": wall(at),
                "seconds": round(phases[index + 1][1] - at, 3) if index + 1 < len(phases) else None,
            }
            for index, (phase, at) in enumerate(phases)
        ],
        "attempt": attempt,
        "restarts": restarts,
        "heartbeat": with_time(heartbeat),
        "players": dict(players) if players is not None else None,
        "memory": _memory(before, after),
        "cpu": _cpu(before, after),
        "logs": dict(logs or {}),
        "core": dict(core) if core is not None else None,
        "output_tail": tail.decode("utf-8", "replace"),
    }


def last_line(tail: bytes, longest: int = 500) -> str:
    """The last meaningful line of output, shortened to `longest` characters.

    Separators, a `#`, bare stack frames and registers are skipped; if there is nothing else, it is the last line that
    contains a letter or a digit.
    """
    lines = tail.decode("utf-8", "replace").split("\n")
    shown = [line for line in map(plain, reversed(lines[-_LOOKED_AT:])) if says_something(line)]
    return next((line for line in shown if not is_dump(line)), shown[0] if shown else "")[:longest]


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond; "out of range" if there is no such date."""
    try:
        moment = time.gmtime(seconds // 1)
    except (OverflowError, OSError, ValueError):
        return "out of range"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(seconds % 1 * 1000):03d}Z"


def _memory(before: CgroupReading | None, after: CgroupReading | None) -> dict[str, object]:
    reading = after or CgroupReading()
    return {
        "peak_bytes": reading.memory_peak,
        "limit_bytes": reading.memory_limit,
        "oom_kills": oom_kills_between(before, after),
        "source": f"cgroup v{reading.version}" if reading.version else None,
    }


def _cpu(before: CgroupReading | None, after: CgroupReading | None) -> dict[str, object]:
    first, last = before or CgroupReading(), after or CgroupReading()

    def between(old: float | None, new: float | None) -> float | None:
        return None if new is None else round(new - (old or 0), 3)

    return {
        "used_seconds": between(first.cpu_seconds, last.cpu_seconds),
        "limit_cpus": last.cpu_limit,
        "periods": between(first.cpu_periods, last.cpu_periods),
        "throttled_periods": between(first.cpu_throttled_periods, last.cpu_throttled_periods),
        "throttled_seconds": between(first.cpu_throttled_seconds, last.cpu_throttled_seconds),
    }

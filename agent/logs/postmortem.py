"""Renders an `exit.json` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.terminal_text import safe

_TAIL_LINES = 20


def render(document: Mapping[str, Any]) -> str:
    """The whole post-mortem as text; fields missing from the document are left out."""
    return "\n".join(map(safe, _lines(document))) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    deployment = _mapping(document.get("deployment"))
    name = deployment.get("request_id") or deployment.get("deployment_id") or "outside the platform"
    yield f"Deployment {name}, attempt {document.get('attempt', 1)}"
    yield f"  cause     {document.get('cause')}: {document.get('summary')}"
    yield f"  reason    {document.get('reason')}; the agent's exit code was {document.get('exit_code')}"
    yield from _when(document)
    yield from _section("Evidence", [str(fact) for fact in _list(document.get("evidence"))])
    yield from _section("What happened", _phases(document))
    yield from _section("The stop", _stop(document))
    yield from _section("State at the end", _state(document))
    yield from _section("The log", _log(document))
    yield from _section("Kept files", _kept(document))
    tail = [line for line in str(document.get("output_tail") or "").splitlines() if line.strip()]
    yield from _section(f"Last {min(len(tail), _TAIL_LINES)} lines of output", tail[-_TAIL_LINES:])


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield title
        yield from (f"  {line}" for line in lines)


def _when(document: Mapping[str, Any]) -> Iterator[str]:
    times = _mapping(document.get("times"))
    parts = [f"{what} {times[key]}" for key, what in (("started", "from"), ("ended", "to")) if times.get(key)]
    if parts:
        uptime = document.get("uptime_seconds")
        yield f"  lived     {' '.join(parts)}" + (f" ({duration(uptime)})" if uptime is not None else "")
    if document.get("command"):
        yield f"  command   {' '.join(str(word) for word in _list(document.get('command')))}"


def _phases(document: Mapping[str, Any]) -> list[str]:
    return [
        f"{phase.get('at')}  {phase.get('phase')}"
        + (f" for {duration(phase['seconds'])}" if phase.get("seconds") is not None else "")
        for phase in map(_mapping, _list(document.get("phases")))
    ]


def _stop(document: Mapping[str, Any]) -> list[str]:
    stop, plan = _mapping(document.get("stop")), _mapping(document.get("plan"))
    found = []
    if stop:
        words = f' ("{stop["message"]}")' if stop.get("message") else ""
        found.append(f"asked for by {stop.get('source')}: {stop.get('reason')}{words} at {stop.get('at')}")
    planned = [
        f"{step.get('step')} {duration(step.get('seconds'))}"
        for step in map(_mapping, _list(plan.get("steps")))
        if step.get("seconds")
    ]
    if planned:
        found.append(f"planned: {', '.join(planned)}")
    happened = list(map(_mapping, _list(document.get("happened"))))
    really = [f"{step['step']} {duration(step.get('seconds'))}" for step in happened if step.get("step")]
    if really:
        found.append(f"really:  {', '.join(really)}")
    for turn in happened:
        if turn.get("method"):
            heard = ", and the game acknowledged it" if turn.get("acknowledged") else ""
            after = duration(turn.get("after_seconds"))
            found.append(f"tried:   {turn['method']} after {after}: {turn.get('outcome')}{heard}")
    return found


def _state(document: Mapping[str, Any]) -> list[str]:
    found = []
    players = _mapping(document.get("players"))
    if players:
        of = f" of {players['capacity']}" if players.get("capacity") is not None else ""
        found.append(f"players: {players.get('count')}{of}")
    heartbeat = _mapping(document.get("heartbeat"))
    if heartbeat:
        found.append(f"last heartbeat: {heartbeat.get('at')} (of {heartbeat.get('count')})")
    memory = _mapping(document.get("memory"))
    if memory.get("peak_bytes") is not None:
        limit = f" of {size(memory['limit_bytes'])}" if memory.get("limit_bytes") else ", no limit"
        found.append(f"peak memory: {size(memory['peak_bytes'])}{limit}; OOM kills: {memory.get('oom_kills')}")
    cpu = _mapping(document.get("cpu"))
    if cpu.get("periods"):
        found.append(
            f"CPU: throttled in {cpu.get('throttled_periods')} of {cpu['periods']} periods, "
            f"{cpu.get('throttled_seconds')} s in all"
        )
    if document.get("restarts"):
        found.append(f"restarts: {document['restarts']}")
    core = _mapping(document.get("core"))
    if core.get("summary"):
        found.append(f"core: {core['summary']}")
    found += [f"  {line}" for line in str(core.get("stack") or "").splitlines()]
    return found


def _log(document: Mapping[str, Any]) -> list[str]:
    shipping = _mapping(document.get("shipping"))
    spool = _mapping(shipping.get("spool"))
    found = []
    if shipping.get("destination"):
        found.append(f"shipped to {shipping['destination']}/{shipping.get('directory')}")
    elif shipping:
        found.append("shipped nowhere (AGENT_LOG_URL was not set)")
    if spool.get("bytes_dropped"):
        found.append(f"dropped: {size(spool['bytes_dropped'])}, because the spool was full or the disk too slow")
    found += [
        f"not shipped: {part.get('what')} ({size(part.get('bytes') or 0)}): {part.get('why')}"
        for part in map(_mapping, _list(shipping.get("not_shipped")))
    ]
    return found


def _kept(document: Mapping[str, Any]) -> list[str]:
    bundle = _mapping(document.get("bundle"))
    found = [f"{one.get('path')} as {one.get('key')}" for one in map(_mapping, _list(bundle.get("collected")))]
    found += [f"{pattern}: nothing matched" for pattern in _list(bundle.get("missing"))]
    for what in ("unreadable", "not_shipped"):
        found += [f"{one.get('path')}: {one.get('why')}" for one in map(_mapping, _list(bundle.get(what)))]
    return found


def duration(seconds: object) -> str:
    """`0.25 s`, `12 s`, `3 min 20 s`, `5 h 2 min`; other values unchanged."""
    if not isinstance(seconds, int | float):
        return str(seconds)
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: object) -> str:
    """`512 bytes`, `1.5 KiB`, `64 MiB`; other values unchanged."""
    if not isinstance(count, int | float):
        return str(count)
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit, bytes_ in (("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)):
        if count < bytes_ << 10:
            return f"{count / bytes_:.3g} {unit}"
    return f"{count / (1 << 40):.3g} TiB"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

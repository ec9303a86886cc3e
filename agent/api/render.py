"""Formats answers and events as lines of text. Standard library only."""

from typing import Any


def status_text(status: "dict[str, Any]") -> str:
    """The status as a small table."""
    game, players, heart, stop = status["game"], status["players"], status["heartbeat"], status["stop"]
    tries = f"attempt {status['attempt']}, {status['restarts']} restarts" if status["restarts"] else "no restarts"
    capacity = players["capacity"]
    rows = [
        ("phase", f"{status['phase']} ({tries})"),
        ("uptime", duration(status["uptime_seconds"])),
        ("game", _game(game, status["exit"])),
        ("players", f"{players['count']}" + (f" of {capacity}" if capacity is not None else "")),
        (
            "heartbeat",
            f"{duration(heart['age_seconds'])} ago, {heart['count']} in all" if heart["count"] else "none yet",
        ),
    ]
    if status["text"]:
        rows.append(("text", status["text"]))
    rows += [(f"metric {name}", f"{value:g}") for name, value in status["metrics"].items()]
    if stop is not None:
        rows.append(("stop", _stop(stop)))
        rows.append(
            (
                "time left",
                f"{duration(stop['game_seconds_left'])} for the game, {duration(stop['seconds_left'])} in all",
            )
        )
    rows += [(name, url) for name, url in status["urls"].items()]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def event_line(event: "dict[str, Any]") -> str:
    """An event as one line that begins with its time of day (UTC)."""
    data = event["data"]
    match event["type"]:
        case "state":
            before = f" (was {data['previous']})" if data["previous"] else ""
            reason = f", {data['reason']}" if data["reason"] else ""
            said = f"{data['phase']}{before}{reason}"
        case "stop":
            said = f"{_stop(data)}, deadline {_time(data['deadline'])}"
        case "players":
            who = f", {data['joined']} joined" if data["joined"] else f", {data['left']} left" if data["left"] else ""
            said = f"{data['count']}" + (f" of {data['capacity']}" if data["capacity"] is not None else "") + who
        case "text":
            said = data["text"]
        case "tags":
            said = f"added {data['added']}" if data["added"] else f"removed {data['removed']}"
        case "upload":
            said = f"{data['path']} is kept as {data['kept_as']}"
        case "gap":
            said = f"{data['missed']} events were missed"
        case _:
            said = str(data)
    return f"{_time(data['at'])} {event['type']:<8}{said}"


def duration(seconds: float) -> str:
    """Seconds as text: `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def _game(game: "dict[str, Any]", ended: "dict[str, Any] | None") -> str:
    if ended is not None:
        return (
            f"ended with signal {ended['signal']}"
            if ended["signal"] is not None
            else f"ended with code {ended['code']}"
        )
    if game["pid"] is None:
        return "does not run"
    return f"pid {game['pid']}, up {duration(game['uptime_seconds'] or 0.0)}"


def _stop(stop: "dict[str, Any]") -> str:
    why = f": {stop['message']}" if stop["message"] else ""
    return f"asked for by the {stop['source']}, {stop['reason']}{why}"


def _time(stamp: "str | None") -> str:
    return stamp[11:19] if stamp else "none"

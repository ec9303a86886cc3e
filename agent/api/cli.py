"""The commands that talk to a running agent. Standard library only, and fast: scripts call them in loops.

Exit codes: 0 done; 1 the agent refused; 2 no agent could be reached, or the command line is wrong. `healthcheck` uses
only 0 and 1, as Docker requires.
"""

import argparse
import os
import sys
from collections.abc import Callable

from agent.api.client import AgentClient, CannotReachError, RefusedError
from agent.api.render import event_line, status_text
from agent.command_arguments import finite, timeout
from agent.errors import AgentError
from agent.terminal_text import safe_json, safe_lines

_SLOW_SECONDS = 60.0
_OVER = ("releasing", "exited")

_Run = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of a command; its name is the last word of the parser's `prog`."""
    name = parser.prog.split()[-1]
    parser.description, function, add = _COMMANDS[name]
    parser.set_defaults(call=function)
    if name != "healthcheck":
        parser.add_argument("--json", action="store_true", help="print the answer as JSON, one line")
    if add is not None:
        add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs a command whose arguments were added by `add_arguments`; returns the exit code."""
    call: _Run = arguments.call
    try:
        return call(arguments)
    except CannotReachError as problem:
        return _fail(problem, 2)
    except AgentError as problem:
        return _fail(problem, 1)
    except BrokenPipeError:
        # The reader of our output has closed the pipe, as in `events | head`. Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _fail(problem: AgentError, code: int) -> int:
    print(f"arbitrium-agent: {safe_lines(str(problem))}", file=sys.stderr)
    return code


def _print(arguments: argparse.Namespace, result: "dict[str, object]", text: str) -> int:
    print(safe_json(result, terminal=sys.stdout.isatty()) if arguments.json else safe_lines(text), flush=True)
    return 0


# One function a command ----------------------------------------------------------------------------------------------


def _ready(arguments: argparse.Namespace) -> int:
    with AgentClient() as agent:
        result = agent.call("ready")
    text = "players may come" if result["ready"] else f"too late: the deployment is {result['phase']}"
    return _print(arguments, result, text)


def _health(arguments: argparse.Namespace) -> int:
    with AgentClient() as agent:
        result = agent.call("health")
    return _print(arguments, result, f"heard; the deployment is {result['phase']}")


def _stop(arguments: argparse.Namespace) -> int:
    with AgentClient() as agent:
        if arguments.ack is not None:
            result = agent.call("stop.ack", more_seconds=arguments.ack)
            return _print(
                arguments,
                result,
                f"acknowledged; {result['more_seconds']:g} s more, killed in {result['kill_in_seconds']:.1f} s",
            )
        if arguments.wait:
            agent.call("subscribe")
        result = agent.call(
            "stop",
            reason=arguments.reason,
            grace_seconds=arguments.grace_seconds,
            log_storage=arguments.log_storage,
        )
        why = f": {result['message']}" if result["message"] else ""
        _print(arguments, result, f"stopping (asked for by the {result['source']}, {result['reason']}{why})")
        while arguments.wait:
            event = agent.event()
            if event is None:
                break
            data = event["data"]
            if event["type"] == "state" and isinstance(data, dict) and data.get("phase") in _OVER:
                break
    return 0


def _add_stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="why, in your words")
    parser.add_argument("--grace-seconds", metavar="N", type=finite, help="seconds the game gets to end")
    parser.add_argument("--log-storage", metavar="NAME", help="true, false, or the name of an endpoint storage")
    parser.add_argument(
        "--ack",
        metavar="MORE_SECONDS",
        nargs="?",
        type=finite,
        const=0.0,
        help="acknowledge the stop for the game, and ask for this many more seconds; once",
    )
    parser.add_argument("--wait", action="store_true", help="wait until the game is gone and its logs are shipped")


def _status(arguments: argparse.Namespace) -> int:
    with AgentClient() as agent:
        result = agent.call("status")
    return _print(arguments, result, status_text(result))


def _deployment(arguments: argparse.Namespace) -> int:
    with AgentClient() as agent:
        result = agent.call("deployment")
    return _print(arguments, result, safe_json(result, indent=2))


def _players(arguments: argparse.Namespace) -> int:
    with AgentClient() as agent:
        match arguments.action:
            case "set":
                result = agent.call("players.set", count=arguments.count, capacity=arguments.capacity)
            case "join":
                result = agent.call("players.join", id=arguments.id)
            case "leave":
                result = agent.call("players.leave", id=arguments.id)
            case _ if arguments.number is not None or arguments.limit is not None:
                result = agent.call("players.set", count=arguments.number, capacity=arguments.limit)
            case _:
                result = agent.call("players")
    of = f" of {result['capacity']}" if result["capacity"] is not None else ""
    ids = result.get("ids")
    names = "".join(f"\n{player['id']}" for player in ids) if isinstance(ids, list) else ""
    return _print(arguments, result, f"{result['count']}{of} players{names}")


def _add_players(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", metavar="N", dest="number", type=int, help="short for `set N`")
    parser.add_argument("--capacity", metavar="N", dest="limit", type=int, help="short for `set --capacity N`")
    actions = parser.add_subparsers(dest="action", metavar="set|join|leave", help="without one: list the players")
    setting = actions.add_parser("set", help="set the number of players, the capacity, or both")
    setting.add_argument("count", nargs="?", type=int, help="players now")
    setting.add_argument("--capacity", metavar="N", type=int, help="players at most")
    for name, does in (("join", "one player more"), ("leave", "one player less")):
        actions.add_parser(name, help=does).add_argument("id", help="an id of your choice")


def _events(arguments: argparse.Namespace) -> int:
    with AgentClient() as agent:
        agent.call("subscribe")
        while (event := agent.event()) is not None:
            _print(arguments, event, event_line(event))
    return 0


def _tags(arguments: argparse.Namespace) -> int:
    with AgentClient(timeout=_SLOW_SECONDS) as agent:
        if arguments.action in ("add", "remove"):
            result = agent.call(f"tags.{arguments.action}", name=arguments.name)
        else:
            result = agent.call("tags.list")
    tags = result["tags"]
    return _print(arguments, result, "\n".join(tags) if isinstance(tags, list) and tags else "no tags")


def _add_tags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|add|remove", help="without one: list the tags")
    actions.add_parser("list", help="print the tags")
    for name, does in (("add", "add a tag"), ("remove", "remove a tag")):
        actions.add_parser(name, help=does).add_argument("name", help="1 to 40 characters")


def _upload(arguments: argparse.Namespace) -> int:
    with AgentClient(timeout=_SLOW_SECONDS) as agent:
        result = agent.call("upload", path=os.path.abspath(arguments.path))
    return _print(arguments, result, f"{result['path']} ({result['bytes']} bytes) is kept as {result['kept_as']}")


def _add_upload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="a readable regular file")


def _healthcheck(arguments: argparse.Namespace) -> int:
    try:
        with AgentClient(timeout=arguments.timeout) as agent:
            phase = agent.call("status")["phase"]
    except RefusedError as problem:
        return _fail(problem, 1)
    except CannotReachError as problem:
        # If no socket can be created (a read-only root), the port still works.
        path = "/readyz" if arguments.ready else "/healthz"
        return 0 if _answers(path, arguments.timeout) else _fail(problem, 1)
    if arguments.ready and phase != "ready":
        return _fail(AgentError(f"cannot call it healthy: the deployment is {phase}"), 1)
    return 0


def _answers(path: str, timeout: float) -> bool:
    """Whether the HTTP API of this container's agent answers 200."""
    if os.environ.get("AGENT_SOCKET"):
        return False  # that agent has a socket, so the port may belong to another one
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - rarely needed, and not quick to import

    from agent.config.table import TABLE  # noqa: PLC0415

    where = os.environ.get("AGENT_URL", "").rpartition(":")[2].strip("/") or os.environ.get("AGENT_CONTROL_PORT")
    try:
        connection = HTTPConnection("127.0.0.1", int(where or TABLE["control_port"].default), timeout=timeout)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError):
        return False


def _add_healthcheck(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ready", action="store_true", help="also require that the game is ready for players")
    parser.add_argument("--timeout", metavar="SECONDS", type=timeout, default=3.0, help="how long to wait (default 3)")


_COMMANDS: "dict[str, tuple[str, _Run, Callable[[argparse.ArgumentParser], None] | None]]" = {
    "ready": ("Tell the agent that the game is ready for players.", _ready, None),
    "health": ("Send a heartbeat.", _health, None),
    "stop": ("Ask for the end of the deployment.", _stop, _add_stop),
    "status": ("Print what the agent knows.", _status, None),
    "deployment": ("Print what the platform injected, without secrets.", _deployment, None),
    "players": ("List the players, or report them.", _players, _add_players),
    "events": ("Print events as they happen, the current state first.", _events, None),
    "tags": ("List, add or remove tags of the deployment.", _tags, _add_tags),
    "upload": ("Keep a file beyond the end of the deployment.", _upload, _add_upload),
    "healthcheck": (
        "Exit 0 if the agent lives, 1 if not: for HEALTHCHECK in a Dockerfile, and probes.",
        _healthcheck,
        _add_healthcheck,
    ),
}

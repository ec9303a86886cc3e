"""`arbitrium-agent demo`: the whole lifecycle of a game server in this terminal, in less than 20 seconds.

Everything in it is real: the emulated platform is an HTTP server, the game a process that the agent runs, the players
are processes that play over UDP. Nothing is left running afterwards; what was written stays in one directory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Coroutine

from agent.errors import AgentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `demo`."""
    parser.add_argument(
        "--directory", metavar="DIR", help="where logs, exit.json and the result go (default: a new one)"
    )
    parser.add_argument(
        "--as",
        dest="host",
        choices=("agones", "multiplay", "playfab"),
        help="the game is one made for another host, which knows nothing of arbitrium-agent",
    )
    parser.add_argument("--plain", action="store_true", help="plain lines, as without a terminal")


def run(arguments: argparse.Namespace) -> int:
    """Plays the demo.

    Returns:
        0 when every step came about, 1 when one did not; which one, and what the game said last, is printed.
    """
    from agent.demo.screen import make_screen  # noqa: PLC0415 - rich, which nothing else here needs
    from agent.demo.story import Story  # noqa: PLC0415 - the emulator and the client

    directory = _directory(arguments.directory)
    game = _game()
    problems: list[Exception] = []
    with make_screen(plain=arguments.plain) as screen:
        try:
            asyncio.run(_until_told_to_end(Story(directory, game, screen, arguments.host).play()))
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
        except AgentError as problem:
            problems = [problem]
        except ExceptionGroup as group:
            ours, others = group.split(AgentError)
            if ours is None or others is not None:
                raise  # a fault of the demo itself
            problems = _flat(ours)
    for each in problems:
        print(f"arbitrium-agent demo: {each}", file=sys.stderr)
    if problems:
        print(f"What was written until then is in {directory}", file=sys.stderr)
    return 1 if problems else 0


async def _until_told_to_end(story: Coroutine[None, None, None]) -> None:
    """Has SIGTERM end the story as Ctrl-C does: with everything that it started."""
    task = asyncio.current_task()
    assert task is not None, "this is one"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await story


def _flat(group: ExceptionGroup[AgentError]) -> list[Exception]:
    found: list[Exception] = []
    for each in group.exceptions:
        found += _flat(each) if isinstance(each, ExceptionGroup) else [each]
    return found


def _directory(wanted: str | None) -> str:
    if wanted is None:
        return tempfile.mkdtemp(prefix="arbitrium-demo-")
    try:
        os.makedirs(wanted, exist_ok=True)
        if os.listdir(wanted):
            raise AgentError(f"cannot write to {wanted}: it is not empty; name a new directory, or none")
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise AgentError(f"cannot write to {wanted}: {reason}; name another directory, or none") from None
    return os.path.abspath(wanted)


def _game() -> str:
    """The directory that holds the package `udp_game`: beside the checkout's `agent`, or shipped inside of it."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    places = (os.path.join(os.path.dirname(here), "examples"), os.path.join(here, "examples"))
    for place in places:
        if os.path.isfile(os.path.join(place, "udp_game", "__main__.py")):
            return place
    raise AgentError(f"cannot find the demo's game (udp_game) in {' or '.join(places)}; run the demo in a checkout")

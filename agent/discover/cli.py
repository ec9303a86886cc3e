"""`arbitrium-agent discover`: tells Prometheus where the organisation's game servers are."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

from agent import log
from agent.command_arguments import checked
from agent.config.parsers import address, duration
from agent.errors import EXIT_BAD_SETTINGS, AgentError

if TYPE_CHECKING:
    from agent.discover.targets import Group, Wanted
    from agent.edgegap.client import EdgegapClient
    from agent.edgegap.filters import Query

DEFAULT_LISTEN = "127.0.0.1:9465"
DEFAULT_INTERVAL = "15s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `discover`."""
    parser.description = (
        "Serve Prometheus HTTP service discovery at /targets for the organisation's deployments, write a file_sd file, "
        "or both. Needs EDGEGAP_API_TOKEN; EDGEGAP_BASE_URL leads to an emulator."
    )
    parser.add_argument(
        "--listen",
        type=checked(_address),
        metavar="HOST:PORT",
        help=f"serve /targets here (default: {DEFAULT_LISTEN}, unless --file or --once is given)",
    )
    parser.add_argument(
        "--file", metavar="PATH", help="write the targets there for file_sd, as a whole, when they change"
    )
    parser.add_argument("--once", action="store_true", help="look once, write --file or print the targets, and end")
    parser.add_argument(
        "--interval",
        type=checked(_interval),
        default=DEFAULT_INTERVAL,
        metavar="TIME",
        help="between two looks at the platform (%(default)s)",
    )
    parser.add_argument(
        "--port",
        action="append",
        metavar="NAME",
        help="the metrics port, by name or by its number in the container; the first that a deployment has "
        "(repeatable; default: metrics, then 9464)",
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only these deployments, as in `platform list --filter`: application=arena, tags=ranked (repeatable)",
    )
    parser.add_argument(
        "--address",
        choices=("auto", "ip", "fqdn"),
        default="auto",
        help="what is scraped: the IP address, the name, or (auto) the name where the port is encrypted",
    )
    parser.add_argument(
        "--scheme", choices=("http", "https"), default="http", help="https where the agents serve TLS (%(default)s)"
    )
    parser.add_argument(
        "--token-file", metavar="PATH", help="a request for /targets must bear the token that this file holds"
    )
    parser.epilog = (
        "exit codes: 0 done; 1 it cannot be done; 2 wrong usage; 78 EDGEGAP_API_TOKEN is missing or EDGEGAP_BASE_URL "
        "is wrong"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT, or once; returns the exit code."""
    from agent.discover.targets import Wanted  # noqa: PLC0415 - pydantic is for those who run it
    from agent.edgegap import settings  # noqa: PLC0415 - likewise
    from agent.edgegap.errors import InvalidArgumentError, MissingTokenError  # noqa: PLC0415 - likewise
    from agent.edgegap.filters import Filter, Query  # noqa: PLC0415 - likewise

    try:
        platform = settings.client()
    except (InvalidArgumentError, MissingTokenError) as wrong:
        print(wrong, file=sys.stderr)
        return EXIT_BAD_SETTINGS
    try:
        query = Query([Filter.parse(text) for text in arguments.filter]) if arguments.filter else None
    except InvalidArgumentError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    wanted = Wanted(tuple(arguments.port or Wanted().ports), arguments.address, arguments.scheme)
    return asyncio.run(_live(arguments, platform, wanted, query))


async def _live(arguments: argparse.Namespace, platform: EdgegapClient, wanted: Wanted, query: Query | None) -> int:
    from agent.discover.server import serving  # noqa: PLC0415 - late, see above
    from agent.discover.watcher import Watcher  # noqa: PLC0415 - likewise

    async with platform:
        watcher = Watcher(platform, wanted, query)
        if arguments.once:
            found = await watcher.refresh()
            if arguments.file:
                write(arguments.file, found)
            else:
                print(json.dumps(found, indent=2))
            return 0
        async with contextlib.AsyncExitStack() as servers:
            listen = arguments.listen or (None if arguments.file else _address(DEFAULT_LISTEN))
            if listen is not None:
                host, port = listen
                bound = await servers.enter_async_context(serving(watcher, host, port, _token(arguments.token_file)))
                log.info(f"targets for Prometheus: http://{host}:{bound}/targets")
            ended = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, ended.set)

            def write_file(found: list[Group]) -> None:
                if arguments.file:
                    try:
                        write(arguments.file, found)
                    except AgentError as problem:
                        log.warning(str(problem))  # it may be there again the next time

            watching = asyncio.create_task(watcher.run(arguments.interval, write_file))
            waiting = asyncio.create_task(ended.wait())
            await asyncio.wait((watching, waiting), return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, waiting):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = address(text).rpartition(":")
    return host.strip("[]"), int(port)


def _interval(text: str) -> float:
    seconds = duration(text)
    if seconds < 1:
        raise ValueError("takes 1s or more")
    return seconds


def _token(path: str | None) -> str:
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, ValueError) as problem:
        raise AgentError(f"cannot read --token-file {path}: {problem}; name a file that holds the token") from None
    if not token:
        raise AgentError(f"cannot use --token-file {path}: it is empty; write the token into it")
    return token


def write(path: str, found: list[Group]) -> None:
    """Writes a file for `file_sd` as a whole or not at all: Prometheus may read it at any moment.

    Raises:
        AgentError: it cannot be written.
    """
    directory, name = os.path.split(os.path.abspath(path))
    made = ""
    try:
        # In the same directory, because a rename is atomic only there, and with a name that no *.json pattern matches.
        with tempfile.NamedTemporaryFile("w", dir=directory, prefix=f".{name}.", delete=False) as file:
            made = file.name
            json.dump(found, file, indent=2)
            file.write("\n")
        os.chmod(made, 0o644)
        os.replace(made, path)
    except OSError as problem:
        if made:
            with contextlib.suppress(OSError):
                os.unlink(made)
        raise AgentError(
            f"cannot write {path}: {problem.strerror}; name a file in a directory that can be written"
        ) from None

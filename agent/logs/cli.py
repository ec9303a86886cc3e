"""The commands `logs` and `autopsy`: read what was shipped."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time

from agent.errors import AgentError
from agent.logs import reader
from agent.logs.postmortem import render
from agent.logs.reader import Item, LogReader, Run
from agent.logs.sources import Source, SourceError, SpoolSource, open_source
from agent.terminal_text import safe, safe_json

_FOLLOW_SECONDS = 2.0  # between two reads of the store


def add_logs_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `logs`."""
    _add_common(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the deployment has ended")
    parser.add_argument("-g", "--grep", metavar="PATTERN", help="only lines that this regular expression matches")
    parser.add_argument("-s", "--stream", metavar="NAME", help="only this stream: stdout, stderr, agent, a file's path")
    parser.add_argument("--colours", action="store_true", help="keep the colours of the game's output on a terminal")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--raw", action="store_true", help="the bytes of the lines, without time and stream")
    how.add_argument("--json", action="store_true", help="one JSON object a line")
    how.add_argument("--list", action="store_true", help="list the deployments that there are")


def add_autopsy_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `autopsy`."""
    _add_common(parser)
    parser.add_argument("--json", action="store_true", help="the exit.json itself")


def run_logs(arguments: argparse.Namespace) -> int:
    """Prints, follows or searches logs; 1 when --grep finds nothing."""
    with contextlib.closing(_source(arguments)) as source:
        return _logs(source, arguments)


def _logs(source: Source, arguments: argparse.Namespace) -> int:
    runs = _runs(source, arguments)
    if arguments.list:
        for run in runs:
            ended = (reader.document(source, run) or {}).get("cause") or "no exit.json"
            print(
                safe(f"{run.time}  {run.deployment_id}  attempt {run.attempt}  {len(run.segments)} segments  {ended}")
            )
        return 0
    try:
        pattern = re.compile(arguments.grep) if arguments.grep is not None else None
    except re.error as wrong:
        raise AgentError(f"cannot search for {arguments.grep!r}: {wrong}; give a regular expression") from None
    printer = _Printer(arguments, pattern)
    for run in runs if arguments.deployment is not None else runs[-1:]:
        _print_run(source, run, printer, follow=arguments.follow and run is runs[-1])
    return 1 if pattern is not None and not printer.printed else 0


def run_autopsy(arguments: argparse.Namespace) -> int:
    """Prints the post-mortem of the newest attempt; 1 if there is none."""
    with contextlib.closing(_source(arguments)) as source:
        return _autopsy(source, arguments)


def _autopsy(source: Source, arguments: argparse.Namespace) -> int:
    run = _runs(source, arguments)[-1]
    document = reader.document(source, run)
    if document is None:
        last = [item for item in reader.joined(LogReader(source, run).more()) if not item.gap][-10:]
        print(f"Deployment {safe(run.deployment_id)}, attempt {run.attempt}, started {run.time}")
        print("  It left no exit.json: it is still running, or agent and game were killed at once (SIGKILL after the")
        print("  platform's grace, or the machine was lost). The last lines that were shipped:")
        for item in last:
            print(f"  {safe(f'{item.ts} {item.text}')}")
        return 1
    if arguments.json:
        print(safe_json(document, indent=2, terminal=sys.stdout.isatty()))
    else:
        sys.stdout.write(render(document))
    return 0


class _Printer:
    """Prints lines in the requested format."""

    def __init__(self, arguments: argparse.Namespace, pattern: re.Pattern[str] | None) -> None:
        self.as_json = arguments.json
        self._raw = arguments.raw
        self._stream = arguments.stream
        self._pattern = pattern
        self._terminal = sys.stdout.isatty()
        self._colours = arguments.colours
        self.printed = 0

    def __call__(self, item: Item) -> None:
        if item.gap:
            self._gap(item)
            return
        if (self._stream is not None and item.stream != self._stream) or (
            self._pattern is not None and not self._pattern.search(item.text)
        ):
            return
        self.printed += 1
        if self.as_json:
            print(item.as_json(terminal=self._terminal))
        elif self._raw:
            sys.stdout.flush()
            sys.stdout.buffer.write((item.raw if item.raw is not None else item.text.encode()) + b"\n")
        else:
            text = safe(item.text, keep_colours=self._colours) if self._terminal else item.text
            stream = safe(item.stream) if self._terminal else item.stream.replace("\n", " ")
            print(f"{safe(item.ts)} {stream} {text}" if item.ts else text)

    def _gap(self, item: Item) -> None:
        """Shown regardless of the search; on stderr if stdout is to contain only the log's bytes."""
        if self.as_json:
            print(item.as_json(terminal=self._terminal))
        else:
            print(safe(item.text), file=sys.stderr if self._raw else sys.stdout)


def _print_run(source: Source, run: Run, printer: _Printer, *, follow: bool) -> None:
    log = LogReader(source, run)
    while True:
        # Checked before reading: once exit.json is complete, nothing more will be added to the store.
        document = reader.document(source, run)
        items = log.more()
        for item in items if printer.as_json else reader.joined(items):
            printer(item)
        sys.stdout.flush()
        if document is not None or not follow:
            break
        time.sleep(_FOLLOW_SECONDS)
    for item in reader.ending(document, log.last_number):
        printer(item)
    if document is None:
        sys.stdout.flush()
        print(
            f"deployment {safe(run.deployment_id)} left no exit.json: it is still running, or everything was killed at "
            "once",
            file=sys.stderr,
        )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("deployment", nargs="?", metavar="ID", help="the deployment's id; the newest one by default")
    parser.add_argument(
        "--url",
        default=os.environ.get("AGENT_LOG_URL"),
        help="where the logs were shipped to, as AGENT_LOG_URL (the default); a directory or a downloaded .tar",
    )
    parser.add_argument(
        "--spool", metavar="DIR", help="read a spool directory instead: what an agent on this machine has not shipped"
    )
    parser.add_argument("--attempt", type=int, metavar="N", help="only this attempt")


def _source(arguments: argparse.Namespace) -> Source:
    if arguments.spool or not arguments.url:
        from agent.config.homes import homes  # noqa: PLC0415 - only where it is asked for

        default = [f"{home}/spool" for home in homes()]
        found = next((place for place in default if os.path.isdir(place)), default[0])
        directory = arguments.spool or os.environ.get("AGENT_SPOOL_DIR") or found
        if not os.path.isdir(directory):
            raise SourceError(
                f"cannot read logs: AGENT_LOG_URL is not set, and there is no spool directory {directory}; give --url"
            )
        return SpoolSource(directory)
    return open_source(arguments.url, os.environ)


def _runs(source: Source, arguments: argparse.Namespace) -> list[Run]:
    runs = reader.find_runs(source, arguments.deployment)
    if arguments.attempt is not None:
        runs = [run for run in runs if run.attempt == arguments.attempt]
    if not runs:
        what = f"deployment {arguments.deployment}" if arguments.deployment else "any deployment"
        attempt = f", attempt {arguments.attempt}" if arguments.attempt is not None else ""
        raise SourceError(
            f"cannot find {what}{attempt} in {source.shown}; `arbitrium-agent logs --list` shows what is there"
        )
    return runs

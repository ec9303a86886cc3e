"""`arbitrium-agent doctor`: what will fail, and what to do about it.

Without options it checks the running container; with `--image` the image, at build time. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from agent.doctor import dockerfile, image, runtime
from agent.doctor.findings import Finding, Level, failed
from agent.terminal_text import safe

_COLOURS = {Level.ERROR: "31", Level.WARNING: "33", Level.NOTE: "36", Level.OK: "32"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--image", action="store_true", help="look at the image at build time (RUN), not at a container"
    )
    parser.add_argument("--dockerfile", metavar="FILE", help="with --image: read ENTRYPOINT, CMD and USER from it")
    parser.add_argument("--target", metavar="STAGE", help="with --dockerfile: the stage that is built, not the last")
    parser.add_argument("--user", help="with --image: who will run it, where that is not the current user")
    parser.add_argument("--strict", action="store_true", help="exit 1 for warnings as well")
    parser.add_argument("--json", action="store_true", help="findings for programs")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="with --image: the game's command, after --")


def run(arguments: argparse.Namespace) -> int:
    """Prints what was found.

    Returns:
        0, 1 where something will fail, 2 for wrong usage.
    """
    if not arguments.image and (arguments.command or arguments.dockerfile or arguments.user):
        print("cannot check a command in a running container; add --image", file=sys.stderr)
        return 2
    if arguments.image:
        start = None
        if arguments.dockerfile:
            try:
                with open(arguments.dockerfile, encoding="utf-8") as file:
                    start = dockerfile.read(file.read(), arguments.target)
            except (OSError, UnicodeDecodeError) as problem:
                reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
                print(f"cannot read {arguments.dockerfile}: {reason}; name a Dockerfile", file=sys.stderr)
                return 2
            if not start.found:
                print(f"cannot find the stage {arguments.target} in {arguments.dockerfile}", file=sys.stderr)
                return 2
        user = arguments.user or (start.user if start else None)
        findings = image.check_image(image.Image.current(user, start), arguments.command, start)
    else:
        findings = runtime.check_runtime(os.environ)
    if arguments.json:
        shown = {
            "ok": not failed(findings, strict=arguments.strict),
            "findings": [finding.as_dict() for finding in findings],
        }
        print(json.dumps(shown, indent=2))
    else:
        for finding in findings:
            print(_line(finding, colour=sys.stdout.isatty()))
    return 1 if failed(findings, strict=arguments.strict) else 0


def _line(finding: Finding, *, colour: bool) -> str:
    line = safe(str(finding))  # the image may be somebody else's
    if not colour:
        return line
    word, rest = line[:8], line[8:]
    return f"\033[{_COLOURS[finding.level]}m{word}\033[0m{rest}"

"""Reads what a Dockerfile's last stage starts: ENTRYPOINT, CMD, USER. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

SHELL = ["/bin/sh", "-c"]


@dataclass(frozen=True)
class Start:
    """How a container of the image is started.

    Attributes:
        entrypoint: program and arguments; None where the stage has none of its own. Shell form has `SHELL` in front.
        shell_form: whether ENTRYPOINT is in shell form.
        command: of CMD, likewise.
        user: of USER, or None.
    """

    entrypoint: list[str] | None = None
    shell_form: bool = False
    command: list[str] | None = None
    user: str | None = None


def read(text: str) -> Start:
    """Reads the last stage.

    Args:
        text: the whole Dockerfile; variables in it are not replaced.
    """
    start = Start()
    for instruction, rest in _instructions(text):
        match instruction:
            case "FROM":
                start = Start()
            case "USER":
                start = replace(start, user=rest.split(":")[0].strip())
            case "ENTRYPOINT":
                # A new ENTRYPOINT resets a CMD that came from the base image, not one of this stage.
                words, shell_form = _words(rest)
                start = replace(start, entrypoint=words, shell_form=shell_form)
            case "CMD":
                start = replace(start, command=_words(rest)[0])
    return start


def _instructions(text: str) -> list[tuple[str, str]]:
    found = []
    joined = ""
    ends: str | None = None
    for line in text.splitlines():
        if ends is not None:  # inside a here-document
            ends = None if line.strip() == ends else ends
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        joined += line.strip() if not joined else " " + line.strip()
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip()
            continue
        name, _, rest = joined.partition(" ")
        found.append((name.upper(), rest.strip()))
        document = re.search(r"<<-?[\"']?(\w+)", rest) if name.upper() in {"RUN", "COPY", "ADD"} else None
        ends = document[1] if document else None
        joined = ""
    return found


def _words(rest: str) -> tuple[list[str], bool]:
    try:
        words = json.loads(rest)
    except ValueError:
        words = None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words, False
    return [*SHELL, rest], True

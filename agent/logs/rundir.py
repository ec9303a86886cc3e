"""The small files beside a run's segments: what run it was, its `exit.json`, and how many runs there were."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TypeAlias

Parts: TypeAlias = list[tuple[int, str]]

RUN = "run.json"
_PARTS = "parts.json"
EXIT = "exit.json"
_SHIPPED = "exit.shipped"
_ATTEMPTS = "attempts.json"
_REMEMBERED = 100  # deployments whose attempts are counted; one container sees one, a laptop many


def write(directory: str, name: str, data: bytes) -> str | None:
    """Writes a file as a whole or not at all.

    Returns:
        Its path, or None where it cannot be written.
    """
    path = f"{directory}/{name}"
    try:
        fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(f"{path}.tmp", path)
    except OSError:
        return None
    return path


def add_part(directory: str, first: int, key: str) -> Parts:
    """Notes that the run's segments from number `first` on go to the store's directory `key`.

    One run has several parts where the game was started again: each start is an attempt with a directory of its own.

    Returns:
        All parts, in order.
    """
    known = [*(part for part in parts(directory) if part[0] < first), (first, key)]
    write(directory, _PARTS, json.dumps(known).encode() + b"\n")
    return known


def parts(directory: str) -> Parts:
    """The first segment's number and the store's directory of each part of a run; empty where they are not known."""
    try:
        with open(f"{directory}/{_PARTS}", "rb") as file:
            return [(int(first), str(key)) for first, key in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []


def key_of(known: Parts, number: int) -> str:
    """The store's directory for the segment with this number; there is at least one part."""
    return next((key for first, key in reversed(known) if first <= number), known[0][1])


def put_aside(directory: str) -> None:
    """Keeps the `exit.json` of an earlier attempt of this run beside the one that is to come."""
    with contextlib.suppress(OSError):
        number = 1 + sum(name.startswith("exit-") for name in os.listdir(directory))
        os.rename(f"{directory}/{EXIT}", f"{directory}/exit-{number}.json")
    with contextlib.suppress(OSError):
        os.unlink(f"{directory}/{_SHIPPED}")


def count_attempt(spool_directory: str, deployment_id: str) -> int:
    """Counts this run of the agent for a deployment; 1 where the count cannot be kept."""
    try:
        fd = os.open(f"{spool_directory}/{_ATTEMPTS}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return 1
    with os.fdopen(fd, "r+b") as file, contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            counts = {str(name): int(count) for name, count in json.loads(file.read() or b"{}").items()}
        except (ValueError, AttributeError, TypeError):
            counts = {}
        attempt = counts.pop(deployment_id, 0) + 1
        counts[deployment_id] = attempt
        file.seek(0)
        file.truncate()
        file.write(json.dumps(dict(list(counts.items())[-_REMEMBERED:])).encode())
        return attempt
    return 1


def unshipped_exit(directory: str) -> bytes | None:
    """The `exit.json` of a run that did not get to ship it, or None."""
    if os.path.exists(f"{directory}/{_SHIPPED}"):
        return None
    try:
        with open(f"{directory}/{EXIT}", "rb") as file:
            return file.read()
    except OSError:
        return None


def mark_shipped(directory: str) -> None:
    """Notes that the store has the run's `exit.json`."""
    write(directory, _SHIPPED, b"")


def stale(spool_directory: str, runs: list[str], kept: int = 10) -> list[str]:
    """Of these runs, the oldest ones beyond `kept`; all of those that left no `exit.json` to look at."""
    empty = [run for run in runs if not os.path.exists(f"{run}/{EXIT}")]
    rest = sorted(set(runs) - set(empty))
    return empty + rest[: max(0, len(rest) - kept)]

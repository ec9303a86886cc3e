"""The small files beside a run's segments: what run it was, its `exit.json`, and how many runs there were."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os

RUN = "run.json"
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


def read(directory: str, name: str) -> dict[str, object]:
    """A file's JSON object; empty where there is none."""
    try:
        with open(f"{directory}/{name}", "rb") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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

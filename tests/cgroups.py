"""Cgroups of a test's own: what a container engine's limits are made of."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import eventually

ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cgroup(controller: str, **limits: object) -> Iterator[Path]:
    """A cgroup (version 1), empty, that is gone afterwards with all that was in it.

    Args:
        controller: `memory`, `pids` or `cpu`.
        **limits: files of the controller, with `__` for the dot (`pids__max=5`).
    """
    group = ROOT / controller / f"arbitrium-test-{uuid.uuid4().hex[:12]}"
    try:
        group.mkdir()
        for name, value in limits.items():
            (group / name.replace("__", ".")).write_text(str(value))
    except OSError:
        pytest.skip(f"a {controller} cgroup cannot be made here (cgroup v1, root)")
    try:
        yield group
    finally:
        eventually(lambda: _kill_all(group), "the cgroup is empty")
        group.rmdir()


def enter(*groups: Path) -> None:
    """Moves the process that calls it, as a start script or `preexec` does."""
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def _kill_all(group: Path) -> bool:
    pids = (group / "cgroup.procs").read_text().split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return not pids

"""Tests in which somebody else than the test's own user has to get at its files."""

from __future__ import annotations

from pathlib import Path


def let_others_reach(directory: Path) -> None:
    """Let any user pass through a directory below /tmp and all above it; pytest makes them for its own user alone."""
    for folder in (directory, *directory.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o011)

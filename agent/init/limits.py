"""The init's own limits (man 2 getrlimit): a game of the same user can lower them. Standard library only."""

from __future__ import annotations

import resource

_WATCHED = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_AS)
_at_start: dict[int, tuple[int, int]] = {}


def remember_limits() -> None:
    """Notes the limits that this process was started with."""
    for which in _WATCHED:
        try:  # noqa: SIM105 - contextlib is not imported before the game is started
            _at_start[which] = resource.getrlimit(which)
        except OSError:  # a sandbox may forbid it (seccomp)
            pass


def restore_limits() -> None:
    """Restores the limits of the start as far as permitted, because the end of the run needs files and processes.

    Without CAP_SYS_RESOURCE a lowered hard limit cannot be raised; then the soft limit is raised up to it.
    """
    for which, (soft, hard) in _at_start.items():
        try:
            if not _at_least(resource.getrlimit(which)[0], soft):
                _raise(which, soft, hard)
        except (OSError, ValueError):
            continue


def _raise(which: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(which, (soft, hard))
    except (OSError, ValueError):
        now = resource.getrlimit(which)[1]
        resource.setrlimit(which, (now, now))


def _at_least(now: int, before: int) -> bool:
    return now == resource.RLIM_INFINITY or (before != resource.RLIM_INFINITY and now >= before)

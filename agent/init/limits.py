"""The init's own limits (man 2 getrlimit): a game of the same user can lower them. Standard library only."""

from __future__ import annotations

import errno
import os
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


def make_room() -> None:
    """Gives up stdin where no descriptor is left after `restore_limits`; for the end, when nobody reads it any more.

    The kernel gives out no number above the limit (man 2 getrlimit), but a low one that is closed is given out again:
    one is enough to import what the end needs and to write `exit.json`.
    """
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as problem:
        if problem.errno == errno.EMFILE:
            os.close(0)


def _raise(which: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(which, (soft, hard))
    except (OSError, ValueError):
        now = resource.getrlimit(which)[1]
        resource.setrlimit(which, (now, now))


def _at_least(now: int, before: int) -> bool:
    return now == resource.RLIM_INFINITY or (before != resource.RLIM_INFINITY and now >= before)

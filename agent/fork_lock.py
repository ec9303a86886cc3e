"""The lock that keeps this process from forking while another of its threads imports something.

A fork copies the calling thread only. If another thread is importing a module at that moment, the forked process has
this module half imported and locked for ever, and hangs when it needs it. CPython resets the lock of the import system
in a forked process, but not those of single modules (importlib._bootstrap._ModuleLock).

So a thread that may import, also indirectly (`str.encode` imports codecs), holds the lock while it does:
`with FORK_LOCK:`. The main thread, which forks, needs no lock. Standard library only.
"""

import os
import threading

FORK_LOCK = threading.Lock()
"""Held by a thread while it may import; every `os.fork` of this process waits for it, for `MOST_SECONDS` at most."""
MOST_SECONDS = 2.0
"""A disk that hangs in an import must not hold up the signals of PID 1."""

_taken = False


def _before() -> None:
    global _taken  # noqa: PLW0603 - for the two below
    _taken = FORK_LOCK.acquire(timeout=MOST_SECONDS)


def _after_in_parent() -> None:
    if _taken:
        FORK_LOCK.release()


def _after_in_child() -> None:
    if FORK_LOCK.locked():  # by the call before, or by a thread that does not exist here
        FORK_LOCK.release()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

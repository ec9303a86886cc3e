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
"""Held by a thread while it may import; every `os.fork` of this process waits for it."""

os.register_at_fork(before=FORK_LOCK.acquire, after_in_parent=FORK_LOCK.release, after_in_child=FORK_LOCK.release)

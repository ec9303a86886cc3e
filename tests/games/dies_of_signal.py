"""A game that dies of the signal named in its first argument, by its own hand (SIGSEGV by really reading address 0)."""

import os
import resource
import signal
import sys

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print("ready", flush=True)
if sys.argv[1] == "SIGSEGV":
    import ctypes

    ctypes.string_at(0)
signum = signal.Signals[sys.argv[1]]
if signum != signal.SIGKILL:
    signal.signal(signum, signal.SIG_DFL)
os.kill(os.getpid(), signum)
signal.pause()

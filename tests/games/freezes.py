"""A game that froze: it stopped itself with SIGSTOP and will not run a handler until somebody continues it."""

import os
import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
while True:
    signal.pause()

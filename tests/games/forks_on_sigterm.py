"""A game that answers SIGTERM by forking: it exits 0, and a child that ignores SIGTERM goes on in its group."""

import os
import signal
import sys


def leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        sys.exit(0)
    print("still here", flush=True)
    while True:
        signal.pause()


signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
while True:
    signal.pause()

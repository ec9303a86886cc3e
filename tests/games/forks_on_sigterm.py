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
# Not print(): the signal may come while it is being printed, and the buffer cannot be written to twice at a time.
os.write(1, b"ready\n")
while True:
    signal.pause()

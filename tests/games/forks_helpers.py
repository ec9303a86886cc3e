"""A game with helpers in its own group that ignore SIGTERM; the game itself obeys at once and leaves them behind."""

import os
import signal
import sys

for _ in range(3):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("helper", flush=True)
        while True:
            signal.pause()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
while True:
    signal.pause()

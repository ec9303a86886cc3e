"""A game that saves its world on SIGTERM, which takes the seconds in its first argument, then exits 0."""

import os
import signal
import sys
import time

SECONDS = float(sys.argv[1])


def save(*_: object) -> None:
    print("saving", flush=True)
    end = time.monotonic() + SECONDS
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)
    print("saved", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, save)
# Not print(): the signal may come while it is being printed, and the buffer cannot be written to twice at a time.
os.write(1, b"ready\n")
while True:
    signal.pause()

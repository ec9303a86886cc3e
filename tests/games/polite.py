"""A game as one would wish it: ready, waits, says bye on SIGTERM and exits 0 (or the code in its first argument)."""

import os
import signal
import sys

CODE = int(sys.argv[1]) if len(sys.argv) > 1 else 0


def leave(*_: object) -> None:
    print("bye", flush=True)
    sys.exit(CODE)


signal.signal(signal.SIGTERM, leave)
# Not print(): the signal may come while it is being printed, and the buffer cannot be written to twice at a time.
os.write(1, b"ready\n")
while True:
    signal.pause()

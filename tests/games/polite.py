"""A game as one would wish it: ready, waits, says bye on SIGTERM and exits 0 (or the code in its first argument)."""

import signal
import sys

CODE = int(sys.argv[1]) if len(sys.argv) > 1 else 0


def leave(*_: object) -> None:
    print("bye", flush=True)
    sys.exit(CODE)


signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
while True:
    signal.pause()

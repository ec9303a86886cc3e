"""A game that closes its stdout and stderr and goes on; it exits 5 on SIGTERM."""

import os
import signal

signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
os.write(1, b"ready\n")
os.close(1)
os.close(2)
while True:
    signal.pause()

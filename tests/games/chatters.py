"""A game that writes a line whenever it is told to by SIGUSR1, exits 3 where it cannot, and 0 on SIGTERM."""

import os
import signal


def speak(*_: object) -> None:
    try:
        os.write(1, b"line\n")
    except OSError:
        os._exit(3)


signal.signal(signal.SIGPIPE, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, speak)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.write(1, b"ready\n")
while True:
    signal.pause()

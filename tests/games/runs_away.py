"""A game that runs away: deaf to SIGTERM, and every 20 ms a new process in a new session takes over from the last one.

It gives up by itself after a minute, so that a test that fails leaves nothing for ever.
"""

import os
import signal
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 60
os.write(1, b"ready\n")
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(0.02)

"""A game that forks without end, deaf to SIGTERM: every process starts others as fast as the kernel lets it.

Meant for a cgroup with a limit of processes (`pids.max`), whose directory is the argument: it goes there first. It
gives up by itself after half a minute, so that a test that fails leaves nothing for ever.
"""

import os
import signal
import sys
import time
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 30
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
os.write(1, b"ready\n")
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        time.sleep(0.001)

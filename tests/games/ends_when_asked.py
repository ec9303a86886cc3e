"""A helper that a server needs while it saves (as Xvfb): on SIGTERM it takes its file away, and ends."""

import signal
import sys
import time
from pathlib import Path

FILE = Path(sys.argv[1])
asked: list[int] = []
signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
FILE.touch()
while not asked:
    time.sleep(0.01)
FILE.unlink()

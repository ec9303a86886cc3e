"""A game that leaves orphans: N grandchildren whose parent is gone, each of which exits 7 a moment later or at once.

Arguments: how many; then optionally `and-exits CODE`, to end while the orphans still do.
"""

import os
import signal
import sys

COUNT = int(sys.argv[1])


def orphan() -> None:
    """Make one grandchild without a parent; it outlives its parent, so that init has to adopt it."""
    parent = os.fork()
    if parent:
        os.waitpid(parent, 0)
        return
    middle = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == middle:
        os.sched_yield()
    os._exit(7)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for _ in range(COUNT):
    orphan()
print("ready", flush=True)
if sys.argv[2:3] == ["and-exits"]:
    sys.exit(int(sys.argv[3]))
while True:
    signal.pause()

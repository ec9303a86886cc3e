"""A console server, as Minecraft is: it keeps its world in memory, and saves it when it is told to `stop` on stdin.

SIGTERM means nothing to it. `console_world.py WORLD_FILE` prints `ready`, builds a block every few milliseconds (a
number a line on stdout), and saves all blocks to WORLD_FILE at `stop`, taking a moment for it.
"""

import os
import selectors
import signal
import sys
import time


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path, blocks = sys.argv[1], 0
    waiting = selectors.SelectSelector()
    waiting.register(0, selectors.EVENT_READ)
    buffer = b""
    print("ready", flush=True)
    while True:
        if waiting.select(0.005):
            data = os.read(0, 4096)
            if not data:
                waiting.unregister(0)
            buffer += data
            print("heard", len(data), "bytes", flush=True)
        if b"\nstop\n" in b"\n" + buffer:
            break
        blocks += 1
        print(blocks, flush=True)
    time.sleep(0.2)  # a large world takes its time
    with open(path + ".part", "w") as file:
        file.write(str(blocks))
    os.rename(path + ".part", path)
    print("saved", flush=True)


main()

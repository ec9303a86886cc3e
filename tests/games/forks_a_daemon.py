"""A game with a daemon that left the group: double fork, own session, deaf to SIGTERM, and holding on to stdout.

With arguments `and-exits CODE` the game itself ends once the daemon is there, and the pipe stays open behind it.
"""

import os
import signal
import sys

told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.write(tell, str(os.getpid()).encode())
    while True:
        signal.pause()
os.wait()
daemon = os.read(told, 20).decode()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", daemon, flush=True)
if sys.argv[1:2] == ["and-exits"]:
    sys.exit(int(sys.argv[2]))
while True:
    signal.pause()

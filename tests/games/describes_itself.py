"""A game that prints what it was given, as one line of JSON: arguments, environment, descriptors, signals, session.

Bytes are printed as latin-1. With a last argument `and-waits` it then waits for SIGTERM and exits 0.
"""

import json
import os
import resource
import signal
import sys

WAIT = sys.argv[-1:] == ["and-waits"]
signal_names = ("SigBlk", "SigIgn", "SigCgt")
with open("/proc/self/status") as status:
    fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
with open("/proc/self/cmdline", "rb") as cmdline:
    arguments = cmdline.read().split(b"\0")[:-1]
descriptors = {}
for name in os.listdir("/proc/self/fd"):
    try:
        descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        continue  # the one listdir itself had open
umask = os.umask(0)
os.umask(umask)
os.write(
    1,
    json.dumps(
        {
            "arguments": [argument.decode("latin-1") for argument in arguments],
            "environment": {k.decode("latin-1"): v.decode("latin-1") for k, v in os.environb.items()},
            "cwd": os.getcwd(),
            "descriptors": descriptors,
            "signals": {name: int(fields[name], 16) for name in signal_names},
            "umask": umask,
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "pgid": os.getpgid(0),
            "sid": os.getsid(0),
        },
    ).encode()
    + b"\n",
)
if WAIT:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.write(1, b"ready\n")
    while True:
        signal.pause()

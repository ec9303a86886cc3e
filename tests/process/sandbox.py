"""Executes a command in a network of its own, with a loopback and an empty `/run`; started through `unshare`.

Usage: `unshare --net --mount python sandbox.py [--occupy PORT]... [--read-only DIRECTORY]... -- COMMAND...`.
An occupied port is listened on by a descriptor that the command inherits, so that it stays taken as long as the command
lives.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP, IFF_RUNNING = 0x1, 0x40

split = sys.argv.index("--")
options = list(zip(sys.argv[1:split:2], sys.argv[2:split:2], strict=True))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14s", b"lo", IFF_UP | IFF_RUNNING, b""))
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
for option, value in options:
    if option == "--read-only":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", value], check=True)
        continue
    occupant = socket.socket()
    occupant.bind(("127.0.0.1", int(value)))
    occupant.listen()
    os.set_inheritable(occupant.detach(), True)
os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])  # noqa: S606 - the command is the caller's, as it is

r"""A game that was made for systemd: it sends its arguments to NOTIFY_SOCKET, one datagram each, and waits for SIGTERM.

`\n` in an argument is a line break. `BARRIER` sends `BARRIER=1` with a pipe, and prints `barrier` when the other end is
closed. It prints `sent` at the end, and the value of WATCHDOG_USEC where it is given.
"""

import array
import os
import signal
import socket
import sys


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(os.environ["NOTIFY_SOCKET"])
        for argument in sys.argv[1:]:
            if argument == "BARRIER":
                read_end, write_end = os.pipe()
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write_end]))
                sock.sendmsg([b"BARRIER=1"], [rights])
                os.close(write_end)
                os.read(read_end, 1)
                print("barrier", flush=True)
            else:
                sock.send(argument.replace("\\n", "\n").encode())
    print("sent", os.environ.get("WATCHDOG_USEC", ""), flush=True)
    while True:
        signal.pause()


main()

"""A launcher, as those that come with engines: it starts the real server and names it with `MAINPID=`.

`leaves` exits at once; `waits` stays, and exits with the server's code and one more. The server prints `serving PID`,
and exits with 9 at SIGTERM, in a session of its own.
"""

import os
import signal
import socket
import sys
import time


def serve() -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
    print("serving", os.getpid(), flush=True)
    while True:
        signal.pause()


def main() -> None:
    server = os.fork()
    if server == 0:
        serve()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(os.environ["NOTIFY_SOCKET"])
        sock.send(f"MAINPID={server}\nREADY=1".encode())
    if sys.argv[1] == "leaves":
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _, status = os.waitpid(server, 0)
    time.sleep(0.1)
    os._exit(os.waitstatus_to_exitcode(status) + 1)


main()

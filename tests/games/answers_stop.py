"""A game that hears every kind of stop, and takes it as its first argument says.

It hears SIGTERM and what HEARS names: `notify` (the stop event by long poll), `stdin` (the line `stop`), `signal`
(SIGINT), `command` (SIGUSR1, from a hook) or `rcon` (`stop` on port RCON_PORT, password `pass-word`). `obeys` leaves at
once; `slow SECONDS` after that long; `ignores` never; `forks` leaves, but a child in a session of its own stays and
ignores SIGTERM; `hangs` acknowledges over HTTP and stays.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import urllib.request

URL = os.environ["AGENT_URL"]
heard = threading.Event()


def poll() -> None:
    while not heard.is_set():
        try:
            with urllib.request.urlopen(f"{URL}/v1/events/stop?wait=60", timeout=120) as response:
                if response.status == 200:
                    heard.set()
        except OSError:
            time.sleep(0.01)


def read() -> None:
    for line in sys.stdin:
        if line == "stop\n":
            heard.set()


def serve_rcon(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as incoming:
            while len(head := incoming.read(4)) == 4:
                data = incoming.read(struct.unpack("<i", head)[0])
                number, kind = struct.unpack("<ii", data[:8])
                good = kind != 3 or data[8:-2] == b"pass-word"
                connection.sendall(struct.pack("<iii", 10, number if good else -1, 2 if kind == 3 else 0) + b"\0\0")
                if kind == 2 and data[8:-2] == b"stop":
                    heard.set()


def take() -> None:
    match sys.argv[1:]:
        case ["obeys"]:
            os._exit(0)
        case ["slow", seconds]:
            time.sleep(float(seconds))
            os._exit(0)
        case ["forks"]:
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                while True:
                    signal.pause()
            os._exit(0)
        case ["hangs"]:
            request = urllib.request.Request(f"{URL}/v1/stop/ack", data=json.dumps({}).encode(), method="POST")
            with urllib.request.urlopen(request, timeout=60):
                pass


def main() -> None:
    hears = os.environ["HEARS"]
    signals = {"signal": signal.SIGINT, "command": signal.SIGUSR1}
    for number in (signal.SIGTERM, signals.get(hears, signal.SIGTERM)):
        signal.signal(number, lambda *_: heard.set())
    if hears == "rcon":
        listening = socket.create_server(("127.0.0.1", int(os.environ["RCON_PORT"])))
        threading.Thread(target=serve_rcon, args=[listening], daemon=True).start()
    elif hears in ("notify", "stdin"):
        threading.Thread(target=poll if hears == "notify" else read, daemon=True).start()
    print("ready", flush=True)
    while not heard.wait(0.02):
        pass
    take()
    while True:
        time.sleep(60)


main()

"""A game that hears every kind of stop, and takes it as its first argument says.

It hears SIGTERM, SIGINT, `stop` on stdin, and the stop event by long poll. `obeys` leaves at once; `slow SECONDS` after
that long; `ignores` never; `forks` leaves, but a child in a session of its own stays and ignores SIGTERM; `hangs`
acknowledges over HTTP and stays.
"""

import json
import os
import signal
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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: heard.set())
    for target in (poll, read):
        threading.Thread(target=target, daemon=True).start()
    print("ready", flush=True)
    while not heard.wait(0.02):
        pass
    take()
    while True:
        time.sleep(60)


main()

"""A game that ignores SIGTERM and waits for the stop event by long poll; what it does then is its first argument.

`leave` exits with 3 at once; `ask SECONDS` acknowledges, asks for more time, and exits with 3 after that; `hang`
acknowledges and goes on for ever; `twice` asks for more time twice, prints both answers, and exits with 3.
"""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["AGENT_URL"]


def call(method: str, path: str, body: object = None) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        status, body = call("GET", "/v1/events/stop?wait=30")
        if status == 200:
            break
    print("heard", json.loads(body)["reason"], flush=True)
    match sys.argv[1:]:
        case ["ask", seconds]:
            print(call("POST", "/v1/stop/ack", {"more_seconds": float(seconds)}), flush=True)
            time.sleep(float(seconds))
        case ["hang"]:
            call("POST", "/v1/stop/ack")
            while True:
                signal.pause()
        case ["twice"]:
            for _ in range(2):
                print("answer", call("POST", "/v1/stop/ack", {"more_seconds": 0.1})[0], flush=True)
    sys.exit(3)


main()

"""A game that ignores SIGTERM and waits for the stop event; what it does then is its first argument.

It hears by long poll, or by what HEARS names: `sse`, or `socket` (JSON-RPC notifications on AGENT_SOCKET).
`leave` exits with 3 at once; `ask SECONDS` acknowledges, asks for more time, and exits with 3 after that; `hang`
acknowledges and goes on for ever; `twice` asks for more time twice, prints both answers, and exits with 3.
"""

import json
import os
import signal
import socket
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


def by_long_poll() -> str:
    print("ready", flush=True)
    while True:
        status, body = call("GET", "/v1/events/stop?wait=30")
        if status == 200:
            return str(json.loads(body)["reason"])


def by_sse() -> str:
    with urllib.request.urlopen(URL + "/v1/events", timeout=60) as response:
        print("ready", flush=True)
        kind = b""
        for line in response:
            name, _, value = line.rstrip().partition(b": ")
            if name == b"event":
                kind = value
            elif name == b"data" and kind == b"stop":
                return str(json.loads(value)["reason"])
    raise AssertionError("the stream ended without a stop")


def by_socket() -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.environ["AGENT_SOCKET"])
        sock.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "subscribe"}\n')
        print("ready", flush=True)
        for line in sock.makefile("rb"):
            params = json.loads(line).get("params", {})
            if params.get("type") == "stop":
                return str(params["data"]["reason"])
    raise AssertionError("the socket was closed without a stop")


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait = {"sse": by_sse, "socket": by_socket}.get(os.environ.get("HEARS", ""), by_long_poll)
    print("heard", wait(), flush=True)
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

"""A server with players, heartbeats and a log, that notes what becomes of it: `lives_a_life.py NOTES [SECONDS]`.

It numbers its lines, notices when one of them took long to write (then the agent has held it up), and writes down when
it heard its stop, in seconds of the monotonic clock. With SECONDS it ends by itself after so many.
"""

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

NOTES = Path(sys.argv[1])
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 3600.0
heard: list[float] = []
worst = 0.0
signal.signal(signal.SIGTERM, lambda *_: heard.append(time.monotonic()))


def call(method: str, path: str, body: object = None) -> None:
    """Calls the agent; one that is starting again answers later, or not any more."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["AGENT_URL"] + path, data, method=method)
    with suppress(OSError, urllib.error.URLError):
        urllib.request.urlopen(request, timeout=60).close()


def report() -> None:
    """Says that it is ready, and who plays, and that it lives."""
    call("POST", "/v1/ready")
    call("PUT", "/v1/players", {"count": 3, "capacity": 8})
    while not heard:
        call("POST", "/v1/health")
        time.sleep(0.1)


threading.Thread(target=report, daemon=True).start()
number = 0
end = time.monotonic() + SECONDS
while not heard and time.monotonic() < end:
    began = time.monotonic()
    os.write(1, b"%09d a line of a log of a server\n" % number)
    worst = max(worst, time.monotonic() - began)
    number += 1
    time.sleep(0.003)
for _ in range(30):
    os.write(1, b"%09d a line while it saves\n" % number)
    number += 1
NOTES.write_text(json.dumps({"lines": number, "worst": worst, "heard": heard[0] if heard else None}))

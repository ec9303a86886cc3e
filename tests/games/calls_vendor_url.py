"""A game that stops itself the vendor's way: DELETE to the injected URL with the injected token.

It prints the status, only then hears SIGTERM, and exits 0. With an argument `wrong-token` it sends another token.
"""

import os
import signal
import sys
import urllib.error
import urllib.request

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
token = "0" * 32 if sys.argv[1:] == ["wrong-token"] else os.environ["ARBITRIUM_DELETE_TOKEN"]
request = urllib.request.Request(
    os.environ["ARBITRIUM_DELETE_URL"],
    method="DELETE",
    headers={"authorization": token},
)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print("status", answer.status, flush=True)
except urllib.error.HTTPError as error:
    with error:
        print("status", error.code, flush=True)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
while True:
    signal.pause()

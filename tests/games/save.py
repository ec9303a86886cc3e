"""A server that saves its world when it hears a signal: `save.py SIGNAL FILE [SECONDS] [hard]`.

It prints while it saves, as servers do, and writes the file at the end. With `hard` a second signal makes it leave at
once, without a world, as servers do that take it for impatience.
"""

import os
import signal
import sys
import time
from pathlib import Path

NAME, FILE = sys.argv[1], Path(sys.argv[2])
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
HARD = "hard" in sys.argv
heard: list[int] = []


def hear(number: int, _frame: object) -> None:
    """Notes the signal; the second one is final for a server that is `hard`."""
    heard.append(number)
    if HARD and len(heard) > 1:
        os._exit(9)


for name in {NAME, "TERM"} if HARD else {NAME}:
    signal.signal(getattr(signal, f"SIG{name}"), hear)
print("serving", flush=True)
while not heard:
    time.sleep(0.01)
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    print("saving", flush=True)
    time.sleep(0.05)
FILE.write_text(",".join(str(number) for number in heard))
print("saved", flush=True)

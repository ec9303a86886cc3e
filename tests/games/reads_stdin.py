"""A game with a console: it answers every line on stdin in capitals, and says `end of input` and exits 0 at its end."""

import os

os.write(1, b"ready\n")
with os.fdopen(0, "rb", buffering=0) as console:
    for line in iter(console.readline, b""):
        os.write(1, line.upper())
os.write(1, b"end of input\n")

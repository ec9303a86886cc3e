"""A game that notes each of its starts in /state and then crashes."""

import sys

with open("/state/starts", "a", encoding="utf-8") as starts:
    starts.write("started\n")
print("ready", flush=True)
sys.exit(3)

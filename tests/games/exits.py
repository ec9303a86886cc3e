"""A game that exits with the code in its first argument: at once, or with `when-told` after it, at a line on stdin."""

import sys

print("ready", flush=True)
if sys.argv[2:] == ["when-told"]:
    sys.stdin.readline()
sys.exit(int(sys.argv[1]))

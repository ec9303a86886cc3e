"""A game that leaks: it takes memory until the kernel has had enough of it."""

import time

print("ready", flush=True)
taken = []
while True:
    taken.append(b"x" * 8 * 1024 * 1024)
    time.sleep(0.01)

"""A game that measures how long each of its writes to stdout takes.

Arguments: where to put the result (JSON), seconds, bytes a second, and bytes of one write.
"""

import json
import os
import sys
import time

result, seconds, rate, size = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
line = b"x" * (size - 1) + b"\n"
took = []
began = time.monotonic()
sent = 0
while (now := time.monotonic()) - began < seconds:
    if sent > (now - began) * rate:
        time.sleep(0.0005)
        continue
    before = time.perf_counter()
    block = memoryview(line)
    while block:
        block = block[os.write(1, block) :]
    took.append(time.perf_counter() - before)
    sent += size
took.sort()
with open(f"{result}.part", "w") as file:
    json.dump(
        {
            "writes": len(took),
            "bytes": sent,
            "p50_ms": took[len(took) // 2] * 1000,
            "p999_ms": took[int(len(took) * 0.999)] * 1000,
            "worst_ms": took[-1] * 1000,
        },
        file,
    )
os.rename(f"{result}.part", result)

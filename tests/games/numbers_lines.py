"""A game that numbers its lines, and notes in the file of its first argument how many it has written.

The second argument is how many lines a second (0: as fast as it can), the third what fills each line up to.
"""

import mmap
import os
import sys
import time

note = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(note, 8)
written = mmap.mmap(note, 8)
rate = int(sys.argv[2])
width = int(sys.argv[3])
began = time.monotonic()
number = 0
while True:
    count = 50 if rate == 0 else max(1, int((time.monotonic() - began) * rate) - number)
    lines = b"".join(b"%09d ".ljust(width, b".") % line + b"\n" for line in range(number, number + count))
    block = memoryview(lines)
    while block:
        block = block[os.write(1, block) :]
    number += count
    written[:] = number.to_bytes(8, "little")
    if rate:
        time.sleep(0.002)

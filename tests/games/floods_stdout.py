"""A game that writes the megabytes in its first argument to stdout, each one different, as fast as it can."""

import os
import sys

for number in range(int(sys.argv[1])):
    block = memoryview(number.to_bytes(8, "little") * (1_000_000 // 8))
    while block:
        block = block[os.write(1, block) :]

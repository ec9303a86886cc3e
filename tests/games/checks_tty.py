"""A game that looks whether it has a terminal, for each of stdin, stdout and stderr, and of what size."""

import os

print("tty", *(os.isatty(fd) for fd in range(3)), flush=True)
if os.isatty(1):
    print("size", *os.get_terminal_size(1), flush=True)

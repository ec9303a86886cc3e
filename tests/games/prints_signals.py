"""A game that prints the number of every signal it gets, and exits at none of them."""

import os
import signal

QUEUE, WAKEUP = os.pipe()
os.set_blocking(WAKEUP, False)
signal.set_wakeup_fd(WAKEUP)
for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}):
    signal.signal(number, lambda *_: None)
os.write(1, b"ready\n")
while True:
    for heard in os.read(QUEUE, 64):
        os.write(1, b"%d\n" % heard)

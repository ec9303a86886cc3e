"""The agent's capture by itself: reads stdin as if it were a game's stdout, passes it on to stdout, and spools it.

    python -m benchmarks._capture_alone SPOOL_DIRECTORY RESULT [SECRET ...]

Makes RESULT.ready when it reads. Puts into RESULT, one a line: bytes, CPU seconds, resident bytes one second after the
first read, and at the end.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from agent.logs.capture import Capture
from agent.logs.redact import Redactor
from agent.logs.spool import Spool

_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Captures until the end of stdin."""
    directory, result, *secrets = sys.argv[1:]
    spool = Spool(directory, 64 << 20)
    capture = Capture(spool, Redactor(secrets), {"stdout": 1})
    early: list[int] = []
    threading.Timer(1.0, lambda: early.append(_resident())).start()
    began = time.process_time()
    capture.start({"stdout": os.dup(0)})
    os.close(0)
    open(f"{result}.ready", "w").close()
    capture.drain(time.monotonic() + 600)
    used = time.process_time() - began
    late = _resident()
    with open(result, "w") as file:
        file.write(f"{capture.counters()['stdout_bytes']}\n{used}\n{early[0] if early else late}\n{late}\n")
    capture.close()
    spool.close(time.monotonic() + 10)


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE


if __name__ == "__main__":
    main()

"""Memory that only the start needed is given back, and nothing else is."""

import subprocess
import sys

from agent import memory

SMAPS = """\
00400000-00c00000 r-xp 00000000 00:1b 123      /opt/arbitrium-agent/libexec/arbitrium-agent
Size:               8192 kB
Anonymous:             0 kB
00c00000-00c10000 r--p 00800000 00:1b 123      /opt/arbitrium-agent/libexec/arbitrium-agent
Anonymous:            64 kB
00c10000-00c20000 rw-p 00810000 00:1b 123      /opt/arbitrium-agent/libexec/arbitrium-agent
Anonymous:             0 kB
01000000-01100000 rw-p 00000000 00:00 0        [heap]
Anonymous:             0 kB
7f0000000000-7f0000100000 r--p 00000000 00:1b 9 /usr/lib/a library with spaces.so
Anonymous:             0 kB
7f0000100000-7f0000200000 r--s 00000000 00:1b 9 /usr/lib/shared.so
Anonymous:             0 kB
7f0000200000-7f0000300000 r-xp 00000000 00:00 0
Anonymous:             0 kB
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
"""


def test_only_what_is_the_same_in_the_file_is_dropped() -> None:
    """Neither what was relocated, nor what can be written, nor what is in no file."""
    assert list(memory.unchanged_files(SMAPS.splitlines())) == [
        (0x00400000, 0x00C00000),
        (0x7F0000000000, 0x7F0000100000),
    ]


def test_a_process_goes_on_with_less() -> None:
    """It works as before. In a process of its own, since the pages are those of the whole interpreter."""
    code = """
import asyncio, decimal, json, re, sqlite3, ssl
from agent import memory
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile"))
before = resident()
dropped = memory.give_back()
after = resident()
assert re.match(r"(\\w+)", "works")[1] == "works" and json.loads("[1]") == [1] and decimal.Decimal("0.1") * 3
async def main():
    await asyncio.sleep(0)
asyncio.run(main())
ssl.create_default_context()
assert memory.give_back() > 0
print(dropped > 0, after < before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "True True\n"


def test_without_proc_nothing_happens() -> None:
    """A container may have none."""
    assert memory.give_back("/none") == 0

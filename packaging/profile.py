"""What the interpreter is optimised for: starting, importing, an event loop, parsing. Run while it is profiled.

The first run of it compiles the modules, the second one loads their bytecode, which is what the agent does.
"""

import asyncio
import importlib
import json
import re
import subprocess
import sys

MODULES = """
argparse ast base64 calendar collections concurrent.futures configparser contextlib contextvars copy csv
ctypes dataclasses datetime decimal difflib email.message email.parser email.policy enum fractions functools
gzip hashlib heapq hmac html http.client http.cookiejar http.cookies http.server inspect io ipaddress json
locale logging logging.handlers mimetypes numbers operator os pathlib pickle platform pprint queue random re
secrets selectors shlex shutil signal socket socketserver ssl statistics string struct subprocess sysconfig
tarfile tempfile textwrap threading time tokenize tomllib traceback types typing unicodedata urllib.parse
urllib.request uuid weakref zipfile zoneinfo
""".split()  # noqa: SIM905 - ninety names in seven lines, not in ninety


async def talk() -> None:
    """Some thousand small messages over a stream, with timers beside them."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps({"echo": json.loads(line), "length": len(line)}).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for number in range(3000):
        writer.write(json.dumps({"number": number, "text": "a" * (number % 50)}).encode() + b"\n")
        await reader.readline()
        if number % 100 == 0:
            await asyncio.wait_for(asyncio.sleep(0), 1)
    writer.close()
    server.close()


def parse() -> int:
    """Regular expressions, formatting and dictionaries."""
    line = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$")
    found: dict[str, float] = {}
    for number in range(20000):
        match = line.match(f'metric_{number % 50}{{label="{number % 7}"}} {number / 3:.3f}')
        if match:
            found[match["name"]] = found.get(match["name"], 0.0) + float(match["value"])
    return len(found)


def main() -> None:
    """All of it, and the start again in processes of their own."""
    for module in MODULES:
        importlib.import_module(module)
    if sys.argv[1:] == ["imports"]:
        return
    asyncio.run(talk())
    parse()
    for _ in range(20):
        subprocess.run([sys.executable, __file__, "imports"], check=True)


if __name__ == "__main__":
    main()

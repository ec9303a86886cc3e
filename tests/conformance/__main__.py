"""Starts an emulator and turns schemathesis loose on it, with all checks on.

Exits with schemathesis's code: 0 only without a failure; 1 as well where an operation never succeeded, since then
little of it was checked. Arguments go to schemathesis (`--max-examples 500`, `--include-operation-id deploy`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from pathlib import Path

from agent.emulator.server import OPERATIONS, Emulator
from agent.emulator.settings import Delays, EmulatorSettings
from tests.conformance.fixtures import FLEETS, Fixtures

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "contract" / "edgegap-api.openapi.yaml"
NEEDS_ENGINE = frozenset({"deleteImageTag"})
"""What cannot succeed without a container engine, and would remove somebody's images with one."""


def report(emulator: Emulator, *, chosen: bool) -> list[str]:
    """Print how often each operation was answered what; returns those that never succeeded.

    Args:
        emulator: after the run.
        chosen: whether the run may have been over some operations only, so that one without an answer was not meant.
    """
    counts = emulator.records.counts
    never = []
    print("operation            answers")
    for operation in sorted(each.id for each in OPERATIONS if each.id not in NEEDS_ENGINE):
        statuses = {status: count for (name, status), count in sorted(counts.items()) if name == operation}
        if chosen and not statuses:
            continue
        print(f"{operation:20} {'  '.join(f'{status}: {count}' for status, count in statuses.items())}")
        if not any(status < 300 for status in statuses):
            never.append(operation)
    return never


async def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    # Every valid webhook of the run is sent to a port where nobody listens.
    logging.getLogger("agent.emulator.webhooks").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as directory:
        fleets, socket = Path(directory, "fleets.toml"), Path(directory, "fixtures.socket")
        fleets.write_text(FLEETS)
        settings = EmulatorSettings(
            delays=Delays().scaled(0.2),
            rate_limits=None,  # a 429 to nearly every request would leave nothing to check
            fleets_file=str(fleets),
            engine="none",
            grace_seconds=1.0,
            # Commands are made up here too, and run: from an empty directory, and none is found on an empty PATH.
            directory=directory,
        )
        environment = {**os.environ, "CONFORMANCE_FIXTURES": str(socket), "CONFORMANCE_TOKEN": settings.token}
        os.environ["PATH"] = directory
        async with Emulator(settings) as emulator:
            async with await asyncio.start_unix_server(Fixtures(emulator).answer, socket):
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
                    *("run", str(DOCUMENT), "--url", emulator.url, "--checks", "all", "--continue-on-failure"),
                    *arguments,
                    env={**environment, "SCHEMATHESIS_HOOKS": "tests.conformance.hooks"},
                    cwd=directory,
                )
                code = await process.wait()
            never = report(emulator, chosen=bool(arguments))
            if never:
                print(f"cannot call this checked: {', '.join(never)} never succeeded; see fixtures.py", file=sys.stderr)
            return code or bool(never)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))

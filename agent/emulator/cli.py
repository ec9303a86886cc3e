"""`arbitrium-agent emulate`: the platform on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable
from datetime import datetime

from agent.command_arguments import checked, factor, seconds
from agent.config.parsers import port
from agent.emulator.deployment import Deployment, Status
from agent.emulator.server import Emulator
from agent.emulator.settings import RATE_LIMITS, Delays, EmulatorSettings
from agent.emulator.versions_file import examine
from agent.terminal_text import safe_lines

DEFAULT_PORT = 8787
DNS = {"live": "pr.edgegap.net", "address": "", "nip": "{ip}.nip.io", "hosts": "pr.edgegap.net"}
"""Domains of deployments by the value of `--dns`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `emulate`."""
    parser.add_argument(
        "versions", nargs="?", metavar="VERSIONS.toml", help="applications, versions, storages to begin with"
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is wrong with VERSIONS.toml, line by line, and end"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=checked(port), default=DEFAULT_PORT, help="port, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--token", help="the organisation's token (default: EDGEGAP_API_TOKEN, else a new one)")
    parser.add_argument("--public-ip", help="address of external ports (default: --host)")
    parser.add_argument(
        "--dns",
        choices=list(DNS),
        default="live",
        help="names of deployments: live (resolve nowhere), address (none), nip (needs the internet), hosts "
        "(prints lines for the hosts file)",
    )
    parser.add_argument("--domain", metavar="DOMAIN", help="what follows the id in such a name, such as localhost")
    parser.add_argument(
        "--tls",
        type=checked(port),
        nargs="?",
        const=443,
        metavar="PORT",
        help="serve HTTPS too, as api.edgegap.com, for clients with that address compiled in (port: 443)",
    )
    parser.add_argument("--tls-directory", metavar="DIR", help="where the authority for --tls is kept")
    parser.add_argument("--strict", action="store_true", help="refuse what would otherwise be ignored with a warning")
    parser.add_argument("--fleets", metavar="FILE.toml", help="private fleets, and the capacity of the cloud")
    parser.add_argument("--state", metavar="FILE", help="keep applications, versions, storages in it over a restart")
    parser.add_argument("--directory", metavar="DIR", help="working directory of process games (default: this one)")
    parser.add_argument(
        "--delays", type=factor, default=1.0, metavar="FACTOR", help="stretch the states; 0 for no delay"
    )
    parser.add_argument(
        "--minute", type=seconds, default=60.0, metavar="SECONDS", help="length of a minute of max_duration"
    )
    parser.add_argument("--grace", type=seconds, metavar="SECONDS", help="instead of every version's own grace")
    parser.add_argument("--games", choices=["auto", "process", "container"], default="auto", help="how games are run")
    parser.add_argument("--engine", choices=["auto", "podman", "docker", "none"], default="auto", help="for containers")
    parser.add_argument(
        "--unknown-id", type=int, choices=[400, 404], default=404, help="status of an unknown deployment"
    )
    parser.add_argument("--check-ports", action="store_true", help="ready only once TCP ports with to_check accept")
    parser.add_argument(
        "--no-memory-limit", action="store_true", help="do not kill games that use more than req_memory"
    )
    parser.add_argument("--no-rate-limits", action="store_true", help="never answer 429 by itself")
    parser.add_argument("--quiet", action="store_true", help="print no states")


def settings_of(args: argparse.Namespace) -> EmulatorSettings:
    """The settings that the options and the environment ask for."""
    token = args.token or os.environ.get("EDGEGAP_API_TOKEN", "").removeprefix("token ").strip() or str(uuid.uuid4())
    public_ip = args.public_ip or ("127.0.0.1" if args.host in {"0.0.0.0", "::", "localhost"} else args.host)  # noqa: S104 - compared, not bound
    return EmulatorSettings(
        domain=args.domain or DNS[args.dns].format(ip=public_ip),
        print_hosts=args.dns == "hosts",
        tls_port=args.tls,
        tls_directory=args.tls_directory,
        strict=args.strict,
        host=args.host,
        port=args.port,
        token=token.removeprefix("token ").strip(),
        public_ip=public_ip,
        delays=Delays().scaled(args.delays),
        grace_seconds=args.grace,
        minute_seconds=args.minute,
        rate_limits=None if args.no_rate_limits else dict(RATE_LIMITS),
        unknown_id_status=args.unknown_id,
        check_ports=args.check_ports,
        games=args.games,
        engine=args.engine,
        directory=args.directory,
        enforce_memory=not args.no_memory_limit,
        state_file=args.state,
        versions_file=args.versions,
        fleets_file=args.fleets,
    )


def check(path: str | None) -> int:
    """Print what is wrong with a versions file; 0 when nothing is, 1 otherwise, 2 without a file."""
    if path is None:
        print("cannot check: no versions file is named; say arbitrium-agent emulate --check FILE", file=sys.stderr)
        return 2
    findings, parsed = examine(path)
    for finding in findings:
        print(safe_lines(finding.shown(path)))
    if parsed is None:
        return 1
    for application in parsed.applications:
        print(f"{application.name}: {', '.join(version.name for version in application.versions) or 'no versions'}")
    return 0


def run(args: argparse.Namespace) -> int:
    """Run the emulator until a signal; returns the exit code."""
    if args.check:
        return check(args.versions)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # What is not HTTP is answered 400; a trace of it for each port scanner and wrong client would bury the rest.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    emulator = Emulator(settings_of(args))
    given = bool(args.token or os.environ.get("EDGEGAP_API_TOKEN"))
    try:
        return asyncio.run(_serve(emulator, show_token=not given, quiet=args.quiet))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1


async def _serve(emulator: Emulator, *, show_token: bool, quiet: bool) -> int:
    """Listen, say where, and close at the first signal; the second one hurries."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def on_signal() -> None:
        if told.is_set():
            emulator.hurry()
        told.set()

    await emulator.start()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        print(f"emulator listening on {emulator.url}", flush=True)
        print(f"  export EDGEGAP_BASE_URL={emulator.url}", flush=True)
        if show_token:
            print(f"  export EDGEGAP_API_TOKEN={emulator.token}", flush=True)
        if emulator.platform.tls_port:
            print(f"HTTPS as api.edgegap.com on port {emulator.platform.tls_port}", flush=True)
            print(f"  trust {emulator.platform.tls_authority}, and add to the hosts file:", flush=True)
            print(f"  {emulator.settings.public_ip} api.edgegap.com", flush=True)
            print("  take both back when you are done: the real platform cannot be reached until then", flush=True)
        if not quiet:
            emulator.platform.watch(Reporter(told.set, hosts=emulator.settings.print_hosts).changed)
        await told.wait()
        running = sum(each.active for each in emulator.platform.deployments.values())
        what = "1 deployment" if running == 1 else f"{running} deployments"
        print(f"stopping {what}; once more to kill at once" if running else "stopped", flush=True)
    finally:
        await emulator.close()
    return 0


class Reporter:
    """Prints a line for every new state of a deployment."""

    def __init__(self, closed: Callable[[], None], *, hosts: bool = False) -> None:
        """Nothing seen yet.

        Args:
            closed: called where nobody reads the lines any more.
            hosts: adds a line for the hosts file.
        """
        self._closed = closed
        self._hosts = hosts
        self._seen: dict[str, tuple[Status, int]] = {}

    def changed(self, deployment: Deployment) -> None:
        """A deployment has changed, perhaps its state."""
        state = (deployment.status, deployment.restart_count)
        if self._seen.get(deployment.id) == state:
            return
        self._seen[deployment.id] = state
        more = ""
        if deployment.status is Status.READY:
            more = "  " + "  ".join(f"{port.name} {deployment.public_ip}:{port.external}" for port in deployment.ports)
            more += f"  restart {deployment.restart_count}" if deployment.restart_count else ""
        elif deployment.status is Status.ERROR:
            more = f"  {deployment.error_detail}"
        elif deployment.status is Status.TERMINATING and deployment.stop_request:
            more = f"  by {deployment.stop_request.by}"
        name = f"{deployment.request.application} {deployment.request.version}"
        if self._hosts and deployment.status is Status.READY and not deployment.restart_count:
            more += f"\n          hosts: {deployment.public_ip} {deployment.fqdn}"
        line = f"{datetime.now():%H:%M:%S}  {deployment.id}  {name}  {deployment.status.value}{more}"
        try:
            print(safe_lines(line), flush=True)
        except BrokenPipeError:
            self._closed()

"""The settings of the emulator."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Literal

RATE_LIMITS = {
    "deploy": 40,
    "deployToFleet": 40,
    "deployV1": 40,
    "deployBeta": 40,
    "getDeployment": 20,
    "listDeployments": 10,
    "listFleetHosts": 10,
}
"""Requests a second that the platform takes from one organisation, by operation (`x-rate-limit-per-second`)."""


@dataclass(frozen=True, kw_only=True)
class Delays:
    """Seconds that a deployment spends in a state before the next one begins."""

    seeking: float = 0.25
    seeked: float = 0.1
    deploying: float = 0.4
    terminating: float = 0.1
    restart: float = 0.5
    """The wait before a game is started again; doubled with every restart, `restart_max` at most."""
    restart_max: float = 30.0

    def scaled(self, factor: float) -> Delays:
        """The same delays, all times `factor`."""
        return Delays(
            seeking=self.seeking * factor,
            seeked=self.seeked * factor,
            deploying=self.deploying * factor,
            terminating=self.terminating * factor,
            restart=self.restart * factor,
            restart_max=self.restart_max * factor,
        )


@dataclass(frozen=True, kw_only=True)
class EmulatorSettings:
    """The emulator's settings; the defaults suit a test.

    `container_path` for a container game is the engine's own affair; `directory` is where process games start.
    """

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one; `Emulator.url` says which."""
    token: str = field(default_factory=lambda: str(uuid.uuid4()), repr=False)
    """The organisation's token, without the `token ` prefix."""
    public_ip: str = "127.0.0.1"
    """What deployments are told, and where their external ports listen."""
    domain: str = "pr.edgegap.net"
    """What follows a deployment's id in its `fqdn`; empty makes the `fqdn` the public address itself."""
    print_hosts: bool = False
    """Whether the command prints a line for the hosts file with every deployment that is ready."""
    tls_port: int | None = None
    """Where HTTPS is served too, with a certificate for the platform's own name; None for nowhere, 0 for a free one."""
    tls_directory: str | None = None
    """Where the authority of that certificate is kept; None for the user's state directory."""
    strict: bool = False
    """Whether a request with members or parameters that nothing reads is refused (400) rather than remarked on."""
    delays: Delays = field(default_factory=Delays)
    grace_seconds: float | None = None
    """Instead of each version's `termination_grace_period_seconds` (5 at least), for tests that cannot wait."""
    minute_seconds: float = 60.0
    """How long a minute of `max_duration` takes."""
    closing_seconds: float = 10.0
    """Longest grace when the emulator itself is closed; a version's own grace can be an hour."""
    rate_limits: dict[str, int] | None = field(default_factory=lambda: dict(RATE_LIMITS))
    """Requests a second by operation id; None switches the limits off."""
    unknown_id_status: Literal[400, 404] = 404
    """What an unknown deployment id is answered. The live API says 400, the contract allows both."""
    external_ports: tuple[int, int] = (30000, 32767)
    """Where external ports are drawn from, both ends included; below Linux's ephemeral range, so that they are free."""
    check_ports: bool = False
    """Whether a TCP port with `to_check` must accept a connection before the deployment is ready."""
    games: Literal["auto", "process", "container"] = "auto"
    """`auto`: a process when the version has a `command`, else a container of its image."""
    engine: Literal["auto", "podman", "docker", "none"] = "auto"
    directory: str | None = None
    """Working directory of process games; None is the emulator's own."""
    enforce_memory: bool = True
    """Whether a process game that uses more than `req_memory` is killed, as the platform's kernel would."""
    sample_seconds: float = 1.0
    """How often CPU, memory, network and disk are measured."""
    state_file: str | None = None
    """Keeps applications, versions and storages over a restart."""
    versions_file: str | None = None
    """TOML with applications, versions and storages to begin with; see `docs/emulator.md`."""
    fleets_file: str | None = None
    """TOML with private fleets and the cloud's capacity."""
    log_bytes: int = 16 * 1024 * 1024
    """Most output kept for one deployment; the oldest goes first."""
    keep_terminated: int = 500
    """How many terminated deployments are remembered."""

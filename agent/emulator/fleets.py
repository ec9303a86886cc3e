"""Hosts: those of private fleets, and the cloud for the overflow."""

from __future__ import annotations

import secrets
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.emulator.errors import CannotPlace
from agent.emulator.models import VersionBody
from agent.emulator.places import PLACES, Place, nearest


class Beacon(BaseModel):
    """A host's ping beacon."""

    model_config = ConfigDict(strict=True, extra="forbid")
    ip_address: str
    tcp_port: Annotated[int, Field(ge=0, le=65535)]
    udp_port: Annotated[int, Field(ge=0, le=65535)]


@dataclass
class Host:
    """A machine that deployments run on, and what of it is taken."""

    host_id: str
    place: Place
    fleet: str = ""
    """Empty for the cloud."""
    status: Literal["PENDING", "ACTIVE"] = "ACTIVE"
    ip_address: str | None = None
    cpu_units: int | None = None
    """1024 for a vCPU; None for no limit."""
    memory_mb: int | None = None
    base_clock_speed_mhz: int = 2000
    beacon: Beacon | None = None
    radius_km: float = 100.0
    desired_host_count: int = 1
    allocated_cpu_units: int = 0
    allocated_memory_mb: int = 0
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))

    def fits(self, version: VersionBody) -> bool:
        """Whether a deployment of the version has room."""
        return (
            self.status == "ACTIVE"
            and (self.cpu_units is None or self.allocated_cpu_units + version.req_cpu <= self.cpu_units)
            and (self.memory_mb is None or self.allocated_memory_mb + version.req_memory <= self.memory_mb)
        )

    def take(self, version: VersionBody, sign: int = 1) -> None:
        """Account for a deployment; with `sign` -1, give its room back."""
        self.allocated_cpu_units += sign * version.req_cpu
        self.allocated_memory_mb += sign * version.req_memory
        self.updated = datetime.now(UTC)

    def as_json(self) -> dict[str, Any]:
        """The contract's `Host`."""
        cpu, memory = self.cpu_units or 0, self.memory_mb or 0
        return {
            "host_id": self.host_id,
            "status": self.status,
            "ip_address": self.ip_address,
            "latitude": self.place.latitude,
            "longitude": self.place.longitude,
            "city": self.place.city,
            "country": self.place.country,
            "continent": self.place.continent,
            "allocated_cpu_units": self.allocated_cpu_units,
            "allocated_memory_mb": self.allocated_memory_mb,
            "allocatable_cpu_units": cpu - self.allocated_cpu_units,
            "allocatable_memory_mb": memory - self.allocated_memory_mb,
            "beacon": self.beacon.model_dump() if self.beacon else None,
            "created_at": self.created.isoformat().replace("+00:00", "Z"),
            "updated_at": self.updated.isoformat().replace("+00:00", "Z"),
            "centroid": {
                "label": self.place.city,
                "latitude": self.place.latitude,
                "longitude": self.place.longitude,
                "radius_km": self.radius_km,
                "desired_host_count": self.desired_host_count,
            },
            "delete_schedule": None,
            "fleet_host_specifications": {
                "cpu_units": cpu,
                "memory_mb": memory,
                "base_clock_speed_mhz": self.base_clock_speed_mhz,
            },
        }


class _HostEntry(BaseModel):
    """`[[fleets.NAME.hosts]]` of a fleets file."""

    model_config = ConfigDict(strict=True, extra="forbid")
    host_id: str = Field(min_length=1)
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    status: Literal["PENDING", "ACTIVE"] = "ACTIVE"
    ip_address: str | None = None
    cpu_units: int = Field(ge=0)
    memory_mb: int = Field(ge=0)
    base_clock_speed_mhz: int = Field(default=2000, ge=1)
    beacon: Beacon | None = None


class _FleetEntry(BaseModel):
    """`[fleets.NAME]`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    overflow: bool = True
    hosts: list[_HostEntry] = []


class _CloudEntry(BaseModel):
    """`[cloud]`: its capacity; without one it never fills."""

    model_config = ConfigDict(strict=True, extra="forbid")
    cpu_units: int | None = Field(default=None, ge=0)
    memory_mb: int | None = Field(default=None, ge=0)


class _FleetsFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    cloud: _CloudEntry = _CloudEntry()
    fleets: dict[str, _FleetEntry] = {}


class Hosts:
    """All hosts there are.

    Args:
        public_ip: of the cloud's hosts.
    """

    def __init__(self, public_ip: str) -> None:
        """See the class."""
        self._public_ip = public_ip
        self._cloud_taken = Host("cloud", PLACES[0])
        self._fleets: dict[str, list[Host]] = {}
        self._overflow: dict[str, bool] = {}

    def load(self, path: str) -> None:
        """Read a fleets file.

        Raises:
            ValueError: the file is not one; the message has every mistake.
        """
        try:
            with open(path, "rb") as file:
                parsed = _FleetsFile.model_validate(tomllib.load(file))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"cannot read the fleets file {path}: {error}") from None
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
            raise ValueError(f"cannot use the fleets file {path}: {faults}") from None
        self._cloud_taken.cpu_units = parsed.cloud.cpu_units
        self._cloud_taken.memory_mb = parsed.cloud.memory_mb
        for name, fleet in parsed.fleets.items():
            self._overflow[name] = fleet.overflow
            self._fleets[name] = [
                Host(
                    host_id=entry.host_id,
                    place=_place(entry),
                    fleet=name,
                    status=entry.status,
                    ip_address=entry.ip_address or self._public_ip,
                    cpu_units=entry.cpu_units,
                    memory_mb=entry.memory_mb,
                    base_clock_speed_mhz=entry.base_clock_speed_mhz,
                    beacon=entry.beacon,
                )
                for entry in fleet.hosts
            ]

    def of_fleet(self, name: str) -> list[Host] | None:
        """A fleet's hosts; None when there is no such fleet."""
        return self._fleets.get(name)

    def has_room(self, version: VersionBody) -> bool:
        """Whether the cloud could take a deployment of the version."""
        return self._cloud_taken.fits(version)

    def place_in_cloud(self, version: VersionBody, place: Place) -> Host:
        """Room in the cloud, near a place.

        Raises:
            CannotPlace: the cloud is full.
        """
        if not self._cloud_taken.fits(version):
            raise CannotPlace(
                "cannot allocate a server: the cloud has no room left; stop a deployment, or ask for less"
            )
        self._cloud_taken.take(version)
        slug = place.city.lower().replace(" ", "-")
        number = secrets.token_hex(3)
        return Host(f"{slug}-edge-od-{number[:4]}-{number}", place, ip_address=self._public_ip)

    def place_on_hosts(self, version: VersionBody, host_ids: list[str], place: Place) -> Host:
        """Room on the first of these private hosts that has it, else in the cloud.

        Raises:
            CannotPlace: neither has.
        """
        known = [
            host for host_id in host_ids for fleet in self._fleets.values() for host in fleet if host.host_id == host_id
        ]
        for host in known:
            if host.fits(version):
                host.take(version)
                return host
        if known and not any(self._overflow[host.fleet] for host in known):
            raise CannotPlace(
                "cannot allocate a server: no private host has room, and their fleet does not overflow to cloud; "
                "stop a deployment, or name other hosts"
            )
        return self.place_in_cloud(version, place)

    def give_back(self, host: Host, version: VersionBody) -> None:
        """A deployment has left its host."""
        (host if host.fleet else self._cloud_taken).take(version, -1)


def _place(entry: _HostEntry) -> Place:
    """A host's city: by name where the table has it, else the nearest to its coordinates."""
    named = [place for place in PLACES if entry.city and place.city.lower() == entry.city.lower()]
    if named:
        return named[0]
    if entry.latitude is None or entry.longitude is None:
        return PLACES[0]
    near = nearest([(entry.latitude, entry.longitude)])
    city = entry.city or near.city
    return Place(
        city, near.country, near.continent, near.administrative_division, near.timezone, entry.latitude, entry.longitude
    )

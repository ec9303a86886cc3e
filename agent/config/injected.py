"""What the platform injects: `ARBITRIUM_*` and the matchmaker's `MM_*`, parsed once into one typed value.

Any of the variables may be missing, empty or malformed (outside the platform all of them are missing). This never
raises: each variable that cannot be used is reported by name, and the rest is used. Secret values, including the delete
URL with its stop key, are separate in `Secrets`, so that a `Deployment` can be shown to anybody.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import JsonValue, SecretStr

from agent.config.game_ports import (
    PORT_VARIABLE,
    PORTS_MAPPING,
    injected_text,
    name_in_variables,
    no_constant,
    port_number,
)
from agent.errors import Problem
from agent.record import Record, replace

T = TypeVar("T")

DELETE_URL = "ARBITRIUM_DELETE_URL"
DELETE_TOKEN = "ARBITRIUM_DELETE_TOKEN"  # noqa: S105 - the name of a variable
CONTEXT_URL = "ARBITRIUM_CONTEXT_URL"
CONTEXT_TOKEN = "ARBITRIUM_CONTEXT_TOKEN"  # noqa: S105 - the name of a variable
REQUEST_ID = "ARBITRIUM_REQUEST_ID"

# The consequence if a variable is missing on the platform. Other variables are optional: the newest reference does not
# list them, or clients work without them.
EXPECTED = {
    DELETE_URL: "the self-stop is off",
    DELETE_TOKEN: "the self-stop is off",
    PORTS_MAPPING: "ports are known from the ARBITRIUM_PORT_* variables only",
    "ARBITRIUM_PUBLIC_IP": "the public address is not known",
    "ARBITRIUM_DEPLOYMENT_LOCATION": "the location is not known",
}


# Deeper JSON is not used: it could not be shown, since what writes it has a limit as well.
_DEEPEST = 100


class PortMapping(Record):
    """One port of the version: where the game listens, and where players reach it."""

    name: str
    internal: int
    external: int | None = None
    protocol: str | None = None
    tls_upgrade: bool | None = None
    link: str | None = None
    proxy: JsonValue = None


class Location(Record):
    """Where the deployment runs; degrees of latitude and longitude may be missing."""

    city: str | None = None
    country: str | None = None
    continent: str | None = None
    administrative_division: str | None = None
    timezone: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class Beacon(Record):
    """The host's ping beacon."""

    enabled: bool | None = None
    public_ip: str | None = None
    port_udp_external: int | None = None
    port_tcp_external: int | None = None


class Match(Record):
    """What the matchmaker injected.

    Attributes:
        tickets: `MM_TICKET_<id>` by id.
    """

    match_id: str | None
    profile: JsonValue
    ticket_ids: tuple[str, ...]
    tickets: dict[str, JsonValue]

    @property
    def expected_players(self) -> int | None:
        """How many players the match was made for, or None without a matchmaker."""
        return len(self.ticket_ids) or None


class Deployment(Record):
    """The deployment of this container. Nothing in it is secret; None means unknown.

    Attributes:
        request_id: the deployment's id.
        tags: the tags at its creation; later ones are not included.
        ports: by name.
        vcpu_units: 1024 is one virtual CPU.
        memory_mb: memory in MB.
        host_base_clock_frequency: MHz.
    """

    request_id: str | None
    public_ip: str | None
    host_id: str | None
    tags: tuple[str, ...]
    location: Location | None
    ports: dict[str, PortMapping]
    vcpu_units: int | None
    memory_mb: int | None
    host_base_clock_frequency: int | None
    host_in_private_fleet: bool | None
    private_fleet_id: str | None
    beacon: Beacon | None
    match: Match

    def document(self) -> dict[str, JsonValue]:
        """All of it as a JSON object."""
        return {name: _document(getattr(self, name)) for name in self.fields}

    @property
    def on_platform(self) -> bool:
        """Whether this seems to be a deployment on the platform."""
        return self.request_id is not None

    @property
    def fqdn(self) -> str | None:
        """Its name, as the platform builds it from the id."""
        return f"{self.request_id}.pr.edgegap.net" if self.request_id else None


class Secrets(Record):
    """Injected values that must never be shown. The URLs contain keys in their paths."""

    delete_url: SecretStr | None = None
    delete_token: SecretStr | None = None
    context_url: SecretStr | None = None
    context_token: SecretStr | None = None

    @property
    def can_self_stop(self) -> bool:
        """Whether the values for a self-stop are present."""
        return self.delete_url is not None and self.delete_token is not None


class Injected(Record):
    """The result of `parse`: the deployment, its secrets, and the problems."""

    deployment: Deployment
    secrets: Secrets
    problems: tuple[Problem, ...]


def _document(value: Any) -> JsonValue:
    if isinstance(value, Record):
        return {name: _document(getattr(value, name)) for name in value.fields}
    if isinstance(value, dict):
        return {name: _document(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_document(each) for each in value]
    return value  # type: ignore[no-any-return]  # text, a number, or JSON already


def parse(environ: Mapping[str, str]) -> Injected:
    """Reads the injected variables.

    Args:
        environ: the environment of the container.

    Returns:
        The usable values, and one problem for each invalid variable. Never raises. On the platform (with an
        `ARBITRIUM_REQUEST_ID`), a missing variable that it always injects is also a problem.

    Source of names and forms: the vendor's reference for injected variables, and what its own clients read.
    """
    reader = _Reader(environ)
    deployment = Deployment(
        request_id=reader.take(REQUEST_ID, _name),
        public_ip=reader.take("ARBITRIUM_PUBLIC_IP", _address),
        host_id=reader.take("ARBITRIUM_HOST_ID", _text),
        tags=reader.take("ARBITRIUM_DEPLOYMENT_TAGS", _list) or (),
        location=reader.take("ARBITRIUM_DEPLOYMENT_LOCATION", _location),
        ports=_ports(reader),
        vcpu_units=reader.take("ARBITRIUM_DEPLOYMENT_VCPU_UNITS", _whole),
        memory_mb=reader.take("ARBITRIUM_DEPLOYMENT_MEMORY_MB", _whole),
        host_base_clock_frequency=reader.take("ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY", _whole),
        host_in_private_fleet=reader.take("ARBITRIUM_HOST_IN_PRIVATE_FLEET", _flag),
        private_fleet_id=reader.take("ARBITRIUM_PRIVATE_FLEET_ID", _text),
        beacon=_beacon(reader),
        match=_match(reader),
    )
    secrets = Secrets(
        delete_url=reader.take(DELETE_URL, _url, secret=True),
        delete_token=reader.take(DELETE_TOKEN, _token, secret=True),
        context_url=reader.take(CONTEXT_URL, _url, secret=True),
        context_token=reader.take(CONTEXT_TOKEN, _token, secret=True),
    )
    if deployment.on_platform:
        for name, consequence in EXPECTED.items():
            if not environ.get(name, "").strip():
                reader.problems.append(Problem(name, None, f"is not there, so that {consequence}"))
    return Injected(deployment=deployment, secrets=secrets, problems=tuple(reader.problems))


class _PartlyUsableError(ValueError):
    """An error that also carries the part of the value that could be used."""

    def __init__(self, message: str, value: Any) -> None:
        super().__init__(message)
        self.value = value


class _Reader:
    """Reads variables one by one and records the invalid ones."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[Problem] = []

    def take(self, name: str, convert: Callable[[str], T], *, secret: bool = False) -> T | None:
        """The value of a variable, or None if it is missing, empty or (reported) malformed."""
        raw = injected_text(self.environ, name)
        if not raw:
            return None
        try:
            return convert(raw)
        except _PartlyUsableError as wrong:
            self.problems.append(Problem(name, raw, str(wrong)))
            return wrong.value  # type: ignore[no-any-return]  # made by `convert`, so of its type
        except (ValueError, RecursionError) as wrong:
            self.problems.append(Problem(name, None if secret else raw, str(wrong)))
            return None


def _text(raw: str) -> str:
    if "\0" in raw or "\n" in raw:
        raise ValueError("takes one line of text")
    return raw


def _name(raw: str) -> str:
    # It becomes part of log keys and label values; the platform's own are 12 hex digits.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", raw):
        raise ValueError("takes a deployment id, such as 23c01225b99d")
    return raw


def _token(raw: str) -> SecretStr:
    # It becomes a header: other characters could not be sent.
    if not raw.isascii() or not raw.isprintable():
        raise ValueError("takes a token of printable ASCII characters")
    return SecretStr(raw)


def _url(raw: str) -> SecretStr:
    try:
        parts = urlsplit(raw)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise ValueError("takes an http or https URL")
    return SecretStr(raw)


def _address(raw: str) -> str:
    try:
        return str(ipaddress.ip_address(raw))
    except ValueError:
        raise ValueError("takes an IP address") from None


def _whole(raw: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", raw):
        raise ValueError("takes a whole number")
    return int(raw)


def _flag(raw: str) -> bool:
    if raw.lower() not in ("true", "false"):
        raise ValueError("takes true or false")
    return raw.lower() == "true"


def _list(raw: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in raw.split(",") if tag.strip())


def _json(raw: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(raw, parse_constant=no_constant)
    except ValueError:
        raise ValueError("takes JSON") from None
    return _shown(value, _DEEPEST)


def _shown(value: JsonValue, levels: int) -> JsonValue:
    """The value as it can be written again: JSON may spell half of a character, and numbers that are no JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, dict | list):
        return value
    if not levels:
        raise ValueError(f"takes JSON of at most {_DEEPEST} levels")
    if isinstance(value, dict):
        return {str(_shown(name, 1)): _shown(each, levels - 1) for name, each in value.items()}
    return [_shown(each, levels - 1) for each in value]


def _object(raw: str) -> dict[str, Any]:
    value = _json(raw)
    if not isinstance(value, dict):
        raise ValueError("takes a JSON object")
    return value


def _location(raw: str) -> Location:
    given = _object(raw)
    usable: dict[str, Any] = {}
    unusable: list[str] = []
    for name in Location.fields:
        if given.get(name) is None:
            continue
        value = _degrees(given[name]) if name in ("latitude", "longitude") else given[name]
        if isinstance(value, float if name in ("latitude", "longitude") else str):
            usable[name] = value
        else:
            unusable.append(name)
    location = Location(**usable)
    if unusable:
        raise _PartlyUsableError(f"takes text and degrees; not used: {', '.join(unusable)}", location)
    return location


def _degrees(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if -360 <= number <= 360 else None


def _ports(reader: _Reader) -> dict[str, PortMapping]:
    """The mapping, completed by the variables of each port; `game_ports` finds the same without the records."""
    ports = reader.take(PORTS_MAPPING, _mapping) or {}
    for name, given in _port_variables(reader).items():
        known = next((port for port in ports.values() if name_in_variables(port.name) == name.upper()), None)
        if known is None and "internal" in given:
            ports[name.lower()] = PortMapping(name=name.lower(), **given)
        elif known is not None:
            missing = {key: value for key, value in given.items() if getattr(known, key) is None}
            ports[known.name] = replace(known, **missing)
    return ports


def _port_variables(reader: _Reader) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for variable in sorted(reader.environ):
        if parts := PORT_VARIABLE.fullmatch(variable):
            what = parts["what"].lower()
            value = reader.take(variable, _text if what == "protocol" else port_number)
            if value is not None:
                found.setdefault(parts["name"], {})[what] = value
    return found


def _mapping(raw: str) -> dict[str, PortMapping]:
    """`{"ports": {name: {...}}}`; older versions key by the internal port's number and may have no names."""
    given = _object(raw)
    ports = given.get("ports", given)
    if not isinstance(ports, dict):
        raise ValueError('takes a JSON object with an object under "ports"')
    found: dict[str, PortMapping] = {}
    unusable: list[str] = []
    for key, port in ports.items():
        try:
            mapped = _port(key, port)
        except ValueError:
            unusable.append(repr(key))
        else:
            found[mapped.name] = mapped
    if unusable:
        raise _PartlyUsableError(
            f"takes an object with port numbers from 0 to 65535 for each port; not used: {', '.join(unusable)}", found
        )
    return found


def _port(key: str, port: Any) -> PortMapping:
    if not isinstance(port, dict):
        raise ValueError("takes an object")
    name = port.get("name")
    return PortMapping(
        name=name if isinstance(name, str) and name else key,
        internal=port_number(str(port.get("internal", key))),
        external=None if port.get("external") is None else port_number(str(port["external"])),
        protocol=port["protocol"] if isinstance(port.get("protocol"), str) else None,
        tls_upgrade=port["tls_upgrade"] if isinstance(port.get("tls_upgrade"), bool) else None,
        link=port["link"] if isinstance(port.get("link"), str) else None,
        proxy=port.get("proxy"),
    )


def _beacon(reader: _Reader) -> Beacon | None:
    beacon = Beacon(
        enabled=reader.take("ARBITRIUM_HOST_BEACON_ENABLED", _flag),
        public_ip=reader.take("ARBITRIUM_HOST_BEACON_PUBLIC_IP", _address),
        port_udp_external=reader.take("ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL", port_number),
        port_tcp_external=reader.take("ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL", port_number),
    )
    return beacon if beacon != Beacon() else None


def _match(reader: _Reader) -> Match:
    ids = reader.take("MM_TICKET_IDS", _ticket_ids) or ()
    tickets: dict[str, JsonValue] = {
        str(_shown(name.removeprefix("MM_TICKET_"), 1)): ticket
        for name in sorted(reader.environ)
        if name.startswith("MM_TICKET_")
        and name != "MM_TICKET_IDS"
        and (ticket := reader.take(name, _json)) is not None
    }
    return Match(
        match_id=reader.take("MM_MATCH_ID", _text),
        profile=reader.take("MM_MATCH_PROFILE", _json_or_text),
        ticket_ids=ids,
        tickets=tickets,
    )


def _json_or_text(raw: str) -> JsonValue:
    try:
        return _json(raw)
    except ValueError:
        return raw


def _ticket_ids(raw: str) -> tuple[str, ...]:
    given = _json(raw)
    if not isinstance(given, list) or not all(isinstance(ticket, str) for ticket in given):
        raise ValueError("takes a JSON list of ticket ids")
    return tuple(str(ticket) for ticket in given)

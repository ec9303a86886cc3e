"""Deployments as Prometheus targets: which address, which labels. Pure.

HTTP service discovery and `file_sd` share one form: a list of `{"targets": [...], "labels": {...}}`, all values text
(https://prometheus.io/docs/prometheus/latest/http_sd/). Labels that begin with `__meta_` are there for
relabelling and are dropped after it; the others stay on every series of the target.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent.edgegap.models import DeploymentListItem, DeploymentStatus, Port

Address: TypeAlias = Literal["auto", "ip", "fqdn"]
Group: TypeAlias = dict[str, object]

META = "__meta_edgegap_"
_ENCRYPTED = frozenset({"HTTPS", "WSS"})
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_KEY_VALUE = re.compile(r"(?P<name>[^=:]+)[=:](?P<value>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What becomes a target.

    Attributes:
        ports: names or internal numbers of ports; the first one that a deployment has counts.
        address: `ip` and `fqdn` as they say; `auto` takes the name where the port is encrypted, because a certificate
            is for a name, and the IP address elsewhere, because it needs no look-up.
        scheme: how the port is scraped where the platform does not encrypt it: `http`, or `https` where the agent does.
        path: of the metrics.
    """

    ports: Sequence[str] = ("metrics", "9464")
    address: Address = "auto"
    scheme: str = "http"
    path: str = "/metrics"


def port_of(ports: dict[str, Port], wanted: Sequence[str]) -> Port | None:
    """The port to scrape: by name, or by the number it has in the container; None where there is none outside."""
    for name in wanted:
        for key, port in ports.items():
            if port.external is not None and name in (key, port.name, str(port.internal)):
                return port
    return None


def group(item: DeploymentListItem, facts: DeploymentStatus | None, wanted: Wanted) -> Group | None:
    """One deployment as a target group.

    Args:
        item: as it was listed.
        facts: its status, which has what lists leave out (application, version, place); None where it is not known.
        wanted: which port, and how.

    Returns:
        None where it has no such port, or no address yet.
    """
    port = port_of(item.ports, wanted.ports)
    if port is None:
        return None
    encrypted = port.tls_upgrade or port.protocol.upper() in _ENCRYPTED
    scheme = "https" if encrypted else wanted.scheme
    by_name = wanted.address == "fqdn" or (wanted.address == "auto" and scheme == "https")
    host = (item.fqdn or item.public_ip) if by_name else (item.public_ip or item.fqdn)
    if not host:
        return None
    if ":" in host:
        host = f"[{host}]"
    place = facts.location if facts is not None else None
    known = {
        "deployment": item.request_id,
        "application": facts.app_name if facts is not None else "",
        "app_version": facts.app_version if facts is not None else "",
        "city": place.city if place is not None else "",
        "country": place.country if place is not None else "",
        "continent": place.continent if place is not None else "",
    }
    about = {
        "request_id": item.request_id,
        "fqdn": item.fqdn,
        "public_ip": item.public_ip,
        "ready": str(item.ready).lower(),
        "port_name": port.name,
        "administrative_division": place.administrative_division if place is not None else "",
        "latitude": _number(place.latitude) if place is not None else "",
        "longitude": _number(place.longitude) if place is not None else "",
        # With a comma at both ends, `.*,ranked,.*` matches a tag wherever it stands, and no part of another.
        "tags": f",{','.join(sorted(item.tags))}," if item.tags else "",
    }
    labels = {name: value for name, value in known.items() if value}
    labels |= {META + name: value for name, value in about.items() if value}
    for tag in sorted(item.tags):
        name, value = _tag(tag)
        labels.setdefault(f"{META}tag_{name}", value)
    labels["__scheme__"] = scheme
    labels["__metrics_path__"] = wanted.path
    return {"targets": [f"{host}:{port.external}"], "labels": labels}


def groups(
    items: Iterable[DeploymentListItem], facts: dict[str, DeploymentStatus | None], wanted: Wanted
) -> list[Group]:
    """All deployments that are targets, in the order of their ids, so that what has not changed looks the same."""
    found = {item.request_id: group(item, facts.get(item.request_id), wanted) for item in items}
    return [one for _, one in sorted(found.items()) if one is not None]


def _tag(tag: str) -> tuple[str, str]:
    """Name and value of a tag's label: `mode=ranked` and `mode:ranked` have both, any other has the value `true`."""
    match = _KEY_VALUE.fullmatch(tag)
    name, value = (match["name"], match["value"]) if match is not None else (tag, "true")
    return _NO_LABEL.sub("_", name), value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"

"""The vendor's operations that the emulator does not serve: the error says so, instead of "not found"."""

from __future__ import annotations

import re

_ANY = ("GET", "POST", "PUT", "PATCH", "DELETE")
UNSERVED: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("GET",), r"/v1/ip/[^/]+/lookup", "the look-up of an address"),
    (("POST",), r"/v1/ips/lookup", "the look-up of addresses"),
    (_ANY, r"/v1/deployment/[^/]+/custom/sessions?(/.*)?", "custom sessions"),
    (_ANY, r"/v1/sessions?([/:].*)?", "sessions"),
    (_ANY, r"/v1/fleets?([/:].*)?", "fleets of the first version"),
    (_ANY, r"/v1/lobbies([/:].*)?", "lobbies"),
    (_ANY, r"/v1/aom/.*", "the managed matchmaker"),
    (_ANY, r"/v1/(matchmakers?|managed-services?|server-browsers?|smart-fleets?)([/:].*)?", "managed services"),
    (_ANY, r"/v1/(active-)?telemetry([/:].*)?", "telemetry"),
    (_ANY, r"/v1/metrics/.*", "metrics of anything but a deployment"),
    (("GET",), r"/monitor", "monitoring"),
    (_ANY, r"/v1/(organizations?|users?|tokens?|wizard)([/:].*)?", "the dashboard's own calls"),
    (_ANY, r"/v1/container-registry([/:].*)?", "this call of the container registry"),
    (_ANY, r"/v1/private-fleets?([/:].*)?", "private fleets of the first version"),
    (_ANY, r"/v2/private-fleets?([/:].*)?", "this call of private fleets"),
    (_ANY, r"/v2/.*", "this call of the second version"),
    (_ANY, r"/beta/.*", "this call of the beta version"),
)
"""Methods, path, and what it is: from the vendor's documents of 2024 and 2026."""


def unserved(method: str, path: str) -> str:
    """What the platform does with a request that the emulator does not serve; empty where nobody knows it."""
    path = re.sub("/+", "/", path)
    return next((name for methods, pattern, name in UNSERVED if method in methods and re.fullmatch(pattern, path)), "")

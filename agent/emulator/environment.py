"""The environment of a deployment's game: the platform's variables and the user's, and none of the emulator's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from agent.emulator.models import DeploymentVariable, InjectedVariable

if TYPE_CHECKING:
    from agent.emulator.deployment import Deployment

NOT_INHERITED = ("ARBITRIUM_", "AGENT_", "MM_", "EDGEGAP_", "NOTIFY_")
"""Variables of the emulator's own environment that would make a process game believe something wrong."""


def sanitised(key: str) -> str:
    """A key as the platform injects it: letters, digits and underscores, and no digit first."""
    key = re.sub(r"[^A-Za-z0-9_]", "_", key.strip())
    return f"_{key}" if key[:1].isdigit() else key


def merged(*layers: Iterable[InjectedVariable | DeploymentVariable]) -> dict[str, str]:
    """The user's variables: the version's, then the deployment's over them."""
    return {sanitised(variable.key): variable.value for layer in layers for variable in layer}


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process game keeps of the emulator's environment (a container keeps nothing)."""
    return {name: value for name, value in environment.items() if not name.startswith(NOT_INHERITED)}


def injected(deployment: Deployment, base_url: str) -> dict[str, str]:
    """The platform's own variables, in the forms of its reference.

    Args:
        deployment: placed, and with its ports allocated.
        base_url: the emulator's, for the URLs that the game calls back.
    """
    host, location = deployment.host, deployment.location
    assert host is not None
    assert location is not None
    beacon = host.beacon
    variables = {
        "ARBITRIUM_REQUEST_ID": deployment.id,
        "ARBITRIUM_DELETE_URL": f"{base_url}/v1/self/stop/{deployment.id}/{deployment.stop_key}",
        "ARBITRIUM_DELETE_TOKEN": deployment.delete_token,
        "ARBITRIUM_CONTEXT_URL": f"{base_url}/v1/context/{deployment.id}/{deployment.security_number}",
        "ARBITRIUM_CONTEXT_TOKEN": deployment.context_token,
        "ARBITRIUM_PUBLIC_IP": deployment.public_ip,
        "ARBITRIUM_HOST_ID": host.host_id,
        "ARBITRIUM_DEPLOYMENT_TAGS": ",".join(deployment.tags),
        "ARBITRIUM_DEPLOYMENT_LOCATION": json.dumps(location.as_json(), ensure_ascii=False),
        "ARBITRIUM_DEPLOYMENT_VCPU_UNITS": str(deployment.version.req_cpu),
        "ARBITRIUM_DEPLOYMENT_MEMORY_MB": str(deployment.version.req_memory),
        "ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY": str(host.base_clock_speed_mhz),
        "ARBITRIUM_HOST_IN_PRIVATE_FLEET": "true" if host.fleet else "false",
        "ARBITRIUM_PRIVATE_FLEET_ID": host.fleet or "PUBLIC_CLOUD",
        "ARBITRIUM_HOST_BEACON_ENABLED": "true" if beacon else "false",
        "ARBITRIUM_HOST_BEACON_PUBLIC_IP": beacon.ip_address if beacon else "",
        "ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL": str(beacon.udp_port) if beacon else "",
        "ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL": str(beacon.tcp_port) if beacon else "",
    }
    ports = {}
    for port in deployment.ports:
        ports[port.name] = {
            "name": port.name,
            "internal": port.internal,
            "external": port.external,
            "protocol": port.protocol,
            "tls_upgrade": port.tls_upgrade,
            "link": port.link(deployment.fqdn),
            "proxy": None,
        }
        prefix = f"ARBITRIUM_PORT_{re.sub(r'[^A-Za-z0-9_]', '_', port.name).upper()}"
        variables[f"{prefix}_INTERNAL"] = str(port.internal)
        variables[f"{prefix}_EXTERNAL"] = str(port.external)
        variables[f"{prefix}_PROTOCOL"] = port.protocol
    variables["ARBITRIUM_PORTS_MAPPING"] = json.dumps({"ports": ports}, ensure_ascii=False)
    return variables

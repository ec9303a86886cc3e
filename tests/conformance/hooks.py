"""Loaded by schemathesis: lets every second valid request name something that exists.

Ids that a schema cannot know (deployments, their tokens and stop keys, applications, a fleet) would be made up and
answered 404, and the answers of success would go unchecked. `fixtures` makes what exists, for one call each, and is
asked over the socket that `CONFORMANCE_FIXTURES` names.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import socket
from typing import Any

import schemathesis

TURNS: dict[str, itertools.count[int]] = collections.defaultdict(itertools.count)
"""By operation, so that the first valid request of each names something that exists."""
NOWHERE = {"url": "http://127.0.0.1:9/"}
"""A webhook that goes nowhere: nothing here may call out to a host that was made up."""


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Replace made-up names in half of the valid requests; invalid ones stay as invalid as they are."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "stateful" in str(case.meta.phase.name).lower():
        return  # its steps name what the steps before have made
    operation = case.operation.definition.raw["operationId"]
    turn = next(TURNS[operation])
    if turn % 2:
        return
    names = made_for(operation, turn // 2)
    for name in case.path_parameters or {}:
        case.path_parameters[name] = names.get(name, case.path_parameters[name])
    if case.path.startswith("/v1/self/"):
        case.headers["authorization"] = names["delete_token"]
    elif case.path.startswith("/v1/context/"):
        case.headers["authorization"] = names["context_token"]
    if "container_log_storage" in (case.query or {}):
        case.query["container_log_storage"] = "true"
    if isinstance(case.body, dict):
        fill(case.body, operation, names)


def made_for(operation: str, turn: int) -> dict[str, Any]:
    """What this call can name."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(60)
        asking.connect(os.environ["CONFORMANCE_FIXTURES"])
        asking.sendall(json.dumps([operation, turn]).encode() + b"\n")
        with asking.makefile(encoding="utf-8") as answer:
            names: dict[str, Any] = json.loads(answer.readline())
    return names


LEFT_OUT = {
    "deployV1": (
        *("geo_ip_list", "command", "arguments", "filters", "city", "country", "continent", "administrative_division"),
        *("container_log_storage", "webhook_url", "location", "env_vars"),
    ),
    "deployBeta": ("webhook", "environment_variables"),
    "createRelaySession": ("webhook_url", "filters"),
    "updateApplication": ("name",),
    "updateStorage": ("name",),
    "updatePullProfile": ("name",),
    "updateVersion": ("name", "req_cpu", "req_memory", "ports", "envs", "command", "arguments"),
}
"""Members with rules that the document has in words only; without them every second request succeeds."""


def fill(body: dict[str, Any], operation: str, names: dict[str, Any]) -> None:
    """Keep the rules that the document has in words only."""
    for name in LEFT_OUT.get(operation, ()):
        body.pop(name, None)
    if operation in {"deploy", "deployToFleet"}:
        body["application"] = names["app_name"]
        body["version"] = names["version_name"]
        body["users"] = [{"user_type": "geo_coordinates", "user_data": {"latitude": 45.5, "longitude": -73.6}}]
        body["tags"] = ["red"]
        body.update({name: NOWHERE for name in body if name.startswith("webhook_")})
        if operation == "deployToFleet":
            body["private_host_ids"] = [names["host_id"]]
    elif operation == "createVersion":
        body["req_memory"] = min(body["req_memory"], 2 * body["req_cpu"])
        for number, port in enumerate(body.get("ports", [])):
            port.update(protocol="UDP", name=f"port{number}")
    else:
        body.update(_needed(operation, names))


def _needed(operation: str, names: dict[str, Any]) -> dict[str, Any]:
    """What a request has to name to succeed."""
    address = "198.51.100.7"
    deployed = {"version": names["version_name"], "tags": ["red"]}
    values: dict[str, dict[str, Any]] = {
        "deployV1": {
            "app_name": names["app_name"],
            "version_name": names["version_name"],
            "tags": ["red"],
            "ip_list": [address],
        },
        "deployBeta": {"application_name": names["app_name"], **deployed, "users": [{"ip_address": address}]},
        "createRelaySession": {"users": [{"ip": address}]},
        "authorizeRelayUser": {"session_id": names.get("session_id"), "user_ip": address},
        "revokeRelayUser": {
            "session_id": names.get("session_id"),
            "authorization_token": names.get("authorization_token"),
        },
    }
    return values.get(operation, {})

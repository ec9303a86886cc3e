"""Loaded by schemathesis: lets every second valid request name something that exists.

Ids that a schema cannot know (deployments, their tokens and stop keys, applications, a fleet) would be made up and
answered 404, and the answers of success would go unchecked. `__main__` writes what exists to the file that
`CONFORMANCE_KNOWN` names.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
from typing import Any

import schemathesis

with open(os.environ["CONFORMANCE_KNOWN"], encoding="utf-8") as known_file:
    KNOWN: dict[str, Any] = json.load(known_file)
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
    if turn % 2 == 0:
        # Only some of them may be stopped, or none would be left to ask about.
        kind = "doomed" if operation in {"stopDeployment", "selfStop"} else "deployments"
        name_known(case, KNOWN[kind][turn // 2 % len(KNOWN[kind])])
        if isinstance(case.body, dict):
            fill(case.body, operation, turn // 4)
    elif operation.startswith(("delete", "update", "unlink")):
        spare(case, turn)


def spare(case: schemathesis.Case[Any], turn: int) -> None:
    """Leave what exists alone: schemathesis learns names from answers, and nothing would be left to ask about."""
    kept = set(KNOWN["names"].values()) | set(KNOWN["versions"])
    for name, value in (case.path_parameters or {}).items():
        if value in kept:
            case.path_parameters[name] = f"made-up-{turn}"


def name_known(case: schemathesis.Case[Any], deployment: dict[str, str]) -> None:
    """Ask about something that exists, with its own token where one is needed."""
    known = {**KNOWN["names"], **deployment}
    known["request_id"] = known["deployment_id"]
    doomed = KNOWN["disposable"].get(case.operation.definition.raw["operationId"])
    if doomed:
        known.update(doomed.pop())
    for name in list(case.path_parameters or {}):
        if name in known:
            case.path_parameters[name] = known[name]
    if case.path.startswith("/v1/self/"):
        case.headers["authorization"] = deployment["delete_token"]
    elif case.path.startswith("/v1/context/"):
        case.headers["authorization"] = deployment["context_token"]
    if "container_log_storage" in (case.query or {}):
        case.query["container_log_storage"] = "true"


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


def fill(body: dict[str, Any], operation: str, turn: int) -> None:
    """Keep the rules that the document has in words only."""
    for name in LEFT_OUT.get(operation, ()):
        body.pop(name, None)
    names, version = KNOWN["names"], KNOWN["versions"][turn % len(KNOWN["versions"])]
    if operation in {"deploy", "deployToFleet"}:
        body["application"] = names["app_name"]
        body["version"] = version
        body["users"] = [{"user_type": "geo_coordinates", "user_data": {"latitude": 45.5, "longitude": -73.6}}]
        body["tags"] = ["red"]
        body.update({name: NOWHERE for name in body if name.startswith("webhook_")})
        if operation == "deployToFleet":
            body["private_host_ids"] = KNOWN["hosts"]
    elif operation == "createVersion":
        body["req_memory"] = min(body["req_memory"], 2 * body["req_cpu"])
        for number, port in enumerate(body.get("ports", [])):
            port.update(protocol="UDP", name=f"port{number}")
    else:
        body.update(_known_values(operation, names, version, turn))


def _known_values(operation: str, names: dict[str, str], version: str, turn: int) -> dict[str, Any]:
    """What a request has to name to succeed."""
    address = f"198.51.{turn // 250 % 250}.{turn % 250}"
    token = KNOWN["relay_users"].pop() if operation == "revokeRelayUser" and KNOWN["relay_users"] else 0
    users = [{"ip_address": address}]
    values: dict[str, dict[str, Any]] = {
        "deployV1": {
            "app_name": names["app_name"],
            "version_name": version,
            "tags": ["red"],
            "ip_list": ["203.0.113.9"],
        },
        "deployBeta": {"application_name": names["app_name"], "version": version, "tags": ["red"], "users": users},
        "createRelaySession": {"users": [{"ip": address}]},
        "authorizeRelayUser": {"session_id": names["session_id"], "user_ip": address},
        "revokeRelayUser": {"session_id": names["session_id"], "authorization_token": token},
    }
    return values.get(operation, {})

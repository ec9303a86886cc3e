"""Loaded by schemathesis: lets every second valid request name something that exists.

Ids that a schema cannot know (deployments, their tokens and stop keys, applications, a fleet) would be made up and
answered 404, and the answers of success would go unchecked. `__main__` writes what exists to the file that
`CONFORMANCE_KNOWN` names.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

import schemathesis

with open(os.environ["CONFORMANCE_KNOWN"], encoding="utf-8") as known_file:
    KNOWN: dict[str, Any] = json.load(known_file)
TURNS = itertools.count()


NOWHERE = {"url": "http://127.0.0.1:9/"}
"""A webhook that goes nowhere: nothing here may call out to a host that was made up."""


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Replace made-up names in half of the valid requests; invalid ones stay as invalid as they are."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    turn = next(TURNS)
    operation = case.operation.definition.raw["operationId"]
    if turn % 2 == 0:
        # Only some of them may be stopped, or none would be left to ask about.
        kind = "doomed" if operation in {"stopDeployment", "selfStop"} else "deployments"
        name_known(case, KNOWN[kind][turn // 2 % len(KNOWN[kind])])
        if isinstance(case.body, dict):
            fill(case.body, operation, turn // 4)


def name_known(case: schemathesis.Case[Any], deployment: dict[str, str]) -> None:
    """Ask about something that exists, with its own token where one is needed."""
    known = {**KNOWN["names"], **deployment}
    for name in list(case.path_parameters or {}):
        if name in known:
            case.path_parameters[name] = known[name]
    if case.path.startswith("/v1/self/"):
        case.headers["authorization"] = deployment["delete_token"]
    elif case.path.startswith("/v1/context/"):
        case.headers["authorization"] = deployment["context_token"]
    if "container_log_storage" in (case.query or {}):
        case.query["container_log_storage"] = "true"


def fill(body: dict[str, Any], operation: str, turn: int) -> None:
    """Keep the rules that the document has in words only."""
    if operation in {"deploy", "deployToFleet"}:
        body["application"] = KNOWN["names"]["app_name"]
        body["version"] = KNOWN["versions"][turn % len(KNOWN["versions"])]
        body["users"] = [{"user_type": "geo_coordinates", "user_data": {"latitude": 45.5, "longitude": -73.6}}]
        body["tags"] = ["red"]
        body.update({name: NOWHERE for name in body if name.startswith("webhook_")})
        if operation == "deployToFleet":
            body["private_host_ids"] = KNOWN["hosts"]
    elif operation == "createVersion":
        body["req_memory"] = min(body["req_memory"], 2 * body["req_cpu"])
        for number, port in enumerate(body.get("ports", [])):
            port.update(protocol="UDP", name=f"port{number}")

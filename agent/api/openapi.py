"""The OpenAPI 3.1 document of the local API, generated from the same table and models that serve it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agent import __version__
from agent.api import models
from agent.api.problems import Kind
from agent.api.table import OPERATIONS, Operation
from agent.config.table import TABLE

EVENTS: dict[models.EventName, type[BaseModel]] = {
    "state": models.StateEvent,
    "stop": models.StopEvent,
    "players": models.PlayersEvent,
    "warning": models.WarningEvent,
    "text": models.TextEvent,
    "tags": models.TagsEvent,
    "upload": models.UploadEvent,
    "gap": models.GapEvent,
}
_REF = "#/components/schemas/{model}"
_PROBLEM = {
    "title": "Problem",
    "description": 'A problem document (RFC 9457). `detail` is a sentence that begins with "cannot".',
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "message": {"type": "string", "description": "As detail; on the self-stop route only, as the platform has it."},
        "errors": {
            "type": "array",
            "description": "Each wrong field.",
            "items": {
                "type": "object",
                "required": ["field", "got", "takes"],
                "properties": {"field": {"type": "string"}, "got": {}, "takes": {"type": "string"}},
            },
        },
    },
}


def document() -> dict[str, Any]:
    """The whole document."""
    wanted: dict[tuple[type[BaseModel], Any], None] = {}
    for operation in OPERATIONS:
        wanted[operation.takes, "validation"] = None
        wanted[operation.gives, "serialization"] = None
    for event in EVENTS.values():
        wanted[event, "serialization"] = None
    _, schemas = models_json_schema(list(wanted), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        method, path = operation.http
        paths.setdefault(path, {})[method.lower()] = _describe(operation)
    paths["/v1/events"] = {"get": _events()}
    paths["/v1/events/stop"] = {"get": _stop_event()}
    paths["/openapi.json"] = {"get": _itself()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "arbitrium-agent, local API",
            "version": __version__,
            "description": "The API between a game and its agent. Served on loopback only: a request whose Host is "
            "not this machine is refused.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # The agent's real address is in AGENT_URL.
        "servers": [{"url": f"http://127.0.0.1:{TABLE['control_port'].default}"}],
        "paths": paths,
        "components": {"schemas": {**schemas["$defs"], "Problem": _PROBLEM}},
    }


def _describe(operation: Operation) -> dict[str, Any]:
    documentation = operation.call.__doc__ or ""
    summary, _, more = documentation.partition("\n")
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": summary.strip(),
        "responses": _responses(operation),
    }
    if more.strip():
        described["description"] = " ".join(more.split())
    parameters = [
        *(_parameter(operation, name, "path") for name in operation.path_fields),
        *(_parameter(operation, name, "query") for name in operation.query),
        *(_parameter(operation, name, "header") for name in operation.headers),
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body_fields:
        required = operation.takes_nothing is None
        model: dict[str, Any] = {"$ref": _REF.format(model=operation.takes.__name__)}
        described["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": model if required else {"anyOf": [model, {"type": "null"}]}}},
        }
    return described


def _parameter(operation: Operation, name: str, where: str) -> dict[str, Any]:
    schema = dict(operation.takes.model_json_schema()["properties"][name])
    schema.pop("title", None)
    description = schema.pop("description", "")
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
    }


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {
        str(operation.status): {
            "description": (operation.gives.__doc__ or "").strip().partition("\n")[0],
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=operation.gives.__name__)}}},
        }
    }
    body = (Kind.TIMEOUT, Kind.TOO_LARGE, Kind.WRONG_TYPE)
    for kind in (Kind.BAD_INPUT, Kind.FORBIDDEN, *operation.fails, *body):
        responses[str(kind.status)] = _problem(kind)
    return responses


def _problem(kind: Kind) -> dict[str, Any]:
    return {
        "description": HTTPStatus(kind.status).phrase,
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}},
    }


def _events() -> dict[str, Any]:
    lines = "; ".join(f"`{name}` ({(model.__doc__ or '').strip()})" for name, model in EVENTS.items())
    return {
        "operationId": "events",
        "summary": "Server-sent events: the current state first, then new events.",
        "description": f"The data of each event is JSON. Types: {lines}. A comment is sent if there are no events.",
        "responses": {
            "200": {
                "description": "A stream of events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            "400": _problem(Kind.BAD_REQUEST),
            "403": _problem(Kind.FORBIDDEN),
        },
    }


def _stop_event() -> dict[str, Any]:
    return {
        "operationId": "events.stop",
        "summary": "Long poll for a stop: answered as soon as one is under way.",
        "parameters": [
            {
                "name": "wait",
                "in": "query",
                "required": False,
                "description": "Seconds to wait; 0 by default.",
                "schema": {"type": "number", "minimum": 0, "maximum": 300},
            }
        ],
        "responses": {
            "200": {
                "description": "The stop that is under way.",
                "content": {"application/json": {"schema": {"$ref": _REF.format(model="StopEvent")}}},
            },
            "204": {"description": "There was no stop in that time."},
            "400": _problem(Kind.BAD_INPUT),
            "403": _problem(Kind.FORBIDDEN),
        },
    }


def _itself() -> dict[str, Any]:
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "responses": {
            "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}},
            "400": _problem(Kind.BAD_REQUEST),
            "403": _problem(Kind.FORBIDDEN),
        },
    }

"""Errors of operations, in one form for all transports: RFC 9457 over HTTP, an error object over the socket."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from agent import log
from agent.api.models import ABSOLUTE_PATH, STORAGE_NAME, STORAGE_NAME_OR_NONE, MetricInput
from agent.errors import AgentError
from agent.record import Record, replace

_SHOWN = 100


class Kind(Enum):
    """Kinds of problems, with the HTTP status and the JSON-RPC code of each.

    The codes from -32700 to -32600 are defined by JSON-RPC (https://www.jsonrpc.org/specification#error_object); those
    from -32099 to -32000 are for servers.
    """

    NOT_JSON = (400, -32700)
    BAD_REQUEST = (400, -32600)
    BAD_INPUT = (400, -32602)
    UNAUTHORIZED = (401, -32001)
    FORBIDDEN = (403, -32003)
    NOT_FOUND = (404, -32601)
    WRONG_METHOD = (405, -32601)
    TIMEOUT = (408, -32008)
    CONFLICT = (409, -32009)
    GONE = (410, -32010)
    TOO_LARGE = (413, -32600)
    WRONG_TYPE = (415, -32600)
    INTERNAL = (500, -32603)
    BACKEND = (502, -32002)
    UNAVAILABLE = (503, -32004)

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.value[0]

    @property
    def code(self) -> int:
        """JSON-RPC error code."""
        return self.value[1]


class FieldProblem(Record):
    """One wrong field.

    Attributes:
        field: its name, with dots into what is nested; empty for the input as a whole.
        got: the value.
        takes: what would be accepted.
    """

    field: str
    got: JsonValue
    takes: str


class OperationError(AgentError):
    """An operation failed and changed nothing. `str()` is a sentence that begins with "cannot".

    Attributes:
        kind: the kind of problem.
        fields: the wrong fields, if the input is wrong.
        headers: HTTP headers of the answer.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        fields: Iterable[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Takes the sentence and the attributes."""
        super().__init__(detail)
        self.kind = kind
        self.fields = tuple(fields)
        self.headers = dict(headers or {})

    @property
    def errors(self) -> list[dict[str, JsonValue]]:
        """The wrong fields, in the form that is sent."""
        return [{"field": wrong.field, "got": wrong.got, "takes": wrong.takes} for wrong in self.fields]

    def document(self) -> dict[str, JsonValue]:
        """The problem document (RFC 9457). Its type is the default one: the status says the kind."""
        status = self.kind.status
        document: dict[str, JsonValue] = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": str(self),
        }
        if self.fields:
            document["errors"] = list[JsonValue](self.errors)
        return document


def internal(name: str, fault: BaseException) -> OperationError:
    """An unexpected exception as a problem; the details are only in the agent's log.

    Args:
        name: the operation.
        fault: the exception.
    """
    frames = traceback.extract_tb(fault.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    log.error(f"cannot answer {name}: a fault in the agent, please report it", error=repr(fault), where=where)
    return OperationError(Kind.INTERNAL, f"cannot answer {name}: a fault in the agent; see its log")


def wrong_input(doing: str, wrong: ValidationError, model: type[BaseModel]) -> OperationError:
    """The validation errors of pydantic as a problem.

    Args:
        doing: what cannot be done, without "cannot".
        wrong: all errors.
        model: the expected model.
    """
    findings = wrong.errors(include_url=False)
    if findings[0]["type"] == "json_invalid":
        reason = findings[0]["ctx"]["error"]
        got = findings[0]["input"]
        return OperationError(
            Kind.NOT_JSON,
            f"cannot {doing}: the body is not JSON ({reason}); send a JSON object",
            [FieldProblem("", _show(got), "a JSON object")],
        )
    fields: dict[str, FieldProblem] = {}
    for finding in _said_of_what_was_meant(findings):
        one = _field(dict(finding), model)
        # If one of several types is accepted, pydantic reports an error for each of them.
        other = fields.get(one.field)
        fields[one.field] = one if other is None else replace(other, takes=f"{other.takes} or {one.takes}")
    said = "; ".join(
        f"{one.field or 'the input'} got {json.dumps(one.got, ensure_ascii=False)} and takes {one.takes}"
        for one in fields.values()
    )
    return OperationError(Kind.BAD_INPUT, f"cannot {doing}: {said}", fields.values())


def _said_of_what_was_meant(findings: list[ErrorDetails]) -> list[ErrorDetails]:
    """Removes the errors about other types, if the value is also checked as an object."""
    found = [one for one in findings if one["type"] not in _OTHER_TYPES or not isinstance(one["input"], dict)]
    places = {one["loc"][:1] for one in found}
    return [one for one in findings if one in found or one["loc"][:1] not in places]


def _is_branch(part: object) -> bool:
    """Whether a part of a location is the name of one of several accepted types, and not a field."""
    return part in _BRANCHES or (isinstance(part, str) and part.startswith(("function-", "list[")))


def _field(finding: dict[str, Any], model: type[BaseModel]) -> FieldProblem:
    location = [part for place, part in enumerate(finding["loc"]) if place == 0 or not _is_branch(part)]
    name = ".".join(str(part) for part in location)
    kind, context = finding["type"], finding.get("ctx", {})
    match kind:
        case "extra_forbidden":
            inner = model if len(location) == 1 else MetricInput  # no other input has objects inside
            known = ", ".join(inner.model_fields)
            return FieldProblem(
                name, _show(finding["input"]), f"nothing: there is no such field (there is {known or 'none'})"
            )
        case "missing":
            return FieldProblem(name, None, "a value: it is required")
        case "value_error":
            # An error about the whole input: the first field represents it.
            name = name or next(iter(model.model_fields), "")
            got = finding["input"]
            return FieldProblem(name, _show(got.get(name) if isinstance(got, dict) else got), str(context["error"]))
        case "string_pattern_mismatch":
            return FieldProblem(name, _show(finding["input"]), _PATTERNS[context["pattern"]])
        case _:
            takes = _TAKES.get(kind)
            said = takes.format(**context) if takes else _lower(str(finding["msg"]))
            return FieldProblem(name, _show(finding["input"]), said)


# Names of union branches that pydantic adds to locations; callers do not need them.
_OTHER_TYPES = frozenset({"float_type", "list_type"})
_BRANCHES = frozenset({"float", "MetricInput"})

_TAKES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "an object",
    "list_type": "an array",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "string_too_short": "at least {min_length} character(s)",
    "string_too_long": "at most {max_length} characters",
}

_PATTERNS = {
    STORAGE_NAME: "printable ASCII characters without spaces",
    STORAGE_NAME_OR_NONE: "printable ASCII characters without spaces",
    ABSOLUTE_PATH: "an absolute path",
}


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _show(value: Any) -> JsonValue:
    """The value, short enough for the answer."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        # JSON has no NaN and no infinity, and Python does not write numbers of thousands of digits.
        return value if abs(value) < 2**63 else "a number out of range"
    text = value if isinstance(value, str) else _as_json(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _as_json(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return bytes(value[: _SHOWN + 1]).decode("utf-8", "replace")
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__

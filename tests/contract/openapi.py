"""The OpenAPI document as a judge of answers: `Contract().check(...)` raises for what it forbids.

It is as strict as a generated client in Go or Rust, whose decoder gives up the whole answer for one member: an integer
is written without a fraction, and a `date-time` is RFC 3339. Go's generator can also refuse members that are not
declared (`DisallowUnknownFields`), so none are sent.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import yaml

DOCUMENT = Path(__file__).parent / "edgegap-api.openapi.yaml"
FORMATS = jsonschema.FormatChecker(formats=())
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@functools.cache
def load() -> dict[str, Any]:
    """The document, read once: PyYAML takes a second for it without its C library."""
    document: dict[str, Any] = yaml.load(
        DOCUMENT.read_text(encoding="utf-8"),
        getattr(yaml, "CSafeLoader", yaml.SafeLoader),  # noqa: S506 - the C library's is a safe one as well
    )
    return document


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or bool(RFC_3339.fullmatch(value))


@FORMATS.checks("uri", raises=ValueError)
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme)


def _is_integer(_checker: object, value: object) -> bool:
    """Not 3.0, which JSON Schema takes."""
    return isinstance(value, int) and not isinstance(value, bool)


Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


class Contract:
    """The document, with its references resolved and OpenAPI 3.0's `nullable` said as JSON Schema says it."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = load()
        self._templates = {path: re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)) for path in self._document["paths"]}

    def operations(self) -> Iterator[tuple[str, str, str]]:
        """Method, path template and operation id of each."""
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation["operationId"]

    def is_inside(self, operation_id: str) -> bool:
        """Whether an operation takes a deployment's own token rather than the organisation's."""
        return any(
            operation["operationId"] == operation_id and operation.get("security") == []
            for methods in self._document["paths"].values()
            for operation in methods.values()
        )

    def schema(self, name: str) -> dict[str, Any]:
        """A named schema, as JSON Schema."""
        return dict(self._resolved(self._document["components"]["schemas"][name]))

    def check(self, method: str, path: str, status: int, body: Any) -> None:
        """Assert that an answer is one that the document describes.

        Args:
            method: of the request.
            path: of the request, as it was sent, without its query.
            status: of the answer.
            body: the answer's JSON; None for none.
        """
        matching = [each for each, pattern in self._templates.items() if pattern.fullmatch(path)]
        # Of `/v1/deployments/{id}` and `/v1/deployments/{id}:report`, the one that says more.
        template = max(matching, key=lambda each: len(re.sub(r"\{[^}]+\}", "", each)), default=None)
        operation = self._document["paths"].get(template, {}).get(method.lower())
        if operation is None:
            assert status in {404, 405, 501}, f"{method} {path} is no operation of the document, and answered {status}"
            self._validate(self.schema("Error"), body)
            return
        response = operation["responses"].get(str(status))
        assert response is not None, f"{method} {path} answered {status}, which is not documented: {body}"
        content = response.get("content")
        if content is not None:
            schema = self._resolved(content["application/json"]["schema"])
            self._validate(schema, body)
            undeclared = list(_undeclared(schema, body, ""))
            assert not undeclared, (
                f"{method} {path} answered with members that the document does not have: {undeclared}"
            )

    def _validate(self, schema: dict[str, Any], body: Any) -> None:
        jsonschema.validate(body, schema, cls=Validator, format_checker=FORMATS)

    def _resolved(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self._resolved(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return self._resolved(self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        resolved = {name: self._resolved(each) for name, each in schema.items() if name != "nullable"}
        return {"anyOf": [resolved, {"type": "null"}]} if schema.get("nullable") else resolved


def _undeclared(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    """The members of an answer that its schema does not name, where it names any."""
    kinds = [schema, *schema.get("allOf", []), *schema.get("anyOf", []), *schema.get("oneOf", [])]
    if isinstance(value, dict):
        declared = {name: each for kind in kinds for name, each in kind.get("properties", {}).items()}
        others = next((kind["additionalProperties"] for kind in kinds if "additionalProperties" in kind), None)
        for name, member in value.items():
            if name in declared:
                yield from _undeclared(declared[name], member, f"{where}.{name}")
            elif isinstance(others, dict):
                yield from _undeclared(others, member, f"{where}.{name}")
            elif declared and others is None:
                yield f"{where}.{name}"
    elif isinstance(value, list):
        items: dict[str, Any] = next((kind["items"] for kind in kinds if "items" in kind), {})
        for number, item in enumerate(value):
            yield from _undeclared(items, item, f"{where}[{number}]")

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
    """The document's operations, and whether an answer is one of theirs."""

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
        return dict(resolved(self._document["components"]["schemas"][name]))

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
            _validate(_judge_of_errors(), body)
            return
        response = operation["responses"].get(str(status))
        assert response is not None, f"{method} {path} answered {status}, which is not documented: {body}"
        content = response.get("content")
        if content is not None:
            schema, validator = _judge(template, method.lower(), str(status))
            _validate(validator, body)
            undeclared = list(_undeclared(schema, body, ""))
            assert not undeclared, (
                f"{method} {path} answered with members that the document does not have: {undeclared}"
            )


def resolved(schema: Any) -> Any:
    """A schema of the document with its references replaced and `nullable` said as JSON Schema says it."""
    if isinstance(schema, list):
        return [resolved(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolved(load()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    plain = {name: resolved(each) for name, each in schema.items() if name != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") else plain


def _validator(schema: dict[str, Any]) -> Any:
    """Takes tens of milliseconds: the schema is checked against the schema of schemas."""
    Validator.check_schema(schema)
    return Validator(schema, format_checker=FORMATS)


@functools.cache
def _judge(template: str, method: str, status: str) -> tuple[dict[str, Any], Any]:
    """The schema of an operation's answer, and its validator."""
    content = load()["paths"][template][method]["responses"][status]["content"]
    schema = resolved(content["application/json"]["schema"])
    return schema, _validator(schema)


@functools.cache
def _judge_of_errors() -> Any:
    return _validator(resolved(load()["components"]["schemas"]["Error"]))


def _validate(validator: Any, body: Any) -> None:
    error = jsonschema.exceptions.best_match(validator.iter_errors(body))
    if error is not None:
        raise error


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

"""Finds the route for a method and a path, or raises a precise error."""

from __future__ import annotations

from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from agent.api.problems import Kind, OperationError

Target = TypeVar("Target")


class Router(Generic[Target]):
    """A table of methods and paths. Paths may contain `{name}` for one segment."""

    def __init__(self) -> None:
        """An empty table."""
        self._exact: dict[str, dict[str, Target]] = {}
        self._templates: list[tuple[list[str], dict[str, Target]]] = []

    def add(self, method: str, path: str, target: Target) -> None:
        """Adds an entry; an entry for GET also answers HEAD."""
        if "{" in path:
            parts = path.split("/")
            methods = next((known for template, known in self._templates if template == parts), None)
            if methods is None:
                methods = {}
                self._templates.append((parts, methods))
        else:
            methods = self._exact.setdefault(path, {})
        methods[method] = target
        if method == "GET":
            methods["HEAD"] = target

    def exact(self, method: str, path: str) -> Target | None:
        """The entry, where the path is written as it was added; None means that `find` knows more."""
        methods = self._exact.get(path)
        return None if methods is None else methods.get(method)

    def find(self, method: str, path: str) -> tuple[Target, dict[str, str]]:
        """Finds the entry.

        Args:
            method: as sent.
            path: as sent, percent-encoded, without the query.

        Returns:
            The entry, and the decoded values of its path placeholders, by name.

        Raises:
            OperationError: there is no such path, it takes other methods, or it is not UTF-8.
        """
        methods = self._exact.get(path)
        fields: dict[str, str] = {}
        if methods is None:
            methods, fields = self._match(path)
        target = methods.get(method)
        if target is None:
            allowed = ", ".join(sorted(methods))
            raise OperationError(
                Kind.WRONG_METHOD, f"cannot {method} {path[:200]}: it takes {allowed}", headers={"Allow": allowed}
            )
        return target, fields

    def _match(self, path: str) -> tuple[dict[str, Target], dict[str, str]]:
        """Ignores a slash at the end, which many clients add."""
        if len(path) > 1 and path.endswith("/") and not path.endswith("//"):
            path = path[:-1]
            if path in self._exact:
                return self._exact[path], {}
        segments = path.split("/")
        for template, methods in self._templates:
            if len(template) != len(segments):
                continue
            fields: dict[str, str] = {}
            for expected, segment in zip(template, segments, strict=True):
                if expected.startswith("{") and segment:
                    fields[expected[1:-1]] = _decode(segment, path)
                elif expected != segment:
                    break
            else:
                return methods, fields
        raise OperationError(Kind.NOT_FOUND, f"cannot find {path[:200]}: there is no such path; see /openapi.json")


def _decode(segment: str, path: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise OperationError(Kind.BAD_REQUEST, f"cannot read the path {path[:200]}: it is not UTF-8") from None

"""Output of the commands: tables for people, JSON for programs; errors are written to stderr in both cases."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agent.edgegap.errors import EdgegapError
from agent.edgegap.wire import Wire
from agent.errors import AgentError
from agent.terminal_text import safe, safe_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDE = 200
"""Columns of a table that goes into a pipe: rich would squeeze it into 80."""


class Output:
    """One command's output.

    Args:
        as_json: print JSON, and nothing else, on stdout.
    """

    def __init__(self, *, as_json: bool) -> None:
        """Keep the form."""
        self.as_json = as_json

    def model(self, model: Wire, render: "Callable[[], RenderableType | None]") -> None:
        """Show one answer."""
        self.data(model.model_dump(mode="json") if self.as_json else None, render)

    def models(self, models: Sequence[Wire], render: "Callable[[], RenderableType | None]") -> None:
        """Show a list of answers."""
        self.data([model.model_dump(mode="json") for model in models] if self.as_json else None, render)

    def data(self, data: Any, render: "Callable[[], RenderableType | None]") -> None:
        """Show plain data, for programs, or what `render` makes, for people."""
        if self.as_json:
            print(safe_json(data, indent=2))
            return
        rendered = render()
        if rendered is not None:
            console().print(rendered)

    def fail(self, error: AgentError, code: int) -> int:
        """Say on stderr what could not be done; gives the exit code back."""
        if not self.as_json:
            print(safe(str(error)), file=sys.stderr)
            return code
        said: dict[str, Any] = {"error": str(error), "kind": type(error).__name__.removesuffix("Error")}
        if isinstance(error, EdgegapError):
            said["status"] = error.status
            said["message"] = error.message
        for extra in ("deployment_id", "retry_after"):
            if getattr(error, extra, None) is not None:
                said[extra] = getattr(error, extra)
        print(safe_json(said), file=sys.stderr)
        return code


def console(*, stderr: bool = False) -> "Console":
    """Give a console for stdout or stderr; a pipe gets wide lines and no colours."""
    from rich.console import Console  # noqa: PLC0415 - JSON does without it

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = max(made.width, _WIDE)
    return made

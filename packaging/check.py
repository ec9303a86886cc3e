"""Proves, inside the finished runtime, that every import statement of the agent finds its module.

Run by the runtime's own interpreter in the build stage, as `bin/python check.py SOURCE` with the package directory of
the agent: what was left out of the standard library and of the dependencies is a list of names, and a name too many
would otherwise show in the middle of a match.
"""

import ast
import importlib
import importlib.util
import sys
from pathlib import Path

# Not in the runtime: optional extras, and what is only used on a workstation or beside Prometheus (see assemble.py).
OPTIONAL = {
    "cryptography", "duckdb", "google", "grpclib", "matplotlib", "opentelemetry", "rich", "shtab",
    "yaml",
}  # fmt: skip
# Imported by name, which no import statement tells.
BY_NAME = ("opengsq.protocols", "opengsq.protocols.warfork")


def imported_by(source: Path, package: str) -> set[str]:
    """Returns the full names of the modules that a file imports anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"), str(source))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            names.add(importlib.util.resolve_name(prefix, package) if node.level else prefix)
    return names


def main() -> int:
    """Imports every module of the agent and everything that it imports; returns the exit code."""
    top = Path(sys.argv[1]).resolve()
    failed: dict[str, str] = {}
    wanted: dict[str, str] = {}
    for source in sorted(top.rglob("*.py")):
        relative = source.relative_to(top.parent).with_suffix("")
        package = ".".join(relative.parts[:-1])
        module = ".".join(relative.parts).removesuffix(".__init__")
        wanted.setdefault(module, "the agent")
        for name in imported_by(source, package):
            wanted.setdefault(name, module)
    wanted.update((name, "AGENT_PLAYERS_FROM") for name in BY_NAME)
    for name, by in wanted.items():
        if name.split(".")[0] in OPTIONAL or name.endswith("__main__"):
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in OPTIONAL:
                failed[name] = f"{error} (needed by {by})"
        except Exception as error:  # noqa: BLE001, RUF100 (whatever a module raises, the build must not pass)
            failed[name] = f"{type(error).__name__}: {error} (needed by {by})"
    for name, problem in failed.items():
        print(f"cannot import {name}: {problem}", file=sys.stderr)
    print(f"{len(wanted) - len(failed)} of {len(wanted)} modules can be imported")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Gives one module other objects in place of those that it imports for parts of itself that are not used here.

prometheus_client's formats are in one file with its HTTP server and its client, so that whoever writes a format loads
TLS and two HTTP servers for good. Only the import statements of the one module find the substitutes: everybody else,
also in another thread at the same time, gets the real modules.
"""

from __future__ import annotations

import builtins
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.abc import Loader
    from typing import Any


class Unused(ModuleType):
    """In place of a module of which nothing is used: each of its names is an empty class.

    A class can be imported by name, inherited from, and stand in an annotation or as a default, which is what an import
    of the user's module needs. What it makes of them does not work.
    """

    def __getattr__(self, name: str) -> type:
        """An empty class."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Changed(ModuleType):
    """In place of a module of which some names are others."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        """Takes the module, and the objects that it has under these names."""
        super().__init__(module.__name__)
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        """The module's own."""
        return getattr(self._module, name)


def substitute(name: str, substitutes: Mapping[str, ModuleType]) -> None:
    """Lets a module find other modules in place of some that it imports, when it is imported for the first time.

    Args:
        name: the module. Nothing changes if it is imported already, or is not to be found.
        substitutes: what it gets, by the full name of the module that it imports absolutely.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, _Finder(name, substitutes))


class _Finder:
    """Finds one module, once."""

    def __init__(self, name: str, substitutes: Mapping[str, ModuleType]) -> None:
        self._name = name
        self._substitutes = substitutes

    def find_spec(self, name: str, path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._substitutes)  # type: ignore[assignment]
        return spec


class _Loader:
    """Executes one module with an import of its own."""

    def __init__(self, loader: Loader, substitutes: Mapping[str, ModuleType]) -> None:
        self._loader = loader
        self._substitutes = substitutes

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        # An import statement calls the `__import__` of the built-in names that its module has.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        self._loader.exec_module(module)

    def _import(
        self,
        name: str,
        names: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        # `import a.b` wants `a`, and is not meant.
        if level == 0 and name in self._substitutes and (wanted or "." not in name):
            return self._substitutes[name]
        return builtins.__import__(name, names, local, wanted or (), level)

"""Modules that are registered without being executed, and executed when a name of theirs is first needed.

What aiohttp, asyncio and pydantic import for cases that an agent without players never meets (TLS, proxies, hashes,
error pages) is a seventh of its memory. Each module keeps its own loader and its one object in `sys.modules`, so
whoever imports it gets the whole of it, later. Only the agent's process does this, before it imports anything else.

The standard library's `importlib.util.LazyLoader` does the same for one module, but executes it for `from X import f`,
and is not safe with threads before Python 3.12.3.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.abc import Loader
    from typing import Any


def postpone(name: str, functions: Iterable[str] = (), **known: Any) -> Callable[[], None]:
    """Registers a module in `sys.modules` that is executed when somebody needs more than its import.

    Changes nothing if the module is imported already, or is not to be found.

    Args:
        name: the module.
        functions: what is imported from it by name, and only called (a class that is only raised is as good). Until
            the end of the postponement the importer gets a function that executes the module when it is called.
        known: attributes that it has before it is executed.

    Returns:
        Ends the postponement of `functions`: who imports them after that gets the module's own.
    """
    spec = None if name in sys.modules else _spec(name)
    if spec is None or spec.loader is None:
        return lambda: None
    postponed = _Postponed(spec, spec.loader, functions)
    postponed.module.__dict__.update(known)
    return postponed.called.clear


class _Postponed:
    """A module that is registered, and may be executed already."""

    def __init__(self, spec: ModuleSpec, loader: Loader, functions: Iterable[str]) -> None:
        self.called = set(functions)
        self.module = module = module_from_spec(spec)
        self._name = spec.name
        self._is_package = spec.submodule_search_locations is not None
        self._loader = loader
        self._lock = threading.RLock()
        self._executed = False
        module.__getattr__ = self._find  # type: ignore[method-assign]  # PEP 562
        sys.modules[spec.name] = module
        self._put_into_package()

    def _put_into_package(self) -> None:
        """As an import does; a package that is not imported yet gets it when it is executed."""
        package, _, last = self._name.rpartition(".")
        if package in sys.modules:
            setattr(sys.modules[package], last, self.module)

    def _find(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._is_package:
            submodule = f"{self._name}.{name}"
            if submodule in sys.modules:
                return sys.modules[submodule]
            if _spec(submodule) is not None:
                raise AttributeError(name)  # the caller imports it next
        if name in self.called and not self._executed:
            return partial(self._call, name)
        return self._own(name)

    def _call(self, name: str, /, *args: Any, **given: Any) -> Any:
        return self._own(name)(*args, **given)

    def _own(self, name: str) -> Any:
        """The module's own attribute."""
        with self._lock:
            if not self._executed:
                self._executed = True
                try:
                    self._loader.exec_module(self.module)
                except BaseException:
                    self._executed = False
                    raise
                self._put_into_package()
        if name not in self.module.__dict__:
            raise AttributeError(f"module {self._name!r} has no attribute {name!r}")
        return self.module.__dict__[name]


def _spec(name: str) -> ModuleSpec | None:
    """How a module would be loaded, found without importing the packages that it is in."""
    parent = name.rpartition(".")[0]
    if not parent:
        return PathFinder.find_spec(name)
    package = _spec(parent)
    return None if package is None else PathFinder.find_spec(name, package.submodule_search_locations)

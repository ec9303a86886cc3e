"""Other objects in place of what one module imports."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent.substitutes import Changed, Unused, substitute


def test_one_module_gets_others_and_nobody_else_does(place: Path) -> None:
    """By `import`, by `from`, under another name, in a function later; and it is an ordinary module otherwise."""
    (place / "user.py").write_text(
        "import math, math as m, os.path\n"
        "from http.server import BaseHTTPRequestHandler as Base, HTTPServer\n"
        "class Handler(Base): pass\n"
        "def serve(server: HTTPServer = HTTPServer, digits: math.pi = 2) -> m.tau:\n"
        "    from math import pi, sqrt\n"
        "    return pi, sqrt(4), os.path.sep\n"
    )
    (place / "other.py").write_text("from math import pi\n")
    real = sys.modules.get("http.server")
    substitute("user", {"math": Changed(math, pi=3), "http.server": Unused("http.server")})
    other: Any = importlib.import_module("other")
    user: Any = importlib.import_module("user")
    assert other.pi == math.pi
    assert user.serve() == (3, 2.0, "/")
    assert user.Handler.__mro__[1:] == (user.Base, object)
    assert (user.m.pi, user.math.tau) == (3, math.tau)
    assert sys.modules.get("http.server") is real
    assert user.__spec__.loader is user.__loader__
    assert user.__loader__.get_source("user").startswith("import math")


def test_what_is_imported_or_missing_stays_as_it_is(place: Path) -> None:
    """Nothing waits for a module that is there already; one that cannot be found is missing as ever."""
    (place / "user.py").write_text("import math\n")
    user: Any = importlib.import_module("user")
    before = list(sys.meta_path)
    substitute("user", {"math": ModuleType("math")})
    assert sys.meta_path == before
    assert user.math is math
    substitute("there_is_no_such_module", {})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("there_is_no_such_module")
    assert sys.meta_path == before


def test_a_substitute_has_the_names_of_a_module() -> None:
    """And none of the names that Python itself asks of one."""
    unused = Unused("http.server")
    assert (unused.__name__, unused.Anything().__class__.__name__) == ("http.server", "Anything")
    assert not hasattr(unused, "__path__")
    with pytest.raises(AttributeError):
        _ = Changed(math).nothing

"""Modules that are executed when a name of theirs is first needed."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.postponed import postpone

COUNTS = "import sys\nsys.modules['counted_{0}'] = True\n"


def executed(name: str) -> bool:
    """Whether a module that begins with `COUNTS` was executed."""
    return f"counted_{name}" in sys.modules


def test_it_is_executed_for_a_name(place: Path) -> None:
    """And is the module that everybody imported, also where that was before."""
    (place / "late.py").write_text(COUNTS.format("late") + "value = 1\ndef ask(): return value\n")
    postpone("late", known="early")
    late: Any = importlib.import_module("late")
    assert (late.known, late.__name__, executed("late")) == ("early", "late", False)
    assert not hasattr(late, "__path__")
    assert late.ask() == 1
    late.value = 2
    assert late.ask() == 2, "there is one module"
    assert sys.modules["late"] is late
    with pytest.raises(AttributeError, match="'late' has no attribute 'nothing'"):
        _ = late.nothing
    postpone("late")
    assert sys.modules["late"] is late, "one that is imported stays"
    postpone("there_is_no_such_module")
    assert "there_is_no_such_module" not in sys.modules


def test_functions_are_called_later(place: Path) -> None:
    """A function can be imported by name, and a class that is only raised; after the end of that it is the real one."""
    (place / "late.py").write_text(COUNTS.format("late") + "class Bad(ValueError): pass\ndef twice(n): return 2 * n\n")
    (place / "user.py").write_text("from late import Bad, twice\ndef fail(): raise Bad('so')\n")
    end = postpone("late", functions=("Bad", "twice"))
    user = importlib.import_module("user")
    assert not executed("late")
    end()
    real = importlib.import_module("late").Bad
    assert isinstance(real, type)
    assert user.twice(n=4) == 8
    with pytest.raises(real, match="so"):
        user.fail()


def test_packages(place: Path) -> None:
    """Submodules are imported without executing their package; a module becomes an attribute of its package."""
    (place / "box").mkdir()
    (place / "box/__init__.py").write_text(COUNTS.format("box") + "name = 'box'\n")
    (place / "box/inner.py").write_text("from . import late\nname = 'inner'\n")
    (place / "box/late.py").write_text(COUNTS.format("late") + "from .inner import name\n")
    postpone("box")
    postpone("box.late")
    box = importlib.import_module("box")
    inner = importlib.import_module("box.inner")
    assert (inner.name, executed("box"), executed("late")) == ("inner", False, False)
    assert box.late is inner.late
    assert box.inner is inner
    assert inner.late.name == "inner"
    assert executed("late")
    assert not executed("box")
    assert box.name == "box"


def test_a_module_that_fails_fails_each_time(place: Path) -> None:
    """As it would be imported again."""
    (place / "late.py").write_text("import a_module_that_is_missing\nvalue = 1\n")
    postpone("late")
    late = importlib.import_module("late")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
            _ = late.value


def test_threads_wait_for_the_one_that_executes_it(place: Path) -> None:
    """None of them sees half a module."""
    (place / "late.py").write_text("import time\ntime.sleep(0.05)\nvalue = 1\n")
    postpone("late")
    late = importlib.import_module("late")
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(late.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [1] * 4

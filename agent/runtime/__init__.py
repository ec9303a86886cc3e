"""The agent's process: wires API, metrics, shipping and autopsy."""

import sys
import types
from typing import Any

from agent.postponed import postpone
from agent.substitutes import Changed, substitute


def _pydantic_without_plugins() -> None:
    """Puts an empty module in the place of pydantic's loader of plugins.

    PYDANTIC_DISABLE_PLUGINS turns plugins off, but the loader is imported for the first model all the same, and with
    it `importlib.metadata`, `zipfile`, `csv` and others: 2 % of the instructions until the first answer, and 0.9 MB.
    If a later version loads its plugins in another way, the variable still holds, and `tests/unit/test_rooms.py` fails.
    """
    loader = types.ModuleType("pydantic.plugin._loader")
    loader.get_plugins = tuple  # type: ignore[attr-defined]  # without arguments: none
    sys.modules.setdefault(loader.__name__, loader)


class _OneClass(type):
    """A class that is itself what inherits from it, and whose call makes a dictionary."""

    def __new__(cls, name: str, bases: tuple[type, ...], names: dict[str, Any], total: bool = True) -> type:
        """Takes what a `TypedDict` takes; what `total` would say of the fields, nobody asks."""
        return bases[0] if bases else super().__new__(cls, name, bases, names)

    def __init__(cls, *_: Any, **__: Any) -> None:
        """Changes nothing."""

    def __call__(cls, *given: Any, **named: Any) -> dict[str, Any]:
        """A dictionary, as a `TypedDict` is one."""
        return dict(*given, **named)


class _NoFields(metaclass=_OneClass):
    """In place of `TypedDict`."""


def _core_schema_without_fields() -> None:
    """Gives the module in which pydantic describes its schemas a `TypedDict` without fields.

    It has 90 of them, for type checkers. At run time `typing` compiles the annotation of each of their fields and keeps
    it: 0.6 MB, and a twentieth of the instructions until the first answer. `tests/unit/test_rooms.py` compares the
    schemas that come of it with pydantic's own.
    """
    import typing  # noqa: PLC0415 - behind what is postponed

    import typing_extensions  # noqa: PLC0415 - which of the two the module asks depends on Python's version

    substitute(
        "pydantic_core.core_schema",
        {module.__name__: Changed(module, TypedDict=_NoFields) for module in (typing, typing_extensions)},
    )


class _NoSocketYet:
    """In place of `ssl.SSLSocket` until `ssl` is executed, and rightly of no socket: asyncio asks this of each one."""


_pydantic_without_plugins()
# In the order in which they would be imported: TLS for asyncio, hashes (with them OpenSSL's tables) and the parser of
# Python for pydantic, attrs' validators for nobody; the locale for subprocess, the tokenizer for inspect, random
# numbers for retries, the directories of time zones (with them all facts about the interpreter's build) for pydantic.
# aiohttp's own are in `agent.web`.
postpone("ssl", SSLSocket=_NoSocketYet)
postpone("asyncio.sslproto")
postpone("hashlib")
postpone("secrets")
postpone("ast")
postpone("pydantic._internal._docs_extraction", functions=("extract_docstrings_from_cls",))
postpone("attr.validators")
postpone("locale")
postpone("tokenize")
postpone("random")
postpone("zoneinfo._tzpath", functions=("InvalidTZPathWarning", "available_timezones", "find_tzfile", "reset_tzpath"))
_core_schema_without_fields()  # which imports users of these

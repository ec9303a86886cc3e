"""The agent's process: wires API, metrics, shipping and autopsy."""

import sys
import types

from agent.postponed import postpone


def _pydantic_without_plugins() -> None:
    """Puts an empty module in the place of pydantic's loader of plugins.

    PYDANTIC_DISABLE_PLUGINS turns plugins off, but the loader is imported for the first model all the same, and with
    it `importlib.metadata`, `zipfile`, `csv` and others: 2 % of the instructions until the first answer, and 0.9 MB.
    If a later version loads its plugins in another way, the variable still holds, and `tests/unit/test_rooms.py` fails.
    """
    loader = types.ModuleType("pydantic.plugin._loader")
    loader.get_plugins = tuple  # type: ignore[attr-defined]  # without arguments: none
    sys.modules.setdefault(loader.__name__, loader)


class _NoSocketYet:
    """In place of `ssl.SSLSocket` until `ssl` is executed, and rightly of no socket: asyncio asks this of each one."""


_pydantic_without_plugins()
# In the order in which they would be imported: TLS for asyncio, hashes (with them OpenSSL's tables) and the parser of
# Python for pydantic, attrs' validators for nobody. aiohttp's own are in `agent.web`.
postpone("ssl", SSLSocket=_NoSocketYet)
postpone("asyncio.sslproto")
postpone("hashlib")
postpone("secrets")
postpone("ast")
postpone("pydantic._internal._docs_extraction", functions=("extract_docstrings_from_cls",))
postpone("attr.validators")

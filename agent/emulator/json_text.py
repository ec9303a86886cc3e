"""JSON as it comes from outside: strict, and a document that nests too deeply is wrong input, not a fault of ours."""

from __future__ import annotations

import json
from typing import Any


def load_json(text: str | bytes) -> Any:
    """JSON as the standard has it: no NaN, no Infinity.

    Raises:
        ValueError: it is not JSON, or lists and objects are nested more deeply than Python reads (about 1,000).
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

"""Variants of one test of which the fast suite needs one: each starts an agent, which costs a second of CPU."""

from collections.abc import Sequence
from typing import Any

import pytest


def one_fast(first: Any, *others: Any) -> list[Any]:
    """Values for `parametrize`: the first in the fast suite, the others in the slow one.

    Args:
        first: a value, or a tuple of values where several names are parametrized.
        *others: the same.

    Returns:
        What `pytest.mark.parametrize` takes.
    """

    def slow(value: Any) -> Any:
        values: Sequence[Any] = value if isinstance(value, tuple) else (value,)
        return pytest.param(*values, marks=pytest.mark.slow)

    return [first, *map(slow, others)]

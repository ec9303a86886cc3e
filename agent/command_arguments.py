"""Values on the command line: argparse's `type=` for what a bare `int`, `float` or text lets through.

`float` takes nan, inf and negative times, `int` takes ports that do not exist; each would fail later, with a traceback.
What is refused here is a usage error: exit code 2, before anything is connected to.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Value = TypeVar("Value")
    Number = TypeVar("Number", int, float)

LONGEST_SECONDS = 7 * 86400.0
"""A week, as for durations in settings. Far more (1e300) cannot be given to a socket or a timer."""
MOST = 2**31 - 1
"""The largest whole number, where nothing smaller is known: that of a signed 32-bit field."""


def seconds(text: str) -> float:
    """A time in seconds, 0 or more.

    Raises:
        ArgumentTypeError: it is not a number from 0 to a week.
    """
    return _within(float, text, 0, LONGEST_SECONDS, f"takes seconds, from 0 to {LONGEST_SECONDS:.0f}")


def timeout(text: str) -> float:
    """A time to wait in seconds, more than 0: a socket with a timeout of 0 does not wait but fails at once.

    Raises:
        ArgumentTypeError: it is not a number over 0, up to a week.
    """
    expected = f"takes seconds, more than 0 and at most {LONGEST_SECONDS:.0f}"
    value = _within(float, text, 0, LONGEST_SECONDS, expected)
    if not value:
        raise ArgumentTypeError(f"got {text!r} and {expected}")
    return value


def factor(text: str) -> float:
    """A factor that times are multiplied by, 0 or more.

    Raises:
        ArgumentTypeError: it is not a number from 0 to `LONGEST_SECONDS`.
    """
    return _within(float, text, 0, LONGEST_SECONDS, f"takes a number from 0 to {LONGEST_SECONDS:.0f}")


def finite(text: str) -> float:
    """A number whose range the agent checks; JSON, in which it is told, has neither nan nor inf.

    Raises:
        ArgumentTypeError: it is no number, or one of these.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentTypeError(f"got {text!r} and takes a number")
    return value


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """A whole number from `least` to `most`, both included; what is returned raises ArgumentTypeError for others."""
    return lambda text: _within(int, text, least, most, f"takes a whole number from {least} to {most}")


def checked(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """What `parse` takes, such as a parser of `agent.config.parsers`.

    Args:
        parse: raises ValueError with a message that says what is taken: "takes ...".

    Returns:
        The same, with ArgumentTypeError, whose message argparse shows.
    """

    def read(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as wrong:
            raise ArgumentTypeError(f"got {text!r} and {wrong}") from None

    return read


def _within(convert: Callable[[str], Number], text: str, least: float, most: float, expected: str) -> Number:
    try:
        value = convert(text)
        if least <= value <= most:  # false for nan
            return value
    except ValueError:
        pass
    raise ArgumentTypeError(f"got {text!r} and {expected}")

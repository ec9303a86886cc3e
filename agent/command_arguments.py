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

LONGEST_SECONDS = 7 * 86400.0
"""A week, as for durations in settings. Far more (1e300) cannot be given to a socket or a timer."""
HIGHEST_PORT = 65535
MOST = 2**31 - 1
"""The largest whole number, where nothing smaller is known: that of a signed 32-bit field."""


def seconds(text: str) -> float:
    """A time in seconds, 0 or more.

    Raises:
        ArgumentTypeError: it is not a number from 0 to a week.
    """
    return _number(text, f"takes seconds, from 0 to {LONGEST_SECONDS:.0f}")


def timeout(text: str) -> float:
    """A time to wait in seconds, more than 0: a socket with a timeout of 0 does not wait but fails at once.

    Raises:
        ArgumentTypeError: it is not a number over 0, up to a week.
    """
    expected = f"takes seconds, more than 0 and at most {LONGEST_SECONDS:.0f}"
    value = _number(text, expected)
    if not value:
        raise ArgumentTypeError(f"got {text!r} and {expected}")
    return value


def factor(text: str) -> float:
    """A factor that times are multiplied by, 0 or more.

    Raises:
        ArgumentTypeError: it is not a number from 0 to `LONGEST_SECONDS`.
    """
    return _number(text, f"takes a number from 0 to {LONGEST_SECONDS:.0f}")


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


def port(text: str) -> int:
    """A port to listen on; 0 for a free one.

    Raises:
        ArgumentTypeError: it is not a whole number from 0 to 65535.
    """
    return _whole(text, 0, HIGHEST_PORT, f"takes a port, a whole number from 0 to {HIGHEST_PORT}")


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """A whole number from `least` to `most`, both included; what is returned raises ArgumentTypeError for others."""
    return lambda text: _whole(text, least, most, f"takes a whole number from {least} to {most}")


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


def _whole(text: str, least: int, most: int, expected: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ArgumentTypeError(f"got {text!r} and {expected}") from None
    if not least <= value <= most:
        raise ArgumentTypeError(f"got {text!r} and {expected}")
    return value


def _number(text: str, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"got {text!r} and {expected}") from None
    if not 0 <= value <= LONGEST_SECONDS:  # nan compares false, and is refused too
        raise ArgumentTypeError(f"got {text!r} and {expected}")
    return value

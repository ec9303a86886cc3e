"""Stop methods: the ordered list of AGENT_STOP, and when each has its turn. Pure, standard library only.

    notify@40%,stdin:save-all@1s,stdin:stop,signal:SIGINT

Each method has a share of the time that the game has to end; those without one share what is left equally. When its
share is over and the game still lives, the next one has its turn. SIGTERM comes last where the list does not have it;
SIGKILL is not a method but what follows when the time is over.
"""

import signal
from collections.abc import Sequence

KINDS = ("notify", "stdin", "signal", "command", "rcon")
DEFAULT = "signal:SIGTERM"
_TAKES = (
    "takes methods separated by commas: notify, stdin:LINE, signal:NAME, command:PROGRAM ARGS, rcon:COMMAND; each may "
    r"end in a share such as @40% or @2s, and \, is a comma"
)
# What the last resort before SIGKILL gets at least, where methods with fixed shares ask for more than there is.
_LEAST = 0.1


class Method:
    """One stop method.

    Attributes:
        kind: `notify`, `stdin`, `signal`, `command` or `rcon`.
        argument: the line, the signal's name, the command; "" for notify.
        fraction: its share of the time, 0 to 1, or None.
        seconds: its share in seconds, or None.
    """

    __slots__ = ("argument", "fraction", "kind", "seconds")

    def __init__(
        self, kind: str, argument: str = "", *, fraction: "float | None" = None, seconds: "float | None" = None
    ) -> None:
        """Takes the parts; `parse` checks them."""
        self.kind = kind
        self.argument = argument
        self.fraction = fraction
        self.seconds = seconds

    def __eq__(self, other: object) -> bool:
        """Whether all parts are equal."""
        return isinstance(other, Method) and self._parts == other._parts

    def __hash__(self) -> int:
        """By its parts."""
        return hash(self._parts)

    @property
    def _parts(self) -> "tuple[object, ...]":
        return self.kind, self.argument, self.fraction, self.seconds

    @property
    def signum(self) -> int:
        """The number of its signal; for `signal` only."""
        return int(signal.Signals[self.argument])

    def __str__(self) -> str:
        """As it is shown: the command of rcon may hold a word that is nobody's business."""
        return self.kind if self.kind in ("notify", "rcon") else f"{self.kind}:{self.argument}"

    __repr__ = __str__


def parse(text: str) -> "tuple[Method, ...]":
    """Reads AGENT_STOP.

    Raises:
        ValueError: with what it takes.
    """
    methods = tuple(_method(part) for part in _split(text))
    if not methods:
        raise ValueError(_TAKES)
    return methods


def _split(text: str) -> "list[str]":
    parts = [""]
    escaped = False
    for character in text:
        if escaped:
            parts[-1] += character if character in ",\\" else "\\" + character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ",":
            parts.append("")
        else:
            parts[-1] += character
    if escaped:
        parts[-1] += "\\"
    return [part.strip() for part in parts if part.strip()]


def _method(text: str) -> Method:
    body, fraction, seconds = _share(text)
    kind, colon, argument = body.partition(":")
    kind = kind.strip().lower()
    argument = argument if kind == "stdin" else argument.strip()
    if kind not in KINDS or bool(argument) != (kind != "notify") or (kind == "notify" and colon):
        raise ValueError(_TAKES)
    if kind == "signal":
        argument = argument.upper() if argument.upper().startswith("SIG") else f"SIG{argument.upper()}"
        if argument not in signal.Signals.__members__ or argument in ("SIGKILL", "SIGSTOP", "SIGCHLD"):
            raise ValueError(f"takes signals such as SIGTERM, SIGINT or SIGUSR1; {argument} is none that asks to stop")
    if "\0" in argument or "\n" in argument:
        raise ValueError("takes methods of one line each")
    return Method(kind, argument, fraction=fraction, seconds=seconds)


def _share(text: str) -> "tuple[str, float | None, float | None]":
    body, at, share = text.rpartition("@")
    if not at:
        return text, None, None
    from agent.checks import duration  # noqa: PLC0415 - the default has no share

    if share.endswith("%") and share[:-1].isascii() and share[:-1].isdigit() and 1 <= int(share[:-1]) <= 100:
        return body.strip(), int(share[:-1]) / 100, None
    if share[:1].isdigit() and share[-1:] in "sm":
        try:
            return body.strip(), None, duration(share)
        except ValueError:
            return text, None, None
    return text, None, None  # the @ belongs to a line or a command


def with_last_resort(methods: "Sequence[Method]") -> "tuple[Method, ...]":
    """The list with SIGTERM at its end, where it is not in it already."""
    if any(method.kind == "signal" and method.argument == "SIGTERM" for method in methods):
        return tuple(methods)
    return (*methods, Method("signal", "SIGTERM"))


def turns(methods: "Sequence[Method]", seconds: float) -> "list[float]":
    """When each method's turn is over, in seconds after the first one's began.

    Args:
        methods: at least one.
        seconds: how long the game has to end, all methods together.

    Returns:
        One moment a method, never decreasing; the last is `seconds`.
    """
    shares = [
        method.fraction * seconds
        if method.fraction is not None
        else method.seconds
        if method.seconds is not None
        else None
        for method in methods
    ]
    fixed = sum(share for share in shares if share is not None)
    open_ones = sum(share is None for share in shares)
    reserve = min(_LEAST * open_ones, seconds / 2) if open_ones else 0.0
    shrink = min(1.0, (seconds - reserve) / fixed) if fixed > 0 else 1.0
    each = (seconds - fixed * shrink) / open_ones if open_ones else 0.0
    ends, end = [], 0.0
    for share in shares:
        end += each if share is None else share * shrink
        ends.append(min(end, seconds))
    ends[-1] = seconds
    return ends

"""Stop methods: the ordered list of AGENT_STOP, and when each is applied. Pure, standard library only.

    notify@40%,stdin:save-all@1s,stdin:stop,signal:SIGINT

Each method gets a share of the time that the game has to end; methods without a share divide the rest equally. If the
game is still running when the share is over, the next method is applied. SIGTERM is added as the last method if it is
not in the list. SIGKILL is not a method; it follows when the whole time is over.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence
else:
    import _signal  # the C part: see agent.game.spawn

HOSTS = ("agones", "multiplay", "playfab")
"""Methods that tell the game through another host's SDK; see `agent.compat`."""
KINDS = ("notify", "stdin", "signal", "command", "rcon", *HOSTS)
_BARE = ("notify", *HOSTS)  # those without an argument
_TARGETS = ("main", "group", "port")
_PERCENT = r"([0-9]+(?:\.[0-9]+)?)%"
_DURATION = r"([0-9]+(?:\.[0-9]+)?)(s|ms|m)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_TAKES = (
    "takes methods separated by commas: notify, stdin:LINE, signal:NAME, command:PROGRAM ARGS, rcon:COMMAND, "
    r"agones, multiplay, playfab; each may end in a share such as @40% or @2s, and \, is a comma"
)
# The least time for the last method before SIGKILL, if methods with fixed shares ask for more than there is.
_LEAST = 0.1


class Method:
    """One stop method.

    Attributes:
        kind: one of `KINDS`, or `itself`, which AGENT_STOP cannot contain: see `ITSELF`.
        argument: the line, the signal's name, the command; "" for those that take none.
        fraction: its share of the time, 0 to 1, or None.
        seconds: its share in seconds, or None.
        target: whom a signal reaches: `main`, `group`, `port`, or "" for the rule of `agent.game.stop_signal`.
    """

    __slots__ = ("argument", "fraction", "kind", "seconds", "target")

    def __init__(
        self,
        kind: str,
        argument: str = "",
        *,
        fraction: "float | None" = None,
        seconds: "float | None" = None,
        target: str = "",
    ) -> None:
        """Takes the parts; `parse` checks them."""
        self.kind = kind
        self.argument = argument
        self.fraction = fraction
        self.seconds = seconds
        self.target = target

    def share(self, whole: float) -> "float | None":
        """The seconds that it gets out of a total, or None if it takes a part of the rest."""
        return self.seconds if self.fraction is None else self.fraction * whole

    def __eq__(self, other: object) -> bool:
        """Whether all parts are equal."""
        return isinstance(other, Method) and self._parts == other._parts

    def __hash__(self) -> int:
        """By its parts."""
        return hash(self._parts)

    @property
    def _parts(self) -> "tuple[object, ...]":
        return self.kind, self.argument, self.fraction, self.seconds, self.target

    @property
    def signum(self) -> int:
        """The number of its signal; for `signal` only."""
        return int(getattr(_signal, self.argument))

    def __str__(self) -> str:
        """The method for display; without the command of rcon, which may contain a secret."""
        target = f":{self.target}" if self.target else ""
        return f"{self.kind}:{self.argument}{target}" if self.kind in ("stdin", "signal", "command") else self.kind

    __repr__ = __str__


SIGTERM = Method("signal", "SIGTERM")
# A game that sent `STOPPING=1` is ending by itself: it gets half of the time before any method is applied.
ITSELF = Method("itself", fraction=0.5)


def parse(text: str) -> "tuple[Method, ...]":
    """Reads AGENT_STOP.

    Raises:
        ValueError: it is invalid; the message says what the setting takes.
    """
    methods = tuple(_method(part) for part in _split(text))
    if not methods:
        raise ValueError(_TAKES)
    together = sum(method.fraction or 0.0 for method in methods)
    if together > 1.0 + 1e-9:
        raise ValueError(f"takes shares of at most 100% together, and these are {together * 100:g}%")
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
    if kind not in KINDS or bool(argument) != (kind not in _BARE) or (kind in _BARE and colon):
        raise ValueError(f"{_TAKES}; {text!r} is none of them")
    if "\0" in argument or "\n" in argument or "\r" in argument:
        raise ValueError("takes methods of one line each")
    target = ""
    if kind == "signal":
        argument, colon, target = argument.partition(":")
        target = target.strip().lower()
        if colon and target not in _TARGETS:
            raise ValueError(
                f"takes signal:NAME or signal:NAME:TARGET with one of {', '.join(_TARGETS)}; {text!r} is neither"
            )
        argument = argument.strip()
        argument = argument.upper() if argument.upper().startswith("SIG") else f"SIG{argument.upper()}"
        known = isinstance(getattr(_signal, argument, None), int) and not argument.startswith("SIG_")  # SIG_BLOCK
        if not known or argument in ("SIGKILL", "SIGSTOP", "SIGCHLD"):
            raise ValueError(f"takes signals such as SIGTERM, SIGINT or SIGUSR1; {argument} is none that asks to stop")
    if kind == "command":
        import shlex  # noqa: PLC0415 - most games do without

        try:
            shlex.split(argument)
        except ValueError as wrong:
            raise ValueError(f"takes commands as a shell splits them; {argument!r} is none: {wrong}") from None
    return Method(kind, argument, fraction=fraction, seconds=seconds, target=target)


def _share(text: str) -> "tuple[str, float | None, float | None]":
    body, at, share = text.rpartition("@")
    if not at:
        return text, None, None
    import re  # noqa: PLC0415 - only where there is a share

    if percent := re.fullmatch(_PERCENT, share):
        if not 0 < float(percent[1]) <= 100:
            raise ValueError(f"takes shares of more than 0% and at most 100%, and {share} is none")
        return body.strip(), float(percent[1]) / 100, None
    if seconds := re.fullmatch(_DURATION, share):
        return body.strip(), None, float(seconds[1]) * _SECONDS[seconds[2]]
    return text, None, None  # an @ that belongs to a line or a command


# SIGTERM, if the list does not contain it: with a small share, so that the chosen methods get most of the time.
LAST_RESORT = Method("signal", "SIGTERM")
_LAST_RESORT_FRACTION, _LAST_RESORT_SECONDS = 0.1, 2.0


def with_last_resort(methods: "Sequence[Method]") -> "tuple[Method, ...]":
    """The list, with SIGTERM added at the end if it is missing: with a tenth of the time, 2 s at most."""
    if any(method.kind == "signal" and method.argument == SIGTERM.argument for method in methods):
        return tuple(methods)
    return (*methods, LAST_RESORT)


def turns(methods: "Sequence[Method]", left: float, whole: "float | None" = None) -> "list[float]":
    """When each method's time is over, in seconds after the first one begins.

    Args:
        methods: the methods not applied so far; at least one.
        left: the time left for all of them together.
        whole: the time at the beginning, on which percentages are based; `left` by default.

    Returns:
        One time for each method, never decreasing; the last is `left`. Time not used by earlier methods goes to those
        without a share, or to the last one.
    """
    whole = left if whole is None else whole
    shares = [method.share(whole) for method in methods]
    if methods[-1] is LAST_RESORT and len(methods) > 1:
        free = max(0.0, left - sum(share for share in shares[:-1] if share is not None))
        free /= 1 + (None in shares[:-1])
        shares[-1] = max(min(_LEAST, left / 2), min(whole * _LAST_RESORT_FRACTION, _LAST_RESORT_SECONDS, free))
    fixed = sum(share for share in shares if share is not None)
    open_ones = sum(share is None for share in shares)
    reserve = min(_LEAST * open_ones, left / 2) if open_ones else 0.0
    shrink = min(1.0, (left - reserve) / fixed) if fixed > 0 else 1.0
    each = (left - fixed * shrink) / open_ones if open_ones else 0.0
    ends, end = [], 0.0
    for share in shares:
        end += each if share is None else share * shrink
        ends.append(min(end, left))
    ends[-1] = left
    return ends

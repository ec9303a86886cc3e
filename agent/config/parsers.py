"""Small functions that turn the text of a setting into its value. Standard library only, and quick to import.

The init uses them before the game is spawned; the settings model uses the same ones, so that both
always agree. Each raises `ValueError` with a message that says what the setting takes; naming the setting and what it
got is the task of the caller, which knows both.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HOSTS = ("agones", "multiplay", "playfab")
"""Other hosts whose SDKs are supported, by their names in AGENT_COMPAT."""

_TRUE = ("on", "true", "yes", "1")
_FALSE = ("off", "false", "no", "0")
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {
    "": 1,
    "b": 1,
    "k": 1024,
    "kb": 1000,
    "kib": 1024,
    "m": 1024**2,
    "mb": 1000**2,
    "mib": 1024**2,
    "g": 1024**3,
    "gb": 1000**3,
    "gib": 1024**3,
}


def boolean(text: str) -> bool:
    """`on` or `off` (also true/false, yes/no, 1/0), in any case."""
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("takes on or off")


def port(text: str) -> int:
    """A TCP port; 0 means any free one."""
    stripped = text.strip()
    if stripped.isascii() and stripped.isdigit() and len(stripped) <= 5 and int(stripped) <= 65535:
        return int(stripped)
    raise ValueError("takes a port number from 0 to 65535 (0: any free one)")


def count(text: str) -> int:
    """A whole number, 0 or more."""
    stripped = text.strip()
    if stripped.isascii() and stripped.isdigit() and len(stripped) <= 9:
        return int(stripped)
    raise ValueError("takes a whole number, 0 or more")


def duration(text: str) -> float:
    """Seconds: `5`, `2.5`, `500ms`, `30s`, `5m`, `1h`; never negative, at most a week."""
    stripped = text.strip().lower()
    digits = stripped.rstrip("msh")
    factor = _DURATIONS.get(stripped[len(digits) :] or "s")
    try:
        value = float(digits) * (factor if factor is not None else float("nan"))
    except ValueError:
        value = float("nan")
    # The digits are looked at as well because float() also takes "1e3", "inf", "1_0" and spaces inside.
    if not digits.replace(".", "", 1).isascii() or not digits.replace(".", "", 1).isdigit() or not value <= 604800:
        raise ValueError("takes seconds or a duration such as 500ms, 30s, 5m or 1h, at most a week")
    return value


def size(text: str) -> int:
    """Bytes: `65536`, `512KiB`, `64MiB`, `1GB`."""
    stripped = text.strip().lower().replace(" ", "")
    digits = stripped.rstrip("kmgib")
    factor = _SIZES.get(stripped[len(digits) :])
    if factor is None or not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise ValueError("takes bytes or a size such as 512KiB, 64MiB or 1GiB")
    return int(digits) * factor


def text(value: str) -> str:
    """Any text without NUL bytes and line breaks."""
    if any(character in value for character in "\0\r\n"):
        raise ValueError("takes one line of text")
    return value


def path(value: str) -> str:
    """An absolute path."""
    if not os.path.isabs(value) or "\0" in value:
        raise ValueError("takes an absolute path")
    return os.path.normpath(value)


def durations(value: str) -> "tuple[float, ...]":
    """Durations separated by commas."""
    return tuple(duration(part) for part in value.split(",") if part.strip())


def ready_when(value: str) -> str:
    """`api`, `port`, `port:NAME`, `port:NUMBER`, or `output:REGEX`."""
    kind, _, rest = value.strip().partition(":")
    if kind == "output" and rest:
        import re  # noqa: PLC0415 - only where there is one

        try:
            re.compile(rest.encode())
        except re.error as wrong:
            raise ValueError(f"takes a regular expression after output:, and {rest!r} is none: {wrong}") from None
    elif value.strip() not in ("api", "port") and not (kind == "port" and rest):
        raise ValueError("takes api, port, port:NAME or output:REGEX")
    return value.strip()


def main_process(value: str) -> str:
    """`pidfile:PATH`, `port`, `port:NUMBER` or `last`."""
    kind, colon, rest = value.strip().partition(":")
    kind = kind.lower()
    if (kind == "last" and not colon) or (kind == "port" and not colon) or (kind == "pidfile" and rest.startswith("/")):
        return f"{kind}{colon}{rest}"
    if kind == "port" and rest.isascii() and rest.isdigit() and 0 < int(rest) < 65536:
        return f"{kind}:{int(rest)}"
    raise ValueError("takes pidfile:PATH with an absolute path, port, port:NUMBER, or last")


def players_from(value: str) -> str:
    """`api`, `tcp`, `tcp:PORT`, or `query:PROTOCOL://HOST:PORT`."""
    kind, _, rest = value.strip().partition(":")
    if kind == "query":
        protocol, slashes, where = rest.partition("://")
        if protocol and slashes:
            from agent.game.query_protocols import check  # noqa: PLC0415 - only where there is one

            check(protocol)
            address(where)
            return value.strip()
    elif kind == "tcp" and rest:
        port(rest)
        return value.strip()
    elif value.strip() in ("api", "tcp"):
        return value.strip()
    raise ValueError("takes api, tcp, tcp:PORT or query:PROTOCOL://HOST:PORT, such as query:a2s://127.0.0.1:27015")


def game_user(value: str) -> str:
    """A user of this image: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`."""
    from agent.game.user import find  # noqa: PLC0415 - only where there is one

    find(value)
    return value.strip()


def templates(value: str) -> "tuple[tuple[str, str], ...]":
    """`SOURCE:TARGET` with absolute paths, several separated by commas."""
    found = []
    for part in value.split(","):
        if not part.strip():
            continue
        source, colon, target = part.strip().partition(":")
        if not colon or not os.path.isabs(source) or not os.path.isabs(target) or "\0" in part:
            raise ValueError("takes SOURCE:TARGET with absolute paths, several separated by commas")
        found.append((source, target))
    return tuple(found)


def choice(*options: str) -> "Callable[[str], str]":
    """A parser for one of these words, in any case."""

    def choose(value: str) -> str:
        lowered = value.strip().lower()
        if lowered not in options:
            raise ValueError(f"takes {', '.join(options[:-1])} or {options[-1]}")
        return lowered

    return choose


def names(value: str) -> "tuple[str, ...]":
    """Words separated by commas; a regular expression between slashes may contain commas."""
    found = []
    rest = value.strip()
    while rest:
        if rest.startswith("/"):
            expression, slash, rest = rest[1:].partition("/")
            if not slash:
                raise ValueError("takes names, or regular expressions between slashes, separated by commas")
            import re  # noqa: PLC0415 - only where there is one

            try:
                re.compile(expression.encode())
            except re.error as wrong:
                raise ValueError(
                    f"takes regular expressions between slashes; /{expression}/ is none: {wrong}"
                ) from None
            found.append(f"/{expression}/")
            rest = rest.strip().removeprefix(",").strip()
        else:
            word, _, rest = rest.partition(",")
            if word.strip():
                found.append(word.strip())
            rest = rest.strip()
    return tuple(found)


def patterns(value: str) -> "tuple[str, ...]":
    """Absolute paths with `*`, `?`, `[...]` and `**`, separated by commas."""
    found = tuple(pattern.strip() for pattern in value.split(",") if pattern.strip())
    if any(not os.path.isabs(pattern) or "\0" in pattern for pattern in found):
        raise ValueError("takes absolute paths, which may hold * and ?, separated by commas")
    return found


def socket_path(value: str) -> str:
    """An absolute path that fits in a Unix socket address (107 bytes), or `off`."""
    if value.strip().lower() in _FALSE:
        return ""
    # sockaddr_un.sun_path has 108 bytes with the closing NUL (man 7 unix).
    if not os.path.isabs(value) or "\0" in value or len(os.fsencode(value)) > 107:
        raise ValueError("takes an absolute path of at most 107 bytes, or off")
    return os.path.normpath(value)


def address(value: str) -> str:
    """HOST:PORT; an IPv6 address in brackets."""
    name, colon, number = value.strip().rpartition(":")
    if not colon or not name.strip("[]") or any(character in name for character in " /@\0"):
        raise ValueError("takes HOST:PORT")
    return f"{name}:{port(number)}"


def statsd(value: str) -> "int | str | None":
    """A UDP port, the absolute path of a Unix datagram socket, or `off`."""
    if value.strip().lower() in _FALSE:
        return None
    if value.startswith("/"):
        return socket_path(value)
    try:
        return port(value)
    except ValueError:
        raise ValueError("takes a port, the absolute path of a socket (at most 107 bytes), or off") from None


def push_url(value: str) -> str:
    """Where metrics are pushed to: a Pushgateway (its path has `/metrics/job/`), or a remote-write receiver."""
    scheme, _, rest = value.strip().partition("://")
    host_part, slash, path = rest.partition("/")
    if scheme not in ("http", "https") or not host_part or not slash or not path:
        raise ValueError(
            "takes the http or https URL of a remote-write receiver, such as http://HOST:9090/api/v1/write, or of a "
            "Pushgateway with a job, such as http://HOST:9091/metrics/job/game"
        )
    if "@" in host_part:
        raise ValueError("takes a URL without a user and password; they go into AGENT_METRICS_PUSH_AUTH")
    return value.strip()


def host(value: str) -> str:
    """An IPv4 or IPv6 address to listen on."""
    import _socket as socket  # noqa: PLC0415 - the C part of `socket`, which alone is as slow as half an interpreter

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, value.strip())
        except (OSError, ValueError):
            continue
        return value.strip()
    raise ValueError("takes an IPv4 or IPv6 address, such as 0.0.0.0")


def compat(value: str) -> "tuple[str, ...]":
    """Hosts separated by commas, or `auto` for all of them."""
    found = tuple(dict.fromkeys(part.strip().lower() for part in value.split(",") if part.strip()))
    if found == ("auto",) or (found and all(host in HOSTS for host in found)):
        return found
    raise ValueError(f"takes {', '.join(HOSTS)}, several of them separated by commas, or auto")


def assignments(value: str) -> "tuple[tuple[str, str], ...]":
    """`KEY=VALUE` separated by commas, or a JSON object of texts."""
    if value.strip().startswith("{"):
        import json  # noqa: PLC0415 - only where there is one

        try:
            members = json.loads(value)
        except ValueError:
            raise ValueError("takes KEY=VALUE separated by commas, or a JSON object") from None
        return tuple((name, got if isinstance(got, str) else json.dumps(got)) for name, got in members.items())
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if any(not equals or not name.strip() for name, equals, _ in pairs):
        raise ValueError("takes KEY=VALUE separated by commas, or a JSON object")
    return tuple((name.strip(), got.strip()) for name, _, got in pairs)


def counters(value: str) -> "tuple[tuple[str, int, int], ...]":
    """Counters of Agones, `NAME=COUNT/CAPACITY` separated by commas."""
    takes = "takes NAME=COUNT/CAPACITY separated by commas, such as rooms=0/10, with a count of at most the capacity"
    found = []
    for name, text in assignments(value):
        number, slash, limit = text.partition("/")
        try:
            first, most = count(number), count(limit)
        except ValueError:
            raise ValueError(takes) from None
        if not slash or first > most:
            raise ValueError(takes)
        found.append((name, first, most))
    return tuple(found)


def lists(value: str) -> "tuple[tuple[str, tuple[str, ...], int], ...]":
    """Lists of Agones, `NAME=VALUE|VALUE/CAPACITY` or `NAME=/CAPACITY`, separated by commas."""
    takes = (
        "takes NAME=VALUE|VALUE/CAPACITY separated by commas, such as players=/16, with a capacity of at most 1000 and "
        "no more values than that, none of them twice"
    )
    found = []
    for name, text in assignments(value):
        values, slash, limit = text.rpartition("/")
        try:
            most = count(limit)
        except ValueError:
            raise ValueError(takes) from None
        items = tuple(item.strip() for item in values.split("|") if item.strip())
        if not slash or len(set(items)) != len(items) or len(items) > most or most > 1000:
            raise ValueError(takes)
        found.append((name, items, most))
    return tuple(found)

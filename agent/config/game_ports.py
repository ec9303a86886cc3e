"""The game's ports, as the platform injects them: one JSON object, and variables for each port.

Standard library only: the init reads them before the game is spawned. `agent.config.injected` finds the same ports, and
reports the invalid ones.
"""

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PORTS_MAPPING = "ARBITRIUM_PORTS_MAPPING"
PORT_VARIABLE = re.compile(r"ARBITRIUM_PORT_(?P<name>.+)_(?P<what>INTERNAL|EXTERNAL|PROTOCOL)", re.DOTALL)


class GamePort:
    """One port of the version.

    Attributes:
        internal: where the game listens.
        external: where players reach it, or None if unknown.
        protocol: the platform's name for it, such as UDP, TCP/UDP or HTTP; None if unknown.
    """

    __slots__ = ("external", "internal", "protocol")

    def __init__(self, internal: int, external: "int | None", protocol: "str | None") -> None:
        """Takes the three values unchanged."""
        self.internal = internal
        self.external = external
        self.protocol = protocol


def game_ports(environ: "Mapping[str, str]") -> "dict[str, GamePort]":
    """The ports by name, those of the mapping first. Invalid ones are skipped; never raises."""
    ports = _mapped(injected_text(environ, PORTS_MAPPING))
    for name, given in _in_variables(environ).items():
        known = next((port for mapped, port in ports.items() if name_in_variables(mapped) == name.upper()), None)
        if known is None and "internal" in given:
            ports[name.lower()] = GamePort(given["internal"], given.get("external"), given.get("protocol"))
        elif known is not None:
            for what, value in given.items():
                if getattr(known, what) is None:
                    setattr(known, what, value)
    return ports


def injected_text(environ: "Mapping[str, str]", name: str) -> str:
    """A variable's text, "" where there is none.

    Bytes that are not UTF-8 arrive as lone surrogates, which models and JSON do not accept.
    """
    return environ.get(name, "").encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()


def name_in_variables(name: str) -> str:
    """The form of a port's name in the names of its variables."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name).upper()


def port_number(raw: str) -> int:
    """Reads a port. Raises `ValueError` if it is invalid."""
    if not re.fullmatch(r"[0-9]{1,5}", raw) or int(raw) > 65535:
        raise ValueError("takes a port number from 0 to 65535")
    return int(raw)


def no_constant(name: str) -> "Any":
    """For `json.loads`, which would accept NaN and Infinity. Raises `ValueError`."""
    raise ValueError(f"{name} is not JSON")


def _mapped(raw: str) -> "dict[str, GamePort]":
    """`{"ports": {name: {...}}}`; older versions key by the internal port's number and may have no names."""
    try:
        given = json.loads(raw or "{}", parse_constant=no_constant)
    except (ValueError, RecursionError):
        return {}
    ports = given.get("ports", given) if isinstance(given, dict) else None
    found: dict[str, GamePort] = {}
    for key, port in ports.items() if isinstance(ports, dict) else ():
        if not isinstance(port, dict):
            continue
        name, external, protocol = port.get("name"), port.get("external"), port.get("protocol")
        try:
            found[name if isinstance(name, str) and name else key] = GamePort(
                port_number(str(port.get("internal", key))),
                None if external is None else port_number(str(external)),
                protocol if isinstance(protocol, str) else None,
            )
        except ValueError:
            continue
    return found


def _in_variables(environ: "Mapping[str, str]") -> "dict[str, dict[str, Any]]":
    """The values from the variables of each port, by the name in them."""
    found: dict[str, dict[str, Any]] = {}
    for variable in sorted(environ):
        parts = PORT_VARIABLE.fullmatch(variable)
        raw = injected_text(environ, variable) if parts else ""
        if not parts or not raw:
            continue
        value: int | str = raw
        if parts["what"] != "PROTOCOL":
            try:
                value = port_number(raw)
            except ValueError:
                continue
        elif "\0" in raw or "\n" in raw:
            continue
        found.setdefault(parts["name"], {})[parts["what"].lower()] = value
    return found

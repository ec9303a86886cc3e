"""Checks of settings that are each valid: combinations that exclude each other, and missing files or directories.

Standard library only: the init makes some checks before the game is spawned, `arbitrium-agent config --check` all.
"""

from __future__ import annotations

import os
import sys

from agent.config.table import TABLE
from agent.lifecycle.stop_methods import HOSTS

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself takes 5 ms
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    # Setting name, and the rest of a sentence that begins with it.
    Wrong = tuple[str, str]


def relations(value: Callable[[str], Any]) -> Iterator[Wrong]:
    """Settings that exclude each other.

    Args:
        value: the value of a setting by its name.
    """
    if value("rcon_address") is None and any(method.kind == "rcon" for method in value("stop")):
        yield "stop", "takes rcon only where AGENT_RCON_ADDRESS says where the game listens"
    if value("tty") and not value("capture"):
        yield "tty", "takes on only where the output is captured, and AGENT_CAPTURE is off"
    hosts = value("compat")
    asked = {method.kind for method in value("stop")} & set(HOSTS)
    if "auto" not in hosts and (missing := sorted(asked - set(hosts))):
        yield "stop", f"takes {missing[0]} only where AGENT_COMPAT has it"
    if value("metrics_tls_key") is not None and value("metrics_tls_cert") is None:
        yield "metrics_tls_key", "takes a key only where AGENT_METRICS_TLS_CERT names the certificate"
    taken: dict[int, str] = {}
    for name in TABLE:
        number = value(name) if name.endswith("_port") else None
        if not number:  # 0 is any free one
            continue
        if number in taken:
            yield name, f"takes a port of its own, and {number} is that of AGENT_{taken[number].upper()}"
        taken.setdefault(number, name)


def workdir(value: Callable[[str], Any]) -> Iterator[Wrong]:
    """Checks the game's working directory; the init does this too, before the game is spawned.

    Args:
        value: the value of a setting by its name.
    """
    wanted = value("workdir")
    if wanted is not None and not os.path.isdir(wanted):
        yield "workdir", f"takes a directory of this image, and {wanted} is none"
    elif wanted is not None and not os.access(wanted, os.X_OK):
        yield "workdir", f"takes a directory that this user may enter, and {wanted} is not one"


def players(value: Callable[[str], Any], environ: Mapping[str, str]) -> Iterator[Wrong]:
    """Checks how players are counted, as far as possible without the libraries; the init does this before it spawns.

    Args:
        value: the value of a setting by its name.
        environ: the environment, with the game's ports if they were injected.
    """
    kind, _, rest = value("players_from").partition(":")
    if kind == "tcp" and not rest:
        from agent.config.game_ports import game_ports  # noqa: PLC0415 - most count another way, or name the port

        if all(port.protocol == "UDP" for port in game_ports(environ).values()):
            yield "players_from", "takes tcp:PORT here, since no mapping names a TCP port"
    elif kind == "query":
        from agent.game.query_protocols import COUNTED, check  # noqa: PLC0415 - likewise

        library = COUNTED[check(rest.partition("://")[0])][0]
        # Searches like an import statement, without importing.
        if library and not any(finder.find_spec("opengsq", None) for finder in sys.meta_path):
            from agent.errors import how_to_install  # noqa: PLC0415 - likewise

            yield "players_from", f"takes query only where opengsq is installed: {how_to_install('query')}"


def places(value: Callable[[str], Any]) -> Iterator[Wrong]:
    """Checks directories and files that a start needs, with the rights of this user.

    Args:
        value: the value of a setting by its name.
    """
    yield from workdir(value)
    for name in ("spool_dir", "socket_path"):
        wanted = value(name)
        folder = wanted if name == "spool_dir" or not wanted else os.path.dirname(wanted)
        if folder and (why := _cannot_write(folder)):
            yield name, f"takes a directory that can be written, and {why}"
    if why := _cannot_serve_tls(value("metrics_tls_cert"), value("metrics_tls_key")):
        yield "metrics_tls_cert", why
    yield from templates(value)


def templates(value: Callable[[str], Any]) -> Iterator[Wrong]:
    """Checks the files of AGENT_TEMPLATE; the init does this before it writes any.

    Args:
        value: the value of a setting by its name.
    """
    for source, target in value("template"):
        if why := _cannot_read(source):
            yield "template", f"takes templates that can be read; {source}: {why}"
        elif not os.path.isdir(os.path.dirname(target)):
            yield "template", f"takes targets that can be written; {target}: no such directory"
        elif not os.access(os.path.dirname(target), os.W_OK):
            yield "template", f"takes targets that can be written; {target}: permission denied"


def unset_in_templates(value: Callable[[str], Any], environ: Mapping[str, str]) -> list[str]:
    """The variables in templates that are not set here; they may be injected when the container is started.

    Args:
        value: the value of a setting by its name.
        environ: the variables that are set.
    """
    from agent.config.templates import names  # noqa: PLC0415 - most games do without
    from agent.game.files import open_regular  # noqa: PLC0415 - likewise

    found: dict[str, None] = {}
    for source, _ in value("template"):
        try:
            with open(open_regular(source), encoding="utf-8", errors="surrogateescape", newline="") as file:
                text = file.read()
        except OSError:
            continue
        found.update(dict.fromkeys(f"{name} (in {source})" for name in names(text) if name not in environ))
    return list(found)


def _cannot_serve_tls(certificate: str | None, key: str | None) -> str:
    if certificate is None:
        return ""
    from agent.config.tls import server_context  # noqa: PLC0415 - most serve no TLS

    try:
        server_context(certificate, key)
    except ValueError as wrong:
        return str(wrong)
    return ""


def _cannot_read(path: str) -> str:
    from agent.game.files import open_regular  # noqa: PLC0415 - most games have no templates

    try:
        os.close(open_regular(path))
    except OSError as problem:
        return (problem.strerror or str(problem)).lower()
    return ""


def _cannot_write(folder: str) -> str:
    """Why a directory cannot be written or created; "" if it can."""
    place = folder
    while not os.path.lexists(place) and place != "/":
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        return f"{place} is no directory"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"this user may not write in {place}"
    return ""

"""Prepares what a game built for another host expects at its start: listening sockets, files, variables.

Called by the init before the game is spawned, if AGENT_COMPAT is set. Standard library only, nothing heavy. From then
on a connection waits in the backlog until the agent serves it, so that a game's first call is never refused.

Sources of names and forms: the public SDKs of Agones, PlayFab (GSDK) and Unity's Multiplay.
"""

import json
import os

from agent import log
from agent.config import parsers
from agent.config.game_ports import game_ports
from agent.config.names import variable
from agent.game import files
from agent.init.sockets import Port, TakenError, listen_tcp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.game.user import User

    Json = dict[str, object]

# Listener, setting, default port, host, and what the game does not hear of when the port is moved.
_LISTENERS = (
    ("agones-http", "agones_http_port", 9358, "agones"),
    ("agones-grpc", "agones_grpc_port", 9357, "agones"),
    ("multiplay", "multiplay_port", 8086, "multiplay"),
    ("playfab", "playfab_port", 56001, "playfab"),
)
_HOST = "127.0.0.1"
_GSDK_FOLDERS = {"logFolder": "logs", "sharedContentFolder": "shared", "certificateFolder": "certificates"}


class Prepared:
    """What exists when the game starts.

    Attributes:
        hosts: those that are asked for, `auto` resolved: agones, multiplay, playfab.
        ports: the listening sockets, by listener: agones-http, agones-grpc, multiplay, playfab.
        files: files that were written, by what they are: server.json, gsdk.
        ids: names that were made up for this deployment, small and JSON: a restart of the agent has to keep them.
        problems: wrong settings: the setting's name and what it takes.
        user: whom the game runs as, or None for the agent's user.
    """

    __slots__ = ("files", "hosts", "ids", "ports", "problems", "user")

    def __init__(self, hosts: "tuple[str, ...]", user: "User | None" = None) -> None:
        """Has nothing yet."""
        self.hosts = hosts
        self.user = user
        self.ports: dict[str, Port] = {}
        self.files: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.problems: list[tuple[str, str]] = []

    def close(self) -> None:
        """Closes the sockets. The files stay where the game has written beside them."""
        for port in self.ports.values():
            port.sock.close()
        if (path := self.files.get("gsdk")) is not None:
            directory = os.path.dirname(path)
            try:
                for folder in _GSDK_FOLDERS.values():
                    os.rmdir(os.path.join(directory, folder))
                os.unlink(path)
                os.rmdir(directory)
            except OSError:
                pass


def prepare(
    hosts: "tuple[str, ...]",
    environ: "dict[str, str]",
    settings_raw: "Callable[[str], str | None]",
    game_env: "dict[str, str]",
    user: "User | None" = None,
) -> Prepared:
    """Prepares what the hosts' SDKs look for.

    Args:
        hosts: from AGENT_COMPAT, checked.
        environ: the container's environment, with what the platform injected.
        settings_raw: gives the text of a setting by its name, or None.
        game_env: the game's environment, which is added to.
        user: whom the game runs as, where it is not the agent's user: the files become theirs.

    Returns:
        What was made, with every problem found on the way.
    """
    made = Prepared(parsers.HOSTS if "auto" in hosts else hosts, user)
    for listener, setting, default, host in _LISTENERS:
        if host in made.hosts:
            _listen(made, listener, setting, default, settings_raw)
    if made.problems:
        return made
    if "agones" in made.hosts:
        _prepare_agones(made, game_env)
    if "multiplay" in made.hosts:
        _prepare_multiplay(made, environ, settings_raw, game_env, keep="auto" in hosts)
    if "playfab" in made.hosts:
        _prepare_playfab(made, environ, settings_raw, game_env)
    return made


def _listen(
    made: Prepared, listener: str, setting: str, default: int, settings_raw: "Callable[[str], str | None]"
) -> None:
    text = settings_raw(setting)
    try:
        port = listen_tcp(_HOST, default if text is None else parsers.port(text), explicit=text is not None)
    except (ValueError, TakenError) as wrong:
        made.problems.append((setting, str(wrong)))
        return
    except OSError as problem:
        log.warning(f"cannot listen on {_HOST} ({problem}); going on without {variable(setting)}")
        return
    if port.instead_of is not None:
        said = "; an SDK that does not read it from server.json will not find it" if listener == "multiplay" else ""
        log.warning(
            f"port {port.instead_of} is taken by another program: using {port.number} for {listener} instead{said}; "
            f"set {variable(setting)} to choose one"
        )
    made.ports[listener] = port


def _prepare_agones(made: Prepared, game_env: "dict[str, str]") -> None:
    for listener, name in (("agones-http", "AGONES_SDK_HTTP_PORT"), ("agones-grpc", "AGONES_SDK_GRPC_PORT")):
        if listener in made.ports:
            game_env[name] = str(made.ports[listener].number)
    made.ids["agones_uid"] = _guid()


def _prepare_multiplay(
    made: Prepared,
    environ: "dict[str, str]",
    settings_raw: "Callable[[str], str | None]",
    game_env: "dict[str, str]",
    *,
    keep: bool,
) -> None:
    made.ids["allocation"], made.ids["allocation_event"] = _guid(), _guid()
    made.ids["multiplay_server"] = server_id(environ)
    if "multiplay" not in made.ports:
        return
    home = game_env.get("HOME") or os.path.expanduser("~")
    path = os.path.join(home, "server.json")
    if keep and os.path.exists(path):
        log.debug(f"{path} is there already and stays as it is; AGENT_COMPAT=multiplay writes it anew")
        return
    content = server_json(environ, settings_raw, made.ids["multiplay_server"], made.ports["multiplay"].number)
    if (settings_raw("multiplay_allocate") or "").strip().lower() == "start":
        content["allocatedUUID"] = made.ids["allocation"]
    try:
        files.make_folder(os.path.join(home, str(content["serverLogDir"])), made.user)
        write_json(path, content, made.user)
    except OSError as problem:
        log.warning(
            f"cannot write {path} ({problem.strerror}): a game made for Multiplay will not find its configuration; "
            "set HOME to a directory that can be written"
        )
        return
    made.files["server.json"] = path


def server_id(environ: "dict[str, str]") -> str:
    """A number for Multiplay's server id: the deployment's id, whose 12 hex digits fit in 48 bits; 1 outside."""
    try:
        return str(int(environ.get("ARBITRIUM_REQUEST_ID", "") or "1", 16) % 2**48 or 1)
    except ValueError:
        return "1"


def server_json(
    environ: "dict[str, str]", settings_raw: "Callable[[str], str | None]", server: str, port: int
) -> "Json":
    """The content of `server.json`, not yet allocated; `AGENT_MULTIPLAY_CONFIG` adds the build configuration's keys."""
    game, query = _game_ports(environ)
    content: Json = {
        "allocatedUUID": "",
        "fleetID": environ.get("ARBITRIUM_PRIVATE_FLEET_ID", ""),
        "ip": environ.get("ARBITRIUM_PUBLIC_IP", "127.0.0.1"),
        "localProxyUrl": f"http://localhost:{port}",
        "machineID": environ.get("ARBITRIUM_HOST_ID", ""),
        # Text, as Multiplay wrote them: the SDKs take numbers in both forms, and all else as text only.
        "port": game,
        "queryPort": query,
        "queryType": settings_raw("multiplay_query_type") or "sqp",
        "regionID": "",
        "regionName": _city(environ),
        "serverID": server,
        # Under the home directory: the Go SDK puts that in front.
        "serverLogDir": "logs",
    }
    for name, value in parsers.assignments(settings_raw("multiplay_config") or ""):
        content[name] = value
    return content


def _game_ports(environ: "dict[str, str]") -> "tuple[str, str]":
    """Where the game listens, and where it answers queries: the ports named so, else the first and the second."""
    ports = game_ports(environ)
    names = list(ports)
    query = next((name for name in names if "query" in name.lower()), None)
    game = next((name for name in names if "game" in name.lower()), None)
    game = game or next((name for name in names if name != query), None)
    query = query or next((name for name in names if name != game), None)
    # The SDKs bind the query port themselves: it must be another one, mapped or not.
    return str(ports[game].internal if game else 9000), str(ports[query].internal if query else 9010)


def _city(environ: "dict[str, str]") -> str:
    try:
        return str(json.loads(environ.get("ARBITRIUM_DEPLOYMENT_LOCATION", "") or "{}").get("city") or "")
    except (ValueError, AttributeError, RecursionError):
        return ""


def _prepare_playfab(
    made: Prepared,
    environ: "dict[str, str]",
    settings_raw: "Callable[[str], str | None]",
    game_env: "dict[str, str]",
) -> None:
    made.ids["session_host"] = _guid()
    made.ids["session"] = _guid()
    if "playfab" not in made.ports:
        return
    temporary = environ.get("TMPDIR") or "/tmp"  # noqa: S108 - a new directory in it, of a name that nobody can guess
    directory = os.path.join(temporary, f"arbitrium-playfab-{os.urandom(6).hex()}")
    path = os.path.join(directory, "gsdkConfig.json")
    ports = game_ports(environ)
    address = environ.get("ARBITRIUM_PUBLIC_IP", "127.0.0.1")
    request = environ.get("ARBITRIUM_REQUEST_ID", "")
    folders = {name: os.path.join(directory, folder) for name, folder in _GSDK_FOLDERS.items()}
    content: Json = {
        "heartbeatEndpoint": f"localhost:{made.ports['playfab'].number}",
        "sessionHostId": made.ids["session_host"],
        "vmId": environ.get("ARBITRIUM_HOST_ID", "local"),
        **folders,
        "gameCertificates": {},
        "buildMetadata": dict(parsers.assignments(settings_raw("playfab_metadata") or "")),
        "gamePorts": {name: str(port.internal) for name, port in ports.items()},
        "publicIpV4Address": address,
        "fullyQualifiedDomainName": f"{request}.pr.edgegap.net" if request else "localhost",
        "gameServerConnectionInfo": {
            "publicIpV4Adress": address,  # spelt so in the SDKs
            "gamePortsConfiguration": [
                {
                    "name": name,
                    "serverListeningPort": port.internal,
                    "clientConnectionPort": port.internal if port.external is None else port.external,
                }
                for name, port in ports.items()
            ],
        },
    }
    try:
        os.mkdir(directory, 0o755)
        for folder in folders.values():
            files.make_folder(folder, made.user)
        write_json(path, content, made.user)
    except OSError as problem:
        log.warning(
            f"cannot write {path} ({problem.strerror}): a game made for PlayFab will not find its configuration"
        )
        return
    made.files["gsdk"] = path
    game_env["GSDK_CONFIG_FILE"] = path
    for name, value in (
        ("PF_TITLE_ID", settings_raw("playfab_title_id")),
        ("PF_BUILD_ID", settings_raw("app_version")),
        ("PF_REGION", _city(environ)),
    ):
        if value:
            game_env.setdefault(name, value)


def write_json(path: str, content: "Json", user: "User | None" = None) -> None:
    """Writes a file in one piece: a reader finds the old or the new content, never a part. Raises OSError."""
    text = json.dumps(content, indent=2, ensure_ascii=True) + "\n"
    files.replace(path, text.encode(), 0o644, user)


def _guid() -> str:
    """A random UUID (RFC 9562, version 4); the module `uuid` would cost the start 3 ms."""
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    digits = octets.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

"""Prepares what the game is started with: sockets, logs, user, environment, files. Standard library only.

Everything here happens before the game is spawned. Wrong settings are noted in the inputs; then nothing is started, and
all problems are reported at once.
"""

from __future__ import annotations

import os

from agent import log
from agent.config.names import game_environment, is_otlp_headers, matching, variable
from agent.game.process import GameProcess
from agent.init.sockets import Port, Sockets, TakenError, listen_notify, listen_statsd, listen_tcp, listen_unix
from agent.logs.target import is_store_variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.game.reaper import Reaper
    from agent.init.inputs import Inputs

_LOOPBACK = "127.0.0.1"


def bind_sockets(inputs: Inputs) -> Sockets:
    """Binds the listening sockets; a failure is a wrong setting, or a warning where the agent can run without it."""
    sockets = Sockets()
    sockets.control = _port(inputs, "control_port", _LOOPBACK)
    sockets.metrics = _port(inputs, "metrics_port", inputs.setting("metrics_host"), _metrics_port(inputs.environ))
    try:
        sockets.unix, why = listen_unix(inputs.setting("socket_path"))
        if why:
            log.warning(
                f"cannot make the Unix socket ({why}): the commands in the container will not find the agent; set "
                "AGENT_SOCKET_PATH to a path that can be written, or to off"
            )
    except TakenError as taken:
        inputs.wrong("socket_path", str(taken))
    if sockets.unix is not None:
        sockets.notify, why = listen_notify(sockets.unix)
        if why:
            log.warning(f"cannot make the socket for sd_notify ({why}): a game that uses it has to use HTTP instead")
    if (statsd := inputs.setting("statsd")) is not None:
        try:
            sockets.statsd, sockets.statsd_path = listen_statsd(statsd)
        except TakenError as taken:
            inputs.wrong("statsd", str(taken))
    return sockets


def prepare_game(inputs: Inputs, sockets: Sockets, reaper: Reaper) -> GameProcess:
    """Everything that the game is started with."""
    process = GameProcess(inputs.command, reaper)
    process.captured = inputs.setting("capture")
    process.workdir = inputs.setting("workdir")
    if any(method.kind == "stdin" for method in inputs.setting("stop")):
        from agent.game.stdin import StdinPipe  # noqa: PLC0415 - most games are stopped by a signal

        process.stdin = StdinPipe()
    process.tty = inputs.setting("tty")
    if inputs.setting("core"):
        from agent.game.core import permit_core  # noqa: PLC0415 - most games do without

        permit_core()
    process.env = game_environment(inputs.environ, _exported(inputs, sockets), hidden_names(inputs))
    _user(inputs, process, sockets)
    if inputs.setting("intercept"):
        _intercept(inputs, process, sockets)
    if inputs.raw("compat") is not None:
        _compat(inputs, process, sockets)
    _files(inputs, process)
    return process


def hidden_names(inputs: Inputs) -> list[str]:
    """The variables that the game does not get: what only the agent needs, and what AGENT_ENV_HIDE names."""
    environ, log_url = inputs.environ, inputs.raw("log_url")
    own = [name for name in environ if is_store_variable(name, log_url, environ)]
    headers = [name for name in environ if is_otlp_headers(name)]
    shown = matching(environ, inputs.setting("env_show"))
    if headers and inputs.exports_otlp:
        own += headers
        # A game with an SDK of its own would be refused by the collector without a hint to why.
        if kept_back := [name for name in headers if name not in shown]:
            names = ",".join(kept_back)
            log.info(
                f"the game does not get {names}, which the agent exports with; should it export too, set "
                f"AGENT_ENV_SHOW={names}"
            )
    return [name for name in own if name not in shown] + matching(environ, inputs.setting("env_hide"))


def _user(inputs: Inputs, process: GameProcess, sockets: Sockets) -> None:
    name = inputs.setting("game_user")
    if name is None:
        return
    from agent.game.user import find  # noqa: PLC0415 - most games run as the agent does

    process.user = user = find(name)
    # A HOME set on purpose by the image or the version is kept; root's default one is replaced.
    kept = {"HOME"} if inputs.environ.get("HOME", "/root") not in ("", "/root", "/") else set()
    process.env |= {key: value for key, value in user.environment.items() if key not in kept}
    for unix in (sockets.unix, sockets.notify, sockets.statsd_path):
        if unix is not None:
            try:
                os.chown(unix.path, -1, user.gid)
            except OSError as problem:
                log.warning(f"cannot give {unix.path} to the game's group ({problem.strerror}): use HTTP instead")


def _compat(inputs: Inputs, process: GameProcess, sockets: Sockets) -> None:
    """Environment and files that games built for other hosts look for."""
    hosts = inputs.setting("compat")
    if inputs.problems:
        return
    from agent.compat.prepare import prepare  # noqa: PLC0415 - most games do without

    sockets.compat = prepare(hosts, inputs.environ, inputs.raw, process.env, process.user)
    for name, takes in sockets.compat.problems:
        inputs.wrong(name, takes)


def _files(inputs: Inputs, process: GameProcess) -> None:
    """Writes the files of AGENT_TEMPLATE."""
    pairs = inputs.setting("template")
    if not pairs or inputs.problems:
        return
    from agent.config import templates  # noqa: PLC0415 - most games do without

    for wrong in templates.write_all(pairs, process.env, process.user):
        inputs.wrong("template", str(wrong))


def _metrics_port(environ: dict[str, str]) -> int | None:
    """The port that the version declares under the name `metrics`, which the platform maps to the outside."""
    declared = environ.get("ARBITRIUM_PORT_METRICS_INTERNAL", "")
    return int(declared) if declared.isascii() and declared.isdigit() and 0 < int(declared) < 65536 else None


def _port(inputs: Inputs, name: str, host: str, default: int | None = None) -> Port | None:
    explicit = inputs.raw(name) is not None
    wanted = inputs.setting(name) if explicit or default is None else default
    try:
        port = listen_tcp(host, wanted, explicit=explicit)
    except TakenError as taken:
        if explicit:
            inputs.wrong(name, str(taken))
        elif inputs.raw("metrics_host") and name == "metrics_port":
            inputs.wrong("metrics_host", str(taken))
        else:
            log.warning(f"cannot listen on {host}:{wanted}: {variable(name)} {taken}; going on without it")
        return None
    except OSError as problem:
        log.warning(f"cannot listen on {host} ({problem}); going on without {variable(name)}")
        return None
    if port.instead_of is not None:
        log.warning(
            f"port {port.instead_of} is taken by another program: using {port.number} instead; "
            f"set {variable(name)} to choose one"
        )
    return port


def _exported(inputs: Inputs, sockets: Sockets) -> dict[str, str]:
    exported = {}
    if sockets.control is not None:
        exported["AGENT_URL"] = f"http://{_LOOPBACK}:{sockets.control.number}"
    if sockets.metrics is not None:
        scheme = "https" if inputs.raw("metrics_tls_cert") else "http"
        exported["AGENT_METRICS_URL"] = f"{scheme}://{_reachable(sockets.metrics)}:{sockets.metrics.number}/metrics"
    if sockets.unix is not None:
        exported["AGENT_SOCKET"] = sockets.unix.path
    if sockets.notify is not None:
        exported["NOTIFY_SOCKET"] = sockets.notify.path
        if health := inputs.setting("health_timeout"):
            # As systemd sets it: a library sends a heartbeat every half of this time (man 3 sd_watchdog_enabled).
            exported["WATCHDOG_USEC"] = str(int(health * 1e6))
    if sockets.statsd_path is not None:
        exported["AGENT_STATSD_URL"] = f"unix://{sockets.statsd_path.path}"
    elif sockets.statsd is not None:
        exported["AGENT_STATSD_URL"] = f"udp://{_LOOPBACK}:{sockets.statsd.getsockname()[1]}"
    return exported


def _reachable(port: Port) -> str:
    """The address at which the game reaches a listener."""
    host = port.host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return _LOOPBACK if host == "0.0.0.0" else "[::1]"  # noqa: S104 - as above
    return f"[{host}]" if ":" in host else host


def _intercept(inputs: Inputs, process: GameProcess, sockets: Sockets) -> None:
    """Gives the game a delete URL that leads to the agent, with the same path, and a token without any rights."""
    url = inputs.environ.get("ARBITRIUM_DELETE_URL", "")
    if not url or sockets.control is None:
        log.warning("cannot intercept the self-stop: there is no ARBITRIUM_DELETE_URL or no control port")
        return
    if process.user is None and os.access(os.path.dirname(__file__), os.W_OK):
        log.warning(
            "cannot keep the delete token from a game that was taken over: it can change the agent's own code; set "
            "AGENT_GAME_USER, or USER in the Dockerfile (docs/security.md)"
        )
    # The last two parts of the path are the id and the stop key; a gateway may put more in front of them.
    where, mark, query = url.partition("://")[2].partition("/")[2].partition("?")
    path = "/v1/self/stop/" + "/".join([part for part in where.split("/") if part][-2:]) + mark + query
    inputs.substitute_token = os.urandom(16).hex()
    process.env["ARBITRIUM_DELETE_URL"] = f"http://{_LOOPBACK}:{sockets.control.number}{path}"
    process.env["ARBITRIUM_DELETE_TOKEN"] = inputs.substitute_token

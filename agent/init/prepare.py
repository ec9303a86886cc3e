"""Prepares what the game is started with: sockets, log rooms, user, environment, files. Standard library only.

Part of boot: everything here happens before the game is spawned. What is wrong with a setting is noted in the boot,
which then refuses to start, with all of it at once.
"""

import os

from agent import log
from agent.config import parsers
from agent.config.names import SECRETS, game_environment, matching, variable
from agent.game.stdin import StdinPipe
from agent.init.sockets import Port, TakenError, listen_notify, listen_tcp, listen_unix
from agent.lifecycle import stop_methods
from agent.logs.capture import Capture
from agent.logs.redact import Redactor
from agent.logs.spool import Spool
from agent.logs.target import is_store_variable, store_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.init.main import Boot


def prepare(boot: "Boot") -> None:
    """Prepares everything, in an order in which each step has what it needs."""
    _sockets(boot)
    _log_rooms(boot)
    _environment(boot)
    _user(boot)
    if boot.setting("intercept", parsers.boolean, False):
        _intercept(boot)
    if boot.raw("compat") is not None:
        _compat(boot)
    _files(boot)


def _sockets(boot: "Boot") -> None:
    host = boot.setting("metrics_host", parsers.host, "0.0.0.0")  # noqa: S104 - the default that Prometheus needs
    boot.control = _port(boot, "control_port", "127.0.0.1", 9370)
    boot.metrics = _port(boot, "metrics_port", host, 9464)
    path = boot.setting("socket_path", parsers.socket_path, None)
    try:
        boot.unix, why = listen_unix(path)
        if why:
            log.warning(f"cannot make the Unix socket ({why}): the commands in the container will not find the agent")
    except TakenError as taken:
        boot.wrong("socket_path", str(taken))
    if boot.unix is not None:
        boot.notify, why = listen_notify(boot.unix)
        if why:
            log.warning(f"cannot make the socket for sd_notify ({why}): a game that speaks it has to use HTTP")


def _log_rooms(boot: "Boot") -> None:
    directory = boot.setting("spool_dir", parsers.path, None)
    limit = boot.setting("spool_max", parsers.size, 64 * 1024**2)
    words = boot.setting("redact", parsers.names, ())
    patterns = [word[1:-1] for word in words if word.startswith("/")]
    named = [boot.environ[word] for word in words if boot.environ.get(word)]
    boot.redactor = Redactor([*boot.secrets, *named], patterns)
    log.hide(named)
    capture = boot.setting("capture", parsers.boolean, True)
    redact_stdout = boot.setting("redact_stdout", parsers.boolean, False)
    stops_by_stdin = any(method.kind == "stdin" for method in boot.setting("stop", stop_methods.parse, ()))
    if boot.setting("core", parsers.boolean, False):
        from agent.game.core import permit_core  # noqa: PLC0415 - most games do without

        permit_core()
    if boot.problems:
        return
    if stops_by_stdin:
        boot.stdin = StdinPipe()
    boot.spool = Spool(directory or default_spool(), limit, say=log.warning)
    if capture:
        boot.capture = Capture(boot.spool, boot.redactor, {"stdout": 1, "stderr": 2}, redact_passthrough=redact_stdout)


def _environment(boot: "Boot") -> None:
    boot.workdir = boot.setting("workdir", parsers.path, None)
    health = boot.setting("health_timeout", parsers.duration, None)
    log_url = boot.raw("log_url")
    hidden = [name for name in boot.environ if is_store_variable(name, log_url, boot.environ)]
    hidden += matching(boot.environ, boot.setting("env_hide", parsers.names, ()))
    boot.game_env = game_environment(boot.environ, _exported(boot, health), hidden)


def _user(boot: "Boot") -> None:
    if boot.raw("game_user") is None:
        return
    from agent.game import user  # noqa: PLC0415 - most games run as the agent does

    boot.user = boot.setting("game_user", user.find, None)
    if boot.user is None:
        return
    boot.game_env |= boot.user.environment
    for unix in (boot.unix, boot.notify):
        if unix is not None:
            try:
                os.chown(unix.path, -1, boot.user.gid)
            except OSError as problem:
                log.warning(f"cannot give {unix.path} to the game's group ({problem.strerror}): it has to use HTTP")


def _compat(boot: "Boot") -> None:
    """What games built for other hosts look for."""
    hosts = boot.setting("compat", parsers.compat, ())
    if boot.problems:
        return
    from agent.compat import prepare as compat  # noqa: PLC0415 - most games do without

    owner = (boot.user.uid, boot.user.gid) if boot.user is not None else None
    boot.compat = compat.prepare(hosts, boot.environ, boot.raw, boot.game_env, owner)
    for name, takes in boot.compat.problems:
        boot.wrong(name, takes)


def _files(boot: "Boot") -> None:
    """Writes the files of AGENT_TEMPLATE."""
    templates = boot.setting("template", parsers.templates, ())
    if not templates or boot.problems:
        return
    from agent.init import templates as files  # noqa: PLC0415 - most games do without

    owner = (boot.user.uid, boot.user.gid) if boot.user is not None else None
    for source, target in templates:
        try:
            files.write(source, target, boot.game_env, owner)
        except files.TemplateError as wrong:
            boot.wrong("template", str(wrong))


def secrets(environ: "dict[str, str]", log_url: "str | None") -> "list[str]":
    """The values that must be in no log: what lets its holder act for the deployment, or write to the store."""
    return [environ[name] for name in SECRETS if environ.get(name)] + store_secrets(environ, log_url)


def default_spool() -> str:
    """Where the spool is when nothing is set. It should outlive a restart of the container's processes, not a boot."""
    return f"/tmp/arbitrium-agent-{os.getuid()}/spool"  # noqa: S108 - the spool makes its directories 0700


def _port(boot: "Boot", name: str, host: str, default: int) -> "Port | None":
    wanted = boot.setting(name, parsers.port, default)
    explicit = boot.raw(name) is not None
    try:
        port = listen_tcp(host, wanted, explicit=explicit)
    except TakenError as taken:
        if explicit:
            boot.wrong(name, str(taken))
        elif boot.raw("metrics_host") and name == "metrics_port":
            boot.wrong("metrics_host", str(taken))
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


def _exported(boot: "Boot", health: "float | None") -> "dict[str, str]":
    exported = {}
    if boot.control is not None:
        exported["AGENT_URL"] = f"http://127.0.0.1:{boot.control.number}"
    if boot.metrics is not None:
        exported["AGENT_METRICS_URL"] = f"http://{_reachable(boot.metrics)}:{boot.metrics.number}/metrics"
    if boot.unix is not None:
        exported["AGENT_SOCKET"] = boot.unix.path
    if boot.notify is not None:
        exported["NOTIFY_SOCKET"] = boot.notify.path
        if health:
            # As systemd gives it: a library sends its heartbeats in half of this (man 3 sd_watchdog_enabled).
            exported["WATCHDOG_USEC"] = str(int(health * 1e6))
    return exported


def _reachable(port: Port) -> str:
    """The address at which the game reaches a listener."""
    host = port.sock.getsockname()[0]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"  # noqa: S104 - as above
    return f"[{host}]" if ":" in host else str(host)


def _intercept(boot: "Boot") -> None:
    """Gives the game a delete URL that leads to the agent, with the same path, and a token that is worth nothing."""
    url = boot.environ.get("ARBITRIUM_DELETE_URL", "")
    if not url or boot.control is None:
        log.warning("cannot intercept the self-stop: there is no ARBITRIUM_DELETE_URL or no control port")
        return
    # The last two parts of the path are the id and the stop key, whatever a gateway puts before them.
    where, mark, query = url.partition("://")[2].partition("/")[2].partition("?")
    path = "/v1/self/stop/" + "/".join([part for part in where.split("/") if part][-2:]) + mark + query
    boot.substitute_token = os.urandom(16).hex()
    boot.game_env["ARBITRIUM_DELETE_URL"] = f"http://127.0.0.1:{boot.control.number}{path}"
    boot.game_env["ARBITRIUM_DELETE_TOKEN"] = boot.substitute_token

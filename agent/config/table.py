"""Declares every setting once: name, parser, default and description. Standard library only.

The init reads settings through this table before the game is spawned; the model in `agent.config.model`, the README
(`python -m docs.tables`) and `arbitrium-agent config` are generated from it.
"""

from __future__ import annotations

from agent.config import parsers
from agent.config.parsers import choice
from agent.lifecycle import stop_methods
from agent.logs.target import check_url

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself takes 5 ms
    from collections.abc import Callable
    from typing import Any


class Setting:
    """One setting.

    Attributes:
        name: as an option spells it with underscores: `grace_seconds` is `--grace-seconds` and `AGENT_GRACE_SECONDS`.
        parse: text to value; its `ValueError` says what the setting takes.
        default: the value if it is not set.
        text: its description, for users.
        secret: whether its value is never shown; it can also be read from the file that `AGENT_NAME_FILE` names.
    """

    __slots__ = ("default", "name", "parse", "secret", "text")

    def __init__(
        self, name: str, parse: Callable[[str], Any], default: Any, text: str, *, secret: bool = False
    ) -> None:
        """Takes the row."""
        self.name = name
        self.parse = parse
        self.default = default
        self.text = text
        self.secret = secret


_ROWS = (
    Setting(
        "grace_seconds",
        parsers.duration,
        5.0,
        (
            "Seconds between the platform's SIGTERM and its SIGKILL: the version's "
            "termination_grace_period_seconds, which is not injected. A game that asks for its own stop gets the "
            "same time."
        ),
    ),
    Setting(
        "stop",
        stop_methods.parse,
        (stop_methods.SIGTERM,),
        (
            "How the game is asked to end, in this order, separated by commas: notify, stdin:LINE, signal:NAME, "
            "command:PROGRAM ARGS, rcon:COMMAND, agones, multiplay or playfab (as that host does it), each with an "
            "optional share of the grace (@40%, @2s). SIGTERM is added last if it is not in the list, then SIGKILL."
        ),
    ),
    Setting(
        "main",
        parsers.main_process,
        None,
        (
            "Which process is the game, if it is not the one that the agent starts: pidfile:PATH, port or "
            "port:NUMBER (the owner of the game's port), or last (the last server process). Its successor is followed "
            "too. See docs/stopping.md."
        ),
    ),
    Setting(
        "rcon_address", parsers.address, None, "Where the game's rcon listens, HOST:PORT, for the stop method rcon."
    ),
    Setting("rcon_password", parsers.text, None, "The password of the game's rcon.", secret=True),
    Setting(
        "drain_seconds",
        parsers.duration,
        0.0,
        "How long players may finish after a stop request; at most half of the grace.",
    ),
    Setting(
        "ship_seconds",
        parsers.duration,
        30.0,
        "How long shipping may take after the game has ended, unless the platform kills the container earlier.",
    ),
    Setting(
        "hold_seconds",
        parsers.duration,
        60.0,
        (
            "How long to stay after the self-stop was confirmed, so that no restart policy starts the game again "
            "before the platform stops the container."
        ),
    ),
    Setting(
        "on_exit", choice("self-stop", "exit"), "self-stop", "What to do when the game ends by itself with code 0."
    ),
    Setting(
        "on_crash",
        choice("self-stop", "exit", "restart"),
        "self-stop",
        "What to do when the game ends by itself with another code or a signal.",
    ),
    Setting(
        "restart_limit",
        parsers.count,
        5,
        "Consecutive restarts (AGENT_ON_CRASH=restart) before it counts as a crash loop.",
    ),
    Setting(
        "restart_backoff",
        parsers.duration,
        1.0,
        "Pause before the first restart; doubles with each consecutive one, up to 30 s.",
    ),
    Setting(
        "ready_when",
        parsers.ready_when,
        "api",
        (
            "How the agent detects that the game is ready: api (the game says so), port or port:NAME (it listens on a "
            "port of the mapping, by name or number), output:REGEX (a line of its output)."
        ),
    ),
    Setting("ready_timeout", parsers.duration, None, "Stop a game that is not ready after this time since its start."),
    Setting(
        "first_player_timeout",
        parsers.duration,
        None,
        "Stop when nobody has joined for this time after the game was ready.",
    ),
    Setting(
        "empty_timeout",
        parsers.duration,
        None,
        "Stop when no player has been present for this time after the last one left; a join cancels it.",
    ),
    Setting(
        "health_timeout", parsers.duration, None, "Stop when no heartbeat has come for this time, after the first one."
    ),
    Setting(
        "on_hang",
        choice("abort", "stack", "none"),
        "abort",
        (
            "What to capture first from a game whose heartbeat was lost: abort (SIGABRT, for a core or crash "
            "dump), stack (what its threads wait for, into the log), none."
        ),
    ),
    Setting(
        "max_duration",
        parsers.duration,
        None,
        (
            "How long the platform lets the deployment run (the version's max_duration, such as 60m): the game is "
            "warned before, then drained and stopped in time."
        ),
    ),
    Setting(
        "max_duration_warnings",
        parsers.durations,
        (600.0, 300.0, 60.0),
        "How long before that end the game is warned, by an event.",
    ),
    Setting(
        "players_from",
        parsers.players_from,
        "api",
        (
            "Where the number of players comes from: api (the game reports), tcp or tcp:PORT (connections to it), "
            "query:PROTOCOL://HOST:PORT (a2s, minecraft, quake3, teeworlds, sqp and others; most need opengsq)."
        ),
    ),
    Setting(
        "players_interval", parsers.duration, 10.0, "Seconds between two counts, if the agent counts players itself."
    ),
    Setting(
        "players_min_stay",
        parsers.duration,
        60.0,
        (
            "With AGENT_PLAYERS_FROM=tcp: how long a connection must last to count as a player who was there. A "
            "shorter one (a port probe, a health check) neither starts AGENT_EMPTY_TIMEOUT nor extends it."
        ),
    ),
    Setting(
        "control_port",
        parsers.port,
        9370,
        (
            "Port of the local HTTP API on 127.0.0.1. If the default is taken, another one is used and logged; the "
            "game finds it in AGENT_URL. If a port set here is taken, that is an error."
        ),
    ),
    Setting(
        "page_token",
        parsers.text,
        None,
        (
            "The token for the stop button of the status page (GET / of the local API). If not set, one is generated, "
            "and is in the page's address in the agent's log."
        ),
        secret=True,
    ),
    Setting(
        "metrics_port",
        parsers.port,
        9464,
        (
            "Port of /metrics; if it is taken, as with AGENT_CONTROL_PORT. If the version declares a port named "
            "metrics, that one is the default."
        ),
    ),
    Setting("metrics_host", parsers.host, "0.0.0.0", "Address that /metrics listens on."),  # noqa: S104 - Prometheus scrapes from outside
    Setting(
        "metrics_token",
        parsers.text,
        None,
        "The bearer token that a scrape of /metrics must send; without one, anybody who reaches the port may read it.",
        secret=True,
    ),
    Setting(
        "metrics_tls_cert",
        parsers.path,
        None,
        (
            "A PEM file with a certificate and its chain: /metrics is then served over https only. Its private key is "
            "in it, or in AGENT_METRICS_TLS_KEY."
        ),
    ),
    Setting("metrics_tls_key", parsers.path, None, "A PEM file with the private key of AGENT_METRICS_TLS_CERT."),
    Setting(
        "statsd",
        parsers.statsd,
        None,
        (
            "Accepts the game's own metrics as StatsD or DogStatsD: a UDP port on 127.0.0.1, or the path of a Unix "
            "datagram socket. Off by default; the game finds it in AGENT_STATSD_URL."
        ),
    ),
    Setting(
        "metrics_push_url",
        parsers.push_url,
        None,
        (
            "Where the last values of all metrics are sent at the end: a Prometheus remote-write receiver, or "
            "a Pushgateway (http://HOST:9091/metrics/job/JOB)."
        ),
    ),
    Setting(
        "metrics_push_interval",
        parsers.duration,
        0.0,
        "Seconds between two pushes while the game runs, for fleets whose ports cannot be reached; 0: only at the end.",
    ),
    Setting(
        "metrics_push_auth",
        parsers.text,
        None,
        "Credentials for the receiver of pushed metrics: a bearer token, or USER:PASSWORD.",
        secret=True,
    ),
    Setting(
        "socket_path",
        parsers.socket_path,
        None,
        (
            "Path of the Unix socket, or off (then there is no sd_notify socket either, which is next to it). By "
            "default /run/arbitrium-agent/agent.sock, or in a directory of the user in /tmp."
        ),
    ),
    Setting("workdir", parsers.path, None, "Working directory of the game; the agent's by default."),
    Setting(
        "game_user",
        parsers.game_user,
        None,
        ("User that the game runs as, if the agent is root (Unreal refuses root): NAME, UID, NAME:GROUP or UID:GID."),
    ),
    Setting(
        "no_new_privs",
        parsers.boolean,
        True,
        "on: the game and its hooks cannot gain rights with setuid programs (sudo, ping); off: they can.",
    ),
    Setting(
        "template",
        parsers.templates,
        (),
        (
            "Files written before the game starts, SOURCE:TARGET, separated by commas: ${NAME} is replaced by the "
            "game's variable, $$ by a dollar sign."
        ),
    ),
    Setting(
        "env_hide",
        parsers.names,
        (),
        "Variables that the game does not get, separated by commas; a * at the end matches anything.",
    ),
    Setting(
        "env_show",
        parsers.names,
        (),
        (
            "Variables that the game gets although the agent uses them and keeps them from it: the store's credentials "
            "(AWS_*), OpenTelemetry's headers (OTEL_*)."
        ),
    ),
    Setting(
        "intercept",
        parsers.boolean,
        False,
        (
            "on: the game gets an ARBITRIUM_DELETE_URL that leads to the agent and a token without rights on the "
            "platform, so that a game which makes the self-stop call itself is stopped properly. Off by default "
            "because a Unity build may refuse plain http."
        ),
    ),
    Setting(
        "capture",
        parsers.boolean,
        True,
        "off: the game writes directly to the container's stdout and stderr; no logs are kept.",
    ),
    Setting(
        "tty",
        parsers.boolean,
        False,
        (
            "on: the game's stdout is a pseudo terminal even if the container's is not, for servers that buffer "
            "their output in blocks on a pipe."
        ),
    ),
    Setting(
        "spool_dir",
        parsers.path,
        None,
        "Directory for log bytes that are not shipped yet; a directory in /tmp by default.",
    ),
    Setting("spool_max", parsers.size, 64 * 1024**2, "The most bytes in the spool; the oldest are dropped first."),
    Setting(
        "log_url",
        check_url,
        None,
        (
            "Where logs and exit.json are shipped to: file:///path, s3://bucket/prefix, gs://, az://, https:// (PUT). "
            "May contain {application}, {version}, {deployment_id}, {attempt}, {date}, {time}, {host_id}. If not "
            "set, they stay in the spool."
        ),
    ),
    Setting(
        "log_form",
        choice("ndjson", "verbatim"),
        "ndjson",
        "How logs are shipped: as lines of JSON with time and stream, or as unchanged bytes.",
    ),
    Setting(
        "log_files",
        parsers.patterns,
        (),
        "Patterns of the game's own log files, separated by commas: followed as they grow.",
    ),
    Setting(
        "keep",
        parsers.patterns,
        (),
        ("Patterns of files that are shipped when the game has ended (replays, crash dumps), separated by commas."),
    ),
    Setting(
        "ship_interval",
        parsers.duration,
        15.0,
        "Seconds after which new output is shipped, even if it is little.",
    ),
    Setting(
        "redact",
        parsers.names,
        (),
        (
            "Additional secrets to remove from all logs, separated by commas: names of variables whose values are "
            "secret, or regular expressions between slashes."
        ),
    ),
    Setting(
        "redact_stdout",
        parsers.boolean,
        False,
        "on: secrets are also replaced in the output that is passed on to the container's stdout and stderr.",
    ),
    Setting(
        "core",
        parsers.boolean,
        False,
        (
            "on: a crash may leave a core, which is shipped, with a stack summary if gdb is in the image. If no "
            "core is possible, this is logged at the start."
        ),
    ),
    Setting("tags", parsers.names, (), "Tags that the deployment gets when the agent starts, separated by commas."),
    Setting(
        "api_token",
        parsers.text,
        None,
        "An organisation token, for tags if the platform injects no context. The game does not get it.",
        secret=True,
    ),
    Setting("api_url", parsers.text, "https://api.edgegap.com", "The platform's API; used with AGENT_API_TOKEN."),
    Setting("app_name", parsers.text, "", "Name of the application, which is not injected: for keys of shipped logs."),
    Setting("app_version", parsers.text, "", "Name of the version, which is not injected: for keys of shipped logs."),
    Setting(
        "log_storage",
        parsers.text,
        "true",
        (
            "What the self-stop asks the platform to do with the container's logs: true (the version's storage), "
            "false, or the name of an endpoint storage."
        ),
    ),
    Setting(
        "log_level",
        choice("debug", "info", "warning", "error"),
        "info",
        "The lowest level of the agent's own log, which is written to stderr.",
    ),
    Setting("log_format", choice("text", "json"), "text", "Style of the agent's own log."),
    Setting(
        "compat",
        parsers.compat,
        (),
        (
            "Other hosts whose local agent is emulated, so that a game built for them runs unchanged: agones, "
            "multiplay, playfab, several separated by commas, or auto for all of them. See docs/migrate.md."
        ),
    ),
    Setting(
        "agones_http_port", parsers.port, 9358, "Port of Agones' REST API; if it is taken, as with AGENT_CONTROL_PORT."
    ),
    Setting(
        "agones_grpc_port", parsers.port, 9357, "Port of Agones' gRPC API (needs arbitrium-agent[agones]); likewise."
    ),
    Setting(
        "agones_allocate",
        parsers.boolean,
        True,
        (
            "off: a game stays Ready until it allocates itself. On Edgegap a deployment is created for one match, so "
            "by default Allocated follows the first Ready at once."
        ),
    ),
    Setting(
        "agones_health_period",
        parsers.duration,
        5.0,
        "Seconds in which Agones expects a Health call; 0: no call is expected.",
    ),
    Setting(
        "agones_health_threshold",
        parsers.count,
        3,
        "Periods without a Health call after which the game is stopped (heartbeat_lost).",
    ),
    Setting(
        "agones_health_delay",
        parsers.duration,
        5.0,
        "Seconds after the game's first call before missing Health calls count.",
    ),
    Setting(
        "agones_config",
        parsers.path,
        None,
        (
            "A gameserver.yaml (needs arbitrium-agent[agones]) or .json, from which health, counters, lists, labels, "
            "annotations and the player capacity are taken; the settings here win over it."
        ),
    ),
    Setting("agones_counters", parsers.counters, (), "Counters of Agones, NAME=COUNT/CAPACITY, separated by commas."),
    Setting("agones_lists", parsers.lists, (), "Lists of Agones, NAME=VALUE|VALUE/CAPACITY, separated by commas."),
    Setting("multiplay_port", parsers.port, 8086, "Port of Multiplay's local daemon; as with AGENT_CONTROL_PORT."),
    Setting(
        "multiplay_allocate",
        choice("event", "start", "match"),
        "event",
        (
            "When the server is allocated: event (server.json says so, and an event follows, when the game listens "
            "for events or after 10 s), start (server.json says so from the beginning), match (as "
            "event, but only where the matchmaker injected a match)."
        ),
    ),
    Setting(
        "multiplay_config",
        parsers.assignments,
        (),
        "The build configuration's own keys in server.json, KEY=VALUE separated by commas, or a JSON object.",
    ),
    Setting("multiplay_query_type", choice("sqp", "a2s"), "sqp", "The query protocol that server.json names."),
    Setting(
        "multiplay_payload",
        parsers.text,
        None,
        "The allocation's payload; made of the matchmaker's variables by default.",
    ),
    Setting("playfab_port", parsers.port, 56001, "Port of PlayFab's heartbeat endpoint; as with AGENT_CONTROL_PORT."),
    Setting("playfab_title_id", parsers.text, "", "PF_TITLE_ID, for games that read it."),
    Setting(
        "playfab_metadata",
        parsers.assignments,
        (),
        "PlayFab's build metadata, KEY=VALUE separated by commas, or a JSON object.",
    ),
    Setting("playfab_session_cookie", parsers.text, None, "The session's cookie; MM_MATCH_PROFILE by default."),
)

TABLE = {row.name: row for row in _ROWS}

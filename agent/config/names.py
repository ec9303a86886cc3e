"""Which variables are the agent's, and which the game gets. Standard library only: boot needs it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "AGENT_"

# Every setting by name. The model in `agent.config.model` has the same ones (a test compares them); they are listed
# here because they are taken out of the game's environment before that model is imported.
SETTINGS = frozenset(
    {
        "agones_allocate",
        "agones_config",
        "agones_counters",
        "agones_grpc_port",
        "agones_health_delay",
        "agones_health_period",
        "agones_health_threshold",
        "agones_http_port",
        "agones_lists",
        "api_token",
        "api_url",
        "app_name",
        "app_version",
        "capture",
        "compat",
        "control_port",
        "core",
        "drain_seconds",
        "empty_timeout",
        "env_hide",
        "first_player_timeout",
        "game_user",
        "grace_seconds",
        "health_timeout",
        "hold_seconds",
        "intercept",
        "keep",
        "log_files",
        "log_form",
        "log_format",
        "log_level",
        "log_storage",
        "log_url",
        "max_duration",
        "max_duration_warnings",
        "metrics_host",
        "metrics_port",
        "multiplay_allocate",
        "multiplay_config",
        "multiplay_payload",
        "multiplay_port",
        "multiplay_query_type",
        "on_crash",
        "on_exit",
        "on_hang",
        "playfab_metadata",
        "playfab_port",
        "playfab_session_cookie",
        "playfab_title_id",
        "players_from",
        "players_interval",
        "rcon_address",
        "rcon_password",
        "redact",
        "ready_timeout",
        "ready_when",
        "redact_stdout",
        "restart_backoff",
        "restart_limit",
        "ship_interval",
        "ship_seconds",
        "socket_path",
        "spool_dir",
        "spool_max",
        "stop",
        "tags",
        "template",
        "workdir",
    }
)

# What the agent gives to the game. A program in the game that starts another agent inherits these; they say where the
# first one is, and are no settings.
EXPORTED = frozenset(
    {"AGENT_URL", "AGENT_SOCKET", "AGENT_METRICS_URL", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
)

# Injected values that let their holder act for the deployment. The URLs carry a key of their own in the path.
SECRETS = (
    "ARBITRIUM_DELETE_TOKEN",
    "ARBITRIUM_CONTEXT_TOKEN",
    "ARBITRIUM_DELETE_URL",
    "ARBITRIUM_CONTEXT_URL",
    "AGENT_API_TOKEN",
    "AGENT_RCON_PASSWORD",
)


def variable(name: str) -> str:
    """The variable of a setting: `grace_seconds` is `AGENT_GRACE_SECONDS`."""
    return PREFIX + name.upper()


def option(name: str) -> str:
    """The option of a setting: `grace_seconds` is `--grace-seconds`."""
    return "--" + name.replace("_", "-")


def matching(environ: "Iterable[str]", patterns: "Iterable[str]") -> "list[str]":
    """The variables that AGENT_ENV_HIDE names; a `*` at the end stands for anything."""
    exact = {pattern for pattern in patterns if not pattern.endswith("*")}
    begins = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    return [name for name in environ if name in exact or (begins and name.startswith(begins))]


def game_environment(
    environ: "dict[str, str]", exported: "dict[str, str]", hidden: "Iterable[str]" = ()
) -> "dict[str, str]":
    """The game's environment: the container's, without the agent's settings and `hidden`, and with what is exported."""
    without = {variable(name) for name in SETTINGS} | EXPORTED | set(hidden)
    kept = {name: value for name, value in environ.items() if name not in without}
    return kept | exported

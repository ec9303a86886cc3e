"""The agent's settings: `AGENT_*` variables and the options of `run`, validated together, frozen.

An option wins over its variable. Every wrong one is reported, all at once. A variable that is set to nothing counts as
not set. The checks are those of `agent.config.parsers`, which boot uses as well.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from agent.config import parsers
from agent.config.names import EXPORTED, PREFIX, option, variable
from agent.errors import Problem, SettingsError
from agent.lifecycle import stop_methods
from agent.lifecycle.stop_methods import Method
from agent.logs.target import STORE_PREFIX, check_url


def _check(function: Callable[[str], Any]) -> BeforeValidator:
    """Applies a check to text, and leaves values of the right type (defaults, tests) alone."""
    return BeforeValidator(lambda value: function(value) if isinstance(value, str) else value)


def _choice(*options: str) -> BeforeValidator:
    def choose(value: str) -> str:
        lowered = value.strip().lower()
        if lowered not in options:
            raise ValueError(f"takes {', '.join(options[:-1])} or {options[-1]}")
        return lowered

    return _check(choose)


Switch = Annotated[bool, _check(parsers.boolean)]
Port = Annotated[int, _check(parsers.port)]
Seconds = Annotated[float, _check(parsers.duration)]
Bytes = Annotated[int, _check(parsers.size)]
Path = Annotated[str, _check(parsers.path)]
Text = Annotated[str, _check(parsers.text)]
Timeout = Annotated[float | None, _check(parsers.duration)]
Names = Annotated[tuple[str, ...], NoDecode, _check(parsers.names)]
Patterns = Annotated[tuple[str, ...], NoDecode, _check(parsers.patterns)]


class Settings(BaseSettings):
    """All settings. The description of each is what `arbitrium-agent config` and the README print."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    grace_seconds: Annotated[
        Seconds,
        Field(
            default=5.0,
            description="Seconds between the platform's SIGTERM and its SIGKILL: the version's "
            "termination_grace_period_seconds, which is not injected. A game that asks for its own stop gets as much.",
        ),
    ]
    stop: Annotated[
        tuple[Method, ...],
        NoDecode,
        _check(stop_methods.parse),
        Field(
            default=stop_methods.parse(stop_methods.DEFAULT),
            description="How the game is asked to end, in this order, separated by commas: notify, stdin:LINE, "
            "signal:NAME, command:PROGRAM ARGS, rcon:COMMAND, each with a share of the grace where wanted (@40%, @2s). "
            "SIGTERM comes last where it is not in the list, then SIGKILL.",
        ),
    ]
    rcon_address: Annotated[
        str | None,
        _check(parsers.address),
        Field(default=None, description="Where the game's rcon listens, HOST:PORT, for the stop method rcon."),
    ]
    rcon_password: Annotated[SecretStr | None, Field(default=None, description="The password of the game's rcon.")]
    drain_seconds: Annotated[
        Seconds,
        Field(default=0.0, description="How long players may finish after a stop request; at most half of the grace."),
    ]
    ship_seconds: Annotated[
        Seconds,
        Field(
            default=30.0,
            description="How long shipping may take after the game has ended, where nobody kills the container.",
        ),
    ]
    hold_seconds: Annotated[
        Seconds,
        Field(
            default=60.0,
            description="How long to stay after the self-stop was confirmed, so that no restart policy starts the game "
            "again before the platform stops the container.",
        ),
    ]
    on_exit: Annotated[
        Literal["self-stop", "exit"],
        _choice("self-stop", "exit"),
        Field(default="self-stop", description="What follows when the game ends by itself with code 0."),
    ]
    on_crash: Annotated[
        Literal["self-stop", "exit", "restart"],
        _choice("self-stop", "exit", "restart"),
        Field(
            default="self-stop", description="What follows when the game ends by itself with another code or a signal."
        ),
    ]
    restart_limit: Annotated[
        int,
        _check(parsers.count),
        Field(default=5, description="Restarts in a row (AGENT_ON_CRASH=restart) before it is called a crash loop."),
    ]
    restart_backoff: Annotated[
        Seconds,
        Field(default=1.0, description="Pause before the first restart; doubles with each in a row, up to 30 s."),
    ]
    ready_when: Annotated[
        str,
        _check(parsers.ready_when),
        Field(
            default="api",
            description="How the game is known to be ready: api (it says so), port or port:NAME (it listens on a port "
            "of the mapping, by name or number), output:REGEX (a line of its output).",
        ),
    ]
    ready_timeout: Annotated[
        Timeout, Field(default=None, description="Stop a game that is not ready so long after its start.")
    ]
    first_player_timeout: Annotated[
        Timeout, Field(default=None, description="Stop when nobody has joined so long after the game was ready.")
    ]
    empty_timeout: Annotated[
        Timeout, Field(default=None, description="Stop when everybody has left for so long; a join cancels it.")
    ]
    health_timeout: Annotated[
        Timeout, Field(default=None, description="Stop when no heartbeat came for so long, after the first one.")
    ]
    on_hang: Annotated[
        Literal["abort", "stack", "none"],
        _choice("abort", "stack", "none"),
        Field(
            default="abort",
            description="What is captured first of a game whose heartbeat was lost: abort (SIGABRT, for a core or "
            "crash dump), stack (what its threads wait for, into the log), none.",
        ),
    ]
    max_duration: Annotated[
        Timeout,
        Field(
            default=None,
            description="How long the platform lets the deployment run (the version's max_duration, such as 60m): the "
            "game is told before, then drained and stopped in time.",
        ),
    ]
    max_duration_warnings: Annotated[
        tuple[float, ...],
        NoDecode,
        _check(parsers.durations),
        Field(default=(600.0, 300.0, 60.0), description="How long before that the game is told, by an event."),
    ]
    players_from: Annotated[
        str,
        _check(parsers.players_from),
        Field(
            default="api",
            description="Where the number of players comes from: api (the game reports), tcp or tcp:PORT (connections "
            "to it), query:PROTOCOL://HOST:PORT (a2s, minecraft, quake3 and others; needs opengsq).",
        ),
    ]
    players_interval: Annotated[
        Seconds, Field(default=10.0, description="Seconds between two counts, where the agent counts players itself.")
    ]
    control_port: Annotated[
        Port,
        Field(
            default=9370,
            description="Port of the local HTTP API on 127.0.0.1. When the default is taken another one is used, said, "
            "and found by the game in AGENT_URL; a port set here that is taken is an error.",
        ),
    ]
    metrics_port: Annotated[
        Port, Field(default=9464, description="Port of /metrics; taken or not, as with AGENT_CONTROL_PORT.")
    ]
    metrics_host: Annotated[
        str, _check(parsers.host), Field(default="0.0.0.0", description="Address that /metrics listens on.")  # noqa: S104 - Prometheus scrapes from outside
    ]
    socket_path: Annotated[
        str | None,
        _check(parsers.socket_path),
        Field(
            default=None,
            description="Path of the Unix socket, or off (then there is none for sd_notify either, which lies beside "
            "it). By default /run/arbitrium-agent/agent.sock, or in a directory of the user's in /tmp.",
        ),
    ]
    workdir: Annotated[
        Path | None, Field(default=None, description="Working directory of the game; the agent's by default.")
    ]
    game_user: Annotated[
        str | None,
        _check(parsers.game_user),
        Field(
            default=None,
            description="Whom the game runs as, where the agent is root (Unreal refuses root): NAME, UID, NAME:GROUP "
            "or UID:GID.",
        ),
    ]
    template: Annotated[
        tuple[tuple[str, str], ...],
        NoDecode,
        _check(parsers.templates),
        Field(
            default=(),
            description="Files written before the game starts, SOURCE:TARGET, separated by commas: ${NAME} becomes the "
            "game's variable, $$ a dollar sign.",
        ),
    ]
    env_hide: Annotated[
        Names,
        Field(
            default=(),
            description="Variables that the game does not get, separated by commas; a * at the end is for anything.",
        ),
    ]
    intercept: Annotated[
        Switch,
        Field(
            default=False,
            description="on: the game gets an ARBITRIUM_DELETE_URL that leads to the agent and a token that is worth "
            "nothing outside, so that code which calls the platform itself is stopped properly. Off by default because "
            "a Unity build may refuse plain http.",
        ),
    ]
    capture: Annotated[
        Switch,
        Field(
            default=True,
            description="off: the game writes straight to the container's stdout and stderr; no logs are kept.",
        ),
    ]
    spool_dir: Annotated[
        Path | None,
        Field(
            default=None,
            description="Directory for log bytes that are not shipped yet; a directory in /tmp by default.",
        ),
    ]
    spool_max: Annotated[
        Bytes, Field(default=64 * 1024**2, description="Bytes that the spool may take; the oldest are dropped first.")
    ]
    log_url: Annotated[
        str | None,
        _check(check_url),
        Field(
            default=None,
            description="Where logs and exit.json go: file:///path, s3://bucket/prefix, gs://, az://, https:// (PUT). "
            "May hold {application}, {version}, {deployment_id}, {attempt}, {date}, {time}, {host_id}. Not set: they "
            "stay in the spool.",
        ),
    ]
    log_form: Annotated[
        Literal["ndjson", "verbatim"],
        _choice("ndjson", "verbatim"),
        Field(
            default="ndjson",
            description="How logs are shipped: one JSON object a line with time and stream, or byte for byte.",
        ),
    ]
    log_files: Annotated[
        Patterns,
        Field(
            default=(), description="Patterns of the game's own log files, separated by commas: followed as they grow."
        ),
    ]
    keep: Annotated[
        Patterns,
        Field(
            default=(),
            description="Patterns of files that are shipped when the game has ended (replays, crash dumps), separated "
            "by commas.",
        ),
    ]
    ship_interval: Annotated[
        Seconds,
        Field(default=15.0, description="Seconds after which what was written is shipped, however little it is."),
    ]
    redact: Annotated[
        Names,
        Field(
            default=(),
            description="More that no log may hold, separated by commas: names of variables whose values are secret, "
            "or regular expressions between slashes.",
        ),
    ]
    redact_stdout: Annotated[
        Switch,
        Field(
            default=False,
            description="on: secrets are replaced in what is passed on to the container's stdout and stderr as well.",
        ),
    ]
    core: Annotated[
        Switch,
        Field(
            default=False,
            description="on: a crash may leave a core, which is shipped, with a stack summary where gdb is in the "
            "image. Said at the start if a core cannot be had.",
        ),
    ]
    tags: Annotated[
        Names,
        Field(default=(), description="Tags that the deployment gets when the agent starts, separated by commas."),
    ]
    api_token: Annotated[
        SecretStr | None,
        Field(
            default=None,
            description="An organisation token, for tags where the platform injects no context. Kept from the game.",
        ),
    ]
    api_url: Annotated[
        Text, Field(default="https://api.edgegap.com", description="The platform's API; used with AGENT_API_TOKEN.")
    ]
    app_name: Annotated[
        Text,
        Field(default="", description="Name of the application, which is not injected: for keys of shipped logs."),
    ]
    app_version: Annotated[
        Text, Field(default="", description="Name of the version, which is not injected: for keys of shipped logs.")
    ]
    log_storage: Annotated[
        Text,
        Field(
            default="true",
            description="What the self-stop asks the platform to do with the container's logs: true (the version's "
            "storage), false, or the name of an endpoint storage.",
        ),
    ]
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _choice("debug", "info", "warning", "error"),
        Field(default="info", description="The least level of the agent's own log, which goes to stderr."),
    ]
    log_format: Annotated[
        Literal["text", "json"],
        _choice("text", "json"),
        Field(default="text", description="Style of the agent's own log."),
    ]
    compat: Annotated[
        tuple[str, ...],
        NoDecode,
        _check(parsers.compat),
        Field(
            default=(),
            description="Other hosts whose local agent is answered for, so that a game built for them runs unchanged: "
            "agones, multiplay, playfab, several separated by commas, or auto for all of them. See docs/migrate.md.",
        ),
    ]
    agones_http_port: Annotated[
        Port, Field(default=9358, description="Port of Agones' REST API; taken or not, as with AGENT_CONTROL_PORT.")
    ]
    agones_grpc_port: Annotated[
        Port,
        Field(
            default=9357,
            description="Port of Agones' gRPC API (needs arbitrium-agent[agones]); likewise.",
        ),
    ]
    agones_allocate: Annotated[
        Switch,
        Field(
            default=True,
            description="off: a game stays Ready until it allocates itself. On Edgegap a deployment is made for one "
            "match, so Allocated follows the first Ready at once.",
        ),
    ]
    agones_health_period: Annotated[
        Seconds, Field(default=5.0, description="Seconds in which Agones expects a Health call; 0: none is expected.")
    ]
    agones_health_threshold: Annotated[
        int,
        _check(parsers.count),
        Field(default=3, description="Periods without one after which the game is stopped (heartbeat_lost)."),
    ]
    agones_health_delay: Annotated[
        Seconds, Field(default=5.0, description="Seconds after the game's first call before that counts.")
    ]
    agones_config: Annotated[
        Path | None,
        Field(
            default=None,
            description="A gameserver.yaml (needs arbitrium-agent[agones]) or .json, from which health, counters, "
            "lists, labels, annotations and the player capacity are taken; the settings here win over it.",
        ),
    ]
    agones_counters: Annotated[
        tuple[tuple[str, int, int], ...],
        NoDecode,
        _check(parsers.counters),
        Field(default=(), description="Counters of Agones, NAME=COUNT/CAPACITY, separated by commas."),
    ]
    agones_lists: Annotated[
        tuple[tuple[str, tuple[str, ...], int], ...],
        NoDecode,
        _check(parsers.lists),
        Field(default=(), description="Lists of Agones, NAME=VALUE|VALUE/CAPACITY, separated by commas."),
    ]
    multiplay_port: Annotated[
        Port, Field(default=8086, description="Port of Multiplay's local daemon; as with AGENT_CONTROL_PORT.")
    ]
    multiplay_allocate: Annotated[
        Literal["event", "start", "match"],
        _choice("event", "start", "match"),
        Field(
            default="event",
            description="When the server is allocated: event (server.json says so, and an event follows, when the game "
            "listens for events or 10 s after its start), start (server.json says so from the beginning), match (as "
            "event, but only where the matchmaker injected a match).",
        ),
    ]
    multiplay_config: Annotated[
        tuple[tuple[str, str], ...],
        NoDecode,
        _check(parsers.assignments),
        Field(
            default=(),
            description="The build configuration's own keys in server.json, KEY=VALUE separated by commas, or a JSON "
            "object.",
        ),
    ]
    multiplay_query_type: Annotated[
        Literal["sqp", "a2s"],
        _choice("sqp", "a2s"),
        Field(default="sqp", description="The query protocol that server.json names."),
    ]
    multiplay_payload: Annotated[
        Text | None,
        Field(default=None, description="The allocation's payload; made of the matchmaker's variables by default."),
    ]
    playfab_port: Annotated[
        Port, Field(default=56001, description="Port of PlayFab's heartbeat endpoint; as with AGENT_CONTROL_PORT.")
    ]
    playfab_title_id: Annotated[Text, Field(default="", description="PF_TITLE_ID, for games that read it.")]
    playfab_metadata: Annotated[
        tuple[tuple[str, str], ...],
        NoDecode,
        _check(parsers.assignments),
        Field(default=(), description="PlayFab's build metadata, KEY=VALUE separated by commas, or a JSON object."),
    ]
    playfab_session_cookie: Annotated[
        Text | None,
        Field(default=None, description="The session's cookie; MM_MATCH_PROFILE by default."),
    ]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options first, then variables; no files, no secrets directory."""
        return init_settings, _Variables(settings_cls)


class _Variables(PydanticBaseSettingsSource):
    """`AGENT_*` in capitals only, read as text, as boot reads them (the library's own source takes any case)."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of one variable, or None where it is absent or empty."""
        return os.environ.get(variable(field_name)) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """All that are set."""
        values = ((name, os.environ.get(variable(name))) for name in self.settings_cls.model_fields)
        return {name: value for name, value in values if value}


def load(options: Mapping[str, str] | None = None) -> Settings:
    """Reads and checks all settings.

    Args:
        options: what was given as options of `run`, by setting name (`grace_seconds`), as text.

    Returns:
        The settings, frozen.

    Raises:
        SettingsError: with one problem for every wrong setting.
    """
    options = options or {}
    try:
        settings = Settings(**options)  # type: ignore[arg-type]  # text in, checked and converted there
    except ValidationError as wrong:
        raise SettingsError([_problem(dict(entry), options) for entry in wrong.errors(include_url=False)]) from None
    if settings.rcon_address is None and any(method.kind == "rcon" for method in settings.stop):
        shown = option("stop") if options.get("stop") else variable("stop")
        raise SettingsError(
            [Problem(shown, None, "takes rcon only where AGENT_RCON_ADDRESS says where the game listens")]
        )
    return settings


def _problem(entry: dict[str, Any], options: Mapping[str, str]) -> Problem:
    name = str(entry["loc"][0])
    given = options.get(name)
    shown = option(name) if given is not None else variable(name)
    if entry["type"] == "extra_forbidden":
        return Problem(shown, None, f"is not an option{_suggestion(name, option)}")
    got = given if given is not None else os.environ.get(variable(name), "")
    cause = entry.get("ctx", {}).get("error")
    takes = str(cause) if isinstance(cause, ValueError) else f"is wrong: {entry['msg']}"
    return Problem(shown, None if is_secret(name) else got, takes)


def is_secret(name: str) -> bool:
    """Whether the value of a setting is never shown."""
    field = Settings.model_fields.get(name)
    return field is not None and "SecretStr" in str(field.annotation)


def unknown_variables(environ: Mapping[str, str]) -> list[Problem]:
    """`AGENT_*` variables that are no settings: most likely misspelt, but other programs may use the prefix as well."""
    known = {variable(name) for name in Settings.model_fields} | EXPORTED
    return [
        Problem(name, None, f"is not a setting of arbitrium-agent{_suggestion(name[len(PREFIX) :].lower(), variable)}")
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known and not name.startswith(STORE_PREFIX)
    ]


def _suggestion(name: str, spell: Callable[[str], str]) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.6)
    return f"; did you mean {spell(close[0])}?" if close else ""

"""The agent's settings as a typed, frozen record, built from the table that the init reads as well.

To add a setting, add a row to `agent.config.table` and a field here. An option wins over its variable, and an empty
variable counts as not set. All wrong settings are reported at once.

Not with pydantic-settings, as the operator's commands are (`agent.edgegap.settings`): its sources ignore the case of
names and parse tuples as JSON, while the init, which cannot import it, must read the same values. Without them it
does nothing that the table does not do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import SecretStr

from agent.config.checks import relations
from agent.config.names import option, suggestion, text_of, variable
from agent.config.table import TABLE
from agent.errors import Problem, SettingsError
from agent.lifecycle.stop_methods import Method
from agent.record import Record


def _default(name: str) -> Any:
    return TABLE[name].default


class Settings(Record):
    """All settings; `agent.config.table` describes each of them."""

    grace_seconds: float = _default("grace_seconds")
    stop: tuple[Method, ...] = _default("stop")
    main: str | None = _default("main")
    rcon_address: str | None = _default("rcon_address")
    rcon_password: SecretStr | None = _default("rcon_password")
    drain_seconds: float = _default("drain_seconds")
    ship_seconds: float = _default("ship_seconds")
    hold_seconds: float = _default("hold_seconds")
    on_exit: Literal["self-stop", "exit"] = _default("on_exit")
    on_crash: Literal["self-stop", "exit", "restart"] = _default("on_crash")
    restart_limit: int = _default("restart_limit")
    restart_backoff: float = _default("restart_backoff")
    ready_when: str = _default("ready_when")
    ready_timeout: float | None = _default("ready_timeout")
    first_player_timeout: float | None = _default("first_player_timeout")
    empty_timeout: float | None = _default("empty_timeout")
    health_timeout: float | None = _default("health_timeout")
    on_hang: Literal["abort", "stack", "none"] = _default("on_hang")
    max_duration: float | None = _default("max_duration")
    max_duration_warnings: tuple[float, ...] = _default("max_duration_warnings")
    players_from: str = _default("players_from")
    players_interval: float = _default("players_interval")
    players_min_stay: float = _default("players_min_stay")
    control_port: int = _default("control_port")
    page_token: SecretStr | None = _default("page_token")
    metrics_port: int = _default("metrics_port")
    metrics_host: str = _default("metrics_host")
    metrics_token: SecretStr | None = _default("metrics_token")
    metrics_tls_cert: str | None = _default("metrics_tls_cert")
    metrics_tls_key: str | None = _default("metrics_tls_key")
    statsd: int | str | None = _default("statsd")
    metrics_push_url: str | None = _default("metrics_push_url")
    metrics_push_interval: float = _default("metrics_push_interval")
    metrics_push_auth: SecretStr | None = _default("metrics_push_auth")
    socket_path: str | None = _default("socket_path")
    workdir: str | None = _default("workdir")
    game_user: str | None = _default("game_user")
    template: tuple[tuple[str, str], ...] = _default("template")
    env_hide: tuple[str, ...] = _default("env_hide")
    env_show: tuple[str, ...] = _default("env_show")
    intercept: bool = _default("intercept")
    no_new_privs: bool = _default("no_new_privs")
    capture: bool = _default("capture")
    tty: bool = _default("tty")
    spool_dir: str | None = _default("spool_dir")
    spool_max: int = _default("spool_max")
    log_url: str | None = _default("log_url")
    log_form: Literal["ndjson", "verbatim"] = _default("log_form")
    log_files: tuple[str, ...] = _default("log_files")
    keep: tuple[str, ...] = _default("keep")
    ship_interval: float = _default("ship_interval")
    redact: tuple[str, ...] = _default("redact")
    redact_stdout: bool = _default("redact_stdout")
    core: bool = _default("core")
    tags: tuple[str, ...] = _default("tags")
    api_token: SecretStr | None = _default("api_token")
    api_url: str = _default("api_url")
    app_name: str = _default("app_name")
    app_version: str = _default("app_version")
    log_storage: str = _default("log_storage")
    log_level: Literal["debug", "info", "warning", "error"] = _default("log_level")
    log_format: Literal["text", "json"] = _default("log_format")
    compat: tuple[str, ...] = _default("compat")
    agones_http_port: int = _default("agones_http_port")
    agones_grpc_port: int = _default("agones_grpc_port")
    agones_allocate: bool = _default("agones_allocate")
    agones_health_period: float = _default("agones_health_period")
    agones_health_threshold: int = _default("agones_health_threshold")
    agones_health_delay: float = _default("agones_health_delay")
    agones_config: str | None = _default("agones_config")
    agones_counters: tuple[tuple[str, int, int], ...] = _default("agones_counters")
    agones_lists: tuple[tuple[str, tuple[str, ...], int], ...] = _default("agones_lists")
    multiplay_port: int = _default("multiplay_port")
    multiplay_allocate: Literal["event", "start", "match"] = _default("multiplay_allocate")
    multiplay_config: tuple[tuple[str, str], ...] = _default("multiplay_config")
    multiplay_query_type: Literal["sqp", "a2s"] = _default("multiplay_query_type")
    multiplay_payload: str | None = _default("multiplay_payload")
    playfab_port: int = _default("playfab_port")
    playfab_title_id: str = _default("playfab_title_id")
    playfab_metadata: tuple[tuple[str, str], ...] = _default("playfab_metadata")
    playfab_session_cookie: str | None = _default("playfab_session_cookie")

    @property
    def given(self) -> frozenset[str]:
        """The names of the settings that were set; all others have their default."""
        return frozenset(self.__dict__)


def load(options: Mapping[str, str] | None = None) -> Settings:
    """Reads and checks all settings.

    Args:
        options: the options of `run`, by setting name (`grace_seconds`), as text.

    Returns:
        The settings, frozen.

    Raises:
        SettingsError: with one problem for every wrong setting.
    """
    options = {name: text for name, text in (options or {}).items() if text}
    settings = parse(options)
    if problems := check_together(settings, options):
        raise SettingsError(problems)
    return settings


def parse(options: Mapping[str, str]) -> Settings:
    """Reads all settings and checks each for itself; the arguments and errors are those of `load`."""
    found: dict[str, Any] = {}
    problems = [
        Problem(option(name), None, f"is not an option{suggestion(name, option)}")
        for name in options
        if name not in TABLE
    ]
    for name, row in TABLE.items():
        given = options.get(name)
        try:
            text = text_of(name, os.environ) if given is None else given
            if text is not None:
                value = row.parse(text)
                found[name] = SecretStr(value) if row.secret else value
        except ValueError as wrong:
            shown = variable(name) if given is None else option(name)
            got = os.environ.get(variable(name), "") if given is None else given
            problems.append(Problem(shown, None if row.secret else got, str(wrong)))
    if problems:
        raise SettingsError(problems)
    return Settings(**found)


def check_together(settings: Settings, options: Mapping[str, str]) -> list[Problem]:
    """Problems with combinations of valid settings."""
    return [
        Problem(
            option(name) if options.get(name) else variable(name), options.get(name) or text_of(name, os.environ), takes
        )
        for name, takes in relations(lambda name: getattr(settings, name))
    ]


def is_secret(name: str) -> bool:
    """Whether the value of a setting is never shown."""
    return name in TABLE and TABLE[name].secret

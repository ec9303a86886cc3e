"""The agent's settings as a typed, frozen model (pydantic-settings), built from the table that the init reads as well.

To add a setting, add a row to `agent.config.table` and a field here. An option wins over its variable, and an empty
variable counts as not set. All wrong settings are reported at once. pydantic-settings' own sources are not used: they
ignore the case of names and parse tuples as JSON, and the init, which cannot import them, must read the same values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agent.config.checks import relations
from agent.config.names import option, suggestion, text_of, variable
from agent.config.table import TABLE
from agent.errors import Problem, SettingsError
from agent.lifecycle.stop_methods import Method


def _row(name: str) -> Any:
    row = TABLE[name]
    return Field(default=row.default, description=row.text)


class Settings(BaseSettings):
    """All settings; `agent.config.table` describes each of them."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    grace_seconds: float = _row("grace_seconds")
    stop: tuple[Method, ...] = _row("stop")
    main: str | None = _row("main")
    rcon_address: str | None = _row("rcon_address")
    rcon_password: SecretStr | None = _row("rcon_password")
    drain_seconds: float = _row("drain_seconds")
    ship_seconds: float = _row("ship_seconds")
    hold_seconds: float = _row("hold_seconds")
    on_exit: Literal["self-stop", "exit"] = _row("on_exit")
    on_crash: Literal["self-stop", "exit", "restart"] = _row("on_crash")
    restart_limit: int = _row("restart_limit")
    restart_backoff: float = _row("restart_backoff")
    ready_when: str = _row("ready_when")
    ready_timeout: float | None = _row("ready_timeout")
    first_player_timeout: float | None = _row("first_player_timeout")
    empty_timeout: float | None = _row("empty_timeout")
    health_timeout: float | None = _row("health_timeout")
    on_hang: Literal["abort", "stack", "none"] = _row("on_hang")
    max_duration: float | None = _row("max_duration")
    max_duration_warnings: tuple[float, ...] = _row("max_duration_warnings")
    players_from: str = _row("players_from")
    players_interval: float = _row("players_interval")
    players_min_stay: float = _row("players_min_stay")
    control_port: int = _row("control_port")
    page_token: SecretStr | None = _row("page_token")
    metrics_port: int = _row("metrics_port")
    metrics_host: str = _row("metrics_host")
    metrics_token: SecretStr | None = _row("metrics_token")
    metrics_tls_cert: str | None = _row("metrics_tls_cert")
    metrics_tls_key: str | None = _row("metrics_tls_key")
    statsd: int | str | None = _row("statsd")
    metrics_push_url: str | None = _row("metrics_push_url")
    metrics_push_interval: float = _row("metrics_push_interval")
    metrics_push_auth: SecretStr | None = _row("metrics_push_auth")
    socket_path: str | None = _row("socket_path")
    workdir: str | None = _row("workdir")
    game_user: str | None = _row("game_user")
    template: tuple[tuple[str, str], ...] = _row("template")
    env_hide: tuple[str, ...] = _row("env_hide")
    env_show: tuple[str, ...] = _row("env_show")
    intercept: bool = _row("intercept")
    no_new_privs: bool = _row("no_new_privs")
    capture: bool = _row("capture")
    tty: bool = _row("tty")
    spool_dir: str | None = _row("spool_dir")
    spool_max: int = _row("spool_max")
    log_url: str | None = _row("log_url")
    log_form: Literal["ndjson", "verbatim"] = _row("log_form")
    log_files: tuple[str, ...] = _row("log_files")
    keep: tuple[str, ...] = _row("keep")
    ship_interval: float = _row("ship_interval")
    redact: tuple[str, ...] = _row("redact")
    redact_stdout: bool = _row("redact_stdout")
    core: bool = _row("core")
    tags: tuple[str, ...] = _row("tags")
    api_token: SecretStr | None = _row("api_token")
    api_url: str = _row("api_url")
    app_name: str = _row("app_name")
    app_version: str = _row("app_version")
    log_storage: str = _row("log_storage")
    log_level: Literal["debug", "info", "warning", "error"] = _row("log_level")
    log_format: Literal["text", "json"] = _row("log_format")
    compat: tuple[str, ...] = _row("compat")
    agones_http_port: int = _row("agones_http_port")
    agones_grpc_port: int = _row("agones_grpc_port")
    agones_allocate: bool = _row("agones_allocate")
    agones_health_period: float = _row("agones_health_period")
    agones_health_threshold: int = _row("agones_health_threshold")
    agones_health_delay: float = _row("agones_health_delay")
    agones_config: str | None = _row("agones_config")
    agones_counters: tuple[tuple[str, int, int], ...] = _row("agones_counters")
    agones_lists: tuple[tuple[str, tuple[str, ...], int], ...] = _row("agones_lists")
    multiplay_port: int = _row("multiplay_port")
    multiplay_allocate: Literal["event", "start", "match"] = _row("multiplay_allocate")
    multiplay_config: tuple[tuple[str, str], ...] = _row("multiplay_config")
    multiplay_query_type: Literal["sqp", "a2s"] = _row("multiplay_query_type")
    multiplay_payload: str | None = _row("multiplay_payload")
    playfab_port: int = _row("playfab_port")
    playfab_title_id: str = _row("playfab_title_id")
    playfab_metadata: tuple[tuple[str, str], ...] = _row("playfab_metadata")
    playfab_session_cookie: str | None = _row("playfab_session_cookie")

    @field_validator("*", mode="before")
    @classmethod
    def _parse(cls, value: Any, info: ValidationInfo) -> Any:
        """Text goes through the table's parser; values of the right type (tests) stay as they are."""
        return TABLE[str(info.field_name)].parse(value) if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options first, then variables and the files of secrets."""
        return init_settings, _Variables(settings_cls)


class _Variables(PydanticBaseSettingsSource):
    """`AGENT_*` in upper case only, read as text, in the same way as in the init."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of one variable, or None if it is missing or empty."""
        return text_of(field_name, os.environ), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All that are set."""
        values = ((name, text_of(name, os.environ)) for name in self.settings_cls.model_fields)
        return {name: value for name, value in values if value is not None}


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
    try:
        return Settings(**options)  # type: ignore[arg-type]  # text in, checked and converted there
    except ValidationError as wrong:
        raise SettingsError([_problem(dict(entry), options) for entry in wrong.errors(include_url=False)]) from None


def check_together(settings: Settings, options: Mapping[str, str]) -> list[Problem]:
    """Problems with combinations of valid settings."""
    return [
        Problem(
            option(name) if options.get(name) else variable(name), options.get(name) or text_of(name, os.environ), takes
        )
        for name, takes in relations(lambda name: getattr(settings, name))
    ]


def _problem(entry: dict[str, Any], options: Mapping[str, str]) -> Problem:
    name = str(entry["loc"][0])
    given = options.get(name)
    shown = option(name) if given is not None else variable(name)
    if entry["type"] == "extra_forbidden":
        return Problem(shown, None, f"is not an option{suggestion(name, option)}")
    got = given if given is not None else os.environ.get(variable(name), "")
    cause = entry.get("ctx", {}).get("error")
    takes = str(cause) if isinstance(cause, ValueError) else f"is wrong: {entry['msg']}"
    return Problem(shown, None if is_secret(name) else got, takes)


def is_secret(name: str) -> bool:
    """Whether the value of a setting is never shown."""
    return name in TABLE and TABLE[name].secret

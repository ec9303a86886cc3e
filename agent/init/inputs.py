"""What `run` was started with: the command line and the environment, and the few settings that spawning needs."""

from __future__ import annotations

import os
import time

from agent import log
from agent.config.checks import players, relations, templates, workdir
from agent.config.names import option, secret_values, suggestion, text_of, variable
from agent.config.table import TABLE
from agent.errors import Problem
from agent.logs.target import store_secrets, url_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself takes 5 ms
    from typing import Any


# Read by the SDK of OpenTelemetry itself: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
OTLP_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
)


def installed(package: str) -> bool:
    """Whether a package is there; it is not imported."""
    from importlib.machinery import PathFinder  # noqa: PLC0415 - only where an extra is asked for

    return PathFinder.find_spec(package) is not None


class Inputs:
    """Command, options and environment, and what is wrong with them.

    Attributes:
        command: the game's program and arguments; empty where there is none, which is wrong.
        options: options of `run`, by setting name.
        environ: the container's environment.
        began: when the agent began, in seconds of the monotonic clock.
        wall_offset: seconds to add to a moment of the monotonic clock to get seconds since 1970, as the clocks stood
            at the start: setting the clock later does not change the recorded times.
        secrets: the values that must be in no log.
        problems: what is wrong with the settings looked at so far.
        substitute_token: the token that the game gets instead of the delete token (AGENT_INTERCEPT), or None.
    """

    def __init__(self, command: list[str], options: dict[str, str], environ: dict[str, str]) -> None:
        """Reads no setting yet."""
        self.command = command
        self.options = options
        self.environ = environ
        self.began = time.monotonic()
        self.wall_offset = time.time() - self.began
        self.problems: list[Problem] = []
        self.substitute_token: str | None = None
        secret = (self.raw(row.name) for row in TABLE.values() if row.secret)
        self.secrets = secret_values(environ)
        self.secrets += [value for value in secret if value]
        self.secrets += store_secrets(environ, self.raw("log_url"))
        self.secrets += url_secrets(self.raw("metrics_push_url") or "")

    def raw(self, name: str) -> str | None:
        """The text of a setting, or None where it is not set."""
        try:
            return text_of(name, self.environ, self.options)
        except ValueError as wrong:
            self.wrong(name, str(wrong))
            return None

    @property
    def exports_last(self) -> bool:
        """Whether metrics or traces are sent somewhere when the game has ended."""
        return bool(self.raw("metrics_push_url")) or any(self.environ.get(name) for name in OTLP_ENDPOINTS)

    @property
    def exports_otlp(self) -> bool:
        """Whether the agent itself exports to OpenTelemetry: it was told where to, and its SDK is installed."""
        disabled = self.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        return not disabled and any(self.environ.get(name) for name in OTLP_ENDPOINTS) and installed("opentelemetry")

    def setting(self, name: str) -> Any:
        """The value of a setting; for a wrong one, notes the problem and returns the default: nothing starts then."""
        row = TABLE[name]
        text = self.raw(name)
        if text is None:
            return row.default
        try:
            return row.parse(text)
        except ValueError as wrong:
            self.wrong(name, str(wrong))
            return row.default

    def check(self) -> None:
        """Checks every setting and option, and notes the problems."""
        for name in TABLE:
            self.setting(name)
        value = self.setting
        for name, takes in (*relations(value), *workdir(value), *templates(value), *players(value, self.environ)):
            self.wrong(name, takes)
        for name in self.options:
            if name not in TABLE:
                self.problems.append(Problem(option(name), None, f"is not an option{suggestion(name, option)}"))
            elif TABLE[name].secret:
                spelt = f"{variable(name)} or {variable(name)}_FILE"
                self.wrong(name, f"is a secret, and options can be read by everybody in the container: use {spelt}")

    def wrong(self, name: str, takes: str) -> None:
        """Notes a problem with a setting; the first one of each counts."""
        spelt = option(name) if self.options.get(name) else variable(name)
        if all(problem.name != spelt for problem in self.problems):
            got = None if TABLE[name].secret else self.options.get(name) or self.environ.get(variable(name))
            self.problems.append(Problem(spelt, got, takes))

    @property
    def redacted_variables(self) -> list[str]:
        """The values of the variables that AGENT_REDACT names."""
        return [self.environ[word] for word in self.setting("redact") if self.environ.get(word)]

    @property
    def log_style(self) -> tuple[str, str]:
        """Level and format of the agent's own log; wrong values are reported by the model."""
        level = (self.raw("log_level") or "info").lower()
        style = (self.raw("log_format") or "text").lower()
        return (level if level in log.LEVELS else "info"), ("json" if style == "json" else "text")

    @property
    def on_platform(self) -> bool:
        """Whether the platform injected what a self-stop needs."""
        return bool(self.environ.get("ARBITRIUM_DELETE_URL") and self.environ.get("ARBITRIUM_DELETE_TOKEN"))

    @property
    def deployment_id(self) -> str:
        """The deployment's id, or "" off the platform."""
        return self.environ.get("ARBITRIUM_REQUEST_ID", "")


def read(argv: list[str]) -> Inputs:
    """Reads `[--option value ...] [--] COMMAND ...` and the environment.

    The first word that is not an option begins the game's command. Problems with the command line are noted in the same
    way as problems with settings.
    """
    options: dict[str, str] = {}
    wrong: list[Problem] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            wrong.append(Problem(name, None, "is not an option; options of run are --name value"))
            continue
        key = name[2:].replace("-", "_")
        if not equals:
            if rest and rest[0] != "--":
                value = rest.pop(0)
            elif key in TABLE:
                wrong.append(Problem(name, None, "takes a value"))
                continue
        options[key] = value  # one that TABLE does not have is refused by `check`
    inputs = Inputs(rest if rest and rest[0] else [], options, _environment())
    inputs.problems[:0] = wrong
    return inputs


def _environment() -> dict[str, str]:
    """The container's environment, without what Python itself put there.

    In the C locale Python sets LC_CTYPE for itself (PEP 538), which the game must not inherit. The original environment
    of the process is in /proc/self/environ.
    """
    environ = dict(os.environ)
    if "LC_CTYPE" in environ:
        try:
            with open("/proc/self/environ", "rb") as given:
                if not any(line.startswith(b"LC_CTYPE=") for line in given.read().split(b"\0")):
                    del environ["LC_CTYPE"]
        except OSError:
            pass
    return environ

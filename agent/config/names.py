"""Which variables are the agent's, and which the game gets. Standard library only: the init needs it."""

import os

from agent.config.table import TABLE
from agent.errors import Problem
from agent.logs.target import STORE_PREFIX, url_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "AGENT_"
FILE = "_FILE"
"""Behind the variable of a secret: the file that holds it, as orchestrators mount them."""

# What the agent gives to the game. A program in the game that starts another agent inherits these; they say where the
# first one is, and are no settings.
EXPORTED = frozenset(
    {
        "AGENT_URL",
        "AGENT_SOCKET",
        "AGENT_METRICS_URL",
        "AGENT_STATSD_URL",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
    }
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


# What the SDK of OpenTelemetry sends with each export: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
_OTLP = "OTEL_EXPORTER_OTLP_"
_TELLING = ("auth", "key", "token", "secret", "password", "cookie")
_LONG = 16


def secret_values(environ: "Mapping[str, str]") -> "list[str]":
    """Values of the environment that must be in no log, beside those of settings and of the store.

    Of a URL with a stop key, that is the key, and the end of the path with deployment and key: so they are found with
    another scheme or host before them as well, and in the URL that the game gets with AGENT_INTERCEPT.
    """
    found = []
    for name in SECRETS:
        value = environ.get(name, "")
        parts = [part for part in value.partition("://")[2].partition("?")[0].split("/")[1:] if part]
        if name.endswith("_URL") and len(parts) > 1:
            found += ["/".join(parts[-2:]), parts[-1], *url_secrets(value)]
        else:
            found.append(value)
    for name, value in environ.items():
        if is_otlp_headers(name):
            found += _header_secrets(value)
        elif name.startswith(_OTLP) and name.endswith("ENDPOINT"):
            found += url_secrets(value)
    return [value for value in found if value]


def is_otlp_headers(name: str) -> bool:
    """Whether a variable holds what OpenTelemetry's SDK identifies itself with: for all signals, or for one."""
    return name.startswith(_OTLP) and name.endswith("HEADERS")


def _header_secrets(text: str) -> "list[str]":
    """Of `name=value,name=value`, percent-encoded, the values that look like credentials: by their name or length."""
    from urllib.parse import unquote  # noqa: PLC0415 - where somebody exports

    found = []
    for pair in text.split(","):
        name, _, encoded = pair.partition("=")
        value = unquote(encoded.strip())
        if len(value) >= _LONG or any(part in name.lower() for part in _TELLING):
            # "Bearer TOKEN": the token alone too.
            found += [encoded.strip(), value, value.rpartition(" ")[2]]
    return found


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
    without = {variable(name) for name in TABLE} | {variable(name) + FILE for name in TABLE} | EXPORTED | set(hidden)
    kept = {name: value for name, value in environ.items() if name not in without}
    return kept | exported


def text_of(name: str, environ: "Mapping[str, str]", options: "Mapping[str, str] | None" = None) -> "str | None":
    """The text of a setting, or None where it is not set; what is set to nothing counts as not set.

    A secret may also stand in a file: the one that AGENT_NAME_FILE names, or AGENT_NAME (in capitals or small letters)
    in /run/secrets, where orchestrators mount them. Line breaks at its end do not count.

    Raises:
        ValueError: the file that AGENT_NAME_FILE names cannot be read.
    """
    given = (options or {}).get(name) or environ.get(variable(name))
    if given or not TABLE[name].secret:
        return given or None
    named = environ.get(variable(name) + FILE)
    paths = [named] if named else [f"/run/secrets/{spelt}" for spelt in (variable(name), variable(name).lower())]
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return file.read(65536).rstrip("\r\n") or None
        except OSError as problem:
            if named:
                raise ValueError(
                    f"takes a value, or a file that can be read in {variable(name)}{FILE}, and {named} cannot be: "
                    f"{os.strerror(problem.errno or 0).lower()}"
                ) from None
    return None


def unknown_variables(environ: "Mapping[str, str]") -> "list[Problem]":
    """`AGENT_*` variables that are no settings: most likely misspelt, but other programs may use the prefix as well."""
    known = {variable(name) for name in TABLE} | {variable(row.name) + FILE for row in TABLE.values() if row.secret}
    known |= EXPORTED
    return [
        Problem(name, None, f"is not a setting of arbitrium-agent{suggestion(name[len(PREFIX) :].lower(), variable)}")
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known and not name.startswith(STORE_PREFIX)
    ]


def suggestion(name: str, spell: "Callable[[str], str]") -> str:
    """What may have been meant by a name that no setting has; "" where nothing is close."""
    import difflib  # noqa: PLC0415 - only where something is wrong

    close = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.6)
    return f"; did you mean {spell(close[0])}?" if close else ""

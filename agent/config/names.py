"""Which variables are the agent's, and which the game gets. Standard library only: the init needs it."""

import os

from agent.config.table import TABLE
from agent.errors import KEPT_QUOTES, Problem, is_quoted
from agent.logs.target import STORE_PREFIX, url_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "AGENT_"
FILE = "_FILE"
"""Suffix of the variable that names the file with a secret, as mounted by orchestrators."""

# Variables that the agent sets for the game. If the game starts another agent, that inherits them; they tell where the
# first agent is, and are not settings.
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

# Injected values that permit actions on the deployment. The URLs contain a key in the path.
SECRETS = (
    "ARBITRIUM_DELETE_TOKEN",
    "ARBITRIUM_CONTEXT_TOKEN",
    "ARBITRIUM_DELETE_URL",
    "ARBITRIUM_CONTEXT_URL",
    "AGENT_API_TOKEN",
    "AGENT_RCON_PASSWORD",
)


# Headers that the SDK of OpenTelemetry sends with each export:
# https://opentelemetry.io/docs/specs/otel/protocol/exporter/
_OTLP = "OTEL_EXPORTER_OTLP_"
_TELLING = ("auth", "key", "token", "secret", "password", "cookie")
_LONG = 16


def secret_values(environ: "Mapping[str, str]") -> "list[str]":
    """Values of the environment that must not be in any log, in addition to those of settings and of the store.

    For a URL with a stop key, these are the key, and the end of the path with deployment and key, so that they are also
    found after another scheme or host, and in the URL that the game gets with AGENT_INTERCEPT.
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
            # "Bearer TOKEN": also the token alone.
            found += [encoded.strip(), value, value.rpartition(" ")[2]]
    return found


def variable(name: str) -> str:
    """The variable of a setting: `grace_seconds` is `AGENT_GRACE_SECONDS`."""
    return PREFIX + name.upper()


def option(name: str) -> str:
    """The option of a setting: `grace_seconds` is `--grace-seconds`."""
    return "--" + name.replace("_", "-")


def matching(environ: "Iterable[str]", patterns: "Iterable[str]") -> "list[str]":
    """The variables that match AGENT_ENV_HIDE; a `*` at the end matches anything."""
    exact = {pattern for pattern in patterns if not pattern.endswith("*")}
    begins = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    return [name for name in environ if name in exact or (begins and name.startswith(begins))]


def game_environment(
    environ: "dict[str, str]", exported: "dict[str, str]", hidden: "Iterable[str]" = ()
) -> "dict[str, str]":
    """The game's environment: the container's, without the agent's settings and `hidden`, plus the exported ones."""
    without = {variable(name) for name in TABLE} | {variable(name) + FILE for name in TABLE} | EXPORTED | set(hidden)
    kept = {name: value for name, value in environ.items() if name not in without}
    return kept | exported


def text_of(name: str, environ: "Mapping[str, str]", options: "Mapping[str, str] | None" = None) -> "str | None":
    """The text of a setting, or None if it is not set; an empty value counts as not set.

    A secret may also be in a file: the file named by AGENT_NAME_FILE, or AGENT_NAME (in upper or lower case) in
    /run/secrets, where orchestrators mount them. Line breaks at its end are ignored.

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
    """`AGENT_*` variables that are not settings: probably misspelt, but other programs may use the prefix too."""
    known = {variable(name) for name in TABLE} | {variable(row.name) + FILE for row in TABLE.values() if row.secret}
    known |= EXPORTED
    wrong = "is not a setting of arbitrium-agent and has no effect"
    return [
        Problem(name, None, f"{wrong}{suggestion(name[len(PREFIX) :].lower(), variable)}")
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known and not name.startswith(STORE_PREFIX)
    ]


def quoted_variables(environ: "Mapping[str, str]") -> "list[Problem]":
    """Settings whose value is in quotes. A text may really begin and end with one, so that it is not refused."""
    names = (variable(name) for name in TABLE)
    return [
        Problem(name, None, f"is used as it is, and {KEPT_QUOTES}")
        for name in names
        if is_quoted(environ.get(name, ""))
    ]


def suggestion(name: str, spell: "Callable[[str], str]") -> str:
    """A suggestion for an unknown name; "" if no setting has a similar name."""
    import difflib  # noqa: PLC0415 - only where something is wrong

    close = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.6)
    return f"; did you mean {spell(close[0])}?" if close else ""

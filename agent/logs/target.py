"""Parses `AGENT_LOG_URL`: the store, the keys, and which variables hold its credentials. Standard library only.

The init needs a part of it before the game is spawned (what to keep from the game), so it imports little.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PLACEHOLDERS = ("application", "version", "deployment_id", "attempt", "date", "time", "host_id")
DEFAULT_TEMPLATE = "{application}/{version}"
KEY = "{key}"  # in an http(s) URL: the place of the whole key

STORE_PREFIX = "AGENT_STORE_"
# Scheme: kind of store, and the prefixes of its usual variables, which the object_store crate reads.
_SCHEMES = {
    "s3": ("s3", ("AWS_",)),
    "s3a": ("s3", ("AWS_",)),
    "gs": ("gcs", ("GOOGLE_",)),
    "az": ("azure", ("AZURE_",)),
    "azure": ("azure", ("AZURE_",)),
    "abfs": ("azure", ("AZURE_",)),
    "abfss": ("azure", ("AZURE_",)),
    "adl": ("azure", ("AZURE_",)),
    "http": ("http", ()),
    "https": ("http", ()),
    "file": ("file", ()),
}
# Parts of the names of credentials, for all stores: AWS_SECRET_ACCESS_KEY, GOOGLE_SERVICE_ACCOUNT_PATH,
# AZURE_STORAGE_SAS_TOKEN, ..._PASSWORD, ..._CLIENT_ID and so on.
_CREDENTIALS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "SERVICE_ACCOUNT", "CREDENTIAL", "SAS", "CLIENT_ID")
# Values of these are not secrets: replacing them would only make logs unreadable.
_HARMLESS = (
    "REGION",
    "ENDPOINT",
    "ENDPOINT_URL",
    "ENDPOINT_URL_S3",
    "ALLOW_HTTP",
    "PROFILE",
    "BUCKET",
    "OUTPUT",
    "PAGER",
)


class Target:
    """A parsed `AGENT_LOG_URL`.

    Attributes:
        kind: `s3`, `gcs`, `azure`, `http` or `file`.
        base: URL up to the first placeholder, without a slash at its end; an http URL with `{key}` or a query as it is.
        template: path below `base` with placeholders; the run's own directory comes below that.
        single: whether it names one object (a presigned URL), so that everything goes into one archive.
    """

    __slots__ = ("base", "kind", "single", "template")

    def __init__(self, url: str) -> None:
        """Parses a URL.

        Raises:
            ValueError: logs cannot be sent there; the message says what the setting takes.
        """
        scheme, separator, rest = url.strip().partition("://")
        known = _SCHEMES.get(scheme.lower())
        if not separator or known is None or not rest.strip("/"):
            raise ValueError("takes a URL such as file:///var/log/game, s3://bucket/prefix, gs://, az:// or https://")
        self.kind = known[0]
        if self.kind == "file" and not rest.startswith("/"):
            raise ValueError("takes file:// with an absolute path, such as file:///var/log/game")
        self.single = self.kind == "http" and "?" in rest and KEY not in rest
        clean = url.strip()
        for name in _placeholders(clean.replace(KEY, "")):
            if name not in PLACEHOLDERS:
                raise ValueError(f"takes the placeholders {', '.join(PLACEHOLDERS)}, not {{{name}}}")
        if self.single or KEY in clean:
            self.base, self.template = clean, DEFAULT_TEMPLATE
            if "{" in clean.replace(KEY, ""):
                raise ValueError("takes either {key} or other placeholders in an http URL, and none in a presigned one")
            return
        literal, brace, _ = clean.partition("{")
        if not brace:
            self.base, self.template = clean.rstrip("/"), DEFAULT_TEMPLATE
            return
        cut = literal.rfind("/")
        if cut <= clean.index("://") + 2:
            raise ValueError("takes placeholders in the path only, not in the bucket or host")
        self.base, self.template = clean[:cut], clean[cut + 1 :].strip("/")

    @property
    def shown(self) -> str:
        """The URL for messages: without the parts that permit writing (user, password, query)."""
        scheme, _, rest = self.base.partition("://")
        host, slash, path = rest.partition("/")
        path, query, _ = path.partition("?")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" + ("?..." if query else "")

    def directory(self, identity: "Mapping[str, str]", run_time: str) -> str:
        """The key of a run's directory.

        Args:
            identity: values for the placeholders; an unknown value becomes `_`.
            run_time: when the run started, `YYYYMMDDTHHMMSSZ`.
        """
        values = {name: clean(identity.get(name, "")) for name in PLACEHOLDERS}
        values["date"] = f"{run_time[:4]}-{run_time[4:6]}-{run_time[6:8]}"
        values["time"] = run_time
        path = self.template
        for name, value in values.items():
            path = path.replace("{" + name + "}", value)
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        return "/".join([*parts, f"{run_time}-{values['deployment_id']}-{values['attempt']}"])


def clean(value: str) -> str:
    """A value as part of a key, with characters that every store and shell accepts; `_` if it is empty."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in value.strip())
    return safe.strip("-.")[:100] or "_"


def check_url(text: str) -> str:
    """Checks the text of `AGENT_LOG_URL` and returns it; raises ValueError that says what it takes."""
    Target(text)
    return text.strip()


def is_store_variable(name: str, log_url: "str | None", names: "Iterable[str]" = ()) -> bool:
    """Whether a variable is for the agent's store and must not reach the game.

    Args:
        name: the variable.
        log_url: the text of `AGENT_LOG_URL`, or None.
        names: the names of all variables. If they include credentials in `AGENT_STORE_*`, the store's usual variables
            belong to the game: this is how a game can have its own `AWS_*` variables next to an agent that ships.
    """
    if name.startswith(STORE_PREFIX):
        return True
    known = _SCHEMES.get((log_url or "").partition("://")[0].lower().strip())
    if known is None or not name.startswith(known[1] or ("\0",)):
        return False
    return not any(
        other.startswith(STORE_PREFIX) and "SSE_" not in other and any(part in other for part in _CREDENTIALS)
        for other in names
    )


def store_secrets(environ: "Mapping[str, str]", log_url: "str | None") -> "list[str]":
    """The values that permit writing to the store; they must not appear in any log.

    Args:
        environ: the container's environment.
        log_url: the text of `AGENT_LOG_URL`, or None; the secrets in it (password, presigned query) are found too.
    """
    found = [
        value
        for name, value in environ.items()
        if value
        and is_store_variable(name, log_url)
        and not name.endswith(_HARMLESS)
        and value.lower() not in ("true", "false", "on", "off")
    ]
    return found + url_secrets(log_url or "")


def url_secrets(url: str) -> "list[str]":
    """The secret parts of a URL: user and password, a presigned query."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    found = []
    if "@" in host and scheme.lower().startswith("http"):
        found.append(host.rpartition("@")[0])
        found.append(host.rpartition("@")[0].partition(":")[2])
    _, _, query = path.partition("?")
    if query:
        found.append(query)
        found += [value for part in query.split("&") if len(value := part.partition("=")[2]) >= 16]
    return [value for value in found if value]


def store_config(environ: "Mapping[str, str]") -> "dict[str, str]":
    """`AGENT_STORE_ACCESS_KEY_ID` and the like as the store's configuration: `access_key_id` and so on."""
    return {
        name[len(STORE_PREFIX) :].lower(): value
        for name, value in environ.items()
        if name.startswith(STORE_PREFIX) and value
    }


def _placeholders(text: str) -> "list[str]":
    names = []
    for part in text.split("{")[1:]:
        name, brace, _ = part.partition("}")
        names.append(name if brace else part)
    return names

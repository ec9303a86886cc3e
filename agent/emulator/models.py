"""The request models, as strict as the contract.

Written from the contract and not shared with the client, so that a mistake in either is detected. Unknown members are
accepted, as in the contract; a wrong type, a missing member or a `null` where the contract has none is refused.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

PROTOCOLS = ("UDP", "TCP", "TCP/UDP", "HTTP", "HTTPS", "WS", "WSS")
VALUE_BYTES = 4096
"""Most bytes of an environment variable's value (the contract: "Up to 4 KB")."""


def _whole(value: Any) -> Any:
    """1.0 is an integer for JSON Schema, and a float for Python."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _uri(value: str) -> str:
    """A URI with a scheme, as `format: uri` asks."""
    try:
        parts = urlsplit(value)
    except ValueError as error:
        raise ValueError(f"is not a URI ({error})") from None
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", parts.scheme) or any(c.isspace() or ord(c) < 33 for c in value):
        raise ValueError("is not a URI; one looks like https://example.com/path")
    return value


def _http(value: str) -> str:
    """A URL that a webhook can be sent to."""
    if urlsplit(value).scheme.lower() not in {"http", "https"} or not urlsplit(value).hostname:
        raise ValueError("is not an http or https URL")
    return value


def _protocol(value: str) -> str:
    """One of the protocols, whatever its case."""
    if value.upper() not in PROTOCOLS:
        raise ValueError(f"is not a protocol; there are {', '.join(PROTOCOLS)}")
    return value.upper()


def _reachable(value: str) -> str:
    """A name that a path can end in: clients and proxies take a part `.` or `..` out of a URL before they send it."""
    if value in {".", ".."}:
        raise ValueError(f"cannot be {value}, which no URL can end in")
    return value


def _carried(value: str) -> str:
    """What an environment can hold."""
    if len(value.encode()) > VALUE_BYTES:
        raise ValueError(f"is longer than {VALUE_BYTES} bytes")
    if "\0" in value:
        raise ValueError("has a NUL character, which no environment variable can hold")
    return value


def _address(value: str) -> str:
    """An IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("is not an IP address") from None
    return value


def _no_nul(value: str) -> str:
    """What a command line can hold."""
    if "\0" in value:
        raise ValueError("has a NUL character, which no command line can hold")
    return value


def _number(value: Any) -> Any:
    """A whole number; one kit sends it as text."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else _whole(value)


def _key(value: str) -> str:
    """A key from which something is left once it is sanitised."""
    if not value.strip():
        raise ValueError("is empty")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Uri = Annotated[str, AfterValidator(_uri)]
Address = Annotated[str, AfterValidator(_address)]
CommandLine = Annotated[str, AfterValidator(_no_nul)]
HttpUrl = Annotated[str, AfterValidator(_uri), AfterValidator(_http)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_reachable)]
"""Of whatever has a path of its own."""
TagName = Annotated[Name, Field(max_length=40)]
VariableKey = Annotated[str, AfterValidator(_key)]
VariableValue = Annotated[str, AfterValidator(_carried)]


class Strict(BaseModel):
    """Base of every request body: a member may be absent, but it is null only where the contract says `nullable`."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    nullable: ClassVar[frozenset[str]] = frozenset()
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Members of the contract that have no effect here; a request with one gets a notice."""

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, value: Any) -> Any:
        if isinstance(value, dict):
            nulls = [name for name in cls.model_fields if name not in cls.nullable and value.get(name, 0) is None]
            if nulls:
                raise ValueError(f"{', '.join(nulls)} cannot be null; leave it out")
        return value


class UserData(Strict):
    """Where a player is: an address, or coordinates in degrees."""

    ip_address: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class User(Strict):
    """One player of a deployment."""

    user_type: Literal["ip_address", "geo_coordinates"]
    user_data: UserData

    @model_validator(mode="after")
    def _complete(self) -> User:
        data = self.user_data
        if self.user_type == "ip_address":
            if data.ip_address is None:
                raise ValueError("user_data.ip_address is missing")
            try:
                _address(data.ip_address)
            except ValueError:
                raise ValueError("user_data.ip_address is not an IP address") from None
        elif data.latitude is None or data.longitude is None:
            raise ValueError("user_data.latitude and user_data.longitude are both needed")
        elif not (-90 <= data.latitude <= 90 and -180 <= data.longitude <= 180):
            raise ValueError("user_data is not on Earth: latitude is -90 to 90, longitude -180 to 180")
        return self


class DeploymentVariable(Strict):
    """An environment variable of one deployment."""

    key: VariableKey
    value: VariableValue
    is_hidden: bool


class Webhook(Strict):
    """Whom to tell."""

    url: HttpUrl


class Resources(Strict):
    """What one deployment gets instead of what its version asks for (in no document; a client sends it)."""

    cpu_units: Whole | None = Field(default=None, ge=100)
    """1024 is one vCPU."""
    memory_mib: Whole | None = Field(default=None, ge=100)
    """MB, as `req_memory`."""


class DeploymentCreate(Strict):
    """`POST /v2/deployments`."""

    nullable = frozenset({"require_cached_locations"})
    without_effect = frozenset({"require_cached_locations"})

    application: str
    version: str
    require_cached_locations: bool | None = False
    users: list[User] = Field(min_length=1)
    environment_variables: list[DeploymentVariable] = []
    tags: list[TagName] = []
    webhook_on_ready: Webhook | None = None
    webhook_on_error: Webhook | None = None
    webhook_on_terminated: Webhook | None = None
    resources: Resources | None = None


class FleetDeploymentCreate(DeploymentCreate):
    """`POST /v2/private-fleets/deployments`."""

    private_host_ids: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> FleetDeploymentCreate:
        if len(set(self.private_host_ids)) < len(self.private_host_ids):
            raise ValueError("private_host_ids names a host twice")
        return self


class LocationFilter(Strict):
    """Which places may be chosen."""

    field: str
    values: list[str]
    filter_type: Literal["any", "all", "not"]


class GeoIp(Strict):
    """A player of the old deploy: an address, and where it is."""

    ip: str
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class Point(Strict):
    """Degrees."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class LogStorage(Strict):
    """Where the logs of one deployment go."""

    enabled: bool
    endpoint_storage: str | None = None


class InjectedVariable(Strict):
    """An environment variable, of a version or of a deployment made the old way."""

    key: VariableKey
    value: VariableValue
    is_hidden: bool = False
    is_secret: bool | None = None

    @property
    def hidden(self) -> bool:
        """Whether it is never shown; `is_secret` is an older name of `is_hidden`."""
        return self.is_hidden or bool(self.is_secret)


class DeployV1(Strict):
    """`POST /v1/deploy`."""

    nullable = frozenset({"command", "arguments"})
    without_effect = frozenset(
        {"is_public_app", "telemetry_profile_uuid_list", "skip_telemetry", "region", "ap_sort_strategy"}
    )

    app_name: str
    version_name: str | None = None
    ip_list: list[Address] = []
    geo_ip_list: list[GeoIp] = []
    filters: list[LocationFilter] = []
    env_vars: list[InjectedVariable] = []
    tags: list[TagName] = []
    webhook_url: HttpUrl | None = None
    container_log_storage: LogStorage | None = None
    command: CommandLine | None = None
    arguments: CommandLine | None = None
    is_public_app: bool = False
    telemetry_profile_uuid_list: list[str] = []
    skip_telemetry: bool = True
    location: Point | None = None
    city: str = ""
    country: str = ""
    continent: str = ""
    region: str = ""
    administrative_division: str = ""
    ap_sort_strategy: Literal["basic", "weighted"] = "basic"

    @model_validator(mode="after")
    def _one_list(self) -> DeployV1:
        if self.ip_list and self.geo_ip_list:
            raise ValueError("ip_list and geo_ip_list are both given; send one of them")
        return self


class BetaUser(Strict):
    """A player of the beta deploy."""

    ip_address: Address


class BetaDeploymentCreate(Strict):
    """`POST /beta/deployments`: what came before v2, and a game backend's plugin still sends."""

    application_name: str
    version: str
    users: list[BetaUser] = Field(min_length=1)
    environment_variables: list[DeploymentVariable] = []
    tags: list[TagName] = []
    webhook: Webhook | None = None


class DeploymentUpdate(Strict):
    """`PATCH /v1/deployments/{request_id}`."""

    is_joinable_by_session: bool = False


class Report(Strict):
    """`POST /v1/deployments/{deployment_id}:report`."""

    reason: str = Field(min_length=1, max_length=255)
    metadata: dict[str, Any] = {}


class QuickStart(Strict):
    """`POST /v1/wizard/init-quick-start`."""

    source: str
    """Which plugin asks."""


class RelayUser(Strict):
    """One player of a relay session."""

    ip: Address


class RelaySessionCreate(Strict):
    """`POST /v1/relays/sessions`."""

    users: list[RelayUser] = Field(min_length=1)
    filters: list[LocationFilter] = []
    webhook_url: HttpUrl | None = None


class RelayAuthorize(Strict):
    """`POST /v1/relays/sessions:authorize-user`."""

    session_id: str
    user_ip: Address


class RelayRevoke(Strict):
    """`POST /v1/relays/sessions:revoke-user`."""

    session_id: str
    authorization_token: Annotated[int, BeforeValidator(_number)]


class ImageTags(Strict):
    """`POST /v1/container-registry/images/{image_name}/tags/bulk-delete`."""

    tags: list[str] = Field(min_length=1)


class TagBody(Strict):
    """A tag to make or to rename to."""

    name: TagName


class BulkFilter(Strict):
    """One condition of a bulk stop."""

    field: Literal["request_id", "deployment_tags"]
    values: list[str]
    filter_type: Literal["any", "all", "not"]


class BulkStop(Strict):
    """`POST /v1/deployments/bulk-stop`."""

    filters: list[BulkFilter]


class ApplicationBody(Strict):
    """`POST /v1/app`."""

    without_effect = frozenset({"is_telemetry_agent_active", "create_time", "last_updated"})

    name: str = Field(min_length=3, max_length=64)
    is_active: bool
    image: str
    is_telemetry_agent_active: bool | None = None
    create_time: str = ""
    last_updated: str = ""


class ApplicationUpdate(Strict):
    """`PATCH /v1/app/{app_name}`."""

    without_effect = frozenset({"is_telemetry_agent_active"})

    name: str = Field(default="", min_length=3, max_length=64)
    is_active: bool = True
    image: str = ""
    is_telemetry_agent_active: bool | None = None


class VersionPort(Strict):
    """A port of a version."""

    port: Whole = Field(ge=0, le=65535)
    protocol: Annotated[str, AfterValidator(_protocol)]
    to_check: bool = True
    tls_upgrade: bool = False
    name: str = ""

    @property
    def key(self) -> str:
        """What the port is known by: its name, else its number."""
        return self.name or str(self.port)


class SessionConfig(Strict):
    """Of the platform's sessions, which are not served here."""

    kind: Literal["Default", "Seat", "Match"] = "Default"
    sockets: Whole | None = Field(default=None, ge=1)
    autodeploy: bool | None = None
    empty_ttl: Whole | None = Field(default=None, ge=1)
    session_max_duration: Whole | None = Field(default=None, ge=60)


class Probe(Strict):
    """Of the platform's telemetry, which is not served here."""

    optimal_ping: Whole = Field(ge=1)
    rejected_ping: Whole = Field(ge=1)


class _VersionMembers(Strict):
    """What a version may have, with the platform's defaults."""

    nullable = frozenset({"command", "arguments"})
    without_effect = frozenset(
        {
            *("create_time", "last_updated", "caching_percent", "req_video", "verify_image", "private_username"),
            *("private_token", "will_deploy_in_mainland_china", "dns_config", "whitelisting_active", "use_telemetry"),
            *("inject_context_env", "cache_min_hour", "cache_max_hour", "enable_all_locations", "build_type"),
            *("session_config", "probe"),
        }
    )

    is_active: bool = True
    req_video: Whole | None = Field(default=None, ge=0)
    private_username: str = ""
    private_token: str = Field(default="", repr=False)
    verify_image: bool = False
    force_cache: bool = False
    caching_percent: float | None = Field(default=None, ge=0, le=1)
    time_to_deploy: Whole = Field(default=120, ge=15)
    max_duration: Whole = Field(default=1440, ge=-1, le=1440)
    restart_policy: Literal["always", "never", "on_failure"] = "always"
    termination_grace_period_seconds: Whole = Field(default=5, ge=5, le=3600)
    will_deploy_in_mainland_china: bool | None = None
    dns_config: str | None = None
    ports: list[VersionPort] = []
    envs: list[InjectedVariable] = []
    endpoint_storage: str = ""
    command: CommandLine | None = None
    arguments: CommandLine | None = None
    whitelisting_active: bool | None = None
    use_telemetry: bool | None = None
    inject_context_env: bool | None = None
    cache_min_hour: Whole | None = Field(default=None, ge=0, le=23)
    cache_max_hour: Whole | None = Field(default=None, ge=0, le=23)
    enable_all_locations: bool | None = None
    build_type: str | None = None
    session_config: SessionConfig | None = None
    probe: Probe | None = None
    create_time: str = ""
    last_updated: str = ""

    @field_validator("ports")
    @classmethod
    def _distinct(cls, value: list[VersionPort]) -> list[VersionPort]:
        keys = [port.key for port in value]
        if len(set(keys)) < len(keys):
            raise ValueError("has two ports of one name; give each its own")
        return value


class VersionBody(_VersionMembers):
    """`POST /v1/app/{app_name}/version`, and a version of a versions file."""

    name: Name = Field(max_length=64)
    req_cpu: Whole = Field(ge=100)
    req_memory: Whole = Field(ge=100)
    docker_repository: str
    docker_image: str
    docker_tag: str

    @field_validator("req_memory")
    @classmethod
    def _not_too_much(cls, value: int, info: ValidationInfo) -> int:
        most = 2 * info.data.get("req_cpu", value)
        if value > most:
            raise ValueError(f"is at most twice req_cpu, here {most} MB")
        return value


class VersionUpdate(_VersionMembers):
    """`PATCH /v1/app/{app_name}/version/{version_name}`: what is not sent stays as it is."""

    name: Name = Field(default="", max_length=64)
    req_cpu: Whole = Field(default=0, ge=100)
    req_memory: Whole = Field(default=0, ge=100)
    docker_repository: str = ""
    docker_image: str = ""
    docker_tag: str = ""


class StorageBody(Strict):
    """`POST /v1/storage/endpoint`."""

    without_effect = frozenset({"create_time", "last_updated"})

    name: Name
    access_key_id: str
    secret_access_key: str = Field(repr=False)
    endpoint: Uri
    bucket: str
    output_format: Literal["TEXT", "NDJSON"] = "TEXT"
    create_time: str = ""
    last_updated: str = ""


class StorageUpdate(Strict):
    """`PATCH /v1/storage/endpoint/{endpoint_name}`: what is not sent stays as it is."""

    name: Name = ""
    access_key_id: str = ""
    secret_access_key: str = Field(default="", repr=False)
    endpoint: Uri = "file:///"
    bucket: str = ""
    output_format: Literal["TEXT", "NDJSON"] = "TEXT"


class PullProfileBody(Strict):
    """`POST /v1/storage/endpoint/{endpoint_name}/pull-profile`."""

    without_effect = frozenset({"create_time", "last_updated"})

    name: Name
    source: str
    source_type: Literal["File", "Folder"]
    destination: str
    create_time: str = ""
    last_updated: str = ""


class PullProfileUpdate(Strict):
    """`PATCH …/pull-profile/{pull_profile_name}`: what is not sent stays as it is."""

    name: Name = ""
    source: str = ""
    source_type: Literal["File", "Folder"] = "File"
    destination: str = ""

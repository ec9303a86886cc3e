"""What requests may contain, as strictly as the contract has it.

Written from the contract and not shared with the client, so that a mistake in either shows. Unknown members are let
through, as the contract does; a wrong type, a missing member or a `null` where the contract has none is refused.
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


def _carried(value: str) -> str:
    """What an environment can hold."""
    if len(value.encode()) > VALUE_BYTES:
        raise ValueError(f"is longer than {VALUE_BYTES} bytes")
    if "\0" in value:
        raise ValueError("has a NUL character, which no environment variable can hold")
    return value


def _key(value: str) -> str:
    """A key from which something is left once it is sanitised."""
    if not value.strip():
        raise ValueError("is empty")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Uri = Annotated[str, AfterValidator(_uri)]
HttpUrl = Annotated[str, AfterValidator(_uri), AfterValidator(_http)]
TagName = Annotated[str, Field(min_length=1, max_length=40)]
VariableKey = Annotated[str, AfterValidator(_key)]
VariableValue = Annotated[str, AfterValidator(_carried)]


class Strict(BaseModel):
    """Base of every request body: a member may be absent, but it is null only where the contract says `nullable`."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    nullable: ClassVar[frozenset[str]] = frozenset()

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
                ipaddress.ip_address(data.ip_address)
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


class DeploymentCreate(Strict):
    """`POST /v2/deployments`."""

    nullable = frozenset({"require_cached_locations"})

    application: str
    version: str
    require_cached_locations: bool | None = False
    users: list[User] = Field(min_length=1)
    environment_variables: list[DeploymentVariable] = []
    tags: list[TagName] = []
    webhook_on_ready: Webhook | None = None
    webhook_on_error: Webhook | None = None
    webhook_on_terminated: Webhook | None = None


class FleetDeploymentCreate(DeploymentCreate):
    """`POST /v2/private-fleets/deployments`."""

    private_host_ids: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> FleetDeploymentCreate:
        if len(set(self.private_host_ids)) < len(self.private_host_ids):
            raise ValueError("private_host_ids names a host twice")
        return self


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

    name: str = Field(min_length=3, max_length=64)
    is_active: bool
    image: str
    create_time: str = ""
    last_updated: str = ""


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


class VersionVariable(Strict):
    """An environment variable of every deployment of a version."""

    key: VariableKey
    value: VariableValue
    is_hidden: bool = False


class VersionBody(Strict):
    """`POST /v1/app/{app_name}/version`, and a version of a versions file."""

    nullable = frozenset({"command", "arguments"})

    name: str = Field(min_length=1, max_length=64)
    is_active: bool = True
    req_cpu: Whole = Field(ge=100)
    req_memory: Whole = Field(ge=100)
    docker_repository: str
    docker_image: str
    docker_tag: str
    private_username: str = ""
    private_token: str = Field(default="", repr=False)
    verify_image: bool = False
    time_to_deploy: Whole = Field(default=120, ge=15)
    max_duration: Whole = Field(default=1440, ge=-1, le=1440)
    restart_policy: Literal["always", "never", "on_failure"] = "always"
    termination_grace_period_seconds: Whole = Field(default=5, ge=5, le=3600)
    ports: list[VersionPort] = []
    envs: list[VersionVariable] = []
    endpoint_storage: str = ""
    command: str | None = None
    arguments: str | None = None

    @field_validator("req_memory")
    @classmethod
    def _not_too_much(cls, value: int, info: ValidationInfo) -> int:
        most = 2 * info.data.get("req_cpu", value)
        if value > most:
            raise ValueError(f"is at most twice req_cpu, here {most} MB")
        return value

    @field_validator("ports")
    @classmethod
    def _distinct(cls, value: list[VersionPort]) -> list[VersionPort]:
        keys = [port.key for port in value]
        if len(set(keys)) < len(keys):
            raise ValueError("has two ports of one name; give each its own")
        return value

    @field_validator("command", "arguments")
    @classmethod
    def _without_nul(cls, value: str | None) -> str | None:
        if value and "\0" in value:
            raise ValueError("has a NUL character, which no command line can hold")
        return value


class StorageBody(Strict):
    """`POST /v1/storage/endpoint`."""

    name: str
    access_key_id: str
    secret_access_key: str = Field(repr=False)
    endpoint: Uri
    bucket: str
    output_format: Literal["TEXT", "NDJSON"] = "TEXT"
    create_time: str = ""
    last_updated: str = ""

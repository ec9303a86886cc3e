"""The platform's requests and answers as types: names as they are on the wire, units as the contract has them.

Answers are parsed with tolerance, because the live API omits fields that its reference requires, sends null for others
and adds undocumented ones: unknown fields are kept, null counts as missing, a missing field has a default, an invalid
date is None. Only an id is required.
"""

import enum
from typing import Literal, Self

from pydantic import Field

from agent.edgegap.wire import Moment, Secret, Wire


class State(enum.StrEnum):
    """The states of a deployment."""

    SEEKING = "SEEKING"
    SEEKED = "SEEKED"
    DEPLOYING = "DEPLOYING"
    READY = "READY"
    ERROR = "ERROR"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    UNKNOWN = "UNKNOWN"
    """A name that this client does not know."""

    @classmethod
    def parse(cls, text: str | None) -> "State":
        """Read `Status.READY` or `READY`, in any case; what is not known is `UNKNOWN`."""
        name = (text or "").strip().rpartition(".")[2].upper()
        return cls(name) if name in cls.__members__ else cls.UNKNOWN


class UserData(Wire):
    """Where a player is: an IP address, or coordinates in degrees."""

    ip_address: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class User(Wire):
    """A player to place the deployment near to."""

    user_type: Literal["ip_address", "geo_coordinates"]
    user_data: UserData

    @classmethod
    def from_ip(cls, address: str) -> Self:
        """Locate a player by IP address."""
        return cls(user_type="ip_address", user_data=UserData(ip_address=address))

    @classmethod
    def from_coordinates(cls, latitude: float, longitude: float) -> Self:
        """Locate a player by coordinates, in degrees."""
        return cls(user_type="geo_coordinates", user_data=UserData(latitude=latitude, longitude=longitude))


class Variable(Wire):
    """An environment variable of a deployment or a version; `value` takes up to 4 KB and is not in `repr`."""

    key: str
    value: str = Field("", repr=False)
    is_hidden: bool = False
    is_secret: bool | None = None
    """An older name of `is_hidden`; deployments do not take it."""


class Webhook(Wire):
    """A URL that the platform calls."""

    url: str


class DeploymentCreate(Wire):
    """What to deploy, and for whom."""

    application: str
    version: str
    users: list[User]
    require_cached_locations: bool | None = None
    environment_variables: list[Variable] | None = None
    tags: list[str] | None = None
    webhook_on_ready: Webhook | None = None
    webhook_on_error: Webhook | None = None
    webhook_on_terminated: Webhook | None = None


class BetaUser(Wire):
    """A player of a beta deployment."""

    ip_address: str


class BetaDeploymentCreate(Wire):
    """A deployment as it was asked for before v2."""

    application_name: str
    version: str
    users: list[BetaUser]
    environment_variables: list[Variable] | None = None
    tags: list[str] | None = None
    webhook: Webhook | None = None


class LocationFilter(Wire):
    """Which places may be chosen: by `city`, `country`, `continent`, `administrative_division` and more."""

    field: str
    values: list[str]
    filter_type: Literal["any", "all", "not"]


class LogStorage(Wire):
    """Whether the logs of a deployment are kept, and where; None leaves it to the version."""

    enabled: bool
    endpoint_storage: str | None = None


class GeoIp(Wire):
    """A player of an old deployment, with coordinates in degrees."""

    ip: str
    latitude: float
    longitude: float


class Point(Wire):
    """Degrees."""

    latitude: float
    longitude: float


class DeployV1(Wire):
    """A deployment as it was asked for before; replaced by `DeploymentCreate`."""

    app_name: str
    version_name: str | None = None
    ip_list: list[str] | None = None
    geo_ip_list: list[GeoIp] | None = None
    filters: list[LocationFilter] | None = None
    env_vars: list[Variable] | None = None
    tags: list[str] | None = None
    webhook_url: str | None = None
    container_log_storage: LogStorage | None = None
    command: str | None = None
    arguments: str | None = None
    is_public_app: bool | None = None
    telemetry_profile_uuid_list: list[str] | None = None
    skip_telemetry: bool | None = None
    location: Point | None = None
    city: str | None = None
    country: str | None = None
    continent: str | None = None
    region: str | None = None
    administrative_division: str | None = None
    ap_sort_strategy: Literal["basic", "weighted"] | None = None


class DeployV1Accepted(Wire):
    """What the old deploy answers; `request_dns` is the deployment's fqdn."""

    request_id: str
    request_dns: str = ""
    request_app: str = ""
    request_version: str = ""
    request_user_count: int | None = None
    filters: list[LocationFilter] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    container_log_storage: LogStorage | None = None
    city: str = ""
    country: str = ""
    continent: str = ""
    administrative_division: str = ""


class Joinable(Wire):
    """Whether sessions may join a deployment."""

    is_joinable_by_session: bool = False


class FleetDeploymentCreate(DeploymentCreate):
    """A deployment for private hosts, tried in order before it overflows to the cloud."""

    private_host_ids: list[str]


class DeploymentAccepted(Wire):
    """The id of the new deployment, 12 hex digits."""

    request_id: str


class Port(Wire):
    """A port of a deployment: `internal` in the container, `external` for players."""

    name: str = ""
    link: str = ""
    internal: int | None = None
    external: int | None = None
    protocol: str = ""
    tls_upgrade: bool = False


class Location(Wire):
    """Where a deployment runs; coordinates in degrees."""

    city: str = ""
    country: str = ""
    continent: str = ""
    administrative_division: str = ""
    timezone: str = ""
    latitude: float | None = None
    longitude: float | None = None


class DeploymentStatus(Wire):
    """A deployment, in full. `elapsed_time` in seconds since ready, `max_duration` in minutes (-1: no limit)."""

    request_id: str
    fqdn: str = ""
    public_ip: str = ""
    app_name: str = ""
    app_version: str = ""
    current_status: str = ""
    running: bool = False
    whitelisting_active: bool | None = None
    start_time: Moment = None
    elapsed_time: int | None = None
    max_duration: int | None = None
    removal_time: Moment = None
    last_status: str | None = None
    error: bool = False
    error_detail: str | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    location: Location | None = None
    tags: list[str] = Field(default_factory=list)
    command: str | None = None
    arguments: str | None = None

    @property
    def state(self) -> State:
        """`current_status` as a state."""
        return State.parse(self.current_status)


class DeploymentListItem(Wire):
    """A deployment, as lists have it."""

    request_id: str
    fqdn: str = ""
    status: str = ""
    ready: bool = False
    start_time: Moment = None
    public_ip: str = ""
    ports: dict[str, Port] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)


class StopResult(Wire):
    """What the platform says to a stop."""

    message: str = ""
    deployment_summary: DeploymentStatus | None = None


class BulkFilter(Wire):
    """Which deployments a bulk stop means."""

    field: Literal["request_id", "deployment_tags"]
    values: list[str]
    filter_type: Literal["any", "all", "not"]


class BulkStopResult(Wire):
    """The deployments that will be stopped."""

    processable: list[DeploymentAccepted] = Field(default_factory=list)


class CrashData(Wire):
    """How a container ended."""

    exit_code: int | None = None
    message: str = ""
    restart_count: int | None = None


class Logs(Wire):
    """What a stopped deployment left; `logs_link` where a storage has it."""

    logs: str | None = None
    crash_logs: str | None = None
    crash_data: CrashData | None = None
    encoding: str = "utf-8"
    logs_link: str | None = None


class Series(Wire):
    """Samples over time; a value is None where the platform has a gap. Units are not in the contract."""

    labels: list[str] = Field(default_factory=list)
    datasets: list[float | None] = Field(default_factory=list)
    timestamps: list[str] = Field(default_factory=list)


class Totals(Wire):
    """What has passed since the start."""

    receive_total: Series = Field(default_factory=Series)
    transmit_total: Series = Field(default_factory=Series)
    disk_read_total: Series = Field(default_factory=Series)
    disk_write_total: Series = Field(default_factory=Series)


class Network(Wire):
    """Traffic over time."""

    receive: Series = Field(default_factory=Series)
    transmit: Series = Field(default_factory=Series)


class Metrics(Wire):
    """Resource use of a deployment."""

    total: Totals = Field(default_factory=Totals)
    cpu: Series = Field(default_factory=Series)
    cpu_throttle_rate: Series = Field(default_factory=Series)
    cpu_throttle_total: Series = Field(default_factory=Series)
    mem: Series = Field(default_factory=Series)
    network: Network = Field(default_factory=Network)


class Beacon(Wire):
    """Where players measure the latency to a host."""

    tcp_port: int | None = None
    udp_port: int | None = None
    ip_address: str = ""


class Centroid(Wire):
    """The region a fleet's host belongs to; degrees and kilometres."""

    label: str = ""
    latitude: float | None = None
    longitude: float | None = None
    radius_km: float | None = None
    desired_host_count: int | None = None


class DeleteSchedule(Wire):
    """When a host goes away."""

    uuid: str = ""
    scheduled_at: Moment = None


class HostSpecifications(Wire):
    """Size of a host: 1024 CPU units are one vCPU; memory in MB, clock in MHz."""

    cpu_units: int | None = None
    memory_mb: int | None = None
    base_clock_speed_mhz: int | None = None


class Host(Wire):
    """A host of a private fleet; 1024 CPU units are one vCPU, memory in MB."""

    host_id: str
    status: str = ""
    ip_address: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    city: str | None = None
    country: str | None = None
    continent: str | None = None
    allocated_cpu_units: int | None = None
    allocated_memory_mb: int | None = None
    allocatable_cpu_units: int | None = None
    allocatable_memory_mb: int | None = None
    beacon: Beacon | None = None
    created_at: Moment = None
    updated_at: Moment = None
    centroid: Centroid | None = None
    delete_schedule: DeleteSchedule | None = None
    fleet_host_specifications: HostSpecifications | None = None


class Tag(Wire):
    """A tag of a deployment; the name has 1 to 40 characters."""

    name: str
    create_time: Moment = None
    last_updated: Moment = None


class Context(Wire):
    """A deployment as it sees itself from inside."""

    request_id: str
    public_ip: str = ""
    status: str = ""
    ready: bool = False
    fqdn: str = ""
    whitelisting_active: bool | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    location: Location | None = None
    tags: list[str] = Field(default_factory=list)
    sockets: int | None = None
    sockets_usage: int | None = None
    is_joinable_by_session: bool | None = None

    @property
    def state(self) -> State:
        """`status` as a state."""
        return State.parse(self.status)


class Application(Wire):
    """An application; `image` is a picture in base64, and may be empty."""

    name: str
    is_active: bool = True
    image: str = Field("", repr=False)
    is_telemetry_agent_active: bool | None = None
    create_time: Moment = None
    last_updated: Moment = None


class ApplicationUpdate(Wire):
    """What to change of an application; None leaves it."""

    name: str | None = None
    is_active: bool | None = None
    image: str | None = Field(None, repr=False)
    is_telemetry_agent_active: bool | None = None


class VersionPort(Wire):
    """A port that a version listens on."""

    port: int
    protocol: str
    to_check: bool | None = None
    tls_upgrade: bool | None = None
    name: str | None = None


class SessionConfig(Wire):
    """How sessions use a version; times in minutes."""

    kind: str | None = None
    sockets: int | None = None
    autodeploy: bool | None = None
    empty_ttl: int | None = None
    session_max_duration: int | None = None


class Probe(Wire):
    """Milliseconds of a ping that is good, and of one that is not."""

    optimal_ping: int
    rejected_ping: int


class VersionUpdate(Wire):
    """What to change of a version; what is None stays as it is.

    `req_cpu` and `req_video`: 1024 is one vCPU or GPU; `req_memory` in MB; `time_to_deploy` in seconds; `max_duration`
    in minutes, -1 for no limit; `termination_grace_period_seconds` from SIGTERM to SIGKILL.
    """

    name: str | None = None
    is_active: bool | None = None
    req_cpu: int | None = None
    req_memory: int | None = None
    req_video: int | None = None
    docker_repository: str | None = None
    docker_image: str | None = None
    docker_tag: str | None = None
    private_username: str | None = None
    private_token: Secret | None = None
    verify_image: bool | None = None
    force_cache: bool | None = None
    time_to_deploy: int | None = None
    max_duration: int | None = None
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None
    will_deploy_in_mainland_china: bool | None = None
    dns_config: str | None = None
    ports: list[VersionPort] | None = None
    envs: list[Variable] | None = None
    endpoint_storage: str | None = None
    command: str | None = None
    arguments: str | None = None
    whitelisting_active: bool | None = None
    use_telemetry: bool | None = None
    inject_context_env: bool | None = None
    cache_min_hour: int | None = None
    cache_max_hour: int | None = None
    enable_all_locations: bool | None = None
    build_type: str | None = None
    session_config: SessionConfig | None = None
    probe: Probe | None = None


class Version(VersionUpdate):
    """A version of an application; `caching_percent` is the share of sites that hold its image, 0 to 1."""

    name: str
    is_active: bool = True
    docker_repository: str = ""
    docker_image: str = ""
    docker_tag: str = ""
    caching_percent: float | None = None
    create_time: Moment = None
    last_updated: Moment = None


class VersionCreated(Wire):
    """What the platform says to a new version."""

    success: bool = True
    version: Version


class VersionUpdated(Wire):
    """What the platform says to a change of a version."""

    success: bool = True
    version: Version | None = None


class VersionDeleted(Wire):
    """What the platform says to the end of a version."""

    success: bool = True
    message: str = ""


class Storage(Wire):
    """An S3-compatible endpoint storage; `output_format` is TEXT or NDJSON."""

    name: str
    access_key_id: str = ""
    endpoint: str = ""
    bucket: str = ""
    output_format: str | None = None
    create_time: Moment = None
    last_updated: Moment = None


class StorageCreate(Storage):
    """A storage to register."""

    secret_access_key: Secret


class StorageUpdate(Wire):
    """What to change of a storage; None leaves it."""

    name: str | None = None
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    endpoint: str | None = None
    bucket: str | None = None
    output_format: str | None = None


class PullProfileUpdate(Wire):
    """What to change of a pull profile; None leaves it. `source_type` is File or Folder."""

    name: str | None = None
    source: str | None = None
    source_type: str | None = None
    destination: str | None = None


class PullProfile(PullProfileUpdate):
    """Files of a storage that a linked version finds in its container; `source` is a path in the bucket."""

    name: str
    create_time: Moment = None
    last_updated: Moment = None


class PullProfileLink(Wire):
    """A version that is linked to a pull profile."""

    app: str = ""
    app_version: str = ""
    endpoint: str = ""
    pull_profile: str = ""
    create_time: Moment = None
    last_updated: Moment = None


class PublicIp(Wire):
    """The caller's address."""

    public_ip: str = ""


class RegistryCredentials(Wire):
    """Credentials of the organisation's registry; `token` is its password."""

    registry_url: str = ""
    project: str = ""
    username: str = ""
    token: Secret


class LocationTag(Wire):
    """A tag of a location."""

    key: str = ""
    value: str = ""


class CloudLocation(Location):
    """A site that can take a deployment."""

    type: str = ""
    tags: list[LocationTag] = Field(default_factory=list)


class PingBeacon(Wire):
    """Where players measure their distance to a place."""

    host: str
    fqdn: str = ""
    udp_port: int | None = None
    tcp_port: int | None = None
    location: Location | None = None


class RelayUser(Wire):
    """A player to let into a relay session, by public address."""

    ip: str


class RelaySessionCreate(Wire):
    """A relay session to begin; `webhook_url` receives it once it is ready."""

    users: list[RelayUser]
    filters: list[LocationFilter] | None = None
    webhook_url: str | None = None


class RelayPort(Wire):
    """One port of a relay; `link` is host:port."""

    port: int | None = None
    protocol: str = ""
    link: str = ""


class RelayPorts(Wire):
    """The hosting player uses `server`, the others `client`."""

    server: RelayPort | None = None
    client: RelayPort | None = None


class Relay(Wire):
    """A relay."""

    ip: str = ""
    host: str = ""
    ports: RelayPorts | None = None


class RelayPlayer(Wire):
    """A player of a relay session; coordinates in degrees."""

    ip_address: str = ""
    latitude: float | None = None
    longitude: float | None = None
    authorization_token: int | None = Field(None, repr=False)


class _AnyRelaySession(Wire):
    """What all answers about a relay session have; it is usable once it is `ready`."""

    session_id: str
    authorization_token: int | None = Field(None, repr=False)
    status: str = ""
    ready: bool = False
    linked: bool = False
    error: str = ""
    relay: Relay | None = None
    webhook_url: str = ""


class RelaySession(_AnyRelaySession):
    """A relay session with its players."""

    session_users: list[RelayPlayer] = Field(default_factory=list)


class RelaySessionUser(_AnyRelaySession):
    """A relay session with the player who was let in."""

    session_user: RelayPlayer | None = None


class Artifact(Wire):
    """What a tag of an image leads to."""

    artifact_deleted: bool = False
    remaining_tags: list[str] = Field(default_factory=list)
    image_hash: str = ""
    size_mb: float | None = None


class ImageTag(Wire):
    """A tag of an image in the registry."""

    tag: str
    last_push_at: Moment = None
    artifact: Artifact | None = None


class ImageTagDeleted(Wire):
    """What the platform says to the end of a tag."""

    deleted_tag: str = ""
    artifact: Artifact | None = None


class ImageTagResult(Wire):
    """What became of one of several tags; 204 is deleted."""

    tag: str = ""
    status: int | None = None
    message: str = ""


class DeletionSummary(Wire):
    """How many of several tags were deleted."""

    total: int = 0
    success: int = 0
    failed: int = 0


class ImageTagsDeleted(Wire):
    """What became of several tags, one by one."""

    results: list[ImageTagResult] = Field(default_factory=list)
    summary: DeletionSummary | None = None


class RegistryImage(Wire):
    """An image in the registry."""

    image_name: str

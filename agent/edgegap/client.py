"""The platform's REST API: one method for each of its operations, named as in its OpenAPI document."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from pydantic import SecretStr
from yarl import URL

from agent.edgegap import models
from agent.edgegap.errors import InvalidArgumentError, UnexpectedAnswerError
from agent.edgegap.filters import Query
from agent.edgegap.limits import Limit, Limiter
from agent.edgegap.pages import Page, Pages, RawPage
from agent.edgegap.transport import Answer, Call, Transport
from agent.edgegap.waiting import Progress, wait_until_ready, wait_until_terminated
from agent.edgegap.wire import Wire
from agent.retry import RetryPolicy

BASE_URL = "https://api.edgegap.com"

Item = TypeVar("Item", bound=Wire)
_PROFILE = "/v1/storage/endpoint/{}/pull-profile/{}"


class EdgegapClient:
    """The platform, as a client.

        async with EdgegapClient(token) as platform:
            accepted = await platform.deploy(DeploymentCreate(application="game", version="1", users=[...]))
            status = await platform.wait_until_ready(accepted.request_id, deadline_seconds=60)

    Every method raises an `EdgegapError` whose class says what kind of no it was. GET and DELETE are tried again on
    429, 5xx and lost connections; POST and PATCH are made once.

    Args:
        token: of the organisation, with or without the prefix `token `; None where only the calls from inside a
            container (self-stop, context) are made.
        base_url: of the platform.
        attempt_seconds: how long one attempt may take.
        retries: how many times a call that may be repeated is tried again.
        policy: the waits between attempts.
        limiter: keeps to the platform's limits; share one between clients of one organisation.
        rng: where the jitter comes from.
        sleep: how to wait between attempts.
        wall: Unix time in seconds, for a `Retry-After` with a date.
    """

    def __init__(
        self,
        token: SecretStr | str | None,
        base_url: str = BASE_URL,
        *,
        attempt_seconds: float = 30.0,
        retries: int = 4,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - never changed, so one shared default is safe
        limiter: Limiter | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Check the base URL; nothing is connected before `async with`."""
        self._transport = Transport(
            SecretStr(token) if isinstance(token, str) else token,
            base_url,
            attempt_seconds=attempt_seconds,
            retries=retries,
            policy=policy,
            limiter=limiter or Limiter(),
            rng=rng or random.SystemRandom(),
            sleep=sleep,
            wall=wall,
        )

    def __repr__(self) -> str:
        """Show where calls go; never the token."""
        return f"EdgegapClient({self._transport.base})"

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        await self._transport.close()

    # Deployments

    async def deploy(self, request: models.DeploymentCreate) -> models.DeploymentAccepted:
        """Create a deployment.

        Raises:
            UnprocessableError: no server could be allocated; its `deployment_id` exists, in error.
        """
        return await self._deploy("/v2/deployments", request)

    async def deploy_to_fleet(self, request: models.FleetDeploymentCreate) -> models.DeploymentAccepted:
        """Create a deployment on private hosts, which may overflow to the cloud.

        Raises:
            UnprocessableError: no server could be allocated; its `deployment_id` exists, in error.
        """
        return await self._deploy("/v2/private-fleets/deployments", request)

    async def _deploy(self, path: str, request: models.DeploymentCreate) -> models.DeploymentAccepted:
        action = f"deploy {request.application} {request.version}"
        call = self._call(action, "POST", path, body=request.to_wire(), limit=Limit.DEPLOY)
        return await self._ask(models.DeploymentAccepted, call)

    async def deploy_v1(self, request: models.DeployV1) -> models.DeployV1Accepted:
        """Create a deployment, the old way: for what only it can do (filters, a command of its own)."""
        action = f"deploy {request.app_name} {request.version_name or ''}".rstrip()
        call = self._call(action, "POST", "/v1/deploy", body=request.to_wire(), limit=Limit.DEPLOY)
        return await self._ask(models.DeployV1Accepted, call)

    async def deploy_beta(self, request: models.BetaDeploymentCreate) -> models.DeploymentAccepted:
        """Create a deployment as before v2; `deploy` replaces it."""
        action = f"deploy {request.application_name} {request.version}"
        call = self._call(action, "POST", "/beta/deployments", body=request.to_wire(), limit=Limit.DEPLOY)
        return await self._ask(models.DeploymentAccepted, call)

    async def update_deployment(self, deployment_id: str, *, joinable: bool) -> models.Joinable:
        """Say whether sessions may join a deployment; nothing else of it can be changed."""
        action = f"change deployment {deployment_id}"
        body = {"is_joinable_by_session": joinable}
        return await self._ask(
            models.Joinable, self._call(action, "PATCH", "/v1/deployments/{}", deployment_id, body=body)
        )

    async def report_deployment(
        self, deployment_id: str, reason: str, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Report a deployment from a moderation backend.

        Args:
            deployment_id: which.
            reason: 1 to 255 characters.
            metadata: more about it.
        """
        action = f"report deployment {deployment_id}"
        body: dict[str, Any] = {"reason": reason}
        if metadata is not None:
            body["metadata"] = dict(metadata)
        await self._transport.call(self._call(action, "POST", "/v1/deployments/{}:report", deployment_id, body=body))

    def list_fleet_hosts(self, fleet_name: str, page_size: int | None = None) -> Pages[models.Host]:
        """List the hosts of a private fleet."""
        action = f"list the hosts of fleet {fleet_name}"
        call = self._call(action, "GET", "/v2/private-fleets/{}/hosts", fleet_name, limit=Limit.LIST)
        return self._list(models.Host, "data", call, page_size)

    async def get_deployment(self, deployment_id: str) -> models.DeploymentStatus:
        """Get the status of a deployment."""
        action = f"get the status of deployment {deployment_id}"
        call = self._call(action, "GET", "/v1/status/{}", deployment_id, limit=Limit.STATUS)
        return await self._ask(models.DeploymentStatus, call)

    def list_deployments(
        self, query: Query | None = None, page_size: int | None = None
    ) -> Pages[models.DeploymentListItem]:
        """List active deployments.

        Args:
            query: which, and in which order; None for all.
            page_size: how many to ask for at once; None leaves it to the platform.
        """
        asked = {"query": query.to_wire() if query else None}
        call = self._call("list deployments", "GET", "/v1/deployments", query=asked, limit=Limit.LIST)
        return self._list(models.DeploymentListItem, "data", call, page_size)

    async def stop_deployment(self, deployment_id: str, log_storage: str | None = None) -> models.StopResult:
        """Stop a deployment from a backend.

        Args:
            deployment_id: which.
            log_storage: "true" sends its logs to the storage of its version, "false" does not, anything else names a
                storage; None leaves it to the version.

        Raises:
            GoneError: it is terminated already.
        """
        action = f"stop deployment {deployment_id}"
        query = {"container_log_storage": log_storage}
        return await self._ask(
            models.StopResult, self._call(action, "DELETE", "/v1/stop/{}", deployment_id, query=query)
        )

    async def bulk_stop(self, filters: Sequence[models.BulkFilter]) -> models.BulkStopResult:
        """Stop all deployments that match.

        Raises:
            InvalidArgumentError: there is no filter: that could only be a mistake, and a costly one.
        """
        action = "stop several deployments"
        if not filters:
            raise InvalidArgumentError(action, "no filter says which", advice="name ids or tags")
        body = {"filters": [condition.to_wire() for condition in filters]}
        return await self._ask(
            models.BulkStopResult, self._call(action, "POST", "/v1/deployments/bulk-stop", body=body)
        )

    async def self_stop(self, delete_url: str, token: SecretStr, log_storage: str | None = None) -> models.StopResult:
        """Stop a deployment from inside; the agent itself uses `SelfStop`, which never gives up.

        Raises:
            GoneError: it is terminated already.
        """
        url = _injected("self-stop", "ARBITRIUM_DELETE_URL", delete_url)
        call = Call("self-stop", "DELETE", url, token, query={"container_log_storage": log_storage})
        answer = await self._transport.call(call)
        return models.StopResult() if answer.content is None else answer.read_as(models.StopResult, call)

    async def get_logs(self, deployment_id: str) -> models.Logs:
        """Get the logs of a stopped deployment."""
        action = f"get the logs of deployment {deployment_id}"
        return await self._ask(
            models.Logs, self._call(action, "GET", "/v1/deployment/{}/container-logs", deployment_id)
        )

    async def get_metrics(
        self,
        deployment_id: str,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        steps: str | None = None,
        raw: bool | None = None,
    ) -> models.Metrics:
        """Get the resource use of a deployment over time.

        Args:
            deployment_id: which.
            start_time: None for its start.
            end_time: None for its end, or now.
            steps: size of a step, such as "30s"; values are the mean over it.
            raw: samples as they were taken.
        """
        action = f"get the metrics of deployment {deployment_id}"
        query = {
            "start_time": start_time.isoformat() if start_time else None,
            "end_time": end_time.isoformat() if end_time else None,
            "steps": steps,
            "raw": None if raw is None else str(raw).lower(),
        }
        call = self._call(action, "GET", "/v1/metrics/deployment/{}", deployment_id, query=query)
        return await self._ask(models.Metrics, call)

    async def wait_until_ready(
        self, deployment_id: str, deadline_seconds: float = 120.0, on_status: Progress | None = None
    ) -> models.DeploymentStatus:
        """Wait until a deployment is ready for players (see `waiting.wait_until_ready`)."""
        return await wait_until_ready(self.get_deployment, deployment_id, deadline_seconds, on_status)

    async def wait_until_terminated(
        self, deployment_id: str, deadline_seconds: float = 120.0, on_status: Progress | None = None
    ) -> models.DeploymentStatus | None:
        """Wait until a deployment is terminated (see `waiting.wait_until_terminated`)."""
        return await wait_until_terminated(self.get_deployment, deployment_id, deadline_seconds, on_status)

    # Tags of a deployment

    async def create_tag(self, deployment_id: str, name: str) -> models.Tag:
        """Add a tag.

        Raises:
            ConflictError: the deployment has that tag already.
        """
        action = f"add tag {name} to deployment {deployment_id}"
        call = self._call(action, "POST", "/v1/deployments/{}/tags", deployment_id, body={"name": name})
        return await self._ask(models.Tag, call)

    def list_tags(self, deployment_id: str, page_size: int | None = None) -> Pages[models.Tag]:
        """List the tags."""
        action = f"list the tags of deployment {deployment_id}"
        call = self._call(action, "GET", "/v1/deployments/{}/tags", deployment_id)
        return self._list(models.Tag, "tags", call, page_size)

    async def get_tag(self, deployment_id: str, name: str) -> models.Tag:
        """Get one tag."""
        action = f"get tag {name} of deployment {deployment_id}"
        return await self._ask(models.Tag, self._call(action, "GET", "/v1/deployments/{}/tags/{}", deployment_id, name))

    async def update_tag(self, deployment_id: str, name: str, new_name: str) -> models.Tag:
        """Rename a tag.

        Raises:
            ConflictError: the deployment has a tag of the new name already.
        """
        action = f"rename tag {name} of deployment {deployment_id}"
        body = {"name": new_name}
        call = self._call(action, "PATCH", "/v1/deployments/{}/tags/{}", deployment_id, name, body=body)
        return await self._ask(models.Tag, call)

    async def delete_tag(self, deployment_id: str, name: str) -> None:
        """Remove a tag."""
        action = f"remove tag {name} of deployment {deployment_id}"
        await self._transport.call(self._call(action, "DELETE", "/v1/deployments/{}/tags/{}", deployment_id, name))

    # Context: what a deployment may ask about itself

    async def get_context(self, context_url: str, token: SecretStr) -> models.Context:
        """Get the context from inside the container, with what was injected."""
        action = "get the context"
        url = _injected(action, "ARBITRIUM_CONTEXT_URL", context_url)
        return await self._ask(models.Context, Call(action, "GET", url, token))

    async def create_context_tag(self, context_url: str, token: SecretStr, name: str) -> models.Tag:
        """Add a tag from inside the container.

        Raises:
            ConflictError: the deployment has that tag already.
        """
        action = f"add tag {name} to this deployment"
        url = _below(action, _injected(action, "ARBITRIUM_CONTEXT_URL", context_url), "/tags")
        return await self._ask(models.Tag, Call(action, "POST", url, token, body={"name": name}))

    async def delete_context_tag(self, context_url: str, token: SecretStr, name: str) -> None:
        """Remove a tag from inside the container."""
        action = f"remove tag {name} of this deployment"
        url = _below(action, _injected(action, "ARBITRIUM_CONTEXT_URL", context_url), "/tags/{}", name)
        await self._transport.call(Call(action, "DELETE", url, token))

    # Applications, versions, storages

    async def create_application(self, application: models.Application) -> models.Application:
        """Create an application."""
        action = f"create application {application.name}"
        return await self._ask(models.Application, self._call(action, "POST", "/v1/app", body=application.to_wire()))

    def list_applications(self, page_size: int | None = None) -> Pages[models.Application]:
        """List the applications."""
        call = self._call("list applications", "GET", "/v1/apps")
        return self._list(models.Application, "applications", call, page_size)

    async def get_application(self, app_name: str) -> models.Application:
        """Get an application."""
        call = self._call(f"get application {app_name}", "GET", "/v1/app/{}", app_name)
        return await self._ask(models.Application, call)

    async def update_application(self, app_name: str, update: models.ApplicationUpdate) -> models.Application:
        """Change an application.

        Raises:
            ConflictError: there is one of the new name already.
        """
        call = self._call(f"change application {app_name}", "PATCH", "/v1/app/{}", app_name, body=update.to_wire())
        return await self._ask(models.Application, call)

    async def delete_application(self, app_name: str) -> None:
        """Delete an application with all of its versions."""
        await self._transport.call(self._call(f"delete application {app_name}", "DELETE", "/v1/app/{}", app_name))

    async def create_version(self, app_name: str, version: models.Version) -> models.VersionCreated:
        """Create a version of an application."""
        action = f"create version {version.name} of application {app_name}"
        call = self._call(action, "POST", "/v1/app/{}/version", app_name, body=version.to_wire())
        return await self._ask(models.VersionCreated, call)

    def list_versions(self, app_name: str, page_size: int | None = None) -> Pages[models.Version]:
        """List the versions of an application."""
        call = self._call(f"list the versions of application {app_name}", "GET", "/v1/app/{}/versions", app_name)
        return self._list(models.Version, "versions", call, page_size)

    async def get_version(self, app_name: str, version_name: str) -> models.Version:
        """Get a version of an application."""
        action = f"get version {version_name} of application {app_name}"
        call = self._call(action, "GET", "/v1/app/{}/version/{}", app_name, version_name)
        return await self._ask(models.Version, call)

    async def update_version(
        self, app_name: str, version_name: str, update: models.VersionUpdate
    ) -> models.VersionUpdated:
        """Change a version: continuous deployment gives it another `docker_tag`."""
        action = f"change version {version_name} of application {app_name}"
        call = self._call(action, "PATCH", "/v1/app/{}/version/{}", app_name, version_name, body=update.to_wire())
        return await self._ask(models.VersionUpdated, call)

    async def delete_version(self, app_name: str, version_name: str) -> models.VersionDeleted:
        """Delete a version of an application."""
        action = f"delete version {version_name} of application {app_name}"
        call = self._call(action, "DELETE", "/v1/app/{}/version/{}", app_name, version_name)
        return await self._ask(models.VersionDeleted, call)

    async def create_storage(self, storage: models.StorageCreate) -> models.Storage:
        """Register an S3-compatible endpoint storage."""
        action = f"create storage {storage.name}"
        return await self._ask(
            models.Storage, self._call(action, "POST", "/v1/storage/endpoint", body=storage.to_wire())
        )

    def list_storages(self, page_size: int | None = None) -> Pages[models.Storage]:
        """List the endpoint storages."""
        call = self._call("list storages", "GET", "/v1/storage/endpoints")
        return self._list(models.Storage, "endpoints", call, page_size)

    async def get_storage(self, name: str) -> models.Storage:
        """Get an endpoint storage; the platform does not give its secret."""
        call = self._call(f"get storage {name}", "GET", "/v1/storage/endpoint/{}", name)
        return await self._ask(models.Storage, call)

    async def update_storage(self, name: str, update: models.StorageUpdate) -> models.Storage:
        """Change an endpoint storage."""
        call = self._call(f"change storage {name}", "PATCH", "/v1/storage/endpoint/{}", name, body=update.to_wire())
        return await self._ask(models.Storage, call)

    async def delete_storage(self, name: str) -> None:
        """Delete an endpoint storage; versions that name it lose their logs."""
        await self._transport.call(self._call(f"delete storage {name}", "DELETE", "/v1/storage/endpoint/{}", name))

    # Pull profiles of a storage

    async def create_pull_profile(self, storage: str, profile: models.PullProfile) -> models.PullProfile:
        """Create a pull profile; it does something once a version is linked to it."""
        action = f"create pull profile {profile.name} of storage {storage}"
        path, body = "/v1/storage/endpoint/{}/pull-profile", profile.to_wire()
        return await self._ask(models.PullProfile, self._call(action, "POST", path, storage, body=body))

    def list_pull_profiles(self, storage: str, page_size: int | None = None) -> Pages[models.PullProfile]:
        """List the pull profiles of a storage."""
        action = f"list the pull profiles of storage {storage}"
        call = self._call(action, "GET", "/v1/storage/endpoint/{}/pull-profiles", storage)
        return self._list(models.PullProfile, "pull_profiles", call, page_size)

    async def get_pull_profile(self, storage: str, name: str) -> models.PullProfile:
        """Get a pull profile."""
        action = f"get pull profile {name} of storage {storage}"
        return await self._ask(models.PullProfile, self._call(action, "GET", _PROFILE, storage, name))

    async def update_pull_profile(
        self, storage: str, name: str, update: models.PullProfileUpdate
    ) -> models.PullProfile:
        """Change a pull profile."""
        action = f"change pull profile {name} of storage {storage}"
        call = self._call(action, "PATCH", _PROFILE, storage, name, body=update.to_wire())
        return await self._ask(models.PullProfile, call)

    async def delete_pull_profile(self, storage: str, name: str) -> None:
        """Delete a pull profile."""
        action = f"delete pull profile {name} of storage {storage}"
        await self._transport.call(self._call(action, "DELETE", _PROFILE, storage, name))

    async def link_pull_profile(
        self, storage: str, name: str, app_name: str, version_name: str
    ) -> models.PullProfileLink:
        """Link a version to a pull profile."""
        action = f"link {app_name} {version_name} to pull profile {name}"
        path = f"{_PROFILE}/app/{{}}/version/{{}}"
        call = self._call(action, "PUT", path, storage, name, app_name, version_name)
        return await self._ask(models.PullProfileLink, call)

    async def unlink_pull_profile(self, storage: str, name: str, app_name: str, version_name: str) -> None:
        """End the link of a version to a pull profile."""
        action = f"unlink {app_name} {version_name} from pull profile {name}"
        path = f"{_PROFILE}/app/{{}}/version/{{}}"
        await self._transport.call(self._call(action, "DELETE", path, storage, name, app_name, version_name))

    # Places, relays

    async def get_public_ip(self) -> str:
        """The address that the platform sees this caller at."""
        return (await self._ask(models.PublicIp, self._call("get the public address", "GET", "/v1/ip"))).public_ip

    def list_locations(
        self, app_name: str | None = None, version_name: str | None = None, page_size: int | None = None
    ) -> Pages[models.CloudLocation]:
        """List the sites that can take a deployment; with an application and a version, those with room for it."""
        query = {"app": app_name, "version": version_name}
        call = self._call("list locations", "GET", "/v1/locations", query=query)
        return self._list(models.CloudLocation, "locations", call, page_size)

    def list_beacons(self, page_size: int | None = None) -> Pages[models.PingBeacon]:
        """List ping beacons; an answer does not say whether there are further pages, so the next one is asked for."""
        call = self._call("list beacons", "GET", "/v1/locations/beacons")
        return self._list(models.PingBeacon, "locations", call, page_size, required=False)

    async def create_relay_session(self, request: models.RelaySessionCreate) -> models.RelaySession:
        """Begin a relay session; it is usable once `get_relay_session` says that it is ready."""
        call = self._call("begin a relay session", "POST", "/v1/relays/sessions", body=request.to_wire())
        return await self._ask(models.RelaySession, call)

    def list_relay_sessions(self) -> Pages[models.RelaySession]:
        """List the active relay sessions; the platform describes no parameters for pages here."""
        call = self._call("list relay sessions", "GET", "/v1/relays/sessions")
        return self._list(models.RelaySession, "sessions", call, None, paged=False)

    async def get_relay_session(self, session_id: str) -> models.RelaySession:
        """Get a relay session."""
        call = self._call(f"get relay session {session_id}", "GET", "/v1/relays/sessions/{}", session_id)
        return await self._ask(models.RelaySession, call)

    async def delete_relay_session(self, session_id: str) -> None:
        """End a relay session."""
        action = f"end relay session {session_id}"
        await self._transport.call(self._call(action, "DELETE", "/v1/relays/sessions/{}", session_id))

    async def authorize_relay_user(self, session_id: str, user_ip: str) -> models.RelaySessionUser:
        """Let a further player into a relay session.

        Raises:
            ConflictError: the player is in it already.
        """
        body = {"session_id": session_id, "user_ip": user_ip}
        action = f"let {user_ip} into relay session {session_id}"
        call = self._call(action, "POST", "/v1/relays/sessions:authorize-user", body=body)
        return await self._ask(models.RelaySessionUser, call)

    async def revoke_relay_user(self, session_id: str, authorization_token: int) -> models.RelaySession | None:
        """Remove a player from a relay session.

        Args:
            session_id: which.
            authorization_token: the player's.

        Returns:
            The session, where the platform answers with it.
        """
        body = {"session_id": session_id, "authorization_token": authorization_token}
        action = f"remove a player from relay session {session_id}"
        call = self._call(action, "POST", "/v1/relays/sessions:revoke-user", body=body)
        answer = await self._transport.call(call)
        return None if answer.content is None else answer.read_as(models.RelaySession, call)

    # The registry

    async def init_quick_start(self, source: str) -> None:
        """Sign in as an engine plugin does; the registry project exists then."""
        call = self._call("sign in", "POST", "/v1/wizard/init-quick-start", body={"source": source})
        await self._transport.call(call)

    async def get_registry_credentials(self, source: str | None = None) -> models.RegistryCredentials:
        """Get the credentials of the organisation's registry.

        Raises:
            NotFoundError: nobody has signed in yet (`init_quick_start`).
        """
        query = {"source": source}
        call = self._call("get registry credentials", "GET", "/v1/wizard/registry-credentials", query=query)
        return await self._ask(models.RegistryCredentials, call)

    def list_images(self, page_size: int | None = None) -> Pages[models.RegistryImage]:
        """List the images of the registry."""
        call = self._call("list images", "GET", "/v1/container-registry/images")
        return self._list(models.RegistryImage, "data", call, page_size)

    def list_image_tags(self, image_name: str, page_size: int | None = None) -> Pages[models.ImageTag]:
        """List the tags of an image; slashes in its name are part of the path."""
        action = f"list the tags of image {image_name}"
        call = self._image_call(action, "GET", image_name)
        return self._list(models.ImageTag, "data", call, page_size, required=False)

    async def delete_image_tag(self, image_name: str, tag_name: str) -> models.ImageTagDeleted:
        """Delete a tag of an image."""
        call = self._image_call(f"delete tag {tag_name} of image {image_name}", "DELETE", image_name, "/{}", tag_name)
        return await self._ask(models.ImageTagDeleted, call)

    async def delete_image_tags(self, image_name: str, tags: Sequence[str]) -> models.ImageTagsDeleted:
        """Delete several tags of an image, each for itself."""
        call = self._image_call(f"delete tags of image {image_name}", "POST", image_name, "/bulk-delete")
        return await self._ask(models.ImageTagsDeleted, replace(call, body={"tags": list(tags)}))

    def _image_call(self, action: str, method: str, image_name: str, rest: str = "", *names: str) -> Call:
        parts = image_name.strip("/").split("/")
        path = "/v1/container-registry/images/" + "/".join("{}" for _ in parts) + "/tags" + rest
        return self._call(action, method, path, *parts, *names)

    # What they share

    def _call(
        self,
        action: str,
        method: str,
        path: str,
        *names: str,
        query: Mapping[str, str | int | None] | None = None,
        body: object = None,
        limit: Limit | None = None,
    ) -> Call:
        """Put together a call with the organisation's token; `names` fill the {} of the contract's path."""
        url = _below(action, self._transport.base, path, *names)
        return Call(action, method, url, query=query or {}, body=body, limit=limit)

    async def _ask(self, model: type[Item], call: Call) -> Item:
        return (await self._transport.call(call)).read_as(model, call)

    def _list(
        self,
        model: type[Item],
        key: str,
        call: Call,
        page_size: int | None,
        *,
        paged: bool = True,
        required: bool = True,
    ) -> Pages[Item]:
        async def fetch(number: int) -> Page[Item]:
            page = {"page": number, "limit": page_size} if paged or number > 1 else {}
            asked = replace(call, query={**call.query, **page})
            answer = await self._transport.call(asked)
            about = answer.read_as(RawPage, asked)
            content = answer.content.get(key, None if required else [])
            if not isinstance(content, list):
                raise UnexpectedAnswerError(call.action, f"the answer has no list {key!r}", answer.status)
            items = [Answer(answer.status, item).read_as(model, asked) for item in content]
            return Page(number, items, about.total_count, about.pagination)

        return Pages(call.action, fetch, page_size)


def _below(action: str, url: URL, path: str, *names: str) -> URL:
    """Append a path to a URL, with names in its {} quoted; the URL's query stays."""
    for name in names:
        if not name or name in {".", ".."}:  # a server would read the path of another operation
            raise InvalidArgumentError(action, f"{name!r} cannot be part of a URL")
    below = path.format(*(quote(name, safe="") for name in names))
    return url.joinpath(below.lstrip("/"), encoded=True).with_query(url.query)


def _injected(action: str, variable: str, text: str) -> URL:
    try:
        url = URL(text.strip())
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidArgumentError(action, f"{variable} is not an http or https URL", advice="see what was injected")
    return url

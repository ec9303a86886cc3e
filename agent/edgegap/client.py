"""The platform's REST API: one method for each of its operations, named as in its OpenAPI document."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from pydantic import SecretStr
from yarl import URL

from agent.edgegap import models
from agent.edgegap.errors import InvalidArgumentError, UnexpectedAnswerError
from agent.edgegap.filters import Query
from agent.edgegap.limits import Limit, Limiter
from agent.edgegap.pages import Page, Pages, RawPage, next_number
from agent.edgegap.transport import Answer, Call, Transport
from agent.edgegap.waiting import Progress, wait_until_ready, wait_until_terminated
from agent.edgegap.wire import Wire
from agent.retry import RetryPolicy

BASE_URL = "https://api.edgegap.com"

Item = TypeVar("Item", bound=Wire)


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

    async def create_version(self, app_name: str, version: models.Version) -> models.VersionCreated:
        """Create a version of an application."""
        action = f"create version {version.name} of application {app_name}"
        call = self._call(action, "POST", "/v1/app/{}/version", app_name, body=version.to_wire())
        return await self._ask(models.VersionCreated, call)

    def list_versions(self, app_name: str, page_size: int | None = None) -> Pages[models.Version]:
        """List the versions of an application."""
        call = self._call(f"list the versions of application {app_name}", "GET", "/v1/app/{}/versions", app_name)
        return self._list(models.Version, "versions", call, page_size)

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

    def _list(self, model: type[Item], key: str, call: Call, page_size: int | None) -> Pages[Item]:
        async def fetch(number: int) -> Page[Item]:
            asked = replace(call, query={**call.query, "page": number, "limit": page_size})
            answer = await self._transport.call(asked)
            about = answer.read_as(RawPage, asked)
            content = answer.content.get(key)
            if not isinstance(content, list):
                raise UnexpectedAnswerError(call.action, f"the answer has no list {key!r}", answer.status)
            items = [Answer(answer.status, item).read_as(model, asked) for item in content]
            return Page(number, items, about.total_count, next_number(number, about.pagination, items))

        return Pages(fetch)


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

"""Everything that exists on the emulated platform, and what can be done with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.emulator.deployment import Deployment, Status, StopRequest, now, stamp
from agent.emulator.engine import find_engine
from agent.emulator.errors import ApiError, CannotPlace
from agent.emulator.fleets import Host, Hosts
from agent.emulator.life import Life
from agent.emulator.models import (
    ApplicationBody,
    DeploymentCreate,
    FleetDeploymentCreate,
    StorageBody,
    VersionBody,
    Webhook,
)
from agent.emulator.places import Place, nearest, place_of_address
from agent.emulator.ports import PortBook
from agent.emulator.settings import EmulatorSettings
from agent.emulator.webhooks import Webhooks

log = logging.getLogger(__name__)


@dataclass
class Application:
    """An application and its versions."""

    body: ApplicationBody
    versions: dict[str, Version] = field(default_factory=dict)
    created: datetime = field(default_factory=now)

    def as_json(self) -> dict[str, Any]:
        """The contract's `Application`."""
        moment = stamp(self.created)
        return {
            "name": self.body.name,
            "is_active": self.body.is_active,
            "image": self.body.image,
            "create_time": moment,
            "last_updated": moment,
        }


@dataclass
class Version:
    """A version of an application."""

    body: VersionBody
    created: datetime = field(default_factory=now)

    def as_json(self) -> dict[str, Any]:
        """The contract's `Version`: no private token, and no hidden variable."""
        body = self.body.model_dump(exclude={"private_token", "envs", "ports"})
        body["ports"] = [{**port.model_dump(), "name": port.key} for port in self.body.ports]
        body["envs"] = [{"key": env.key, "value": env.value} for env in self.body.envs if not env.is_hidden]
        return body


@dataclass
class Storage:
    """An endpoint storage."""

    body: StorageBody
    created: datetime = field(default_factory=now)

    def as_json(self) -> dict[str, Any]:
        """The contract's `Storage`: the secret key stays here."""
        moment = stamp(self.created)
        return {
            **self.body.model_dump(exclude={"secret_access_key", "create_time", "last_updated"}),
            "create_time": moment,
            "last_updated": moment,
        }


class Platform:
    """The emulated platform.

    Args:
        settings: how it behaves.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        """See the class."""
        self.settings = settings
        self.url = ""
        """The emulator's own URL, known once it listens."""
        self.applications: dict[str, Application] = {}
        self.storages: dict[str, Storage] = {}
        self.deployments: dict[str, Deployment] = {}
        self.hosts = Hosts(settings.public_ip)
        self.port_book = PortBook(settings.public_ip, settings.external_ports)
        self.engine = find_engine(settings.engine)
        self.closing = asyncio.Event()
        self.hurry = asyncio.Event()
        self.webhooks = Webhooks()
        self._lives: set[asyncio.Task[None]] = set()
        self._watchers: set[Callable[[Deployment], None]] = set()
        self._on_catalogue: list[Callable[[], None]] = []

    # Catalogue ---------------------------------------------------------------------------------------------------

    def on_catalogue_change(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have something called after every change of applications, versions, storages; returns what ends that."""
        self._on_catalogue.append(call)
        return lambda: self._on_catalogue.remove(call)

    def _catalogue_changed(self) -> None:
        for call in list(self._on_catalogue):
            call()

    def add_application(self, body: ApplicationBody) -> Application:
        """Create an application.

        Raises:
            ApiError: 409, there is one of this name.
        """
        if body.name in self.applications:
            raise ApiError(409, f"cannot create application {body.name}: there is one of this name; choose another")
        self.applications[body.name] = Application(body)
        self._catalogue_changed()
        return self.applications[body.name]

    def application(self, name: str) -> Application:
        """An application by name.

        Raises:
            ApiError: 404, there is none.
        """
        if name not in self.applications:
            raise ApiError(404, f"cannot find application {name}; create it first")
        return self.applications[name]

    def add_version(self, application: str, body: VersionBody) -> Version:
        """Create a version of an application.

        Raises:
            ApiError: 404 without the application, 409 when it has a version of this name.
        """
        versions = self.application(application).versions
        if body.name in versions:
            raise ApiError(
                409, f"cannot create version {body.name}: {application} has one of this name; choose another"
            )
        versions[body.name] = Version(body)
        self._catalogue_changed()
        return versions[body.name]

    def add_storage(self, body: StorageBody) -> Storage:
        """Register an endpoint storage.

        Raises:
            ApiError: 409, there is one of this name.
        """
        if body.name in self.storages:
            raise ApiError(409, f"cannot register storage {body.name}: there is one of this name; choose another")
        self.storages[body.name] = Storage(body)
        self._catalogue_changed()
        return self.storages[body.name]

    def put_storage(self, body: StorageBody) -> None:
        """Have a storage, in place of one of the same name."""
        self.storages[body.name] = Storage(body)
        self._catalogue_changed()

    def put_application(self, body: ApplicationBody, versions: Iterable[VersionBody]) -> None:
        """Have an application with these versions, in place of those of the same names."""
        application = self.applications.setdefault(body.name, Application(body))
        application.body = body
        for version in versions:
            application.versions[version.name] = Version(version)
        self._catalogue_changed()

    # Deployments -------------------------------------------------------------------------------------------------

    def deploy(self, request: DeploymentCreate) -> Deployment:
        """Create a deployment and begin its life.

        Raises:
            ApiError: 400 for an application or version that is not there or not active, 422 without room,
                500 while the emulator is being closed.
        """
        if self.closing.is_set():
            raise ApiError(500, "cannot deploy: the emulator is being closed; start it again")
        version = self._version_for(request)
        place = nearest(_points(request))
        deployment = Deployment(
            request,
            version,
            public_ip=self.settings.public_ip,
            log_bytes=self.settings.log_bytes,
            changed=self._notify,
        )
        deployment.location = place
        self._remember(deployment)
        try:
            deployment.host = self._host(request, version, place)
        except CannotPlace as error:
            trouble = str(error)
        else:
            trouble = ""
            deployment.location = deployment.host.place
        deployment.note_change()
        life = asyncio.create_task(Life(deployment, self).run(trouble), name=f"deployment {deployment.id}")
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        if trouble:
            raise ApiError(422, trouble, extra={"request_id": deployment.id})
        return deployment

    def _version_for(self, request: DeploymentCreate) -> VersionBody:
        application = self.applications.get(request.application)
        if application is None:
            raise ApiError(400, f"cannot deploy: there is no application {request.application}; create it first")
        version = application.versions.get(request.version)
        if version is None:
            raise ApiError(
                400, f"cannot deploy: {request.application} has no version {request.version}; create it first"
            )
        if not (application.body.is_active and version.body.is_active):
            raise ApiError(400, f"cannot deploy: {request.application} {request.version} is not active; activate it")
        return version.body

    def _host(self, request: DeploymentCreate, version: VersionBody, place: Place) -> Host:
        if isinstance(request, FleetDeploymentCreate):
            return self.hosts.place_on_hosts(version, request.private_host_ids, place)
        return self.hosts.place_in_cloud(version, place)

    def _remember(self, deployment: Deployment) -> None:
        self.deployments[deployment.id] = deployment
        over = [each.id for each in self.deployments.values() if not each.active][: -self.settings.keep_terminated]
        for deployment_id in over:
            del self.deployments[deployment_id]

    def deployment(self, deployment_id: str) -> Deployment:
        """A deployment by id, terminated ones too.

        Raises:
            ApiError: 404, or 400 where the settings ask for what the live API says.
        """
        if deployment_id not in self.deployments:
            raise ApiError(
                self.settings.unknown_id_status, f"cannot find deployment {deployment_id}; list those there are"
            )
        return self.deployments[deployment_id]

    def stop(self, deployment: Deployment, request: StopRequest) -> int:
        """Ask for a stop; returns 200 when it begins now and 202 when it waits until ready or in error.

        Raises:
            ApiError: 410 when it has ended, 400 for a log storage that is not there.
        """
        if not deployment.active:
            raise ApiError(410, f"cannot stop deployment {deployment.id}: it is already terminated")
        if request.log_storage not in {None, "true", "false"} and request.log_storage not in self.storages:
            raise ApiError(
                400, f"cannot keep logs in {request.log_storage}: there is no such endpoint storage; register it first"
            )
        deployment.ask_to_stop(request)
        return 200 if deployment.status in {Status.READY, Status.ERROR, Status.TERMINATING} else 202

    def tell(self, deployment: Deployment, webhook: Webhook | None) -> None:
        """Send a deployment's status to a webhook, if there is one."""
        if webhook is not None:
            self.webhooks.send(webhook.url, deployment.status_json(self.settings.minute_seconds))

    # Watching and closing ----------------------------------------------------------------------------------------

    def watch(self, call: Callable[[Deployment], None]) -> Callable[[], None]:
        """Have something called after every change of a deployment; returns what ends that."""
        self._watchers.add(call)
        return lambda: self._watchers.discard(call)

    def _notify(self, deployment: Deployment) -> None:
        for call in list(self._watchers):
            call(deployment)

    async def pause(self, seconds: float) -> None:
        """Wait, unless the emulator is being closed."""
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Stop every deployment and wait until nothing of any is left."""
        self.closing.set()
        for deployment in self.deployments.values():
            if deployment.active:
                deployment.ask_to_stop(StopRequest("emulator"))
        await gather_all(self._lives)
        await self.webhooks.close()


async def gather_all(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for tasks of which further ones may begin meanwhile; what failed is logged, not raised."""
    while tasks:
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("a deployment's task failed: %r", result)
        await asyncio.sleep(0)


def _points(request: DeploymentCreate) -> list[tuple[float, float]]:
    """Where the players are."""
    points = []
    for user in request.users:
        data = user.user_data
        if user.user_type == "ip_address":
            points.append(place_of_address(data.ip_address or ""))
        else:
            points.append((data.latitude or 0.0, data.longitude or 0.0))
    return points

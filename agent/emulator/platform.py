"""The emulated platform: its services, and everything that runs on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from agent.emulator.beacons import Beacons
from agent.emulator.deployment import Deployment, Status, StopRequest
from agent.emulator.errors import ApiError, CannotPlace
from agent.emulator.fleets import Host
from agent.emulator.models import DeploymentCreate, FleetDeploymentCreate, VersionBody
from agent.emulator.places import PLACES, Place, nearest, place_of_address
from agent.emulator.reading import body_faults
from agent.emulator.registry import Registry
from agent.emulator.relays import Relays
from agent.emulator.runner import DeploymentRunner
from agent.emulator.services import Services
from agent.emulator.settings import EmulatorSettings

log = logging.getLogger(__name__)


class Platform(Services):
    """The emulated platform.

    Args:
        settings: how it behaves.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        """See the class."""
        super().__init__(settings)
        self.deployments: dict[str, Deployment] = {}
        self.beacons = Beacons(self.port_book, settings)
        self.relays = Relays(self)
        self.registry = Registry(self.engine)
        self._runs: set[asyncio.Task[None]] = set()

    def deploy(
        self,
        request: DeploymentCreate,
        *,
        unknown_status: int = 400,
        places: Sequence[Place] = PLACES,
        log_storage: str | None = None,
        changes: dict[str, Any] | None = None,
    ) -> Deployment:
        """Create a deployment and start it.

        Args:
            request: what is asked for.
            unknown_status: of the answer to an application or a version that is not there.
            places: where it may be.
            log_storage: as `container_log_storage` of a stop has it; what the stop itself says wins.
            changes: members of the version that are different for this deployment.

        Raises:
            ApiError: `unknown_status` for an application or version that is not there or not active, 400 for changes
                that do not fit it, 422 without room, 500 while the emulator is being closed.
        """
        if self.closing.is_set():
            raise ApiError(500, "cannot deploy: the emulator is being closed; start it again")
        version = self._version_for(request, unknown_status)
        if changes:
            try:
                version = VersionBody.model_validate({**version.model_dump(exclude_none=True), **changes})
            except ValidationError as error:
                raise body_faults(error) from None
        if not places:
            raise ApiError(422, "cannot allocate a server: no place meets all filters; leave one out")
        self.check_log_storage(log_storage)
        place = nearest(_points(request), places)
        deployment = Deployment(
            request,
            version,
            public_ip=self.settings.public_ip,
            domain=self.settings.domain,
            log_bytes=self.settings.log_bytes,
            changed=self.notify,
        )
        deployment.location = place
        deployment.log_storage = log_storage
        self._remember(deployment)
        try:
            deployment.host = self._host(request, version, place)
        except CannotPlace as error:
            trouble = str(error)
        else:
            trouble = ""
            deployment.location = deployment.host.place
        deployment.note_change()
        run = asyncio.create_task(DeploymentRunner(deployment, self).run(trouble), name=f"deployment {deployment.id}")
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        if trouble:
            raise ApiError(422, trouble, extra={"request_id": deployment.id})
        return deployment

    def _version_for(self, request: DeploymentCreate, unknown_status: int) -> VersionBody:
        application = self.catalogue.applications.get(request.application)
        if application is None:
            why = f"cannot deploy: there is no application {request.application}; create it first"
            raise ApiError(unknown_status, why)
        version = application.versions.get(request.version)
        if version is None:
            why = f"cannot deploy: {request.application} has no version {request.version}; create it first"
            raise ApiError(unknown_status, why)
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

    def check_log_storage(self, name: str | None) -> None:
        """Refuse a log storage that is not there.

        Raises:
            ApiError: 400.
        """
        if name not in {None, "true", "false"} and name not in self.catalogue.storages:
            raise ApiError(400, f"cannot keep logs in {name}: there is no such endpoint storage; register it first")

    def stop(self, deployment: Deployment, request: StopRequest) -> int:
        """Ask for a stop; returns 200 when it begins now and 202 when it waits until ready or in error.

        Raises:
            ApiError: 410 when it has ended, 400 for a log storage that is not there.
        """
        if not deployment.active:
            raise ApiError(410, f"cannot stop deployment {deployment.id}: it is already terminated")
        self.check_log_storage(request.log_storage)
        deployment.ask_to_stop(request)
        return 200 if deployment.status in {Status.READY, Status.ERROR, Status.TERMINATING} else 202

    async def close(self) -> None:
        """Stop every deployment and wait until nothing of any is left."""
        self.closing.set()
        for deployment in self.deployments.values():
            if deployment.active:
                deployment.ask_to_stop(StopRequest("emulator"))
        await gather_all(self._runs)
        await self.relays.close()
        await self.beacons.close()
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

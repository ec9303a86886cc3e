"""What a request can name: made for one call, just before it, so that no call before can have changed or deleted it.

The hooks run in schemathesis's process and ask for it over a Unix socket, and not over the platform's API: those calls
would count as answers of the operations that are checked.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
from typing import Any

from agent.emulator.catalogue import now
from agent.emulator.deployment import Deployment, StopRequest, TagRecord
from agent.emulator.models import (
    ApplicationBody,
    FleetDeploymentCreate,
    PullProfileBody,
    RelaySessionCreate,
    RelayUser,
    StorageBody,
    User,
    UserData,
    VersionBody,
)
from agent.emulator.server import Emulator
from tests.contract.backend import eventually, python

OWN_HOST = "fixtures-1"
FLEETS = f"""
[cloud]
cpu_units = 4096

[[fleets.alpha.hosts]]
host_id = "alpha-1"
city = "Montreal"
cpu_units = 1024
memory_mb = 2048
beacon = {{ ip_address = "127.0.0.1", tcp_port = 4000, udp_port = 4001 }}

[[fleets.alpha.hosts]]
host_id = "alpha-2"
status = "PENDING"
cpu_units = 1024
memory_mb = 2048

[[fleets.fixtures.hosts]]
host_id = "{OWN_HOST}"
cpu_units = 102400
memory_mb = 102400
"""
PORTS = [{"port": 7777, "protocol": "UDP", "name": "gameport"}, {"port": 8080, "protocol": "WS", "name": "web"}]
VERSIONS: dict[str, dict[str, Any]] = {
    "runs": {**python("import time; print(1, flush=True); time.sleep(600)"), "ports": PORTS},
    "crashes": {**python("raise SystemExit(3)"), "restart_policy": "never"},
    "cannot-run": {"command": "/nowhere/at/all"},
}
IMAGE: dict[str, Any] = {
    "req_cpu": 100,
    "req_memory": 200,
    "docker_repository": "",
    "docker_image": "",
    "docker_tag": "",
}
MOST_RUNNING = 12
"""Of the deployments that the requests made; more are stopped before the next deploy, which would find no room."""
READY_TO_STOP = 3
"""Deployments kept for the operations that stop one, so that some are ready by then."""


class Fixtures:
    """Makes what a request names.

    Args:
        emulator: has started.
    """

    def __init__(self, emulator: Emulator) -> None:
        """See the class."""
        self._platform = emulator.platform
        self._numbers = itertools.count()
        self._own: set[str] = set()
        self._to_stop: collections.deque[Deployment] = collections.deque()
        self._shared: dict[str, Deployment] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one question, `[operation, turn]`, with the names to use."""
        operation, turn = json.loads(await reader.readline())
        writer.write(json.dumps(await self.names(operation, turn)).encode() + b"\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def names(self, operation: str, turn: int) -> dict[str, Any]:
        """What one call of an operation can name, by the contract's names of parameters and members."""
        kind = list(VERSIONS)[turn % len(VERSIONS)]
        names = {"fleet_name": "alpha", "host_id": "alpha-1", "image_name": "game", "tag_name": "red"}
        names |= self._catalogue(operation, kind)
        if operation.startswith("deploy"):
            await self._make_room()
        if "Relay" in operation:
            names |= await self._relay()
        else:
            names |= self._deployment(operation, kind)
        return names

    def _catalogue(self, operation: str, kind: str) -> dict[str, str]:
        """An application with a version of each kind, a storage with a pull profile."""
        catalogue, name = self._platform.catalogue, f"made-{next(self._numbers)}"
        catalogue.put_application(
            ApplicationBody(name=name, is_active=True, image=""),
            [VersionBody(**IMAGE, name=version, **more) for version, more in VERSIONS.items()],
        )
        catalogue.put_storage(
            StorageBody(name=name, access_key_id="", secret_access_key="", endpoint="file:///tmp", bucket="b")
        )
        profile = catalogue.add_profile(
            name, PullProfileBody(name=name, source="a", source_type="File", destination="/a")
        )
        if operation == "unlinkPullProfile":
            profile.links[name, kind] = now()
        return {"app_name": name, "version_name": kind, "endpoint_name": name, "pull_profile_name": name}

    async def _relay(self) -> dict[str, Any]:
        """A relay session with a user; all older ones end, since there is room for so many only."""
        relays = self._platform.relays
        for session_id in list(relays.sessions)[:-20]:
            await relays.delete(session_id)
        session = relays.create(RelaySessionCreate(users=[RelayUser(ip="203.0.113.1")]))
        return {"session_id": session.id, "authorization_token": next(iter(session.users))}

    def _deployment(self, operation: str, kind: str) -> dict[str, str]:
        """A deployment with a tag: of its own for an operation that stops it, else one of each kind."""
        if operation in {"stopDeployment", "selfStop"}:
            while len(self._to_stop) <= READY_TO_STOP:
                self._to_stop.append(self._deployed("runs"))
            deployment = self._to_stop.popleft()
            if not deployment.active:  # a bulk stop meant it too
                return self._deployment(operation, kind)
        else:
            found = self._shared.get(kind)
            if found is None or found.id not in self._platform.deployments or (kind == "runs" and not found.active):
                found = self._shared[kind] = self._deployed(kind)
            deployment = found
            deployment.tags.setdefault("red", TagRecord("red"))
        return {
            "deployment_id": deployment.id,
            "request_id": deployment.id,
            "stop_key": deployment.stop_key,
            "security_number": deployment.security_number,
            "delete_token": deployment.delete_token,
            "context_token": deployment.context_token,
        }

    def _deployed(self, kind: str) -> Deployment:
        user = User(user_type="ip_address", user_data=UserData(ip_address="203.0.113.1"))
        name = self._catalogue("", kind)["app_name"]
        deployment = self._platform.deploy(
            FleetDeploymentCreate(
                application=name, version=kind, users=[user], tags=["red"], private_host_ids=[OWN_HOST]
            )
        )
        self._own.add(deployment.id)
        return deployment

    async def _make_room(self) -> None:
        """Stop what the requests have deployed, once it is a lot."""
        running = [each for each in self._platform.deployments.values() if each.active and each.id not in self._own]
        if len(running) < MOST_RUNNING:
            return
        for deployment in running:
            self._platform.stop(deployment, StopRequest("fixtures"))
        await eventually(lambda: not any(each.active for each in running))

"""Starts an emulator on which something exists, and turns schemathesis loose on it, with all checks on.

Exits with schemathesis's code: 0 only without a failure. Arguments go to schemathesis (`--max-examples 500`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from agent.emulator.catalogue import now
from agent.emulator.models import (
    ApplicationBody,
    PullProfileBody,
    RelaySessionCreate,
    RelayUser,
    StorageBody,
    VersionBody,
)
from agent.emulator.server import OPERATIONS, Emulator
from agent.emulator.settings import Delays, EmulatorSettings

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "contract" / "edgegap-api.openapi.yaml"
FLEETS = """
[cloud]
cpu_units = 4096

[[fleets.alpha.hosts]]
host_id = "alpha-1"
city = "Montreal"
cpu_units = 1024
memory_mb = 2048
beacon = { ip_address = "127.0.0.1", tcp_port = 4000, udp_port = 4001 }

[[fleets.alpha.hosts]]
host_id = "alpha-2"
status = "PENDING"
cpu_units = 1024
memory_mb = 2048
"""
NEEDS_ENGINE = frozenset({"deleteImageTag"})
"""What cannot succeed without a container engine, and would remove somebody's images with one."""
VERSION: dict[str, Any] = {
    "req_cpu": 100,
    "req_memory": 200,
    "docker_repository": "",
    "docker_image": "",
    "docker_tag": "",
}
PORTS = [{"port": 7777, "protocol": "UDP", "name": "gameport"}, {"port": 8080, "protocol": "WS", "name": "web"}]


async def furnish(emulator: Emulator) -> dict[str, Any]:
    """Create an application, versions, deployments; returns what the hooks need to know of them."""
    game = f"{sys.executable} -c"
    versions: dict[str, dict[str, Any]] = {
        "runs": {"command": game, "arguments": "'import time; print(1, flush=True); time.sleep(600)'", "ports": PORTS},
        "crashes": {"command": game, "arguments": "'raise SystemExit(3)'", "restart_policy": "never"},
        "cannot-run": {"command": "/nowhere/at/all"},
    }
    async with aiohttp.ClientSession(emulator.url, headers=emulator.authorization, raise_for_status=True) as session:
        await session.post("/v1/app", json={"name": "conformance", "is_active": True, "image": ""})
        for name, more in versions.items():
            await session.post("/v1/app/conformance/version", json={**VERSION, "name": name, **more})
        ids = []
        for number in range(8):
            user = {"user_type": "ip_address", "user_data": {"ip_address": f"203.0.113.{number}"}}
            body = {
                "application": "conformance",
                "version": list(versions)[number % 3],
                "users": [user],
                "tags": ["red"],
            }
            async with session.post("/v2/deployments", json=body) as response:
                ids.append((await response.json())["request_id"])
    known = [
        {
            "deployment_id": deployment.id,
            "stop_key": deployment.stop_key,
            "security_number": deployment.security_number,
            "delete_token": deployment.delete_token,
            "context_token": deployment.context_token,
        }
        for deployment in (emulator.platform.deployments[deployment_id] for deployment_id in ids)
    ]
    names = {
        "app_name": "conformance",
        "version_name": "runs",
        "tag_name": "red",
        "fleet_name": "alpha",
        "endpoint_name": "kept",
        "pull_profile_name": "kept",
        "image_name": "game",
    }
    catalogue, relays = emulator.platform.catalogue, emulator.platform.relays
    addresses = [f"203.0.113.{number}" for number in range(1, 200)]
    relay = relays.create(RelaySessionCreate(users=[RelayUser(ip=address) for address in addresses]))
    names["session_id"] = relay.id
    profile = PullProfileBody(name="kept", source="a", source_type="File", destination="/a")
    storage = StorageBody(name="kept", access_key_id="", secret_access_key="", endpoint="file:///tmp", bucket="b")
    catalogue.put_storage(storage)
    catalogue.add_profile("kept", profile)
    disposable: dict[str, list[dict[str, str]]] = {
        name: []
        for name in (
            *("deleteApplication", "deleteVersion", "deleteStorage", "deletePullProfile", "unlinkPullProfile"),
            "deleteRelaySession",
        )
    }
    for number in range(40):
        name = f"disposable-{number}"
        catalogue.add_application(ApplicationBody(name=name, is_active=True, image=""))
        disposable["deleteApplication"].append({"app_name": name})
        catalogue.add_version("conformance", VersionBody(**VERSION, name=name))
        disposable["deleteVersion"].append({"version_name": name})
        catalogue.put_storage(storage.model_copy(update={"name": name}))
        disposable["deleteStorage"].append({"endpoint_name": name})
        catalogue.add_profile("kept", profile.model_copy(update={"name": name}))
        disposable["deletePullProfile"].append({"pull_profile_name": name})
        linked = catalogue.add_profile("kept", profile.model_copy(update={"name": f"linked-{number}"}))
        linked.links["conformance", "runs"] = now()
        disposable["unlinkPullProfile"].append({"pull_profile_name": f"linked-{number}"})
        short = relays.create(RelaySessionCreate(users=[RelayUser(ip=addresses[0])]))
        disposable["deleteRelaySession"].append({"session_id": short.id})
    return {
        "names": names,
        "versions": list(versions),
        "disposable": disposable,
        "relay_users": list(relay.users),
        "hosts": ["alpha-1"],
        "deployments": known[:6],
        "doomed": known[6:],
    }


# In a run over all operations, what these name is changed by others before they are called with it. Alone each
# succeeds (`--include-operation-id getVersion`), and tests/contract/test_emulator_clients.py calls them as clients do.
NOT_REACHED = {
    *("deletePullProfile", "deleteVersion", "deployV1", "getVersion", "linkPullProfile", "unlinkPullProfile"),
    "stopDeployment",
}


def report(emulator: Emulator) -> None:
    """Print how often each operation was answered what, and which never succeeded: of those little was checked."""
    counts = emulator.records.counts
    never = []
    print("operation            answers")
    for operation in sorted(each.id for each in OPERATIONS if each.id not in NEEDS_ENGINE):
        statuses = {status: count for (name, status), count in sorted(counts.items()) if name == operation}
        print(f"{operation:20} {'  '.join(f'{status}: {count}' for status, count in statuses.items())}")
        if not any(status < 300 for status in statuses) and operation not in NOT_REACHED:
            never.append(operation)
    if never:
        print(f"cannot call this checked: {', '.join(never)} never succeeded; see hooks.py", file=sys.stderr)


async def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    # Every valid webhook of the run is sent to a port where nobody listens.
    logging.getLogger("agent.emulator.webhooks").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as directory:
        fleets, known = Path(directory, "fleets.toml"), Path(directory, "known.json")
        fleets.write_text(FLEETS)
        settings = EmulatorSettings(
            delays=Delays().scaled(0.2),
            rate_limits=None,  # a 429 to nearly every request would leave nothing to check
            fleets_file=str(fleets),
            engine="none",
            grace_seconds=1.0,
            # Commands are made up here too, and run: from an empty directory, and none is found on an empty PATH.
            directory=directory,
        )
        environment = {**os.environ, "CONFORMANCE_KNOWN": str(known), "CONFORMANCE_TOKEN": settings.token}
        os.environ["PATH"] = directory
        async with Emulator(settings) as emulator:
            known.write_text(json.dumps(await furnish(emulator)))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
                *("run", str(DOCUMENT), "--url", emulator.url, "--checks", "all", "--continue-on-failure"),
                *arguments,
                env={**environment, "SCHEMATHESIS_HOOKS": "tests.conformance.hooks"},
                cwd=directory,
            )
            code = await process.wait()
            report(emulator)  # which names schemathesis calls in which order is chance: said, and no failure
            return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))

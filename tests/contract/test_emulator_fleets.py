"""Private fleets: hosts with a capacity, and the cloud for what they cannot take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.emulator.fleets import Hosts
from tests.contract.backend import PLAYER, Answer, Backend, backend, python, quick

FLEETS = """
[cloud]
cpu_units = 1024
memory_mb = 8192

[[fleets.alpha.hosts]]
host_id = "alpha-1"
city = "Montreal"
cpu_units = 1024
memory_mb = 1024
beacon = { ip_address = "192.0.2.1", tcp_port = 4000, udp_port = 4001 }

[[fleets.alpha.hosts]]
host_id = "alpha-2"
latitude = 35.7
longitude = 139.7
cpu_units = 512
memory_mb = 8192
base_clock_speed_mhz = 3400

[[fleets.alpha.hosts]]
host_id = "alpha-3"
status = "PENDING"
cpu_units = 8192
memory_mb = 8192

[fleets.closed]
overflow = false
hosts = [{ host_id = "closed-1", cpu_units = 512, memory_mb = 512 }]
"""


@pytest.fixture
def fleets(tmp_path: Path) -> str:
    """A fleets file."""
    path = tmp_path / "fleets.toml"
    path.write_text(FLEETS)
    return str(path)


async def deploy(caller: Backend, version: str, *hosts: str) -> Answer:
    """Deploy to private hosts."""
    body = {"application": "game", "version": version, "users": [PLAYER], "private_host_ids": list(hosts)}
    return await caller.call("POST", "/v2/private-fleets/deployments", body)


async def test_hosts_are_listed_with_what_is_taken(fleets: str) -> None:
    """Capacity is taken by a deployment and given back at its end."""
    async with backend(quick(fleets_file=fleets)) as caller:
        hosts = (await caller.get("/v2/private-fleets/alpha/hosts"))["data"]
        assert [(each["host_id"], each["status"], each["city"]) for each in hosts] == [
            ("alpha-1", "ACTIVE", "Montreal"),
            ("alpha-2", "ACTIVE", "Tokyo"),
            ("alpha-3", "PENDING", "Chicago"),
        ]
        answer = await deploy(caller, await caller.version(req_cpu=512, req_memory=1000), "alpha-1")
        host = (await caller.get("/v2/private-fleets/alpha/hosts", limit="1"))["data"][0]
        assert (host["allocated_cpu_units"], host["allocatable_cpu_units"]) == (512, 512)
        assert (host["allocated_memory_mb"], host["allocatable_memory_mb"]) == (1000, 24)
        await caller.stop(answer.body["request_id"])
        host = (await caller.get("/v2/private-fleets/alpha/hosts"))["data"][0]
        assert (host["allocated_cpu_units"], host["allocated_memory_mb"]) == (0, 0)
        assert (await caller.call("GET", "/v2/private-fleets/none/hosts")).status == 400


async def test_hosts_are_tried_in_order_then_the_cloud_then_422(fleets: str) -> None:
    """A host that is full, pending or unknown is passed over; nothing left is an allocation error."""
    async with backend(quick(fleets_file=fleets)) as caller:
        version = await caller.version(req_cpu=512, req_memory=1000)
        wanted = ("alpha-3", "nowhere", "alpha-2", "alpha-1")
        answers = [await deploy(caller, version, *wanted) for _ in range(5)]
        assert [answer.status for answer in answers] == [202, 202, 202, 202, 422]
        used = [caller.inner(answer.body["request_id"]).host for answer in answers[:4]]
        assert [(each.host_id, each.fleet) if each and each.fleet else "cloud" for each in used] == [
            ("alpha-2", "alpha"),
            ("alpha-1", "alpha"),
            "cloud",
            "cloud",
        ]
        refused = answers[4].body
        assert refused["message"].startswith("cannot allocate a server")
        status = await caller.until(refused["request_id"], "ERROR")
        assert status["error_detail"] == refused["message"]
        assert (await caller.call("POST", "/v2/deployments", deployment(version))).status == 422
        await caller.stop(refused["request_id"])
        await caller.stop(answers[0].body["request_id"])
        assert (await deploy(caller, version, *wanted)).status == 202


def deployment(version: str) -> dict[str, Any]:
    """A deployment in the cloud."""
    return {"application": "game", "version": version, "users": [PLAYER]}


async def test_a_fleet_that_does_not_overflow_does_not(fleets: str) -> None:
    """422, though the cloud has room."""
    async with backend(quick(fleets_file=fleets)) as caller:
        version = await caller.version(req_cpu=512, req_memory=512)
        assert (await deploy(caller, version, "closed-1")).status == 202
        refused = await deploy(caller, version, "closed-1")
        assert refused.status == 422
        assert "does not overflow" in refused.body["message"]
        assert (await caller.call("POST", "/v2/deployments", deployment(version))).status == 202


async def test_a_game_on_a_private_host_is_told_so(fleets: str) -> None:
    """The fleet, the host, its clock and its beacon stand in the environment, and its city in the location."""
    source = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(600)"
    async with backend(quick(fleets_file=fleets)) as caller:
        answer = await deploy(caller, await caller.version(**python(source)), "alpha-1")
        environment = json.loads(await caller.until_logged(answer.body["request_id"], "}\n"))
        expected = {
            "ARBITRIUM_HOST_ID": "alpha-1",
            "ARBITRIUM_HOST_IN_PRIVATE_FLEET": "true",
            "ARBITRIUM_PRIVATE_FLEET_ID": "alpha",
            "ARBITRIUM_HOST_BEACON_ENABLED": "true",
            "ARBITRIUM_HOST_BEACON_PUBLIC_IP": "192.0.2.1",
            "ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL": "4001",
            "ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL": "4000",
        }
        assert {name: environment.get(name) for name in expected} == expected
        assert json.loads(environment["ARBITRIUM_DEPLOYMENT_LOCATION"])["city"] == "Montreal"


@pytest.mark.parametrize("hosts", [[], ["alpha-1", "alpha-1"], None])
async def test_the_list_of_hosts_is_checked(fleets: str, hosts: Any) -> None:
    """One at least, and none twice."""
    async with backend(quick(fleets_file=fleets)) as caller:
        body = {**deployment(await caller.version()), "private_host_ids": hosts}
        assert (await caller.call("POST", "/v2/private-fleets/deployments", body)).status == 400


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[fleets", "cannot read the fleets file"),
        ("[fleets.a]\noverflw = true", "fleets.a.overflw"),
        ("[[fleets.a.hosts]]\nhost_id = 'x'\ncpu_units = 'many'", "fleets.a.hosts.0.cpu_units"),
    ],
)
def test_a_wrong_fleets_file_is_refused_by_name(tmp_path: Path, text: str, why: str) -> None:
    """Before anything listens."""
    path = tmp_path / "fleets.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cannot (read|use) the fleets file") as caught:
        Hosts("127.0.0.1").load(str(path))
    assert why in str(caught.value)

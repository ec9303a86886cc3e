"""Each method of the client against the emulator: the two were written apart, and hold each other to the contract."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from agent.edgegap import models
from agent.edgegap.client import EdgegapClient
from agent.edgegap.errors import (
    BadRequestError,
    ConflictError,
    DeploymentFailedError,
    EdgegapError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    RateLimitedError,
    UnauthorisedError,
    UnavailableError,
    UnprocessableError,
)
from agent.edgegap.filters import Field, Filter, Operator, Order, OrderField, Query
from agent.edgegap.self_stop import SelfStop
from agent.edgegap.tags import DeploymentTags
from agent.emulator.environment import injected
from agent.emulator.server import Emulator
from agent.emulator.settings import EmulatorSettings
from tests.contract.backend import SLEEPS, backend, python, quick

FLEET = """
[fleets.alpha]
[[fleets.alpha.hosts]]
host_id = "alpha-1"
city = "Montreal"
cpu_units = 1024
memory_mb = 2048
[[fleets.alpha.hosts]]
host_id = "alpha-2"
city = "Paris"
cpu_units = 1024
memory_mb = 2048
"""
PLAYER = models.User(user_type="geo_coordinates", user_data=models.UserData(latitude=48.85, longitude=2.35))


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    """A platform with a private fleet."""
    fleets = tmp_path / "fleets.toml"
    fleets.write_text(FLEET)
    async with backend(quick(fleets_file=str(fleets))) as behind:
        yield behind.emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    """A client of it."""
    async with EdgegapClient(emulator.token, emulator.url) as client:
        yield client


async def version(client: EdgegapClient, name: str = "v1", **more: object) -> None:
    """An application with a version that runs until it is stopped."""
    with contextlib.suppress(ConflictError):
        await client.create_application(models.Application(name="game"))
    wanted = {"req_cpu": 256, "req_memory": 256, **python(SLEEPS), **more}
    await client.create_version("game", models.Version(name=name, **wanted))


async def deploy(client: EdgegapClient, name: str = "v1", *tags: str) -> str:
    """A deployment that is ready."""
    request = models.DeploymentCreate(application="game", version=name, users=[PLAYER], tags=list(tags))
    accepted = await client.deploy(request)
    await client.wait_until_ready(accepted.request_id, 30)
    return accepted.request_id


async def test_applications_versions_and_storages(client: EdgegapClient) -> None:
    """Created, refused when there already, and listed over pages."""
    for number in range(5):
        created = await client.create_application(models.Application(name=f"game-{number}"))
        assert created.name == f"game-{number}"
    with pytest.raises(ConflictError):
        await client.create_application(models.Application(name="game-0"))
    assert [app.name async for app in client.list_applications(page_size=2)] == [f"game-{n}" for n in range(5)]
    await version(client, envs=[models.Variable(key="SECRET", value="s3cret", is_hidden=True)])
    (only,) = [found async for found in client.list_versions("game")]
    assert (only.name, only.req_cpu) == ("v1", 256)
    assert "s3cret" not in only.model_dump_json()
    with pytest.raises(NotFoundError):
        await client.list_versions("nothing").first()
    storage = models.StorageCreate(
        name="logs", access_key_id="id", secret_access_key=SecretStr("very-secret"), endpoint="file:///tmp", bucket="b"
    )
    assert (await client.create_storage(storage)).name == "logs"
    assert [found.name async for found in client.list_storages()] == ["logs"]
    with pytest.raises(BadRequestError):
        await client.create_storage(storage)


async def test_a_deployment_from_its_request_to_its_logs(client: EdgegapClient) -> None:
    """Deploy, wait, look, measure, stop, wait, read."""
    await version(client, ports=[models.VersionPort(port=7777, protocol="UDP", name="gameport")])
    seen: list[str] = []
    request = models.DeploymentCreate(application="game", version="v1", users=[PLAYER], tags=["eu"])
    accepted = await client.deploy(request)
    status = await client.wait_until_ready(accepted.request_id, 30, on_status=lambda s: seen.append(s.current_status))
    assert status.state is models.State.READY
    assert seen[-1] == "Status.READY"
    assert status.ports["gameport"].external
    assert status.location is not None
    assert status.location.city
    assert (await client.get_deployment(accepted.request_id)).tags == ["eu"]
    await client.get_metrics(accepted.request_id, steps="1s")
    stopped = await client.stop_deployment(accepted.request_id, log_storage="false")
    assert accepted.request_id in stopped.message
    await client.wait_until_terminated(accepted.request_id, 30)
    logs = await client.get_logs(accepted.request_id)
    assert logs.crash_data is None or logs.crash_data.restart_count == 0
    with pytest.raises(GoneError):
        await client.stop_deployment(accepted.request_id)


async def test_lists_are_filtered_ordered_and_paged(client: EdgegapClient) -> None:
    """As the contract describes the query."""
    await version(client)
    ids = [await deploy(client, "v1", "even" if number % 2 == 0 else "odd") for number in range(4)]
    newest_first = Query(order_by=[Order(OrderField.CREATED_AT, descending=True)])
    assert [item.request_id async for item in client.list_deployments(newest_first, page_size=3)] == ids[::-1]
    even = Query(filters=[Filter(Field.TAGS, Operator.IN, ["even"])], order_by=[Order(OrderField.CREATED_AT)])
    assert [item.request_id async for item in client.list_deployments(even)] == ids[::2]
    one = Query(filters=[Filter(Field.REQUEST_ID, Operator.EQ, ids[1]), Filter(Field.STATUS, Operator.EQ, "ready")])
    assert [item.request_id for item in await client.list_deployments(one).first()] == [ids[1]]
    stopped = await client.bulk_stop([models.BulkFilter(field="deployment_tags", values=["odd"], filter_type="any")])
    assert {item.request_id for item in stopped.processable} == set(ids[1::2])


async def test_private_fleets(client: EdgegapClient) -> None:
    """Hosts are listed with what is taken; what fits nowhere is refused, with an id."""
    hosts = [host async for host in client.list_fleet_hosts("alpha", page_size=1)]
    assert [host.host_id for host in hosts] == ["alpha-1", "alpha-2"]
    with pytest.raises(BadRequestError):
        await client.list_fleet_hosts("beta").first()
    await version(client, req_cpu=1024, req_memory=1024)
    request = models.FleetDeploymentCreate(
        application="game", version="v1", users=[PLAYER], private_host_ids=["alpha-2"]
    )
    accepted = await client.deploy_to_fleet(request)
    await client.wait_until_ready(accepted.request_id, 30)
    taken = {host.host_id: host.allocated_cpu_units for host in await client.list_fleet_hosts("alpha").first()}
    assert taken == {"alpha-1": 0, "alpha-2": 1024}


async def test_nothing_to_allocate_is_unprocessable(tmp_path: Path) -> None:
    """The deployment exists, in error, and its id is in the error."""
    fleets = tmp_path / "fleets.toml"
    fleets.write_text("[cloud]\ncpu_units = 100\n" + FLEET)
    async with (
        backend(quick(fleets_file=str(fleets))) as behind,
        EdgegapClient(behind.emulator.token, behind.emulator.url) as client,
    ):
        await version(client)
        with pytest.raises(UnprocessableError) as refused:
            await client.deploy(models.DeploymentCreate(application="game", version="v1", users=[PLAYER]))
        assert refused.value.deployment_id


async def test_tags(client: EdgegapClient) -> None:
    """All five calls, and what each refuses."""
    await version(client)
    deployment = await deploy(client)
    assert (await client.create_tag(deployment, "ranked")).name == "ranked"
    with pytest.raises(ConflictError):
        await client.create_tag(deployment, "ranked")
    assert (await client.get_tag(deployment, "ranked")).name == "ranked"
    assert (await client.update_tag(deployment, "ranked", "casual / 42?")).name == "casual / 42?"
    assert [tag.name async for tag in client.list_tags(deployment)] == ["casual / 42?"]
    await client.delete_tag(deployment, "casual / 42?")
    with pytest.raises(NotFoundError):
        await client.get_tag(deployment, "casual / 42?")


async def test_calls_from_inside(client: EdgegapClient, emulator: Emulator) -> None:
    """Context, its tags, and the self-stop, with what was injected; foreign tokens get nowhere."""
    await version(client)
    deployment = await deploy(client)
    environ = injected(emulator.platform.deployments[deployment], emulator.url)
    url, token = environ["ARBITRIUM_CONTEXT_URL"], SecretStr(environ["ARBITRIUM_CONTEXT_TOKEN"])
    context = await client.get_context(url, token)
    assert context.request_id == deployment
    assert context.state is models.State.READY
    await client.create_context_tag(url, token, "full")
    assert (await client.get_context(url, token)).tags == ["full"]
    await client.delete_context_tag(url, token, "full")
    with pytest.raises((UnauthorisedError, ForbiddenError)):
        await client.get_context(url, SecretStr("0" * 32))
    tags = DeploymentTags(context_url=url, context_token=token)
    await tags.add("mine")
    await tags.add("mine")
    assert await tags.list() == ["mine"]
    await tags.remove("mine")
    assert (
        await DeploymentTags(
            deployment_id=deployment, organisation_token=SecretStr(emulator.token), base_url=emulator.url
        ).list()
        == []
    )
    stop_url, stop_token = environ["ARBITRIUM_DELETE_URL"], SecretStr(environ["ARBITRIUM_DELETE_TOKEN"])
    with pytest.raises((UnauthorisedError, ForbiddenError)):
        await client.self_stop(stop_url, token)
    outcome = await SelfStop(stop_url, stop_token).run()
    assert outcome.confirmed
    await client.wait_until_terminated(deployment, 30)
    with pytest.raises(GoneError):
        await client.self_stop(stop_url, stop_token)


async def test_a_deployment_that_fails_ends_the_wait(client: EdgegapClient) -> None:
    """Waiting for what will never be ready is not waited out."""
    await version(client, command="/no/such/program", arguments="")
    accepted = await client.deploy(models.DeploymentCreate(application="game", version="v1", users=[PLAYER]))
    with pytest.raises(DeploymentFailedError):
        await client.wait_until_ready(accepted.request_id, 30)


async def test_a_wrong_token_is_said_without_showing_it(emulator: Emulator) -> None:
    """The prefix is not doubled, and no token is in an error."""
    async with EdgegapClient(f"token {emulator.token}", emulator.url) as good:
        assert await good.list_applications().first() == []
    wrong = "00000000-1111-2222-3333-444444444444"
    async with EdgegapClient(wrong, emulator.url) as bad:
        with pytest.raises(UnauthorisedError) as refused:
            await bad.list_applications().first()
    assert refused.value.status == 401
    assert wrong not in str(refused.value) + repr(refused.value)
    assert "EDGEGAP_API_TOKEN" in str(refused.value) or "token" in str(refused.value)


async def test_limits_of_the_platform_are_waited_out(emulator: Emulator) -> None:
    """A read that is limited or unavailable is repeated; a deploy is not, because it might be made twice."""
    async with backend(EmulatorSettings(delays=quick().delays, engine="none")) as behind:
        await _fault(behind.emulator, "GET", "/v1/apps", 429, 2)
        async with EdgegapClient(behind.emulator.token, behind.emulator.url) as client:
            assert await client.list_applications().first() == []
            await version(client)
            await _fault(behind.emulator, "POST", "/v2/deployments", 503, 1)
            with pytest.raises(UnavailableError):
                await client.deploy(models.DeploymentCreate(application="game", version="v1", users=[PLAYER]))
            assert await client.list_deployments().first() == []
        await _fault(behind.emulator, "GET", "/v1/apps", 429, 50)
        async with EdgegapClient(behind.emulator.token, behind.emulator.url, retries=1) as client:
            with pytest.raises((RateLimitedError, EdgegapError)):
                await client.list_applications().first()


async def _fault(emulator: Emulator, method: str, path: str, status: int, count: int) -> None:
    import aiohttp  # noqa: PLC0415 - this helper alone speaks plain HTTP

    body = [{"route": f"{method} {path}", "status": status, "count": count}]
    async with aiohttp.ClientSession() as session, session.put(f"{emulator.url}/emulator/faults", json=body) as answer:
        assert answer.status < 300, await answer.text()


def test_no_other_environment_is_needed() -> None:
    """The suite has what it needs: no account, no token from outside."""
    assert "EDGEGAP_API_TOKEN" not in os.environ

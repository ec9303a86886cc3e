"""The client against the emulator, deeper: what comes back is what really happened to real processes.

`test_client_emulator` calls each method once; here are the stories that take several, and the platform's bad days.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from agent.edgegap import errors, models
from agent.edgegap.client import EdgegapClient
from agent.edgegap.filters import Filter, Order, Query
from agent.edgegap.models import State
from agent.edgegap.self_stop import Attempt, Result, SelfStop
from agent.edgegap.tags import DeploymentTags
from agent.emulator.server import Emulator
from agent.emulator.settings import EmulatorSettings
from tests.contract.backend import SECONDS, SLEEPS, poll, python, quick
from tests.free_ports import free_port

SAYS_ITS_ENVIRONMENT = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(600)"
PARIS = models.User.from_coordinates(48.85, 2.35)


@dataclass(frozen=True)
class Both:
    """An emulator and a client that calls it."""

    emulator: Emulator
    client: EdgegapClient

    async def version(self, name: str = "1", source: str = SLEEPS, **more: Any) -> str:
        """Make a version of application `game`, and that too if need be."""
        try:
            await self.client.create_application(models.Application(name="game"))
        except errors.ConflictError:
            assert name != "1"
        version = models.Version(name=name, req_cpu=256, req_memory=256, **python(source), **more)
        return (await self.client.create_version("game", version)).version.name

    async def running(self, version: str = "1", **more: Any) -> models.DeploymentStatus:
        """Deploy a version and wait until it is ready."""
        request = models.DeploymentCreate(application="game", version=version, users=[PARIS], **more)
        accepted = await self.client.deploy(request)
        return await self.client.wait_until_ready(accepted.request_id, SECONDS)

    async def injected(self, deployment_id: str) -> dict[str, str]:
        """What the game found in its environment; it has to be one that says so."""
        logs = await poll(lambda: self.client.get_logs(deployment_id), lambda logs: "}" in (logs.logs or ""))
        environment: dict[str, str] = json.loads((logs.logs or "").splitlines()[0])
        return environment

    async def fault(self, **fault: Any) -> None:
        """Make the platform misbehave."""
        async with (
            aiohttp.ClientSession() as session,
            session.put(
                f"{self.emulator.url}/emulator/faults", json=[fault], headers=self.emulator.authorization
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()

    def asked(self, operation: str) -> int:
        """How often an operation was called."""
        return len(self.emulator.records.all(operation))


@asynccontextmanager
async def both(settings: EmulatorSettings | None = None) -> AsyncIterator[Both]:
    """Start an emulator and a client of it."""
    async with Emulator(settings or quick()) as emulator, EdgegapClient(emulator.token, emulator.url) as client:
        yield Both(emulator, client)


async def test_a_deployment_lives_and_dies_as_the_client_is_told() -> None:
    """Deploy, wait, status, list, stop, wait, logs: the states in order, the facts the same everywhere."""
    states: list[State] = []
    async with both() as it:
        # A game has its own port where no other one on this machine has it, and other tests have theirs.
        internal = free_port()
        ports = [models.VersionPort(port=internal, protocol="UDP", name="gameport")]
        await it.version(source="print('hello', flush=True)\n" + SLEEPS, ports=ports, restart_policy="never")
        accepted = await it.client.deploy(
            models.DeploymentCreate(application="game", version="1", users=[PARIS], tags=["red", "blue"])
        )
        status = await it.client.wait_until_ready(accepted.request_id, SECONDS, lambda seen: states.append(seen.state))
        assert status.request_id == accepted.request_id
        assert (status.state, status.running, status.error) == (State.READY, True, False)
        assert (status.app_name, status.app_version, status.tags) == ("game", "1", ["red", "blue"])
        assert status.fqdn == f"{status.request_id}.pr.edgegap.net"
        assert status.ports["gameport"].internal == internal
        assert status.ports["gameport"].external not in {None, internal}
        assert status.start_time is not None
        assert status.location is not None
        assert status.location.city == "Paris"
        (item,) = await it.client.list_deployments().first()
        assert (item.request_id, item.ready, item.tags) == (status.request_id, True, ["red", "blue"])
        assert item.ports["gameport"].external == status.ports["gameport"].external
        running = await poll(lambda: it.client.get_logs(status.request_id), lambda logs: bool(logs.logs))
        assert running.logs is not None
        assert running.logs.startswith("hello")

        stopped = await it.client.stop_deployment(status.request_id)
        assert status.request_id in stopped.message
        last = await it.client.wait_until_terminated(status.request_id, SECONDS)
        assert last is not None
        assert last.state is State.TERMINATED
        assert await it.client.list_deployments().first() == []
        assert (await it.client.get_logs(status.request_id)).crash_data is None
        with pytest.raises(errors.GoneError):
            await it.client.stop_deployment(status.request_id)
        with pytest.raises(errors.DeploymentFailedError, match="TERMINATED"):
            await it.client.wait_until_ready(status.request_id, SECONDS)
    order = list(State)
    assert states == sorted(states, key=order.index)
    assert states[-1] is State.READY


async def test_a_game_that_crashes_leaves_its_exit_code_and_last_words() -> None:
    """Its logs say how it ended, also after it was started again."""
    source = "import sys; print('out of cheese', flush=True); sys.exit(42)"
    async with both() as it:
        await it.version(source=source)
        accepted = await it.client.deploy(models.DeploymentCreate(application="game", version="1", users=[PARIS]))
        logs = await poll(lambda: it.client.get_logs(accepted.request_id), lambda logs: logs.crash_data is not None)
        assert logs.crash_data is not None
        assert logs.crash_data.exit_code == 42
        assert "out of cheese" in (logs.crash_logs or "")


async def test_variables_and_what_is_hidden_reach_the_game() -> None:
    """The deployment's own win over the version's; hidden ones reach the game all the same."""
    async with both() as it:
        await it.version(source=SAYS_ITS_ENVIRONMENT, envs=[models.Variable(key="MODE", value="casual")])
        hidden = models.Variable(key="KEY", value="hush", is_hidden=True)
        status = await it.running(environment_variables=[models.Variable(key="MODE", value="ranked"), hidden])
        environment = await it.injected(status.request_id)
        assert (environment["MODE"], environment["KEY"]) == ("ranked", "hush")
        assert environment["ARBITRIUM_REQUEST_ID"] == status.request_id


async def test_lists_are_filtered_ordered_and_paged() -> None:
    """Every operator that the typed query has is understood by the other side."""
    async with both() as it:
        await it.version("1")
        await it.version("2")
        ids = [(await it.running(version, tags=[tag])).request_id for version, tag in ("1x", "1y", "2x")]

        async def listed(*filters: str, order: str = "created_at", page_size: int | None = None) -> list[str]:
            query = Query([Filter.parse(text) for text in filters], [Order.parse(order)])
            return [item.request_id for item in await it.client.list_deployments(query, page_size).first()]

        assert await listed() == ids
        assert await listed(order="created_at:desc") == ids[::-1]
        assert await listed(page_size=1) == ids
        assert await listed(page_size=2) == ids
        assert await listed("tags=x") == [ids[0], ids[2]]
        assert await listed("tags=x", "version=1") == [ids[0]]
        assert await listed("tags=x,y", "version!=2") == ids[:2]
        assert await listed(f"request_id={ids[0]},{ids[2]}") == [ids[0], ids[2]]
        assert await listed(f"request_id!={ids[0]},{ids[2]}") == [ids[1]]
        assert await listed("status=ready", "application=game") == ids
        assert await listed("status!=ready") == []
        assert await listed("created_at>=2020-01-01T00:00:00Z") == ids
        assert await listed("created_at<=2020-01-01T00:00:00Z") == []
        assert await listed("host_name~%no-such-host%") == []
        pages = [page async for page in it.client.list_deployments(page_size=2).pages()]
        assert [(len(page.items), page.total_count) for page in pages] == [(2, 3), (1, 3)]


async def test_many_deployments_are_stopped_at_once() -> None:
    """By tag, and by id; those that do not match go on."""
    async with both() as it:
        await it.version()
        red = [(await it.running(tags=["red"])).request_id for _ in range(2)]
        blue = (await it.running(tags=["blue"])).request_id
        by_tag = models.BulkFilter(field="deployment_tags", values=["red"], filter_type="any")
        result = await it.client.bulk_stop([by_tag])
        assert {each.request_id for each in result.processable} == set(red)
        for deployment_id in red:
            await it.client.wait_until_terminated(deployment_id, SECONDS)
        assert [item.request_id for item in await it.client.list_deployments().first()] == [blue]
        by_id = models.BulkFilter(field="request_id", values=[blue], filter_type="any")
        assert [each.request_id for each in (await it.client.bulk_stop([by_id])).processable] == [blue]


async def test_a_deployment_reads_its_context_and_its_tags_from_inside() -> None:
    """With exactly what was injected; the backend sees the same tags."""
    async with both() as it:
        await it.version(source=SAYS_ITS_ENVIRONMENT)
        status = await it.running(tags=["one"])
        environment = await it.injected(status.request_id)
        url, token = environment["ARBITRIUM_CONTEXT_URL"], SecretStr(environment["ARBITRIUM_CONTEXT_TOKEN"])
        async with EdgegapClient(None) as inside:
            context = await inside.get_context(url, token)
            assert (context.request_id, context.state, context.ready) == (status.request_id, State.READY, True)
            assert context.tags == ["one"]
            await inside.create_context_tag(url, token, "two")
            await inside.delete_context_tag(url, token, "one")
            with pytest.raises((errors.UnauthorisedError, errors.ForbiddenError)):
                await inside.get_context(url, SecretStr("0" * 32))
        through_context = DeploymentTags(context_url=url, context_token=token)
        through_organisation = DeploymentTags(
            deployment_id=status.request_id,
            organisation_token=SecretStr(f"token {it.emulator.token}"),
            base_url=it.emulator.url,
        )
        for own in (through_context, through_organisation):
            assert await own.list() == ["two"]
            await own.add("three")
            await own.add("three")
            await own.rename("three", "four")
            await own.remove("four")
            await own.remove("four")


async def test_a_deployment_stops_itself_through_a_bad_day() -> None:
    """A reset, 503, 429 with Retry-After, an answer that is lost after it was carried out: then 410 confirms it."""
    attempts: list[Attempt] = []
    async with both() as it:
        await it.version(source=SAYS_ITS_ENVIRONMENT)
        deployment_id = (await it.running()).request_id
        environment = await it.injected(deployment_id)
        token = SecretStr(environment["ARBITRIUM_DELETE_TOKEN"])
        call = SelfStop(environment["ARBITRIUM_DELETE_URL"], token, "false")
        for fault in (
            {"reset": True, "count": 1},
            {"status": 503, "count": 1},
            {"status": 429, "retry_after": 1, "count": 1},
        ):
            await it.fault(route="selfStop", **fault)
            attempted = asyncio.Event()

            def note(attempt: Attempt, attempted: asyncio.Event = attempted) -> None:
                attempts.append(attempt)
                attempted.set()

            task = asyncio.create_task(call.run(note))
            await attempted.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert [attempt.result for attempt in attempts] == [
            Result.CONNECTION_ERROR,
            Result.UNAVAILABLE,
            Result.RATE_LIMITED,
        ]
        assert attempts[-1].retry_in is not None
        assert attempts[-1].retry_in >= 1.0
        await it.fault(route="selfStop", reset=True, when="after", count=1)
        outcome = await call.run(attempts.append)
        assert outcome.confirmed
        assert outcome.status in {200, 202, 410}
        assert outcome.attempts == 2
        await it.client.wait_until_terminated(deployment_id, SECONDS)
        assert (await call.run()).status == 410
        wrong = await SelfStop(environment["ARBITRIUM_DELETE_URL"], SecretStr("0" * 32)).run()
        assert wrong.result is Result.REFUSED
        with pytest.raises(errors.GoneError):
            await it.client.self_stop(environment["ARBITRIUM_DELETE_URL"], token, "false")


async def test_logs_go_to_a_storage_and_the_client_is_told_where(tmp_path: Path) -> None:
    """The version's storage receives them at the stop; the secret of a storage is never given back."""
    async with both() as it:
        secret = SecretStr("not-to-be-told")
        made = await it.client.create_storage(
            models.StorageCreate(
                name="logs", access_key_id="k", endpoint=tmp_path.as_uri(), bucket="b", secret_access_key=secret
            )
        )
        listed = await it.client.list_storages().first()
        assert [storage.name for storage in listed] == [made.name] == ["logs"]
        assert "not-to-be-told" not in made.model_dump_json() + "".join(each.model_dump_json() for each in listed)
        await it.version(source="print('last words', flush=True)\n" + SLEEPS, endpoint_storage="logs")
        deployment_id = (await it.running()).request_id
        await poll(lambda: it.client.get_logs(deployment_id), lambda logs: "last words" in (logs.logs or ""))
        await it.client.stop_deployment(deployment_id, log_storage="true")
        await it.client.wait_until_terminated(deployment_id, SECONDS)
        logs = await poll(lambda: it.client.get_logs(deployment_id), lambda logs: logs.logs_link is not None)
        assert "last words" in (logs.logs or "")


async def test_metrics_are_samples_of_the_process_that_runs() -> None:
    """Memory of a real process is more than nothing; a time range and steps are understood."""
    async with both(quick(sample_seconds=0.05)) as it:
        await it.version()
        deployment_id = (await it.running()).request_id
        metrics = await poll(lambda: it.client.get_metrics(deployment_id), lambda seen: len(seen.mem.datasets) >= 2)
        assert len(metrics.mem.datasets) == len(metrics.mem.labels) == len(metrics.mem.timestamps)
        assert all(value is not None and value > 0 for value in metrics.mem.datasets)
        raw = await it.client.get_metrics(deployment_id, raw=True)
        assert len(raw.cpu.datasets) >= 2
        assert await it.client.get_metrics(deployment_id, steps="30s") is not None
        status = await it.client.get_deployment(deployment_id)
        with pytest.raises((errors.BadRequestError, errors.UnprocessableError)):
            await it.client.get_metrics(deployment_id, start_time=status.start_time, end_time=status.start_time)


async def test_the_catalogue_is_written_and_read() -> None:
    """Applications and versions come back as they were made, page by page; a second of the same name is a conflict."""
    async with both() as it:
        for name in ("alpha", "beta", "gamma"):
            await it.client.create_application(models.Application(name=name))
        assert [app.name async for app in it.client.list_applications(page_size=2)] == ["alpha", "beta", "gamma"]
        version = models.Version(
            name="1",
            req_cpu=512,
            req_memory=1024,
            docker_repository="docker.io",
            docker_image="team/game",
            docker_tag="7",
            max_duration=60,
            restart_policy="on_failure",
            termination_grace_period_seconds=30,
            private_username="robot",
            private_token=SecretStr("not-to-be-told"),
            ports=[models.VersionPort(port=7777, protocol="UDP", name="gameport")],
            envs=[models.Variable(key="A", value="1")],
        )
        created = await it.client.create_version("alpha", version)
        (listed,) = await it.client.list_versions("alpha").first()
        for seen in (created.version, listed):
            assert (seen.name, seen.req_cpu, seen.docker_image, seen.docker_tag) == ("1", 512, "team/game", "7")
            assert (seen.max_duration, seen.restart_policy) == (60, "on_failure")
            assert seen.termination_grace_period_seconds == 30
            assert seen.ports is not None
            assert seen.ports[0].name == "gameport"
            assert "not-to-be-told" not in json.dumps(seen.to_wire())
        with pytest.raises(errors.ConflictError):
            await it.client.create_application(models.Application(name="alpha"))
        with pytest.raises(errors.ConflictError):
            await it.client.create_version("alpha", version)
        with pytest.raises(errors.NotFoundError):
            await it.client.list_versions("nobody").first()


async def test_a_fleet_is_listed_and_deployed_to(tmp_path: Path) -> None:
    """What is allocated shows on the host; where nothing fits, the error names the deployment that failed."""
    fleets = tmp_path / "fleets.toml"
    fleets.write_text(
        "[cloud]\ncpu_units = 0\nmemory_mb = 0\n[fleets.mine]\noverflow = false\n"
        '[[fleets.mine.hosts]]\nhost_id = "small"\ncity = "Paris"\ncpu_units = 300\nmemory_mb = 300\n'
    )
    async with both(quick(fleets_file=str(fleets))) as it:
        await it.version()
        request = models.FleetDeploymentCreate(
            application="game", version="1", users=[PARIS], private_host_ids=["small"]
        )
        accepted = await it.client.deploy_to_fleet(request)
        await it.client.wait_until_ready(accepted.request_id, SECONDS)
        (host,) = await it.client.list_fleet_hosts("mine").first()
        assert (host.host_id, host.allocated_cpu_units, host.allocatable_cpu_units) == ("small", 256, 44)
        assert host.fleet_host_specifications is not None
        assert host.fleet_host_specifications.cpu_units == 300
        with pytest.raises(errors.UnprocessableError) as full:
            await it.client.deploy_to_fleet(request)
        assert full.value.deployment_id is not None
        failed = await it.client.get_deployment(full.value.deployment_id)
        assert (failed.state, failed.error) == (State.ERROR, True)
        with pytest.raises(errors.BadRequestError):
            await it.client.list_fleet_hosts("nobody").first()


async def test_what_does_not_exist_and_who_may_not_ask_are_typed_errors() -> None:
    """401 and 404 (400 as the live API has it), with the platform's own words and advice."""
    async with both() as it:
        for call in (
            it.client.get_deployment("0123456789ab"),
            it.client.stop_deployment("0123456789ab"),
            it.client.get_logs("0123456789ab"),
            it.client.get_metrics("0123456789ab"),
            it.client.create_tag("0123456789ab", "a"),
        ):
            with pytest.raises(errors.NotFoundError):
                await call
        async with EdgegapClient("wrong", it.emulator.url) as stranger:
            with pytest.raises(errors.UnauthorisedError, match="EDGEGAP_API_TOKEN"):
                await stranger.list_deployments().first()
    async with both(quick(unknown_id_status=400)) as it:
        with pytest.raises(errors.BadRequestError, match="does not know"):
            await it.client.get_deployment("0123456789ab")
        assert await it.client.wait_until_terminated("0123456789ab", SECONDS) is None


async def test_a_platform_on_a_bad_day_is_asked_again_where_that_does_no_harm() -> None:
    """A status call gets through a reset, a 500 and a 429; a deploy is sent once, and its 503 is told."""
    async with both() as it:
        await it.version()
        status = await it.running()
        for fault in ({"reset": True}, {"status": 500}, {"status": 429, "retry_after": 0}):
            await it.fault(route="getDeployment", count=1, **fault)
            assert (await it.client.get_deployment(status.request_id)).state is State.READY
        before = it.asked("deploy")
        await it.fault(route="deploy", status=503, count=1)
        with pytest.raises(errors.UnavailableError):
            await it.client.deploy(models.DeploymentCreate(application="game", version="1", users=[PARIS]))
        assert it.asked("deploy") == before + 1


async def test_the_limiter_keeps_below_the_limits_of_the_platform() -> None:
    """Thirty lists at once, ten a second allowed: none of them meets 429."""
    limited = quick(rate_limits=EmulatorSettings().rate_limits)
    async with both(limited) as it:
        await asyncio.gather(*(it.client.list_deployments().first() for _ in range(30)))
        statuses = {record["status"] for record in it.emulator.records.all("listDeployments")}
    assert statuses == {200}


async def _command(it: Both, *words: str, **environment: str) -> tuple[int, str, str]:
    """Run `arbitrium-agent platform ...` as a user would; gives exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent",
        "platform",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "EDGEGAP_API_TOKEN": f"token {it.emulator.token}",
            "EDGEGAP_BASE_URL": it.emulator.url,
            **environment,
        },
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.slow
async def test_the_commands_write_a_catalogue_and_print_logs_as_they_are(tmp_path: Path) -> None:
    """From an empty platform to a game's output on stdout; secrets come from the environment or a file."""
    game = python("print('hello', flush=True)\n" + SLEEPS)
    key = tmp_path / "key"
    key.write_text("not-to-be-told\n")
    async with both() as it:
        assert (await _command(it, "apps", "create", "game"))[:2] == (0, "application game was created\n")
        where = ["--endpoint", tmp_path.as_uri(), "--bucket", "b", "--access-key-id", "k"]
        assert (await _command(it, "storages", "create", "logs", *where, EDGEGAP_STORAGE_SECRET=""))[0] == 2
        code, out, err = await _command(it, "storages", "create", "logs", *where, "--secret-file", str(key), "--json")
        assert code == 0, err
        assert "not-to-be-told" not in out
        version = ["versions", "create", "game", "1", "--image", "team/game:1", "--cpu", "256", "--memory", "256"]
        more = [f"--command={game['command']}", f"--arguments={game['arguments']}", "--grace", "7", "--env", "A=1"]
        code, out, err = await _command(it, *version, *more, "--port", "gameport:7777/UDP", "--storage", "logs")
        assert (code, out, err) == (0, "version 1 of application game was created\n", "")
        (made,) = await it.client.list_versions("game").first()
        assert (made.termination_grace_period_seconds, made.endpoint_storage) == (7, "logs")
        assert (made.docker_repository, made.docker_image, made.docker_tag) == ("docker.io", "team/game", "1")
        deployment_id = (await it.running()).request_id
        await poll(lambda: it.client.get_logs(deployment_id), lambda logs: "up" in (logs.logs or ""))
        assert (await _command(it, "logs", deployment_id))[:2] == (0, "hello\nup\n")
        code, out, err = await _command(it, "stop", deployment_id, "--wait", "--json")
        assert code == 0, err
        assert json.loads(out)["deployment_summary"]["current_status"] == "Status.TERMINATED"
        again = await _command(it, "stop", deployment_id)
        assert again == (0, f"deployment {deployment_id} is terminated already\n", "")


@pytest.mark.slow
async def test_the_commands_say_what_went_wrong_to_programs_too() -> None:
    """With --json the error is JSON, and stdout stays empty; a wrong base URL is 78, a wrong filter is 2."""
    async with both() as it:
        code, out, err = await _command(it, "status", "0123456789ab", "--json")
        assert (code, out) == (1, "")
        assert (json.loads(err)["status"], json.loads(err)["kind"]) == (404, "NotFound")
        assert (await _command(it, "list", EDGEGAP_BASE_URL="nowhere"))[0] == 78
        assert (await _command(it, "list", "--filter", "colour=red"))[0] == 2
        assert (await _command(it, "deploy", "game", "1"))[0] == 2

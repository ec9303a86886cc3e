"""What a deployment may do with the tokens that were injected into it."""

from __future__ import annotations

import asyncio
import json

import pytest

from agent.emulator.deployment import Deployment
from tests.contract.backend import backend, python


def stop_path(deployment: Deployment) -> str:
    """The path of `ARBITRIUM_DELETE_URL`."""
    return f"/v1/self/stop/{deployment.id}/{deployment.stop_key}"


def context_path(deployment: Deployment) -> str:
    """The path of `ARBITRIUM_CONTEXT_URL`."""
    return f"/v1/context/{deployment.id}/{deployment.security_number}"


STOPS_ITSELF = """
import os, time, urllib.request
request = urllib.request.Request(
    os.environ["ARBITRIUM_DELETE_URL"],
    method="DELETE",
    headers={"authorization": os.environ["ARBITRIUM_DELETE_TOKEN"]},
)
with urllib.request.urlopen(request) as response:
    print(response.status, flush=True)
time.sleep(600)
"""


async def test_a_game_stops_itself_with_what_it_was_given() -> None:
    """The injected URL and token are all that it takes."""
    async with backend() as caller:
        deployment_id = await caller.deploy(await caller.version(**python(STOPS_ITSELF)))
        await caller.until(deployment_id, "TERMINATED")
        request = caller.inner(deployment_id).stop_request
        assert request is not None
        assert request.by == "self"


async def test_wrong_keys_and_tokens_do_not_stop_anything() -> None:
    """401 for what nobody was given, 403 for what somebody else was, and the deployment runs on."""
    async with backend() as caller:
        mine, other = [caller.inner(await caller.running()) for _ in range(2)]
        right = mine.delete_token
        cases: list[tuple[str, str | None, int]] = [
            (stop_path(mine), None, 401),
            (stop_path(mine), "0" * 32, 401),
            (stop_path(mine), f"token {right}", 401),
            (stop_path(mine), mine.context_token, 401),
            (stop_path(mine), f"token {caller.emulator.token}", 401),
            (stop_path(mine), other.delete_token, 403),
            (f"/v1/self/stop/{mine.id}/1", right, 403),
            (f"/v1/self/stop/{other.id}/{other.stop_key}", right, 403),
            ("/v1/self/stop/0123456789ab/660", right, 404),
        ]
        for path, authorization, status in cases:
            answer = await caller.call("DELETE", path, authorization=authorization)
            assert answer.status == status, (path, status, answer)
            assert right not in json.dumps(answer.body)
        assert (await caller.status(mine.id))["current_status"] == "Status.READY"
        assert mine.stop_request is None


async def test_a_self_stop_is_confirmed_until_it_has_happened() -> None:
    """202 as often as it is asked, 410 once it is over; the token still is not told."""
    async with backend() as caller:
        deployment = caller.inner(await caller.running())
        calls = (caller.call("DELETE", stop_path(deployment), authorization=deployment.delete_token) for _ in range(10))
        answers = await asyncio.gather(*calls)
        assert {answer.status for answer in answers} <= {202, 410}
        assert answers[0].status == 202
        await caller.until(deployment.id, "TERMINATED")
        last = await caller.call("DELETE", stop_path(deployment), authorization=deployment.delete_token)
        assert (last.status, last.body["message"].startswith("cannot stop")) == (410, True)
        recorded = (await caller.call("GET", "/emulator/requests", params={"operation": "selfStop"})).body["requests"]
        assert len(recorded) == 11
        assert {each["authorization"] for each in recorded} == {"bare"}
        assert deployment.delete_token not in json.dumps(recorded)


async def test_a_named_log_storage_must_exist() -> None:
    """400 for one nobody registered, and nothing is stopped."""
    async with backend() as caller:
        deployment = caller.inner(await caller.running())
        params = {"container_log_storage": "nowhere"}
        answer = await caller.call(
            "DELETE", stop_path(deployment), params=params, authorization=deployment.delete_token
        )
        assert (answer.status, "nowhere" in answer.body["message"]) == (400, True)
        assert (await caller.call("DELETE", f"/v1/stop/{deployment.id}", params=params)).status == 400
        assert deployment.stop_request is None


async def test_the_context_tells_a_game_what_it_is() -> None:
    """Its id, ports, place, tags and state, for its own token only."""
    async with backend() as caller:
        ports = [{"port": 0, "protocol": "UDP", "name": "gameport"}]
        version = await caller.version(ports=ports)
        deployment = caller.inner(await caller.deploy(version, tags=["a"]))
        status = await caller.until(deployment.id, "READY")
        context = await caller.call("GET", context_path(deployment), authorization=deployment.context_token)
        assert context.status == 200
        for name in ("request_id", "public_ip", "fqdn", "ports", "location", "tags"):
            assert context.body[name] == status[name]
        assert (context.body["status"], context.body["ready"]) == ("Status.READY", True)


@pytest.mark.parametrize("kind", ["missing", "wrong", "organisation", "delete token", "number", "other's"])
async def test_a_wrong_token_shows_no_context(kind: str) -> None:
    """401, whatever is wrong about it."""
    async with backend() as caller:
        mine, other = [caller.inner(await caller.deploy(await caller.version())) for _ in range(2)]
        authorization = {
            "missing": None,
            "wrong": "0" * 32,
            "organisation": caller.emulator.authorization["Authorization"],
            "delete token": mine.delete_token,
            "number": mine.context_token,
            "other's": other.context_token,
        }[kind]
        path = f"/v1/context/{mine.id}/1" if kind == "number" else context_path(mine)
        assert (await caller.call("GET", path, authorization=authorization)).status == 401
        tagged = await caller.call("POST", f"{path}/tags", {"name": "x"}, authorization=authorization)
        assert tagged.status == 401
        assert mine.tags == {}


async def test_a_game_tags_itself() -> None:
    """From inside it makes and deletes tags that a backend sees."""
    async with backend() as caller:
        deployment = caller.inner(await caller.running())
        path, token = f"{context_path(deployment)}/tags", deployment.context_token

        async def own(method: str, path: str, body: object = None) -> int:
            return (await caller.call(method, path, body, authorization=token)).status

        assert await own("POST", path, {"name": "full"}) == 200
        assert await own("POST", path, {"name": "full"}) == 409
        assert (await caller.status(deployment.id))["tags"] == ["full"]
        assert await own("DELETE", f"{path}/full") == 204
        assert await own("DELETE", f"{path}/full") == 404
        assert (await caller.status(deployment.id))["tags"] == []


async def test_a_game_still_reaches_the_platform_while_the_emulator_closes() -> None:
    """SIGTERM comes first; what a game then says to the platform is still heard."""
    source = """
import os, signal, sys, time, urllib.request
def leave(*_):
    request = urllib.request.Request(
        os.environ["ARBITRIUM_CONTEXT_URL"], headers={"authorization": os.environ["ARBITRIUM_CONTEXT_TOKEN"]}
    )
    with urllib.request.urlopen(request) as response:
        sys.exit(0 if response.status == 200 else 1)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
time.sleep(600)
"""
    async with backend() as caller:
        deployment_id = await caller.running(**python(source))
        await caller.until_logged(deployment_id, "up")
        records, container = caller.emulator.records, caller.inner(deployment_id).container
    assert [each["status"] for each in records.all("getContext")] == [200]
    assert container is not None
    assert container.exit_code == 0


async def test_every_deployment_has_tokens_of_its_own() -> None:
    """No id, key, number or token is given out twice."""
    async with backend() as caller:
        version = await caller.version()
        deployments = [caller.inner(await caller.deploy(version)) for _ in range(10)]
        for secrets in zip(*((each.id, each.delete_token, each.context_token) for each in deployments), strict=True):
            assert len(set(secrets)) == 10

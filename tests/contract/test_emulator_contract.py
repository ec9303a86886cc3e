"""Every operation of the OpenAPI document is served, and refuses what it should refuse in the document's words.

Each answer here, expected or not, is validated against the document by `Backend.call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
import sys
import uuid
from typing import Any

import aiohttp
import pytest

from agent.emulator.errors import ApiError
from agent.emulator.server import OPERATIONS
from agent.emulator.settings import RATE_LIMITS
from agent.emulator.web import RateLimits
from tests.contract.backend import CONTRACT, PLAYER, Backend, backend, quick

VERSION = {
    "name": "1",
    "req_cpu": 512,
    "req_memory": 1024,
    "docker_repository": "registry.example.com",
    "docker_image": "team/game",
    "docker_tag": "1",
}
STORAGE = {
    "name": "logs",
    "access_key_id": "AKID",
    "secret_access_key": "not-to-be-told",
    "endpoint": "https://s3.example.com",
    "bucket": "bucket",
}


def test_every_operation_of_the_document_is_served_and_no_other() -> None:
    """The table of operations is the document's, method by method."""
    served = {(each.method, each.path, each.id) for each in OPERATIONS}
    assert served == set(CONTRACT.operations())
    assert {each.id for each in OPERATIONS if each.inside} == {
        each.id for each in OPERATIONS if CONTRACT.is_inside(each.id)
    }


LISTS_OWN_MODULES = "import sys; import {}; print(*sorted(m for m in sys.modules if m.startswith('agent')))"


@pytest.mark.parametrize(("module", "never"), [("agent.emulator.server", "edgegap"), ("agent.runtime.app", "emulator")])
def test_the_emulator_stands_by_itself(module: str, never: str) -> None:
    """It shares nothing with the client, so that each checks the other, and the agent never carries it along."""
    command = [sys.executable, "-c", LISTS_OWN_MODULES.format(module)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert module in loaded
    assert [name for name in loaded if name.startswith(f"agent.{never}")] == []


@pytest.mark.parametrize("authorization", [None, "token wrong", "Bearer {token}", "{token}"])
async def test_an_organisation_call_without_the_organisation_token_is_401(authorization: str | None) -> None:
    """A missing token, a wrong one, and the right one without its prefix are all refused, everywhere."""
    async with backend() as caller:
        given = authorization.format(token=caller.emulator.token) if authorization else None
        for operation in OPERATIONS:
            if not operation.inside:
                path = operation.path.replace("{", "").replace("}", "")
                answer = await caller.call(operation.method, path, {}, authorization=given)
                assert answer.status == 401, operation
                assert caller.emulator.token not in answer.body["message"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_deployment_token_is_not_an_organisation_token(method: str) -> None:
    """What is injected into a game opens no other door."""
    async with backend() as caller:
        deployment = caller.inner(await caller.deploy(await caller.version()))
        path = {"GET": f"/v1/status/{deployment.id}", "DELETE": f"/v1/stop/{deployment.id}"}[method]
        for token in (deployment.delete_token, f"token {deployment.delete_token}", deployment.context_token):
            assert (await caller.call(method, path, authorization=token)).status == 401


async def test_an_unknown_route_or_method_is_answered_with_an_error_document() -> None:
    """404 and 405 come as the contract's `Error`, and 405 says what is allowed."""
    async with backend() as caller:
        assert (await caller.call("GET", "/v3/nothing")).body["message"].startswith("cannot find /v3/nothing")
        answer = await caller.call("PUT", "/v1/apps")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        assert answer.body["message"] == "cannot PUT /v1/apps; it takes GET"


@pytest.mark.parametrize(("setting", "status"), [(404, 404), (400, 400)])
async def test_an_unknown_deployment_is_404_or_what_the_live_api_says(setting: Any, status: int) -> None:
    """All calls about one deployment answer alike, and 400 where that is asked for."""
    async with backend(quick(unknown_id_status=setting)) as caller:
        for method, path in (
            ("GET", "/v1/status/0123456789ab"),
            ("DELETE", "/v1/stop/0123456789ab"),
            ("GET", "/v1/deployment/0123456789ab/container-logs"),
            ("GET", "/v1/metrics/deployment/0123456789ab"),
            ("GET", "/v1/deployments/0123456789ab/tags"),
            ("DELETE", "/v1/self/stop/0123456789ab/660"),
            ("GET", "/v1/context/0123456789ab/660"),
        ):
            assert (await caller.call(method, path)).status == status, path


async def test_applications_are_created_once_and_listed_in_pages() -> None:
    """A second of one name is a conflict; pages know their neighbours."""
    async with backend() as caller:
        bodies = [{"name": f"app{number}", "is_active": True, "image": "aGVsbG8="} for number in range(5)]
        for body in bodies:
            created = await caller.call("POST", "/v1/app", body)
            assert created.body.items() >= body.items()
        assert (await caller.call("POST", "/v1/app", bodies[0])).status == 409
        page = await caller.get("/v1/apps", page="2", limit="2")
        assert [each["name"] for each in page["applications"]] == ["app2", "app3"]
        assert page["total_count"] == 5
        assert page["pagination"] == {
            "number": 2,
            "next_page_number": 3,
            "previous_page_number": 1,
            "paginator": {"num_pages": 3},
            "has_next": True,
            "has_previous": True,
        }
        beyond = await caller.get("/v1/apps", page="9", limit="2")
        assert (beyond["applications"], beyond["pagination"]["previous_page_number"]) == ([], 3)


async def test_a_version_comes_back_with_its_defaults_and_without_its_secrets() -> None:
    """Hidden variables and the registry's token are kept, used, and never returned."""
    async with backend() as caller:
        await caller.call("POST", "/v1/app", {"name": "game", "is_active": True, "image": ""})
        envs = [
            {"key": "SHOWN", "value": "yes"},
            {"key": "HIDDEN", "value": "not-to-be-told", "is_hidden": True},
        ]
        body = {**VERSION, "envs": envs, "private_username": "robot", "private_token": "not-to-be-told"}
        created = await caller.call("POST", "/v1/app/game/version", body)
        assert created.body["success"] is True
        listed = await caller.get("/v1/app/game/versions")
        assert listed["versions"] == [created.body["version"]]
        version = listed["versions"][0]
        assert version["envs"] == [{"key": "SHOWN", "value": "yes"}]
        assert (version["restart_policy"], version["max_duration"], version["termination_grace_period_seconds"]) == (
            "always",
            1440,
            5,
        )
        assert "not-to-be-told" not in json.dumps([created.body, listed])
        assert (await caller.call("POST", "/v1/app/game/version", body)).status == 409
        assert (await caller.call("POST", "/v1/app/none/version", body)).status == 404


async def test_a_storage_never_tells_its_secret_key() -> None:
    """Neither the answer, nor the list, nor the record of requests has it."""
    async with backend() as caller:
        created = await caller.call("POST", "/v1/storage/endpoint", STORAGE)
        listed = await caller.get("/v1/storage/endpoints")
        assert listed["endpoints"] == [created.body]
        assert (await caller.call("POST", "/v1/storage/endpoint", STORAGE)).status == 400
        recorded = (await caller.call("GET", "/emulator/requests")).body
        assert "not-to-be-told" not in json.dumps([created.body, listed, recorded])


BAD_VERSIONS: list[tuple[dict[str, Any], str]] = [
    ({"req_cpu": 99}, "req_cpu"),
    ({"req_cpu": "512"}, "req_cpu"),
    ({"req_memory": 1025}, "req_memory"),
    ({"restart_policy": "sometimes"}, "restart_policy"),
    ({"termination_grace_period_seconds": 4}, "termination_grace_period_seconds"),
    ({"max_duration": 1441}, "max_duration"),
    ({"ports": [{"port": 7777, "protocol": "SCTP"}]}, "ports[0].protocol"),
    ({"ports": [{"port": 65536, "protocol": "UDP"}]}, "ports[0].port"),
    ({"ports": [{"port": 1, "protocol": "UDP"}, {"port": 1, "protocol": "TCP"}]}, "ports"),
    ({"envs": [{"key": "", "value": "x"}]}, "envs[0].key"),
    ({"envs": [{"key": "A", "value": "x" * 4097}]}, "envs[0].value"),
    ({"docker_image": None}, "docker_image"),
    ({"name": ".."}, "name"),
]


@pytest.mark.parametrize(("wrong", "member"), BAD_VERSIONS)
async def test_a_bad_version_is_refused_by_the_name_of_its_member(wrong: dict[str, Any], member: str) -> None:
    """400, and the message begins with what is wrong and where."""
    async with backend() as caller:
        await caller.call("POST", "/v1/app", {"name": "game", "is_active": True, "image": ""})
        answer = await caller.call("POST", "/v1/app/game/version", {**VERSION, **wrong})
        assert answer.status == 400
        assert answer.body["message"].startswith("cannot accept the body: ")
        assert member in answer.body["message"]
        assert (await caller.get("/v1/app/game/versions"))["versions"] == []


BAD_DEPLOYMENTS: list[tuple[dict[str, Any], str]] = [
    ({"application": "none"}, "there is no application none"),
    ({"version": "none"}, "has no version none"),
    ({"users": []}, "users"),
    ({"users": [{"user_type": "ip_address", "user_data": {"latitude": 1, "longitude": 1}}]}, "ip_address is missing"),
    ({"users": [{"user_type": "ip_address", "user_data": {"ip_address": "nowhere"}}]}, "not an IP address"),
    ({"users": [{"user_type": "geo_coordinates", "user_data": {"latitude": 91, "longitude": 0}}]}, "not on Earth"),
    ({"environment_variables": [{"key": "A", "value": "x"}]}, "environment_variables[0].is_hidden"),
    ({"environment_variables": [{"key": "A", "value": "\0", "is_hidden": False}]}, "NUL"),
    ({"tags": ["x" * 41]}, "tags[0]"),
    ({"tags": None}, "tags"),
    ({"webhook_on_ready": {"url": "ftp://example.com"}}, "webhook_on_ready.url"),
]


@pytest.mark.parametrize(("wrong", "why"), BAD_DEPLOYMENTS)
async def test_a_bad_deployment_is_refused_and_makes_nothing(wrong: dict[str, Any], why: str) -> None:
    """400 with the reason, and no deployment is left of it."""
    async with backend() as caller:
        body = {"application": "game", "version": await caller.version(), "users": [PLAYER], **wrong}
        answer = await caller.call("POST", "/v2/deployments", body)
        assert answer.status == 400
        assert why in answer.body["message"]
        assert (await caller.get("/v1/deployments"))["total_count"] == 0


@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (b"{", "application/json", "cannot accept the body"),
        (b"[]", "application/json", "cannot accept the body"),
        (b'{"name": NaN}', "application/json", "cannot accept the body"),
        (b"\xff", "application/json", "cannot accept the body"),
        (b"[" * 5000, "application/json", "cannot accept the body"),
        (b'{"more": ' * 2000 + b"1" + b"}" * 2000, "application/json", "cannot accept the body"),
        (b"", "application/json", "cannot accept the body"),
        (b"{}", "text/plain", "cannot read a body of type text/plain"),
        (b"{}" + b" " * 9_000_000, "application/json", "cannot read more than"),
    ],
)
async def test_what_is_no_json_object_is_refused(data: bytes, kind: str, why: str) -> None:
    """Half a document, none, one nested too deeply, one of another type, and one too large."""
    async with backend() as caller, aiohttp.ClientSession() as session:
        headers = {**caller.emulator.authorization, "Content-Type": kind}
        async with session.post(f"{caller.emulator.url}/v1/app", data=io.BytesIO(data), headers=headers) as response:
            body = await response.json()
        CONTRACT.check("POST", "/v1/app", response.status, body)
        assert response.status == 400
        assert body["message"].startswith(why)


@pytest.mark.parametrize("params", [{"page": "0"}, {"limit": "-1"}, {"page": "x"}, {"limit": "1.5"}, {"page": ""}])
async def test_a_bad_page_is_refused(params: dict[str, str]) -> None:
    """Pages and limits are whole numbers from 1 on."""
    async with backend() as caller:
        assert (await caller.call("GET", "/v1/apps", params=params)).status == 400


async def test_a_limit_is_answered_429_with_how_long_to_wait() -> None:
    """Of twenty lists at once few pass a limit of one a second; another operation has a bucket of its own."""
    async with backend(quick(rate_limits={"listDeployments": 1, "getDeployment": 20})) as caller:
        answers = await asyncio.gather(*(caller.call("GET", "/v1/deployments") for _ in range(20)))
        limited = [answer for answer in answers if answer.status == 429]
        assert 0 < len(limited) < 20
        assert {answer.headers["Retry-After"] for answer in limited} == {"1"}
        assert (await caller.call("GET", "/v1/status/0123456789ab")).status == 404


def test_a_bucket_holds_a_second_and_fills_at_its_rate() -> None:
    """Forty deployments at once and no more; a quarter of a second later ten more."""
    moment = 1000.0
    limits = RateLimits(RATE_LIMITS, lambda: moment)

    def passed() -> int:
        count = 0
        with contextlib.suppress(ApiError):
            while True:
                limits.take("deploy")
                count += 1
        return count

    assert passed() == 40
    moment += 0.25
    assert passed() == 10
    moment += 3600
    assert passed() == 40


async def test_a_wrong_token_does_not_use_up_the_limit() -> None:
    """Whoever is not the organisation cannot keep it from calling."""
    async with backend(quick(rate_limits={"listDeployments": 1})) as caller:
        for _ in range(5):
            wrong = await caller.call("GET", "/v1/deployments", authorization=f"token {uuid.uuid4()}")
            assert wrong.status == 401
        assert (await caller.call("GET", "/v1/deployments")).status == 200


async def test_tags_are_made_renamed_and_deleted() -> None:
    """The five calls, with a conflict and a missing one for each that can have them."""
    async with backend() as caller:
        deployment_id = await caller.deploy(await caller.version(), tags=["red", "red", "blue"])
        path = f"/v1/deployments/{deployment_id}/tags"
        assert [tag["name"] for tag in (await caller.get(path))["tags"]] == ["red", "blue"]
        assert (await caller.call("POST", path, {"name": "green"})).status == 200
        assert (await caller.call("POST", path, {"name": "green"})).status == 409
        assert (await caller.call("PATCH", f"{path}/red", {"name": "blue"})).status == 409
        renamed = await caller.call("PATCH", f"{path}/red", {"name": "crimson"})
        assert renamed.body["last_updated"] > renamed.body["create_time"]
        assert (await caller.get(f"{path}/crimson"))["name"] == "crimson"
        assert (await caller.call("GET", f"{path}/red")).status == 404
        assert (await caller.call("DELETE", f"{path}/blue")).status == 204
        assert (await caller.call("DELETE", f"{path}/blue")).status == 404
        assert (await caller.call("POST", path, {"name": ""})).status == 400
        assert (await caller.status(deployment_id))["tags"] == ["crimson", "green"]
        odd = "50% / ü?"
        assert (await caller.call("POST", path, {"name": odd})).status == 200
        assert odd in [tag["name"] for tag in (await caller.get(path))["tags"]]


async def test_a_list_is_filtered_ordered_and_paged() -> None:
    """Every field and operator of the document's description."""
    async with backend() as caller:
        version, other = await caller.version(), await caller.version("other")
        ids = [await caller.deploy(version, tags=["a"]), await caller.deploy(version, tags=["a", "b"])]
        ids.append(await caller.deploy(other, "other"))
        for deployment_id in ids:
            await caller.until(deployment_id, "READY")
        host = caller.inner(ids[0]).host
        created = caller.inner(ids[1]).created.isoformat()
        assert host is not None

        async def listed(*filters: Any, **more: Any) -> set[int]:
            conditions = [dict(zip(("field", "operator", "value"), each, strict=True)) for each in filters]
            query = json.dumps({"filters": conditions, **more})
            body = await caller.get("/v1/deployments", query=query)
            return {ids.index(each["request_id"]) for each in body["data"]}

        assert await listed() == {0, 1, 2}
        assert await listed(("status", "eq", "ready")) == {0, 1, 2}
        assert await listed(("status", "eq", "Status.READY"), ("application", "eq", "game")) == {0, 1}
        assert await listed(("status", "neq", "READY")) == set()
        assert await listed(("application", "neq", "game")) == {2}
        assert await listed(("version", "in", [version, "x"]), ("application", "nin", ["other"])) == {0, 1}
        assert await listed(("tags", "eq", "b")) == {1}
        assert await listed(("tags", "nin", ["b"])) == {0, 2}
        assert await listed(("request_id", "in", ids[:1])) == {0}
        assert await listed(("created_at", "gte", created)) == {1, 2}
        assert await listed(("created_at", "lte", created)) == {0, 1}
        assert await listed(("created_at", "eq", created)) == {1}
        assert await listed(("host_name", "eq", host.host_id)) == {0}
        assert await listed(("host_name", "ilike", "%PARIS%")) == {0, 1, 2}
        assert await listed(("fleet_name", "ilike", "%")) == set()
        query = json.dumps({"order_by": [{"field": "created_at", "order": "asc"}]})
        page = await caller.get("/v1/deployments", query=query, limit="2")
        assert [each["request_id"] for each in page["data"]] == ids[:2]
        newest = await caller.get("/v1/deployments", limit="1")
        assert [each["request_id"] for each in newest["data"]] == ids[2:]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("{", "not JSON"),
        ("[]", "dict"),
        ('{"filters": [{"field": "moon", "operator": "eq", "value": "x"}]}', "filters[0].field"),
        ('{"filters": [{"field": "status", "operator": "in", "value": ["x"]}]}', "status takes the operators eq, neq"),
        ('{"filters": [{"field": "tags", "operator": "ilike", "value": "x"}]}', "tags takes the operators"),
        ('{"filters": [{"field": "tags", "operator": "in", "value": "x"}]}', "takes an array"),
        ('{"filters": [{"field": "tags", "operator": "eq", "value": ["x"]}]}', "takes a text"),
        ('{"filters": [{"field": "created_at", "operator": "gte", "value": "soon"}]}', "a time looks like"),
        (json.dumps({"filters": [{"field": "tags", "operator": "eq", "value": "x"}] * 2}), "at most one"),
        ('{"order_by": [{"field": "name", "order": "asc"}]}', "order_by[0].field"),
    ],
)
async def test_a_bad_query_is_refused_with_the_reason(query: str, why: str) -> None:
    """400, and the message says which part and why."""
    async with backend() as caller:
        answer = await caller.call("GET", "/v1/deployments", params={"query": query})
        assert answer.status == 400
        assert why in answer.body["message"]


async def test_a_bulk_stop_stops_what_matches_every_filter() -> None:
    """`any`, `all` and `not` over ids and tags, joined by and."""
    async with backend() as caller:
        version = await caller.version()
        tags = [["a"], ["a", "b"], ["b", "c"], []]
        ids = [await caller.deploy(version, tags=each) for each in tags]

        async def stopped(*filters: tuple[str, str, list[str]]) -> set[int]:
            body = {"filters": [{"field": f, "filter_type": t, "values": v} for f, t, v in filters]}
            answer = await caller.call("POST", "/v1/deployments/bulk-stop", body)
            assert answer.status == 202
            return {ids.index(each["request_id"]) for each in answer.body["processable"]}

        assert await stopped(("deployment_tags", "all", ["a", "b"])) == {1}
        await caller.until(ids[1], "TERMINATED")
        assert await stopped(("deployment_tags", "any", ["a", "c"]), ("request_id", "not", ids[2:3])) == {0}
        await caller.until(ids[0], "TERMINATED")
        assert await stopped(("request_id", "any", ids)) == {2, 3}
        bad = {"filters": [{"field": "name", "filter_type": "any", "values": []}]}
        assert (await caller.call("POST", "/v1/deployments/bulk-stop", bad)).status == 400


async def test_two_backends_cannot_disturb_each_other() -> None:
    """Two emulators on one machine have ports, tokens and deployments of their own."""
    async with backend() as one, backend() as other:
        assert one.emulator.url != other.emulator.url
        deployment_id = await one.running(ports=[{"port": 0, "protocol": "UDP", "name": "gameport"}])
        assert (await other.call("GET", f"/v1/status/{deployment_id}")).status == 404
        wrong = await Backend(other.emulator, one._session).call(
            "GET", "/v1/deployments", authorization=f"token {one.emulator.token}"
        )
        assert wrong.status == 401

"""The client at the edge: what it sends, what it makes of answers, when it tries again, and what it keeps secret."""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from agent.edgegap import errors, models, pages
from agent.edgegap.client import EdgegapClient
from agent.edgegap.filters import Field, Filter, Operator, Order, OrderField, Query
from agent.edgegap.limits import Limiter
from agent.edgegap.transport import organisation_authorization
from tests.edgegap_fakes import CannedAnswers, FakeSleep, answers, hang, reset, serving

TOKEN = "3d2c41b0-1111-2222-3333-444455556666"
INJECTED = "0123456789abcdef0123456789abcdef"
BASE = "https://api.edgegap.com"
ID = "61b1be8f54d9"
CONTEXT = f"{BASE}/v1/context/{ID}/771"
NO_MORE = {"has_next": False, "has_previous": False, "next_page_number": None, "number": 1}

Do = Callable[[EdgegapClient], Awaitable[object]]


def client(token: SecretStr | str | None = TOKEN, base: str = BASE, **options: Any) -> EdgegapClient:
    """Give a client that waits in no time."""
    options.setdefault("sleep", FakeSleep())
    limits = FakeSleep()
    options.setdefault("limiter", Limiter(limits.monotonic, limits))
    return EdgegapClient(token, base, rng=random.Random(5), wall=lambda: 1_700_000_000.0, **options)


def request() -> models.DeploymentCreate:
    """Give a small deploy request."""
    return models.DeploymentCreate(
        application="game",
        version="1.0",
        users=[models.User.from_ip("203.0.113.7"), models.User.from_coordinates(41.9, -88.0)],
        environment_variables=[models.Variable(key="MODE", value="ranked")],
        tags=["a"],
        webhook_on_ready=models.Webhook(url="https://example.com/ready"),
    )


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (TOKEN, f"token {TOKEN}"),
        (f"token {TOKEN}", f"token {TOKEN}"),
        (f" Token  {TOKEN} \n", f"token {TOKEN}"),
        ("token", "token token"),
    ],
)
def test_the_prefix_is_never_doubled(given: str, sent: str) -> None:
    """The dashboard shows tokens with the prefix, and people copy them so."""
    assert organisation_authorization(given) == sent


async def test_a_deploy_is_sent_as_the_contract_has_it() -> None:
    """Path, header and body on the wire; what was not asked for is not sent."""
    heard: list[tuple[str, str, str, Any]] = []

    async def keep(asked: web.Request) -> web.StreamResponse:
        heard.append((asked.method, asked.path, asked.headers["authorization"], await asked.json()))
        return web.json_response({"request_id": ID}, status=202)

    async with serving(keep) as base, client(base=base) as platform:
        accepted = await platform.deploy(request())
        await platform.deploy_to_fleet(
            models.FleetDeploymentCreate(application="g", version="1", users=[], private_host_ids=["h1", "h2"])
        )
    assert accepted.request_id == ID
    body = {
        "application": "game",
        "version": "1.0",
        "users": [
            {"user_type": "ip_address", "user_data": {"ip_address": "203.0.113.7"}},
            {"user_type": "geo_coordinates", "user_data": {"latitude": 41.9, "longitude": -88.0}},
        ],
        "environment_variables": [{"key": "MODE", "value": "ranked", "is_hidden": False}],
        "tags": ["a"],
        "webhook_on_ready": {"url": "https://example.com/ready"},
    }
    fleet = {"application": "g", "version": "1", "users": [], "private_host_ids": ["h1", "h2"]}
    assert heard == [
        ("POST", "/v2/deployments", f"token {TOKEN}", body),
        ("POST", "/v2/private-fleets/deployments", f"token {TOKEN}", fleet),
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequestError),
        (401, errors.UnauthorisedError),
        (403, errors.ForbiddenError),
        (404, errors.NotFoundError),
        (409, errors.ConflictError),
        (410, errors.GoneError),
        (422, errors.UnprocessableError),
        (429, errors.RateLimitedError),
        (500, errors.UnavailableError),
        (503, errors.UnavailableError),
        (302, errors.UnexpectedAnswerError),
        (418, errors.UnexpectedAnswerError),
    ],
)
async def test_every_status_has_its_own_error_which_says_what_to_do(
    status: int, kind: type[errors.EdgegapError]
) -> None:
    """The class, the status, the platform's own words, and advice at the end."""
    with CannedAnswers() as canned:
        canned.get(f"{BASE}/v1/status/{ID}", status=status, payload={"message": "because of reasons"})
        async with client(retries=0) as platform:
            with pytest.raises(errors.EdgegapError) as caught:
                await platform.get_deployment(ID)
    assert type(caught.value) is kind
    assert caught.value.status == status
    text = str(caught.value)
    assert text.startswith(f"cannot get the status of deployment {ID}: ")
    assert text.endswith(f"({status}); {caught.value.advice}")
    assert ("because of reasons" in text) == (status != 302)


async def test_a_failed_allocation_names_the_deployment_that_exists_in_error() -> None:
    """422 on a deploy comes with an id, which is needed to look at what went wrong."""
    with CannedAnswers() as canned:
        canned.post(f"{BASE}/v2/deployments", status=422, payload={"request_id": ID, "message": "no server"})
        async with client() as platform:
            with pytest.raises(errors.UnprocessableError, match=f"no server .deployment {ID}.") as caught:
                await platform.deploy(request())
    assert caught.value.deployment_id == ID


@pytest.mark.parametrize("broken", [answers(429, {}, {"Retry-After": "0"}), answers(503, {}), reset])
async def test_a_get_and_a_delete_are_tried_again_and_a_post_is_not(broken: Any) -> None:
    """Nobody pays for two deployments because an answer was lost."""
    status = {"request_id": ID, "current_status": "Status.READY"}
    async with serving(broken, broken, answers(200, status)) as base, client(base=base) as platform:
        assert (await platform.get_deployment(ID)).state is models.State.READY
    async with serving(broken, answers(204)) as base, client(base=base) as platform:
        await platform.delete_tag(ID, "a")
    calls = 0

    async def count(asked: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        answer: web.StreamResponse = await broken(asked)
        return answer

    async with serving(count) as base, client(base=base) as platform:
        for once in (
            platform.deploy(request()),
            platform.create_tag(ID, "a"),
            platform.update_tag(ID, "a", "b"),
            platform.create_application(models.Application(name="game")),
            platform.bulk_stop([models.BulkFilter(field="request_id", values=[ID], filter_type="any")]),
        ):
            with pytest.raises((errors.RateLimitedError, errors.UnavailableError)):
                await once
    assert calls == 5


async def test_a_call_that_may_be_repeated_is_given_up_after_its_retries() -> None:
    """Four retries by default, then the last error."""
    sleep = FakeSleep()
    with CannedAnswers() as canned:
        canned.get(f"{BASE}/v1/status/{ID}", status=500, repeat=True)
        async with client(sleep=sleep) as platform:
            with pytest.raises(errors.UnavailableError):
                await platform.get_deployment(ID)
    assert len(sleep.waits) == 4


async def test_retry_after_is_honoured() -> None:
    """The wait is never shorter than the platform asked for."""
    sleep = FakeSleep()
    with CannedAnswers() as canned:
        canned.get(f"{BASE}/v1/status/{ID}", status=429, headers={"Retry-After": "9"})
        canned.get(f"{BASE}/v1/status/{ID}", payload={"request_id": ID})
        async with client(sleep=sleep) as platform:
            await platform.get_deployment(ID)
    (wait,) = sleep.waits
    assert 9.0 <= wait <= 10.0


async def test_a_silent_platform_is_unavailable_after_the_time_of_an_attempt() -> None:
    """No answer is an error with its own words, not a hang."""
    async with serving(hang) as base, client(base=base, attempt_seconds=0.1, retries=1) as platform:
        with pytest.raises(errors.UnavailableError, match=r"no answer within 0\.1 s"):
            await platform.get_deployment(ID)


@pytest.mark.parametrize("body", ["<html>", "[]", '{"current_status": 7}', '"text"', ""])
async def test_an_answer_of_another_form_is_said_to_be_one(body: str) -> None:
    """A proxy's page or a changed API ends in a typed error, without what was in the answer."""
    with CannedAnswers() as canned:
        canned.get(f"{BASE}/v1/status/{ID}", body=body)
        async with client() as platform:
            with pytest.raises(errors.UnexpectedAnswerError):
                await platform.get_deployment(ID)


async def test_the_live_api_may_leave_out_add_and_null_fields() -> None:
    """Only the id is insisted on; what is unknown is kept for programs, what is null is missing."""
    answer = {
        "request_id": ID,
        "fqdn": None,
        "current_status": "READY",
        "start_time": "2026-04-01 14:17:37.711",
        "removal_time": "soon",
        "ports": {"7777": {"internal": 7777, "external": None, "protocol": "UDP", "proxy": 1}},
        "location": {"city": "Chicago"},
        "sessions": [1],
    }
    with CannedAnswers() as canned:
        canned.get(f"{BASE}/v1/status/{ID}", payload=answer)
        canned.get(f"{BASE}/v1/status/{ID}", payload={"request_id": ID})
        async with client() as platform:
            status = await platform.get_deployment(ID)
            least = await platform.get_deployment(ID)
    assert status.state is models.State.READY
    assert status.fqdn == ""
    assert status.start_time == datetime(2026, 4, 1, 14, 17, 37, 711000, tzinfo=UTC)
    assert status.removal_time is None
    assert status.ports["7777"].external is None
    assert status.location is not None
    assert status.location.latitude is None
    assert status.model_dump()["sessions"] == [1]
    assert least.state is models.State.UNKNOWN
    assert least.tags == []


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Status.READY", models.State.READY),
        ("READY", models.State.READY),
        ("ready", models.State.READY),
        (" status.Terminating ", models.State.TERMINATING),
        ("Status.HIBERNATING", models.State.UNKNOWN),
        ("", models.State.UNKNOWN),
        (None, models.State.UNKNOWN),
    ],
)
def test_states_are_read_with_and_without_the_prefix(text: str | None, state: models.State) -> None:
    """`Status.READY` is what the API says, `READY` what clients also accept; a new name does not break anything."""
    assert models.State.parse(text) is state


async def test_a_list_iterates_over_all_pages() -> None:
    """Pages are asked for as they are needed, with the page size and the query on each."""
    query = Query([Filter(Field.STATUS, Operator.EQ, "ready")], [Order(OrderField.CREATED_AT, descending=True)])
    asked: list[dict[str, str]] = []

    async def page(got: web.Request) -> web.StreamResponse:
        asked.append(dict(got.query))
        number = int(got.query["page"])
        return web.json_response(
            {
                "data": [{"request_id": f"{number}{item}"} for item in range(2)],
                "total_count": 6,
                "pagination": {"number": number, "has_next": number < 3, "next_page_number": number + 1},
            }
        )

    async with serving(page) as base, client(base=base) as platform:
        pages = platform.list_deployments(query, page_size=2)
        ids = [item.request_id async for item in pages]
        assert await pages.first(3) == (await pages.first())[:3]
        counts = [shown.total_count async for shown in pages.pages()]
    assert ids == ["10", "11", "20", "21", "30", "31"]
    assert counts == [6, 6, 6]
    assert [each["page"] for each in asked[:3]] == ["1", "2", "3"]
    assert {each["limit"] for each in asked} == {"2"}
    assert json.loads(asked[0]["query"]) == {
        "filters": [{"field": "status", "operator": "eq", "value": "ready"}],
        "order_by": [{"field": "created_at", "order": "desc"}],
    }
    assert len(asked) == 3 + 2 + 3 + 3


@pytest.mark.parametrize(
    ("said", "behind", "page_size"),
    [
        ({}, 200, None),
        ({}, 404, None),
        ({}, 400, None),
        ({}, 200, 2),
        ({"pagination": None}, 200, None),
        ({"pagination": {}}, 200, None),
        ({"pagination": {}, "total_count": 5}, 500, None),
        ({"total_count": 5}, 500, None),
        ({"pagination": {"has_next": True}}, 200, None),
        ({"pagination": {"has_next": True, "next_page_number": 1}}, 200, None),
    ],
)
async def test_a_list_is_read_whole_whatever_it_says_of_its_pages(
    said: dict[str, object], behind: int, page_size: int | None
) -> None:
    """Storages come without a pagination, and tags of images have a count alone; a page behind the last is no error."""
    asked: list[int] = []

    async def page(got: web.Request) -> web.StreamResponse:
        asked.append(int(got.query["page"]))
        names = [["a", "b"], ["c", "d"], ["e"], []][min(asked[-1], 4) - 1]
        status = 200 if names else behind
        return web.json_response({"endpoints": [{"name": name} for name in names], **said}, status=status)

    async with serving(page) as base, client(base=base) as platform:
        storages = await platform.list_storages(page_size).first()
    assert [storage.name for storage in storages] == ["a", "b", "c", "d", "e"]
    assert len(asked) <= 4


async def test_a_server_without_pages_gives_its_list_once() -> None:
    """It answers the same for every number."""

    async def page(_: web.Request) -> web.StreamResponse:
        return web.json_response({"endpoints": [{"name": "a"}, {"name": "b"}]})

    async with serving(page) as base, client(base=base) as platform:
        assert [storage.name for storage in await platform.list_storages().first()] == ["a", "b"]


async def test_a_list_that_never_ends_and_a_promised_page_that_is_missing_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a list would look like a whole one."""
    monkeypatch.setattr(pages, "MOST_PAGES", 3)
    last = 10**6

    async def page(got: web.Request) -> web.StreamResponse:
        number = int(got.query["page"])
        more = {"pagination": {"has_next": True}}
        return web.json_response(
            {"endpoints": [{"name": got.query["page"]}], **more}, status=200 if number < last else 404
        )

    async with serving(page) as base, client(base=base) as platform:
        with pytest.raises(errors.UnexpectedAnswerError, match="cannot list storages: the list has more than 3 pages"):
            await platform.list_storages().first()
        last = 2
        with pytest.raises(errors.NotFoundError):
            await platform.list_storages().first()


async def test_a_list_without_its_field_is_an_unexpected_answer() -> None:
    """Silence would look like an empty platform."""
    with CannedAnswers() as canned:
        canned.get(f"{BASE}/v1/apps?page=1", payload={"data": []})
        async with client() as platform:
            with pytest.raises(errors.UnexpectedAnswerError, match="no list 'applications'"):
                await platform.list_applications().first()


async def test_calls_from_inside_carry_the_injected_token_bare() -> None:
    """Self-stop and context: no prefix, the injected URL as it is, and no organisation token needed."""
    heard: list[tuple[str, str, str]] = []

    async def keep(asked: web.Request) -> web.StreamResponse:
        heard.append((asked.method, asked.path_qs, asked.headers["authorization"]))
        if asked.method == "GET":
            return web.json_response({"request_id": ID, "status": "Status.READY", "tags": ["x"]})
        return web.json_response({"name": "x"}) if asked.method == "POST" else web.Response(status=200)

    token = SecretStr(INJECTED)
    async with serving(keep) as base, client(None) as platform:
        context_url = f"{base}/v1/context/{ID}/771/"
        assert (await platform.get_context(context_url, token)).tags == ["x"]
        assert (await platform.create_context_tag(context_url, token, "a b")).name == "x"
        await platform.delete_context_tag(context_url, token, "a/b")
        assert (await platform.self_stop(f"{base}/v1/self/stop/{ID}/660", token, "true")).message == ""
    assert heard == [
        ("GET", f"/v1/context/{ID}/771/", INJECTED),
        ("POST", f"/v1/context/{ID}/771/tags", INJECTED),
        ("DELETE", f"/v1/context/{ID}/771/tags/a%2Fb", INJECTED),
        ("DELETE", f"/v1/self/stop/{ID}/660?container_log_storage=true", INJECTED),
    ]


@pytest.mark.parametrize("token", [None, "", "  ", SecretStr("")])
async def test_an_organisation_call_without_a_token_says_so_before_anything_is_sent(
    token: SecretStr | str | None,
) -> None:
    """A 401 from far away would say less."""
    async with client(token) as platform:
        with pytest.raises(errors.MissingTokenError, match="EDGEGAP_API_TOKEN"):
            await platform.get_deployment(ID)


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_change_the_path_is_refused(name: str) -> None:
    """`DELETE …/tags/..` would be another operation."""
    async with client() as platform:
        with pytest.raises(errors.InvalidArgumentError):
            await platform.delete_tag(ID, name)


async def test_names_are_quoted_in_paths() -> None:
    """A tag may hold anything."""
    with CannedAnswers() as canned:
        canned.get(URL(f"{BASE}/v1/deployments/{ID}/tags/a%2Fb%3Fc%20%C3%A4", encoded=True), payload={"name": "x"})
        async with client() as platform:
            assert (await platform.get_tag(ID, "a/b?c ä")).name == "x"


async def test_a_bulk_stop_without_a_filter_is_refused() -> None:
    """An empty list could mean everything."""
    async with client() as platform:
        with pytest.raises(errors.InvalidArgumentError):
            await platform.bulk_stop([])


@pytest.mark.parametrize(
    "base", ["", "api.edgegap.com", "ftp://h", "https://user:secret@h", "https://h?x=1", "http://"]
)
def test_a_wrong_base_url_is_named_without_showing_it(base: str) -> None:
    """It may hold a password."""
    with pytest.raises(errors.InvalidArgumentError, match="EDGEGAP_BASE_URL") as caught:
        EdgegapClient(TOKEN, base)
    assert "secret" not in str(caught.value)


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    """The sentence names the statement."""
    with pytest.raises(RuntimeError, match="async with"):
        await client().get_deployment(ID)


async def test_tokens_and_secrets_are_in_no_repr_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Not even when the platform repeats them."""
    caplog.set_level(logging.DEBUG)
    gossip = {"message": f"{TOKEN} and {INJECTED} for {CONTEXT}", "request_id": TOKEN}
    storage = models.StorageCreate(name="logs", secret_access_key=SecretStr("hush-hush"))
    version = models.Version(name="1", private_token=SecretStr("hush-hush"))
    said = [repr(client()), repr(storage), repr(version), str(storage), storage.model_dump_json()]
    with CannedAnswers() as canned:
        for status in (400, 401, 422, 500):
            canned.get(f"{BASE}/v1/status/{ID}", status=status, payload=gossip)
            canned.get(CONTEXT, status=status, payload=gossip)
        canned.get(CONTEXT, exception=OSError(f"no route to {CONTEXT} with {INJECTED}"))
        async with client(retries=0) as platform:
            for _ in range(4):
                with pytest.raises(errors.EdgegapError) as caught:
                    await platform.get_deployment(ID)
                assert TOKEN not in str(caught.value)
            for _ in range(5):
                with pytest.raises(errors.EdgegapError) as caught:
                    await platform.get_context(CONTEXT, SecretStr(INJECTED))
                said += [str(caught.value), repr(caught.value)]
    text = "\n".join(said) + caplog.text
    for secret in (INJECTED, "/771", "hush-hush"):
        assert secret not in text
    assert storage.to_wire()["secret_access_key"] == "hush-hush"
    assert version.to_wire()["private_token"] == "hush-hush"


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    """A deadline around a call ends it at once."""
    async with serving(hang) as base, client(base=base) as platform:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await platform.get_deployment(ID)


async def test_catalogue_calls_read_and_write_what_the_contract_says() -> None:
    """Applications, versions and storages: bodies out, models in."""
    heard: list[tuple[str, Any]] = []
    version = {"name": "1.0", "docker_image": "game", "req_cpu": 1024, "envs": [{"key": "A", "value": "1"}]}

    async def keep(asked: web.Request) -> web.StreamResponse:
        body = await asked.json() if asked.method == "POST" else None
        heard.append((f"{asked.method} {asked.path}", body))
        return web.json_response(
            {
                "/v1/app": {"name": "game", "is_active": True, "image": "", "create_time": "2026-01-01T00:00:00Z"},
                "/v1/apps": {"applications": [{"name": "game"}], "pagination": NO_MORE, "total_count": 1},
                "/v1/app/game/version": {"success": True, "version": version},
                "/v1/app/game/versions": {"versions": [version], "pagination": NO_MORE, "total_count": 1},
                "/v1/storage/endpoint": {"name": "logs", "bucket": "b"},
                "/v1/storage/endpoints": {"endpoints": [{"name": "logs", "bucket": "b"}]},
            }[asked.path]
        )

    async with serving(keep) as base, client(base=base) as platform:
        assert (await platform.create_application(models.Application(name="game"))).create_time is not None
        assert [app.name async for app in platform.list_applications()] == ["game"]
        created = await platform.create_version("game", models.Version.model_validate(version))
        assert created.version.envs == [models.Variable(key="A", value="1")]
        assert [each.name async for each in platform.list_versions("game")] == ["1.0"]
        await platform.create_storage(models.StorageCreate(name="logs", bucket="b", secret_access_key=SecretStr("k")))
        assert [each.bucket async for each in platform.list_storages()] == ["b"]
    bodies = [(path, body) for path, body in heard if body is not None]
    assert bodies[0] == ("POST /v1/app", {"name": "game", "is_active": True, "image": ""})
    assert bodies[1][1]["envs"] == [{"key": "A", "value": "1", "is_hidden": False}]
    assert bodies[2][1]["secret_access_key"] == "k"


async def test_logs_and_metrics_are_read_and_metrics_are_asked_for_with_their_options() -> None:
    """Times go out as ISO 8601, gaps in a series come in as None."""
    asked: list[dict[str, str]] = []

    async def keep(got: web.Request) -> web.StreamResponse:
        asked.append(dict(got.query))
        if "container-logs" in got.path:
            return web.json_response({"logs": "bye\n", "crash_data": {"exit_code": 137, "message": "OOM killed"}})
        return web.json_response({"cpu": {"labels": ["a", "b"], "datasets": [1.5, None]}, "total": None})

    async with serving(keep) as base, client(base=base) as platform:
        logs = await platform.get_logs(ID)
        metrics = await platform.get_metrics(ID, start_time=datetime(2026, 1, 1, tzinfo=UTC), steps="30s", raw=False)
    assert logs.crash_data is not None
    assert (logs.crash_data.exit_code, logs.crash_data.message) == (137, "OOM killed")
    assert metrics.cpu.datasets == [1.5, None]
    assert metrics.total.disk_read_total.datasets == []
    assert asked[1] == {"start_time": "2026-01-01T00:00:00+00:00", "steps": "30s", "raw": "false"}

"""The client's pieces: filters, limits, waiting and the deployment's own tags."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agent.edgegap import errors, models, waiting
from agent.edgegap.filters import OPERATORS, Field, Filter, Operator, Order, Query
from agent.edgegap.limits import Limit, Limiter, SlidingWindow
from agent.edgegap.models import DeploymentStatus, State
from agent.edgegap.pages import Page, Pagination, next_number
from agent.edgegap.tags import DeploymentTags
from agent.retry import RetryPolicy
from tests.edgegap_fakes import FakeSleep, serving

ID = "61b1be8f54d9"
INJECTED = SecretStr("0123456789abcdef0123456789abcdef")
ORGANISATION = SecretStr("3d2c41b0-1111-2222-3333-444455556666")


# Filters


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("status=ready", {"field": "status", "operator": "eq", "value": "ready"}),
        (" tags != a , b ", {"field": "tags", "operator": "nin", "value": ["a", "b"]}),
        ("request_id=a,b", {"field": "request_id", "operator": "in", "value": ["a", "b"]}),
        ("host_name~%chicago%", {"field": "host_name", "operator": "ilike", "value": "%chicago%"}),
        (
            "created_at>=2026-01-01T00:00:00Z",
            {"field": "created_at", "operator": "gte", "value": "2026-01-01T00:00:00Z"},
        ),
        ("created_at<=2026-01-01", {"field": "created_at", "operator": "lte", "value": "2026-01-01"}),
        ("status=a,b", {"field": "status", "operator": "eq", "value": "a,b"}),
    ],
)
def test_a_filter_is_read_as_people_write_it(text: str, wire: object) -> None:
    """A sign for each operator; commas make a list where the field takes one."""
    assert Filter.parse(text).to_wire() == wire


@pytest.mark.parametrize(
    "text",
    ["", "ready", "colour=red", "status>=a", "status~a", "created_at!=1", "version~1", "status=", "tags=a,", "=x"],
)
def test_a_filter_that_the_platform_would_refuse_is_refused_here(text: str) -> None:
    """With a sentence that says what the field takes."""
    with pytest.raises(errors.InvalidArgumentError, match="cannot list deployments"):
        Filter.parse(text)


@given(
    st.sampled_from(Field), st.sampled_from(Operator), st.text(min_size=1) | st.lists(st.text(min_size=1), min_size=1)
)
def test_a_filter_exists_exactly_when_the_contract_has_it(
    field: Field, operator: Operator, value: str | list[str]
) -> None:
    """The field takes the operator, and the operator takes one value or several."""
    valid = operator in OPERATORS[field] and (operator in {Operator.IN, Operator.NIN}) == isinstance(value, list)
    try:
        made = Filter(field, operator, value)
    except errors.InvalidArgumentError:
        assert not valid
    else:
        assert valid
        assert json.loads(json.dumps(made.to_wire()))["value"] == value


def test_an_order_is_read_and_a_wrong_one_refused() -> None:
    """Ascending unless it says desc."""
    assert Order.parse("created_at").to_wire() == {"field": "created_at", "order": "asc"}
    assert Order.parse("available_session_sockets:desc").to_wire()["order"] == "desc"
    for wrong in ("name", "created_at:down", ""):
        with pytest.raises(errors.InvalidArgumentError):
            Order.parse(wrong)


def test_a_query_takes_one_filter_per_field() -> None:
    """As the platform does; an empty query is not sent at all."""
    with pytest.raises(errors.InvalidArgumentError, match="status is filtered more than once"):
        Query([Filter.parse("status=ready"), Filter.parse("status!=error")])
    assert Query().to_wire() is None


# Limits


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=100), st.integers(1, 12))
def test_no_window_ever_holds_more_than_the_limit(gaps: list[float], count: int) -> None:
    """However the requests come: as a burst, evenly, or with holes between them."""
    clock = FakeSleep()
    passed: list[float] = []

    async def run() -> None:
        window = SlidingWindow(count, 1.0, clock.monotonic, clock)
        for gap in gaps:
            clock.now += gap
            await window.wait()
            passed.append(clock.now)

    asyncio.run(run())
    assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in zip(passed, passed[count:], strict=False))


async def test_each_kind_of_call_has_the_limit_of_the_platform() -> None:
    """40 deploys, 20 status calls, 10 lists pass at once and the next one waits; other calls never do."""
    for limit, count in ((Limit.DEPLOY, 40), (Limit.STATUS, 20), (Limit.LIST, 10)):
        clock = FakeSleep()
        limiter = Limiter(clock.monotonic, clock)
        for _ in range(count):
            await limiter.wait(limit)
        await limiter.wait(None)
        assert clock.waits == []
        await limiter.wait(limit)
        assert clock.now >= 1.0


async def test_those_who_wait_pass_in_the_order_in_which_they_came() -> None:
    """Nobody starves behind a crowd."""
    clock = FakeSleep()
    window = SlidingWindow(1, 1.0, clock.monotonic, clock)
    order: list[int] = []

    async def pass_through(number: int) -> None:
        await window.wait()
        order.append(number)

    await asyncio.gather(*(pass_through(number) for number in range(20)))
    assert order == list(range(20))


# Pages


@given(
    st.integers(1, 1000),
    st.none() | st.builds(Pagination, has_next=st.booleans(), next_page_number=st.none() | st.integers(-5, 2000)),
    st.none() | st.integers(-1, 5),
    st.lists(st.just(models.RelayUser(ip="203.0.113.7")), max_size=2),
)
def test_the_next_page_always_has_a_greater_number(
    number: int, pagination: Pagination | None, total: int | None, items: list[models.RelayUser]
) -> None:
    """So that no list is endless because of what a server says."""
    following = next_number(Page(number, items, total, pagination), len(items), None)
    assert following is None or following > number


# Waiting


def statuses(*steps: str | Exception) -> waiting.GetStatus:
    """Give what answers with one status after the other, and with the last one for ever."""
    left = list(steps)

    async def get(deployment_id: str) -> DeploymentStatus:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, Exception):
            raise step
        return DeploymentStatus(request_id=deployment_id, current_status=step, error_detail="disk full")

    return get


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll at once."""
    monkeypatch.setattr(waiting, "POLLS", RetryPolicy(first=0.001, cap=0.001))


@pytest.mark.usefixtures("_quick")
async def test_waiting_for_ready_passes_through_the_states_and_tells_of_each() -> None:
    """A platform that does not answer for a moment does not end it."""
    seen: list[State] = []
    unavailable = errors.UnavailableError("get", "no connection")
    get = statuses("Status.SEEKING", unavailable, "Status.DEPLOYING", "READY")
    status = await waiting.wait_until_ready(get, ID, 5, lambda status: seen.append(status.state))
    assert status.state is State.READY
    assert seen == [State.SEEKING, State.DEPLOYING, State.READY]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("state", ["Status.ERROR", "Status.TERMINATING", "Status.TERMINATED"])
async def test_waiting_for_ready_ends_when_it_cannot_come_any_more(state: str) -> None:
    """With what the platform says about it, long before the deadline."""
    with pytest.raises(errors.DeploymentFailedError, match="disk full"):
        await waiting.wait_until_ready(statuses("Status.SEEKING", state), ID, 60)


@pytest.mark.usefixtures("_quick")
async def test_waiting_ends_at_the_deadline_and_says_where_it_stood() -> None:
    """The error is a TimeoutError too, as Python programmers expect."""
    with pytest.raises(errors.DeadlineExceededError, match="it is DEPLOYING"):
        await waiting.wait_until_ready(statuses("Status.DEPLOYING"), ID, 0.05)
    with pytest.raises(TimeoutError, match="no connection"):
        await waiting.wait_until_terminated(statuses(errors.UnavailableError("get", "no connection")), ID, 0.05)


@pytest.mark.usefixtures("_quick")
async def test_waiting_for_ready_does_not_hide_that_the_deployment_is_unknown() -> None:
    """A wrong id is an error at once."""
    with pytest.raises(errors.NotFoundError):
        await waiting.wait_until_ready(statuses(errors.NotFoundError("get", "unknown", 404)), ID, 60)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("kind", [errors.NotFoundError, errors.GoneError, errors.BadRequestError])
async def test_a_deployment_that_is_forgotten_counts_as_terminated(kind: type[errors.EdgegapError]) -> None:
    """The platform keeps terminated deployments for a while only, and answers 400 for what it does not know."""
    assert await waiting.wait_until_terminated(statuses("Status.TERMINATING", kind("get", "unknown")), ID, 5) is None
    status = await waiting.wait_until_terminated(statuses("Status.ERROR", "Status.TERMINATED"), ID, 5)
    assert status is not None


# The deployment's own tags


class TagServer:
    """Tags as the platform keeps them, reached in both ways; counts the ways that were taken."""

    def __init__(self) -> None:
        self.tags = ["one"]
        self.ways: Counter[str] = Counter()
        self.known = True

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve it; gives the base URL."""
        async with serving(self._answer) as base:
            yield base

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        context = request.path.startswith(f"/v1/context/{ID}/771")
        expected = INJECTED.get_secret_value() if context else f"token {ORGANISATION.get_secret_value()}"
        assert request.headers["authorization"] == expected
        self.ways["context" if context else "organisation"] += 1
        if not self.known:
            return web.json_response({"message": "no such deployment"}, status=404)
        name = request.path.rpartition("/tags/")[2] if "/tags/" in request.path else None
        if request.method == "GET":
            listed = [{"name": tag} for tag in self.tags]
            both = {"request_id": ID, "tags": self.tags} if context else {"tags": listed, "pagination": {}}
            return web.json_response(both)
        if name is not None and name not in self.tags:
            return web.json_response({"message": "no such tag"}, status=404)
        if request.method == "DELETE":
            assert name is not None
            self.tags.remove(name)
            return web.Response(status=204)
        new = (await request.json())["name"]
        if new in self.tags:
            return web.json_response({"message": "exists"}, status=409)
        if name is not None:
            self.tags.remove(name)
        self.tags.append(new)
        return web.json_response({"name": new})


def tags(base: str, way: str) -> DeploymentTags:
    """Give the tags as reached in one of the two ways."""
    context = {"context_url": f"{base}/v1/context/{ID}/771", "context_token": INJECTED} if way == "context" else {}
    return DeploymentTags(deployment_id=ID, organisation_token=ORGANISATION, base_url=base, **context)  # type: ignore[arg-type]  # mypy reads the dict's values as one type


@pytest.mark.parametrize("way", ["context", "organisation"])
async def test_tags_are_listed_added_renamed_and_removed_in_either_way(way: str) -> None:
    """The context is preferred where it was injected; adding and removing twice is no error."""
    server = TagServer()
    async with server.serve() as base:
        own = tags(base, way)
        assert own.way == way
        assert await own.list() == ["one"]
        await own.add("two")
        await own.add("two")
        await own.rename("two", "three")
        await own.remove("one")
        await own.remove("one")
        assert await own.list() == ["three"]
        with pytest.raises(errors.NotFoundError):
            await own.rename("nine", "ten")
    assert set(server.ways) == {way}


@pytest.mark.parametrize("way", ["context", "organisation"])
async def test_removing_from_a_deployment_that_is_not_known_is_an_error(way: str) -> None:
    """404 may mean the tag or the deployment, and only one of them is fine."""
    server = TagServer()
    server.known = False
    async with server.serve() as base:
        with pytest.raises(errors.NotFoundError):
            await tags(base, way).remove("one")


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"context_url": "http://h/v1/context/a/1"},
        {"context_url": "http://h/v1/context/a/1", "context_token": SecretStr(" ")},
        {"organisation_token": ORGANISATION},
        {"deployment_id": ID},
    ],
)
async def test_without_a_way_every_operation_says_cannot_and_what_to_give(given_: dict[str, str]) -> None:
    """Outside the platform nothing is injected, and the newest reference has no context any more."""
    own = DeploymentTags(**given_)  # type: ignore[arg-type]  # mypy reads the dict's values as one type
    assert own.way is None
    for operation in (own.list(), own.add("a"), own.remove("a"), own.rename("a", "b")):
        with pytest.raises(errors.TagsUnreachableError, match=r"cannot .*AGENT_API_TOKEN"):
            await operation


@pytest.mark.parametrize("name", ["", "x" * 41, "a\nb"])
async def test_a_name_that_the_platform_does_not_take_is_refused_before_it_is_sent(name: str) -> None:
    """1 to 40 characters, as the contract has it."""
    own = DeploymentTags(context_url="http://h/v1/context/a/1", context_token=INJECTED)
    for operation in (own.add(name), own.remove(name), own.rename("a", name)):
        with pytest.raises(errors.InvalidArgumentError, match="1 to 40"):
            await operation

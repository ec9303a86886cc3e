"""Bad days on demand, what was called, and who is told."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.contract.backend import SECONDS, Backend, backend, eventually, poll, quick


async def put(caller: Backend, *faults: dict[str, Any]) -> None:
    """These faults from now on."""
    assert (await caller.call("PUT", "/emulator/faults", {"faults": list(faults)})).status == 200


@pytest.mark.parametrize("route", ["listDeployments", "/v1/deployments", "/v1/*", "GET /v1/dep*", "*"])
async def test_a_status_is_answered_as_often_as_asked(route: str) -> None:
    """By operation, path, pattern, method and pattern, or everywhere; then all is well again."""
    async with backend() as caller:
        await put(caller, {"route": route, "status": 500, "count": 2, "skip": 1})
        assert [(await caller.call("GET", "/v1/deployments")).status for _ in range(5)] == [200, 500, 500, 200, 200]
        assert (await caller.call("GET", "/emulator/faults")).body["faults"][0]["met"] == 5


async def test_other_routes_are_left_alone() -> None:
    """Another path, and another method of the same one."""
    async with backend() as caller:
        await put(caller, {"route": "DELETE /v1/deployments", "status": 500}, {"route": "deploy", "status": 500})
        assert (await caller.call("GET", "/v1/deployments")).status == 200
        assert (await caller.call("DELETE", "/emulator/faults")).status == 204
        assert (await caller.call("GET", "/emulator/faults")).body == {"faults": []}


async def test_a_429_comes_with_how_long_to_wait() -> None:
    """And with the message that was asked for."""
    async with backend() as caller:
        await put(caller, {"route": "*", "status": 429, "retry_after": 7, "message": "cannot just now"})
        answer = await caller.call("GET", "/v1/apps")
        assert (answer.status, answer.headers["Retry-After"], answer.body) == (429, "7", {"message": "cannot just now"})


async def test_a_fault_comes_before_the_token_is_looked_at() -> None:
    """Whatever is broken is broken for everybody."""
    async with backend() as caller:
        await put(caller, {"route": "selfStop", "status": 500, "count": 1})
        path = "/v1/self/stop/0123456789ab/660"
        assert (await caller.call("DELETE", path, authorization=None)).status == 500
        assert (await caller.call("DELETE", path, authorization=None)).status == 401


async def test_a_delay_delays() -> None:
    """And the answer is then what it would have been."""
    async with backend() as caller:
        await put(caller, {"route": "listApplications", "delay": 0.2})
        began = time.monotonic()
        assert (await caller.call("GET", "/v1/apps")).status == 200
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_reset_loses_the_request_or_only_its_answer(when: str) -> None:
    """The client sees a broken connection; with `after`, the application exists all the same."""
    async with backend() as caller:
        await put(caller, {"route": "createApplication", "reset": True, "count": 1, "when": when})
        with pytest.raises(aiohttp.ClientConnectionError):
            await caller.call("POST", "/v1/app", {"name": "game", "is_active": True, "image": ""})
        assert (await caller.get("/v1/apps"))["total_count"] == (1 if when == "after" else 0)
        records = (await caller.call("GET", "/emulator/requests", params={"operation": "createApplication"})).body
        assert [(each["status"], each["fault"]) for each in records["requests"]] == [(None, "createApplication")]


async def test_a_hang_holds_the_client_and_not_the_emulator() -> None:
    """Others are served meanwhile, and closing the emulator ends it."""
    async with backend() as caller:
        await put(caller, {"route": "listApplications", "hang": True, "count": 1})
        hanging = asyncio.create_task(caller.call("GET", "/v1/apps"))
        await poll(lambda: caller.call("GET", "/emulator/faults"), lambda answer: answer.body["faults"][0]["met"] == 1)
        assert (await caller.call("GET", "/v1/apps")).status == 200
        assert not hanging.done()
        await caller.emulator.close()
        with pytest.raises(aiohttp.ClientError):
            await hanging


@pytest.mark.parametrize("whole", [{"route": "*", "status": 500}, [{"route": "*", "status": 500}]])
async def test_one_fault_or_a_list_is_a_body_too(whole: Any) -> None:
    """As it comes easily at a prompt."""
    async with backend() as caller:
        assert (await caller.call("PUT", "/emulator/faults", whole)).status == 200
        assert (await caller.call("GET", "/v1/apps")).status == 500


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"route": ""},
        {"route": "*", "status": 200},
        {"route": "*", "delay": -1},
        {"route": "*", "count": 0},
        {"route": "*", "explode": True},
    ],
)
async def test_a_wrong_fault_is_refused_and_changes_nothing(fault: dict[str, Any]) -> None:
    """400 by name, and those in force stay."""
    async with backend() as caller:
        await put(caller, {"route": "/v1/apps", "status": 418})
        assert (await caller.call("PUT", "/emulator/faults", {"faults": [fault]})).status == 400
        assert len((await caller.call("GET", "/emulator/faults")).body["faults"]) == 1


async def test_requests_are_recorded_without_their_secrets() -> None:
    """Method, path, query, operation, kind of token, body, answer; not the token."""
    async with backend() as caller:
        await caller.call("GET", "/v1/deployments", params={"limit": "5"})
        await caller.call("GET", "/v1/nothing", authorization=None)
        body = (await caller.call("GET", "/emulator/requests")).body
        first, second = body["requests"]
        expected = {
            "method": "GET",
            "path": "/v1/deployments",
            "query": {"limit": "5"},
            "operation": "listDeployments",
            "authorization": "token",
            "body": None,
            "status": 200,
            "fault": None,
        }
        assert {name: first[name] for name in expected} == expected
        assert (second["status"], second["operation"], second["authorization"]) == (404, None, "none")
        assert caller.emulator.token not in json.dumps(body)
        assert (await caller.call("DELETE", "/emulator/requests")).status == 204
        assert (await caller.call("GET", "/emulator/requests")).body == {"requests": []}


async def test_a_client_that_dies_mid_request_hurts_nobody() -> None:
    """Half a head, half a body, and an answer that nobody reads; the next client is served."""
    async with backend() as caller:
        version = await caller.version()
        host, port = caller.emulator.url.removeprefix("http://").split(":")
        token = caller.emulator.authorization["Authorization"]
        whole = json.dumps({"application": "game", "version": version, "users": []})
        head = (
            f"POST /v2/deployments HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n"
        )
        halves = [
            head[:30],
            f"{head}Content-Length: 999\r\n\r\n{whole[:20]}",
            f"GET /v1/apps HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n",
        ]
        for half in halves * 5:
            with socket.create_connection((host, int(port))) as client:
                client.sendall(half.encode())
                # A close with unread data or with this option resets the connection, as a dying client does.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        deployment_id = await caller.deploy(version)
        assert (await caller.until(deployment_id, "READY"))["running"] is True


@asynccontextmanager
async def listener(*statuses: int) -> AsyncIterator[tuple[str, list[Any]]]:
    """A backend's own server, that answers these statuses and then 200; its URL and what it was told."""
    told: list[Any] = []
    answers = list(statuses)

    async def hook(request: web.Request) -> web.Response:
        told.append(await request.json())
        return web.Response(status=answers.pop(0) if answers else 200)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", told
    finally:
        await runner.cleanup()


def hooks(url: str) -> dict[str, Any]:
    """All three."""
    return {f"webhook_on_{event}": {"url": url} for event in ("ready", "error", "terminated")}


async def test_webhooks_tell_what_becomes_of_a_deployment() -> None:
    """Its status as it was then: ready and terminated, or error and terminated."""
    async with listener() as (url, told), backend() as caller:
        well = await caller.deploy(await caller.version(), **hooks(url))
        await caller.until(well, "READY")
        await eventually(lambda: len(told) == 1)
        await caller.stop(well)
        await eventually(lambda: len(told) == 2)
        ill = await caller.deploy(await caller.version(command="/nowhere", arguments=None), **hooks(url))
        await caller.until(ill, "ERROR")
        await eventually(lambda: len(told) == 3)
        await caller.stop(ill)
        await eventually(lambda: len(told) == 4)
        assert [(each["request_id"], each["current_status"]) for each in told] == [
            (well, "Status.READY"),
            (well, "Status.TERMINATED"),
            (ill, "Status.ERROR"),
            (ill, "Status.TERMINATED"),
        ]


async def test_a_webhook_is_tried_again_and_then_given_up() -> None:
    """A 5xx is repeated; a backend that is not there delays nothing."""
    async with listener(503) as (url, told), backend() as caller:
        deployment_id = await caller.deploy(await caller.version(), webhook_on_ready={"url": url})
        await eventually(lambda: len(told) == 2)
        assert told[0] == told[1]
        assert (await caller.status(deployment_id))["running"] is True
        nobody = await caller.deploy(await caller.version(), **hooks("http://127.0.0.1:1/"))
        await caller.until(nobody, "READY")
        await caller.stop(nobody)


async def test_a_slow_request_does_not_hold_up_the_others() -> None:
    """A delayed call and a quick one, at once."""
    async with backend(quick()) as caller:
        await put(caller, {"route": "listApplications", "delay": 3600})
        slow = asyncio.create_task(caller.call("GET", "/v1/apps"))
        async with asyncio.timeout(SECONDS):
            assert (await caller.call("GET", "/v1/deployments")).status == 200
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)

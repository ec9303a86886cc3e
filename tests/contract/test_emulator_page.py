"""The page at `/`: in a real browser where there is one, and who may reach it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.contract.backend import SECONDS, Backend, backend, python, quick

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
GAME = """
import os, socket, sys
game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
game.bind(("127.0.0.1", int(os.environ["ARBITRIUM_PORT_GAMEPORT_INTERNAL"])))
print("<img src=x onerror=document.title='broken'> up", flush=True)
print("a warning", file=sys.stderr, flush=True)
while True:
    data, player = game.recvfrom(65536)
    print("heard", data.decode(), flush=True)
"""
PORTS = [{"port": 0, "protocol": "UDP", "name": "gameport"}]
needs_browser = pytest.mark.skipif(
    not os.path.exists(CHROMIUM), reason="chromium is not installed: apt-get install chromium"
)


@asynccontextmanager
async def opened(caller: Backend) -> AsyncIterator[Page]:
    """The page in a browser; at the end it has called nobody else and complained of nothing."""
    complaints: list[str] = []
    called: set[str] = set()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = await browser.new_page()
            page.set_default_timeout(SECONDS * 1000)
            expect.set_options(timeout=SECONDS * 1000)
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: called.add("/".join(request.url.split("/")[:3])))
            await page.goto(caller.emulator.url)
            await expect(page.get_by_text("live", exact=True)).to_be_visible()
            yield page
        finally:
            await browser.close()
    assert complaints == []
    assert called == {caller.emulator.url}


@pytest.mark.browser
@needs_browser
@pytest.mark.slow
async def test_a_person_deploys_watches_and_stops_a_game() -> None:
    """By its labels and buttons alone: states, ports, logs as they arrive, charts, and the end."""
    async with backend(quick(sample_seconds=0.1)) as caller:
        version = await caller.version(**python(GAME), ports=PORTS)
        async with opened(caller) as page:
            await expect(page.get_by_role("heading", name="Nothing is deployed")).to_be_visible()
            await page.get_by_label("Version").select_option(label=f"game {version}")
            await page.get_by_label("Players near").select_option("Tokyo")
            await page.get_by_role("button", name="Deploy").click()
            main = page.get_by_role("main")
            await expect(page.get_by_role("navigation").get_by_text("READY")).to_be_visible()
            await expect(main.get_by_role("heading", name=f"game {version}")).to_be_visible()
            await expect(main.get_by_text("Tokyo · Japan")).to_be_visible()
            await expect(main.locator("li[aria-current=step]")).to_contain_text("ready")
            deployment = next(iter(caller.emulator.platform.deployments.values()))
            external = deployment.ports[0].external
            await expect(main.get_by_role("cell", name=f"127.0.0.1:{external}", exact=True)).to_be_visible()
            logs = page.locator("#logs")
            await expect(logs).to_contain_text("<img src=x onerror=document.title='broken'> up")
            await expect(logs.locator(".stderr")).to_have_text("a warning\n")
            await say(external, b"hello from a player")
            await expect(logs).to_contain_text("heard hello from a player")
            for chart in ("CPU", "Memory", "Network"):
                await expect(main.get_by_role("img", name=f"{chart}: ")).to_have_attribute("aria-label", numbers())
            await expect(page.locator("#memory path.line")).to_have_attribute("d", numbers())
            await page.get_by_role("button", name="Stop").click()
            await expect(page.get_by_role("navigation").get_by_text("TERMINATED")).to_be_visible()
            await expect(page.get_by_role("button", name="Stopped")).to_be_disabled()
            await expect(main.get_by_text("Nobody kept its logs")).to_be_visible()
            assert "broken" not in await page.title()
        assert deployment.stop_request is not None
        assert deployment.stop_request.by == "page"


@pytest.mark.browser
@needs_browser
@pytest.mark.slow
async def test_a_game_with_an_agent_has_a_link_to_the_agents_own_page() -> None:
    """With the token of its button; a line that names another machine is no link."""
    says = "import time; print('arbitrium-agent: status page: {}', flush=True); time.sleep(600)"
    async with backend() as caller, opened(caller) as page:
        link = page.get_by_role("link", name="Status page of the agent")
        for url in ("http://127.0.0.1:9370/#token=abc", "http://example.com:9370/#token=abc"):
            deployment = await caller.running(**python(says.format(url)))
            await page.get_by_role("navigation").get_by_role("button", name=deployment).click()
            await expect(page.locator("#logs")).to_contain_text(url)
            if "127.0.0.1" in url:
                await expect(link).to_have_attribute("href", url)
            else:
                await expect(link).to_be_hidden()


@pytest.mark.browser
@needs_browser
@pytest.mark.slow
async def test_the_keyboard_is_enough_and_trouble_is_said() -> None:
    """Choosing another deployment with Enter, and a deployment in error with its reason."""
    async with backend() as caller:
        ids = [await caller.running(), await caller.deploy(await caller.version(command="/nowhere", arguments=None))]
        await caller.until(ids[1], "ERROR")
        async with opened(caller) as page:
            for deployment_id, where, text in ((ids[1], "#trouble", "cannot run /nowhere"), (ids[0], "#logs", "up")):
                button = page.get_by_role("navigation").get_by_role("button", name=deployment_id)
                await button.focus()
                await page.keyboard.press("Enter")
                await expect(button).to_have_attribute("aria-current", "true")
                await expect(page.locator(where)).to_contain_text(text)


@pytest.mark.browser
@needs_browser
@pytest.mark.slow
async def test_a_deployment_made_elsewhere_appears_and_goes_by_itself() -> None:
    """Nobody reloads; a new version can be chosen at once, and what the emulator forgot is gone."""
    async with backend(quick(keep_terminated=1)) as caller, opened(caller) as page:
        await expect(page.get_by_text("There is no version yet")).to_be_visible()
        first = await caller.running()
        await expect(page.get_by_label("Version").locator("option")).to_have_text("game v1")
        item = page.get_by_role("navigation").get_by_role("button", name=first)
        await expect(item).to_contain_text("READY")
        await caller.stop(first)
        await expect(item).to_contain_text("TERMINATED")
        for _ in range(2):
            await caller.stop(await caller.deploy("v1"))
        await caller.deploy("v1")
        await expect(item).to_have_count(0)


def numbers() -> Any:
    """Something with a number in it."""
    return re.compile(r"\d")


async def say(port: int, data: bytes) -> None:
    """A player's datagram."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port)
    )
    transport.sendto(data)
    transport.close()


async def test_the_page_and_all_that_it_needs_are_served_here() -> None:
    """With a policy that lets nothing else in, and an icon, so that no browser asks in vain."""
    async with backend() as caller, aiohttp.ClientSession(caller.emulator.url) as session:
        for path, kind in (
            ("/", "text/html"),
            ("/emulator/page.css", "text/css"),
            ("/emulator/page.js", "text/javascript"),
            ("/favicon.ico", "image/svg+xml"),
        ):
            async with session.get(path) as response:
                assert (response.status, response.content_type) == (200, kind)
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                assert "http" not in (await response.text()).replace("http://www.w3.org/", "").replace("http-equiv", "")


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/emulator/requests", 200),
        ({"Host": "localhost:80"}, "/emulator/requests", 200),
        ({"Host": "attacker.example"}, "/emulator/requests", 401),
        ({"Host": "attacker.example"}, "/", 401),
        ({"Host": "attacker.example"}, "/emulator/requests?token={token}", 200),
        ({"Host": "emulator.test", "Authorization": "token {token}"}, "/emulator/requests", 200),
        ({"Host": "emulator.test", "Authorization": "token wrong"}, "/emulator/requests", 401),
        ({"Origin": "https://attacker.example"}, "/emulator/requests", 403),
        ({"Origin": "null"}, "/emulator/requests", 403),
    ],
)
async def test_other_sites_cannot_steer_the_emulator(headers: dict[str, str], path: str, status: int) -> None:
    """It starts programs: a page from elsewhere, or a name that leads here, is refused without the token."""
    async with backend() as caller, aiohttp.ClientSession(caller.emulator.url) as session:
        filled = {name: value.format(token=caller.emulator.token) for name, value in headers.items()}
        async with session.get(path.format(token=caller.emulator.token), headers=filled) as response:
            assert response.status == status


async def test_the_buttons_say_what_is_wrong() -> None:
    """An unknown city, version or deployment; and nothing is deployed."""
    async with backend() as caller:
        version = await caller.version()
        wrong: list[tuple[str, dict[str, str], int]] = [
            ("/emulator/deployments", {"application": "game", "version": version, "city": "Atlantis"}, 400),
            ("/emulator/deployments", {"application": "game", "version": "none"}, 400),
            ("/emulator/deployments", {"application": "game"}, 400),
            ("/emulator/deployments/0123456789ab/stop", {}, 404),
        ]
        for path, body, status in wrong:
            answer = await caller.call("POST", path, body)
            assert (answer.status, answer.body["message"].startswith("cannot")) == (status, True)
        assert caller.emulator.platform.deployments == {}


async def events(session: aiohttp.ClientSession, path: str) -> AsyncGenerator[tuple[str, Any], None]:
    """The events of a stream."""
    async with session.get(path) as response:
        name = ""
        async for line in response.content:
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                yield name, json.loads(value)


async def test_a_reader_who_comes_late_is_told_everything_that_is() -> None:
    """What can be deployed, each deployment, its log from the beginning; a reader who leaves is forgotten."""
    async with backend() as caller, aiohttp.ClientSession(caller.emulator.url) as session:
        deployment_id = await caller.running()
        await caller.until_logged(deployment_id, "up")
        told = []
        stream = events(session, "/emulator/stream")
        async for event in stream:
            told.append(event)
            if len(told) == 2:
                break
        await stream.aclose()
        assert told[0][0] == "catalogue"
        assert told[0][1]["versions"] == [{"application": "game", "version": "v1"}]
        assert (told[1][0], told[1][1]["id"], told[1][1]["status"]) == ("deployment", deployment_id, "READY")
        assert caller.inner(deployment_id).delete_token not in json.dumps(told)
        logs = events(session, f"/emulator/deployments/{deployment_id}/logs")
        assert await anext(logs) == ("log", {"stream": "stdout", "text": "up\n"})
        await caller.stop(deployment_id)
        last = [event async for event in logs]
        assert [name for name, _ in last] == ["end"]


async def test_streams_end_with_the_emulator() -> None:
    """Closing does not wait for readers who would listen for ever."""
    async with aiohttp.ClientSession() as session:
        async with backend() as caller:
            stream = events(session, f"{caller.emulator.url}/emulator/stream")
            assert (await anext(stream))[0] == "catalogue"
        assert [event async for event in stream] == []

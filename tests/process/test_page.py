"""The status page of a running agent: in a real browser where there is one, and who may use its button."""

from __future__ import annotations

import http.client
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from agent.api.page import VIEWERS
from tests.process.harness import DEADLINE, Launcher, Run, game

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
needs_browser = pytest.mark.skipif(
    not os.path.exists(CHROMIUM), reason="chromium is not installed: apt-get install chromium"
)
DEPLOYMENT = {
    "ARBITRIUM_REQUEST_ID": "23c01225b99d",
    "ARBITRIUM_DEPLOYMENT_LOCATION": '{"city": "Montreal", "country": "Canada", "continent": "North America"}',
    "AGENT_LOG_LEVEL": "info",
    "AGENT_RCON_PASSWORD": "a password of rcon",
}
NUMBERS = re.compile(r"\d")


def address(run: Run) -> str:
    """The page's address, as the agent's log has it."""
    said = run.stderr.wait_for("status page: http://")
    found = re.search(r"status page: (\S+)", said)
    assert found is not None
    return found[1]


@contextmanager
def opened(url: str, width: int = 1100) -> Iterator[Page]:
    """The page in a browser; while the agent lives it calls nobody else and complains of nothing."""
    complaints: list[str] = []
    called: set[str] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(DEADLINE * 1000)
        expect.set_options(timeout=DEADLINE * 1000)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: called.add("/".join(request.url.split("/")[:3])))
        page.goto(url)
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        yield page
        browser.close()
    assert [text for text in complaints if "net::ERR_" not in text and "401" not in text] == []
    assert called == {"/".join(url.split("/")[:3])}


@pytest.mark.browser
@needs_browser
@pytest.mark.slow
def test_a_person_watches_a_game_and_stops_it_with_the_keyboard_alone(launch: Launcher) -> None:
    """Phase, players, charts, output, settings; then the button, a wrong token, the right one, the plan, the end."""
    run = launch(game("slow_on_sigterm", "2"), mode="subreaper", env=DEPLOYMENT | {"AGENT_GRACE_SECONDS": "20"})
    run.wait_for("ready")
    run.http("POST", "/v1/ready")
    run.http("PUT", "/v1/players", {"count": 3, "capacity": 8})
    with opened(address(run)) as page:
        assert "token" not in page.url
        expect(page.get_by_role("heading", name="23c01225b99d")).to_be_visible()
        expect(page.locator("header")).to_contain_text("Montreal, Canada")
        expect(page.locator("#phases [aria-current=step]")).to_have_text("ready")
        expect(page.locator("#players")).to_have_text("3 of 8")
        expect(page.locator("#output")).to_contain_text("ready")
        expect(page.get_by_role("img", name=re.compile("CPU: .*%"))).to_be_visible()
        expect(page.get_by_role("img", name=re.compile("Memory: .*B"))).to_be_visible()
        expect(page.locator("#memory polyline")).to_have_attribute("points", NUMBERS)
        page.get_by_text("Settings", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("row", name="AGENT_GRACE_SECONDS 20")).to_be_visible()
        assert "a password of rcon" not in page.content()
        token = page.get_by_label("Token").input_value()
        page.get_by_role("button", name="Stop…").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("cannot stop from the page: the token is missing or wrong")
        page.get_by_label("Token").fill(token)
        page.get_by_label("Why").fill("match over")
        page.keyboard.press("Enter")
        expect(page.locator("#why")).to_contain_text("Stop asked for by operator (requested): match over.")
        expect(page.get_by_role("progressbar", name="ship")).to_be_visible()
        expect(page.get_by_role("button", name="Stop…")).to_be_disabled()
        expect(page.locator("#live")).to_contain_text("the agent has ended")
    assert run.finish().code == 0


@pytest.mark.browser
@needs_browser
@pytest.mark.slow
def test_the_page_fits_a_phone(launch: Launcher) -> None:
    """Nothing is wider than the screen, and the button can be reached."""
    run = launch(game("prints_signals"), mode="subreaper", env=DEPLOYMENT)
    run.wait_for("ready")
    with opened(address(run), width=360) as page:
        expect(page.locator("#memory polyline")).to_have_attribute("points", NUMBERS)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        expect(page.get_by_role("button", name="Stop…")).to_be_in_viewport()


@pytest.mark.slow
def test_the_button_takes_the_token_that_is_set_and_no_page_of_elsewhere(launch: Launcher) -> None:
    """Then it is in no log. What is not from this machine is refused before anything else."""
    run = launch(game("prints_signals"), mode="subreaper", env=DEPLOYMENT | {"AGENT_PAGE_TOKEN": "of our own"})
    run.wait_for("ready")
    assert "#token" not in address(run)
    page = run.http("GET", "/")
    assert (page.status, page.type) == (200, "text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    right = {"Authorization": "Bearer of our own"}
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer of others"}, 401),
        ({"Authorization": "Bearer \xff"}, 401),
        (right | {"Origin": "https://example.com"}, 403),
        (right | {"Host": "example.com"}, 403),
    ):
        assert run.http("POST", "/page/stop", headers=headers).status == status
    assert run.http("POST", "/page/stop", {"reason": 5}, headers=right).status == 400
    assert run.http("GET", "/v1/status").json()["stop"] is None
    answer = run.http("POST", "/page/stop", {"reason": "enough"}, headers=right)
    assert (answer.status, answer.json()["source"]) == (202, "operator")
    run.finish()
    assert "of our own" not in run.stderr.text


def test_a_page_that_is_closed_makes_room_for_the_next(launch: Launcher) -> None:
    """However many there were; each is told everything at once."""
    run = launch(game("prints_signals"), mode="subreaper", env=DEPLOYMENT)
    run.wait_for("ready")
    host, _, port = run.game_environment["AGENT_URL"].removeprefix("http://").partition(":")
    for _ in range(VIEWERS + 4):
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        connection.request("GET", "/page/stream")
        stream = connection.getresponse()
        assert stream.status == 200
        missing = {b"deployment", b"settings", b"metrics", b"status"}
        while missing:
            line = stream.readline()
            assert line
            missing.discard(line.removeprefix(b"event: ").strip())
        stream.close()
        connection.close()

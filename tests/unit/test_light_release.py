"""One call of the self-stop without the agent: whose answer it is, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from agent.init import release
from agent.web_page import is_web_page
from tests.edgegap_fakes import serving

PAGE = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"
JSON = b'{"message": "will be processed soon"}'


async def call(status: int, content_type: str, body: bytes) -> int:
    """The status that counts of an answer."""

    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": content_type} if content_type else {}
        return web.Response(status=status, body=body, headers=headers)

    async with serving(answer) as base:
        return await asyncio.to_thread(release._call, f"{base}/v1/self/stop/23c01225b99d/463660", "token", "true")


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "text/html", PAGE),
        (202, "text/html", PAGE),
        (410, "Text/HTML; charset=utf-8", PAGE),
        (200, "application/json", PAGE),
        (200, "", b"\xef\xbb\xbf \n" + PAGE),
        (200, "text/html", b"\n" * 200 + PAGE),
    ],
)
async def test_a_web_page_is_no_confirmation_and_is_said(
    capfd: pytest.CaptureFixture[str], status: int, content_type: str, body: bytes
) -> None:
    """A captive portal, or a proxy's own page."""
    assert await call(status, content_type, body) == 0
    assert "web page" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "application/json", JSON),
        (200, "text/html; charset=utf-8", JSON),
        (202, "text/html", b""),
        (410, "", b""),
        (202, "application/json", PAGE),
    ],
)
async def test_a_confirmation_counts_whatever_it_calls_itself(status: int, content_type: str, body: bytes) -> None:
    """A framework that calls every answer HTML, and one that says nothing."""
    assert await call(status, content_type, body) == status


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_a_refusal_is_one_in_html_too(status: int) -> None:
    """A proxy's 403 is as a rule a page: it is a refusal all the same, held and said."""
    assert await call(status, "text/html", PAGE) == status


@pytest.mark.parametrize("status", [200, 202, 410])
@pytest.mark.parametrize(("body", "page"), [(PAGE, True), (b" <p>", True), (JSON, False), (b"", False)])
def test_what_calls_itself_html_must_look_so(status: int, body: bytes, page: bool) -> None:
    """The one judgement for both self-stops."""
    assert is_web_page(status, "text/html", body) is page

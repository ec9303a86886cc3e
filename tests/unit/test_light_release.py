"""One call of the self-stop without the agent: whose answer it is, and what is said of it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from aiohttp import web

from agent.game.reaper import Reaper
from agent.init import release
from agent.init.loop import Loop
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


@pytest.mark.parametrize("line", ["HTTP/1.1 2_02 OK", "HTTP/1.1 +202", "HTTP/1. 202 ", "HTTP/1.1\x0b202", "202", ""])
def test_what_is_no_status_line(line: str) -> None:
    """Confirms nothing, whatever Python's own client reads in it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_one, args=(listener, line.encode() + b"\r\n\r\n"))
        thread.start()
        assert release._call(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/self/stop/a/1", "token", "false") == 0
        thread.join()


def _answer_one(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(answer)


@pytest.mark.parametrize("status", [200, 202, 410])
@pytest.mark.parametrize(("body", "page"), [(PAGE, True), (b" <p>", True), (JSON, False), (b"", False)])
def test_what_calls_itself_html_must_look_so(status: int, body: bytes, page: bool) -> None:
    """The one judgement for both self-stops."""
    assert is_web_page(status, "text/html", body) is page


@pytest.fixture
def trickling() -> Iterator[str]:
    """The URL of a platform that sends a byte of a header now and then, and never ends it."""
    over = threading.Event()

    def send(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Padding: ")
                while not over.wait(0.02):
                    connection.sendall(b"a")
            except OSError:
                return  # the caller has hung up

    def accept(listener: socket.socket) -> None:
        try:
            send(listener.accept()[0])
        except OSError:
            return  # closed at the end of the test

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/self/stop/23c01225b99d/463660"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("early", ["a signal", "the limit"])
def test_a_call_of_pid_1_itself_has_a_limit(early: str, trickling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process can be forked, and the platform trickles: PID 1 is back in time, at once for a signal."""
    loop = Loop()
    limit, seconds = (0.3, 0.3) if early == "the limit" else (60.0, 0.0)
    monkeypatch.setattr(release, "_CALL_HERE_SECONDS", limit)
    monkeypatch.setattr(release, "_HELPER_AGAIN", 0.0)
    monkeypatch.setattr(os, "fork", _no_room)
    monkeypatch.setenv("RES_OPTIONS", "")  # restored at the end
    if early == "a signal":
        loop.call_later(0, loop.note_signal, 15, 0.0)
    settled: list[str] = []
    release.LightRelease(Reaper(), lambda: None, loop).start(trickling, "token", "true", settled.append)
    began = time.monotonic()
    loop.call_later(0, loop.stop, 0)
    loop.run()
    assert seconds <= time.monotonic() - began < 10.0
    assert not settled


def test_a_call_of_pid_1_itself_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a helper would have done, without one."""
    loop = Loop()
    monkeypatch.setattr(release, "_HELPER_AGAIN", 0.0)
    monkeypatch.setattr(release, "_call", lambda *_, **__: 202)
    monkeypatch.setattr(os, "fork", _no_room)
    monkeypatch.setenv("RES_OPTIONS", "")  # restored at the end
    settled: list[str] = []

    def confirmed(how: str) -> None:
        settled.append(how)
        loop.stop(0)

    release.LightRelease(Reaper(), lambda: None, loop).start("http://127.0.0.1:1/", "token", "true", confirmed)
    loop.run()
    assert settled == ["confirmed"]


def _no_room() -> int:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

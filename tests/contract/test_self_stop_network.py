"""The self-stop in unusual networks, by the agent and without it: confirmed by the platform or not at all."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from agent.edgegap.self_stop import SelfStop
from agent.init import release
from tests import certificates

TOKEN = "0123456789abcdef0123456789abcdef"
PATH = "/v1/self/stop/23c01225b99d/463660"


class AgainError(Exception):
    """In place of a second call."""


async def by_the_agent(url: str) -> bool:
    """Whether one call is confirmed."""

    async def again(_: float) -> None:
        raise AgainError

    try:
        return (await SelfStop(url, SecretStr(TOKEN), sleep=again).run()).confirmed
    except AgainError:
        return False


async def without_it(url: str) -> bool:
    """As `by_the_agent`, by PID 1's helper."""
    return await asyncio.to_thread(release._call, url, TOKEN, "true") in (200, 202, 410)


CALLS = [by_the_agent, without_it]
Call = Callable[[str], Awaitable[bool]]


@asynccontextmanager
async def server(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[str]]]:
    """Confirms every call; its address, and what it was asked."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(f"{request.method} {request.path} {request.headers.get('authorization')}")
        return web.json_response({"message": "will be processed soon"}, status=202)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=tls)
    await site.start()
    _, port = runner.addresses[0][:2]
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"{'https' if tls else 'http'}://{shown}:{port}", asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("call", CALLS)
async def test_proxy_variables_do_not_get_the_token(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the image's or the game's; the platform is asked directly, as it is on its machines."""
    async with server() as (proxy, seen), server() as (base, asked):
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        assert await call(base + PATH)
    assert asked == [f"DELETE {PATH} {TOKEN}"]
    assert not seen


@pytest.mark.parametrize("call", CALLS)
async def test_ipv6_alone_is_enough(call: Call) -> None:
    """An address of it in the injected URL."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server("::1") as (base, asked):
        assert await call(base + PATH)
    assert len(asked) == 1


@pytest.mark.parametrize("call", CALLS)
async def test_a_name_that_is_not_found_confirms_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again later."""

    def fails(*_arguments: object, **_named: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert not await call(f"https://api.edgegap.com{PATH}")


@pytest.mark.parametrize("call", CALLS)
async def test_a_certificate_that_nobody_trusts_does_not_get_the_token(call: Call, tmp_path: Path) -> None:
    """Somebody in between, or a clock that is years off."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificates.write(tmp_path))
    async with server(tls=context) as (base, asked):
        assert not await call(base + PATH)
    assert not asked


ANSWER = (
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 40\r\nConnection: close\r\n\r\n"
    b'{"message": "will be processed soon, 1"}'
)
DECIDES = len(b"HTTP/1.1 202")
"""Bytes of the answer that say what it is."""


@pytest.mark.parametrize("call", CALLS)
async def test_an_answer_that_is_cut_anywhere_is_confirmed_by_its_status_line_or_not_at_all(call: Call) -> None:
    """The connection breaks after each of its bytes."""
    cut = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER[:cut])
        await writer.drain()
        writer.close()

    confirmed: list[int] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{PATH}"
        for length in range(len(ANSWER) + 1):
            cut = length
            confirmed += [length] if await call(url) else []
    assert not [cut for cut in confirmed if cut < DECIDES]
    assert ANSWER.index(b"\r\n\r\n") + 4 in confirmed, "what comes after the head does not matter"
    assert len(ANSWER) in confirmed

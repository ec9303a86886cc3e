"""What is used of aiohttp without its promise is still where it was."""

import asyncio
import inspect

import aiohttp
from aiohttp.client_proto import ResponseHandler

from agent import web


async def test_the_switches_that_are_used_exist() -> None:
    """A new aiohttp that has moved one of them fails here, and not in a container that is to be stopped."""
    connector = aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session:
        assert session._retry_connection is True
        assert callable(connector._factory)
        assert isinstance(connector._factory(), ResponseHandler)
    assert list(inspect.signature(ResponseHandler.data_received).parameters) == ["self", "data"]
    assert next(iter(inspect.signature(ResponseHandler.__init__).parameters.values())).name == "self"


async def test_a_connection_of_the_server_tells_what_waits_on_it() -> None:
    """Whether a request is awaited, handled, or waits behind one that is handled."""
    seen: list[tuple[bool, bool]] = []
    connections: list[web.Connection] = []
    begun, second_came = asyncio.Event(), asyncio.Event()
    second = b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await second_came.wait()
        seen.append((connections[0].waits_for_request, connections[0].has_requests_waiting))
        return web.Response()

    class Connection(web.Connection):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == second:
                second_came.set()

    def connect() -> web.Connection:
        connections.append(Connection(server, loop=asyncio.get_running_loop()))
        return connections[0]

    server = web.Server(handle)
    listening = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    writer.write(second.replace(b"/2", b"/1"))
    await writer.drain()
    async with asyncio.timeout(20):
        await begun.wait()
        writer.write(second)
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
        while not connections[0].waits_for_request:  # noqa: ASYNC110 - aiohttp tells no event
            await asyncio.sleep(0.01)
    assert seen == [(False, True), (False, False)]
    assert not connections[0].has_requests_waiting
    writer.close()
    listening.close()
    await server.shutdown()

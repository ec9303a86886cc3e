"""What is used of aiohttp without its promise is still where it was."""

import inspect

import aiohttp
from aiohttp.client_proto import ResponseHandler


async def test_the_switches_that_are_used_exist() -> None:
    """A new aiohttp that has moved one of them fails here, and not in a container that is to be stopped."""
    connector = aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session:
        assert session._retry_connection is True
        assert callable(connector._factory)
        assert isinstance(connector._factory(), ResponseHandler)
    assert list(inspect.signature(ResponseHandler.data_received).parameters) == ["self", "data"]
    assert next(iter(inspect.signature(ResponseHandler.__init__).parameters.values())).name == "self"

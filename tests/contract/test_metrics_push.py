"""Pushing metrics: remote write in both versions, a Pushgateway, and receivers that fail."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import cramjam
import pytest
from aiohttp import web
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from agent.metrics.exposition import Family, Sample, counter, gauge
from agent.metrics.push import Pusher
from agent.metrics.remote_write import snappy

FAMILIES = [
    gauge("arbitrium_players", "Players now.").single(3),
    counter("shots_total", "Shots.", "weapon", "job").family([(("awp", "own"), 5.0), (("", "x"), 2.0)]),
    Family("game_lag", "histogram", "Lag.", [Sample("_bucket", (("le", "+Inf"),), 1), Sample("_sum", (), 0.5)]),
]
# What each version of the protocol says of its messages: name, and fields as (name, number, type, repeated, message).
V1 = {
    "WriteRequest": [("timeseries", 1, 11, True, "TimeSeries")],
    "TimeSeries": [("labels", 1, 11, True, "Label"), ("samples", 2, 11, True, "Sample")],
    "Label": [("name", 1, 9, False, ""), ("value", 2, 9, False, "")],
    "Sample": [("value", 1, 1, False, ""), ("timestamp", 2, 3, False, "")],
}
V2 = {
    "Request": [("symbols", 4, 9, True, ""), ("timeseries", 5, 11, True, "TimeSeries")],
    "TimeSeries": [
        ("labels_refs", 1, 13, True, ""),
        ("samples", 2, 11, True, "Sample"),
        ("metadata", 5, 11, False, "Metadata"),
    ],
    "Sample": [("value", 1, 1, False, ""), ("timestamp", 2, 3, False, "")],
    "Metadata": [("type", 1, 5, False, ""), ("help_ref", 3, 13, False, "")],
}


def message(package: str, of: dict[str, list[tuple[str, int, int, bool, str]]], name: str) -> Any:
    """A class for messages of the protocol, from its description."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for kind, fields in of.items():
        described = file.message_type.add(name=kind)
        for field, number, type_number, repeated, refers in fields:
            described.field.add(
                name=field,
                number=number,
                type=type_number,
                label=3 if repeated else 1,
                type_name=f".{package}.{refers}" if refers else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def read_v1(body: bytes) -> dict[str, float]:
    """Series of a request in version 1.0 by their labels."""
    request = message("v1", V1, "WriteRequest").FromString(bytes(cramjam.snappy.decompress_raw(body)))
    return {
        ",".join(f"{label.name}={label.value}" for label in series.labels): series.samples[0].value
        for series in request.timeseries
    }


def read_v2(body: bytes) -> dict[str, float]:
    """The same of version 2.0."""
    request = message("v2", V2, "Request").FromString(bytes(cramjam.snappy.decompress_raw(body)))
    words = list(request.symbols)
    assert words[0] == ""
    found = {}
    for series in request.timeseries:
        references = list(series.labels_refs)
        pairs = zip(references[::2], references[1::2], strict=True)
        found[",".join(f"{words[name]}={words[value]}" for name, value in pairs)] = series.samples[0].value
        assert words[series.metadata.help_ref] in {"Players now.", "Shots.", "Lag."}
    return found


SERIES = {
    "__name__=arbitrium_players,instance=i,job=j": 3.0,
    "__name__=shots_total,exported_job=own,instance=i,job=j,weapon=awp": 5.0,
    "__name__=shots_total,exported_job=x,instance=i,job=j": 2.0,
    "__name__=game_lag_bucket,instance=i,job=j,le=+Inf": 1.0,
    "__name__=game_lag_sum,instance=i,job=j": 0.5,
}
Answer = Callable[[web.BaseRequest, bytes], web.Response]


class Receiver:
    """A receiver whose answers a test decides; it keeps what came."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[web.BaseRequest, bytes]] = []
        self._answer = answer

    async def __aenter__(self) -> str:
        async def take(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()

            self.requests.append((request, body))
            return self._answer(request, body)

        self._runner = web.ServerRunner(web.Server(take))
        await self._runner.setup()
        sock = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, sock).start()
        return f"http://127.0.0.1:{sock.getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def families() -> list[Family]:
    """What is pushed."""
    return FAMILIES


def pusher(url: str, auth: str | None = None) -> Pusher:
    """Pushes to this URL."""
    return Pusher(url, families, job="j", instance="i", auth=auth)


def soon(seconds: float = 5.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def says_written(_request: web.BaseRequest, _body: bytes) -> web.Response:
    """As a receiver of 2.0 answers."""
    return web.Response(status=204, headers={"X-Prometheus-Remote-Write-Samples-Written": "5"})


async def test_a_receiver_of_version_2_gets_it_once() -> None:
    """Symbols, series, samples and help, in the words of the specification."""
    receiver = Receiver(says_written)
    async with receiver as url:
        assert await pusher(f"{url}/api/v1/write", "user:word").push_last(soon())
    ((request, body),) = receiver.requests
    assert request.headers["Content-Type"] == "application/x-protobuf;proto=io.prometheus.write.v2.Request"
    assert request.headers["X-Prometheus-Remote-Write-Version"] == "2.0.0"
    assert request.headers["Authorization"] == "Basic dXNlcjp3b3Jk"
    assert read_v2(body) == SERIES


@pytest.mark.parametrize("first", [415, 400, 204])
async def test_a_receiver_of_version_1_is_recognised_and_gets_version_1(first: int) -> None:
    """One refuses the type; an old one takes an empty request for good, and does not say how many were written."""
    receiver = Receiver(
        lambda request, _: web.Response(status=first if "v2" in request.headers["Content-Type"] else 204)
    )
    async with receiver as url:
        push = pusher(f"{url}/api/v1/write", "token")
        assert await push.push_last(soon())
        assert await push.push_last(soon())
    kinds = [request.headers["Content-Type"] for request, _ in receiver.requests]
    assert [("v2" in kind) for kind in kinds] == [True, False, False], "it is asked once"
    assert receiver.requests[0][0].headers["Authorization"] == "Bearer token"
    assert read_v1(receiver.requests[1][1]) == SERIES


async def test_a_pushgateway_gets_the_text_format_under_the_name_of_the_deployment() -> None:
    """PUT, so that what was there before is replaced."""
    receiver = Receiver(lambda *_: web.Response(status=200))
    async with receiver as url:
        assert await Pusher(f"{url}/metrics/job/game", families, job="j", instance="a/b").push_last(soon())
    ((request, body),) = receiver.requests
    assert (request.method, request.raw_path) == (
        "PUT",
        "/metrics/job/game/instance@base64/YS9i",
    )
    assert b"arbitrium_players 3.0\n" in body


async def test_a_busy_receiver_is_asked_again_and_a_refusal_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    """503 passes; 401 is said, once, with what the receiver answered, and without the credentials."""
    answers = [503, 503, 204]
    receiver = Receiver(lambda *_: web.Response(status=answers.pop(0)))
    async with receiver as url:
        assert await pusher(f"{url}/metrics/job/game").push_last(soon())
    refusing = Receiver(lambda *_: web.Response(status=401, text="who are\x1b[31m you?"))
    async with refusing as url:
        assert not await pusher(f"{url}/api/v1/write?key=s3cret", "s3cret").push_last(soon())
    assert len(refusing.requests) == 1
    said = capfd.readouterr().err
    assert "cannot push metrics" in said
    assert "it answered 401 who are [31m you?" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("answering", [True, False])
async def test_the_deadline_holds(answering: bool) -> None:
    """Whether the receiver refuses connections or takes one and says nothing, the stop goes on."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api/v1/write"
        if not answering:
            silent.close()
        began = time.monotonic()
        assert not await pusher(url).push_last(began + 0.3)
        assert time.monotonic() - began < 3


async def test_pushing_at_an_interval_goes_on_after_a_failure() -> None:
    """A receiver that comes back gets the next values."""
    answers = iter([500, 200, 200])
    receiver = Receiver(lambda *_: web.Response(status=next(answers, 200)))
    async with receiver as url:
        task = asyncio.create_task(pusher(f"{url}/metrics/job/game").run(0.05))
        end = soon()
        while len(receiver.requests) < 3:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_literals_are_snappy(size: int) -> None:
    """Any decoder of the block format reads them."""
    data = bytes(index % 251 for index in range(size))
    assert bytes(cramjam.snappy.decompress_raw(snappy(data))) == data

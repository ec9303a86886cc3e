"""Plain HTTP PUT, presigned URLs, and directories."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from agent.logs.redact import Redactor
from agent.logs.runs import Segment
from agent.logs.ship import Shipper
from agent.logs.speed import Speed
from tests.local_spool import LocalSpool

IDENTITY = {"application": "arena", "version": "v1", "deployment_id": "23c01225b99d"}
SIGNATURE = "X-Amz-Signature=0123456789abcdef0123456789abcdef"


class PutServer:
    """Takes what is put, as a store behind a presigned URL does.

    Attributes:
        objects: what was put, by path and query.
        puts: the sizes, in order.
        status: what it answers.
        slow: seconds it takes for each MB.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[int] = []
        self.status = 200
        self.slow = 0.0
        self.port = 0

    async def put(self, request: web.Request) -> web.Response:
        """Takes one object."""
        assert request.content_length is not None, "a presigned PUT needs one"
        body = await request.read()
        await asyncio.sleep(self.slow * len(body) / 1e6)
        if self.status == 200:
            self.objects[request.path_qs] = body
            self.puts.append(len(body))
        return web.Response(status=self.status, text="<Code>ExpiredToken</Code>")


@pytest.fixture
async def server() -> AsyncIterator[PutServer]:
    """One that listens on a free port."""
    made = PutServer()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_put("/{path:.*}", made.put)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[LocalSpool]:
    """A spool that is closed at the end."""
    made = LocalSpool(str(tmp_path / "spool"), 1 << 24, segment_bytes=1 << 16)
    yield made
    made.close(time.monotonic() + 10)


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something is so, or fails."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it never happened"
        await asyncio.sleep(0.01)


def deadline(seconds: float = 20.0) -> float:
    """So many seconds from now, on the loop's clock."""
    return asyncio.get_running_loop().time() + seconds


def members(archive: bytes) -> dict[str, bytes]:
    """What is in an archive, by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar.getmembers()}


async def test_objects_are_put_below_a_path(server: PutServer, spool: LocalSpool) -> None:
    """A server that takes files: each object has a URL of its own."""
    shipper = Shipper(f"http://127.0.0.1:{server.port}/put", spool, IDENTITY)
    spool.append("stdout", b"hello\n")
    result = await shipper.finish(deadline(), {"cause": "clean"}, tail=b"hello\n")
    assert result.not_shipped == []
    directory = f"/put/{result.directory}/"
    assert all(path.startswith(directory) for path in server.objects)
    assert {path.removeprefix(directory)[:6] for path in server.objects} == {"exit.j", "tail.l", "run.js", "000001"}
    assert json.loads(server.objects[f"{directory}exit.json"])["cause"] == "clean"


async def test_a_kept_file_may_be_called_anything(server: PutServer, spool: LocalSpool, tmp_path: Path) -> None:
    """Blanks, question marks, line breaks and bytes that are no text; each arrives under a name that can be one."""
    for name in (b"a b?c#d%.rpl", b"line\nbreak.rpl", b"no\xfftext.rpl"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    keep = [f"{tmp_path}/*.rpl"]
    shipper = Shipper(f"http://127.0.0.1:{server.port}/put", spool, IDENTITY, keep=keep)
    result = await shipper.finish(deadline(), {"cause": "clean"})
    assert result.not_shipped == []
    kept = [path for path in server.objects if "/keep/" in path]
    assert len(kept) == 3
    assert any(path.endswith("/a%20b%3Fc%23d%25.rpl.zst") for path in kept)


async def test_the_key_can_be_anywhere_in_the_url(server: PutServer, spool: LocalSpool) -> None:
    """A gateway that wants its token behind the path."""
    shipper = Shipper(f"http://127.0.0.1:{server.port}/x/{{key}}?token=t%2Fk", spool, IDENTITY)
    spool.append("stdout", b"hello\n")
    result = await shipper.finish(deadline(), {"cause": "clean"})
    assert f"/x/{result.directory}/exit.json?token=t%2Fk" in server.objects


async def test_a_presigned_url_gets_one_archive_that_grows(
    server: PutServer, spool: LocalSpool, tmp_path: Path
) -> None:
    """While the game runs, and as a whole at the end; the signature is in no message."""
    said: list[str] = []
    (tmp_path / "replay.bin").write_bytes(os.urandom(300_000))
    url = f"http://127.0.0.1:{server.port}/logs.tar?{SIGNATURE}"
    shipper = Shipper(
        url,
        spool,
        IDENTITY,
        interval=0.05,
        keep=[str(tmp_path / "*.bin"), "/none"],
        say=said.append,
        redactor=Redactor(),
    )
    running = asyncio.get_running_loop().create_task(shipper.run())
    spool.append("stdout", b"one\n" * 50_000)
    await eventually(lambda: bool(server.puts))
    spool.append("stdout", b"two\n" * 50_000)
    await eventually(lambda: len(server.puts) > 1)
    assert spool.counters()["bytes_shipped"] == 0
    result = await shipper.finish(deadline(), {"cause": "clean"}, tail=b"two\n")
    await running
    [(path, archive)] = server.objects.items()
    assert path == f"/logs.tar?{SIGNATURE}"
    found = members(archive)
    names = [name.removeprefix(f"{result.directory}/") for name in found]
    assert names[:3] == ["exit.json", "tail.log", "run.json"]
    assert sum(name.endswith(".ndjson.zst") for name in names) >= 2
    assert any(name.endswith("replay.bin.zst") for name in names)
    document = json.loads(found[f"{result.directory}/exit.json"])
    assert document["shipping"]["complete"] is True
    assert document["shipping"]["not_shipped"] == []
    assert document["bundle"]["missing"] == ["/none"]
    assert result.not_shipped == []
    assert spool.counters()["bytes_held"] == 0
    assert SIGNATURE not in repr(result) + "".join(said) + json.dumps(document)


async def test_a_presigned_url_that_fails_once_is_not_taken_for_one_that_takes_nothing(
    server: PutServer, spool: LocalSpool
) -> None:
    """Its speed is never measured, but that it works again is told: else each stop would keep time back for it."""
    rates: list[float] = []
    url = f"http://127.0.0.1:{server.port}/logs.tar?{SIGNATURE}"
    shipper = Shipper(url, spool, IDENTITY, interval=0.05, speed=Speed(lambda _seconds, rate: rates.append(rate)))
    server.status = 503
    running = asyncio.get_running_loop().create_task(shipper.run())
    spool.append("stdout", b"one\n")
    await eventually(lambda: bool(rates))
    assert rates == [0.0]
    server.status = 200
    await eventually(lambda: bool(server.puts))
    await shipper.finish(deadline(), {"cause": "clean"})
    await running
    assert rates[-1] > 0


async def test_exit_json_arrives_through_a_presigned_url_though_the_rest_does_not(
    server: PutServer, spool: LocalSpool
) -> None:
    """Of what takes too long the store has the story at least, and what is missing is listed."""
    server.slow = 10
    for _ in range(4):
        spool.append("stdout", os.urandom(200_000).hex().encode() + b"\n")
    shipper = Shipper(f"http://127.0.0.1:{server.port}/logs.tar?{SIGNATURE}", spool, IDENTITY)
    result = await shipper.finish(deadline(2.5), {"cause": "clean"}, tail=b"end")
    found = members(server.objects[f"/logs.tar?{SIGNATURE}"])
    assert found[f"{result.directory}/tail.log"] == b"end"
    document = json.loads(found[f"{result.directory}/exit.json"])
    assert document["shipping"]["complete"] is False
    assert document["shipping"]["not_shipped"]
    assert len(result.not_shipped) == len(document["shipping"]["not_shipped"])
    assert spool.counters()["bytes_shipped"] == 0


async def test_a_presigned_url_that_has_expired_is_said(server: PutServer, spool: LocalSpool) -> None:
    """403 is final: the end does not wait, and the spool keeps everything."""
    said: list[str] = []
    server.status = 403
    spool.append("stdout", b"hello\n")
    url = f"http://127.0.0.1:{server.port}/logs.tar?{SIGNATURE}"
    shipper = Shipper(url, spool, IDENTITY, say=said.append)
    began = time.monotonic()
    result = await shipper.finish(deadline(30), {"cause": "clean"}, tail=b"end")
    assert time.monotonic() - began < 15
    assert "the server answered 403" in said[0]
    assert SIGNATURE not in "".join(said)
    assert {str(part["what"]) for part in result.not_shipped} >= {"tail.log"}
    assert spool.counters()["bytes_held"] > 0


async def test_what_the_store_has_may_not_be_dropped_before_that_is_known(tmp_path: Path) -> None:
    """Of this run and of an earlier one, while the game runs and at the end: else it is in the store, and lost."""
    droppable: list[int] = []
    confirmed: list[int] = []

    class Watched(LocalSpool):
        def confirm(self, segment: Segment) -> None:
            confirmed.append(segment.number)
            droppable.extend([] if segment.busy else [segment.number])
            super().confirm(segment)

    earlier = LocalSpool(str(tmp_path / "spool"), 1 << 24)
    earlier.append("stdout", b"earlier\n")
    earlier.close(time.monotonic() + 10)
    spool = Watched(str(tmp_path / "spool"), 1 << 24)
    shipper = Shipper(f"file://{tmp_path}/store", spool, IDENTITY, interval=0.05)
    running = asyncio.get_running_loop().create_task(shipper.run())
    spool.append("stdout", b"one\n")
    await eventually(lambda: len(confirmed) == 2)
    spool.append("stdout", b"two\n")
    await shipper.finish(deadline(), {"cause": "clean"})
    await running
    spool.close(time.monotonic() + 10)
    assert (sorted(confirmed), droppable) == ([1, 1, 2], [])


async def test_a_directory_is_made_and_holds_whole_files(spool: LocalSpool, tmp_path: Path) -> None:
    """`file://`: a mounted volume."""
    shipper = Shipper(f"file://{tmp_path}/new/place/{{deployment_id}}", spool, IDENTITY)
    spool.append("stdout", b"hello\n")
    result = await shipper.finish(deadline(), {"cause": "clean"}, tail=b"hello\n")
    directory = tmp_path / "new" / "place" / result.directory
    assert result.directory.startswith("23c01225b99d/2")
    assert {path.name[:6] for path in directory.iterdir()} == {"exit.j", "tail.l", "run.js", "000001"}


async def test_a_directory_that_cannot_be_written_to_is_said(spool: LocalSpool, tmp_path: Path) -> None:
    """And nobody waits for it."""
    (tmp_path / "file").write_text("")
    said: list[str] = []
    shipper = Shipper(f"file://{tmp_path}/file/logs", spool, IDENTITY, say=said.append)
    spool.append("stdout", b"hello\n")
    result = await shipper.finish(deadline(1), {"cause": "clean"})
    assert said[0].startswith(f"cannot ship logs to file://{tmp_path}/file/logs: ")
    assert result.not_shipped
    assert result.local is not None


async def test_without_a_store_the_story_is_kept_locally(spool: LocalSpool) -> None:
    """`exit.json` beside the spool; nothing counts as not shipped, because nothing was to be."""
    shipper = Shipper(None, spool, {})
    running = asyncio.get_running_loop().create_task(shipper.run())
    spool.append("stdout", b"hello\n")
    result = await shipper.finish(deadline(), {"cause": "exit_code"}, tail=b"hello\n")
    await running
    assert result.not_shipped == []
    assert result.local == f"{spool.run}/exit.json"
    document = json.loads(Path(result.local).read_text())
    assert document["cause"] == "exit_code"
    assert document["shipping"]["destination"] is None
    assert document["shipping"]["complete"] is True
    assert [segment.number for segment in spool.segments()] == [1]


async def test_only_the_newest_stories_are_kept_locally(tmp_path: Path) -> None:
    """A container that is restarted for ever does not collect directories."""
    directory = tmp_path / "many"

    def kept() -> int:
        return len([path for path in directory.iterdir() if path.is_dir()])

    for _ in range(14):
        one = LocalSpool(str(directory), 1 << 20)
        shipper = Shipper(None, one, {})
        running = asyncio.get_running_loop().create_task(shipper.run())
        await eventually(lambda shipper=shipper: bool(shipper.directory))  # type: ignore[misc]
        await eventually(lambda: kept() <= 11)  # its own, and ten earlier ones
        await shipper.finish(deadline(), {"cause": "clean"})
        await running
        one.close(time.monotonic() + 10)


@pytest.mark.parametrize(
    ("url", "path", "authorization"),
    [
        ("gs://bucket/logs", "/bucket/logs%2F", "Bearer"),
        ("az://container/logs", "/account/container/logs/", "SharedKey account:"),
    ],
)
async def test_google_and_azure_are_spoken_with_their_usual_variables(
    spool: LocalSpool, monkeypatch: pytest.MonkeyPatch, url: str, path: str, authorization: str
) -> None:
    """The requests that their stores expect, with the credentials from the environment."""
    seen: list[tuple[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        await request.read()
        seen.append((request.raw_path, request.headers.get("Authorization", "")))
        # What both stores answer with; the two clients insist on different parts of it.
        return web.Response(status=201, headers={"ETag": '"1"', "x-goog-generation": "1"})

    app = web.Application()
    app.router.add_put("/{path:.*}", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    account = {
        "gcs_base_url": endpoint,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
    monkeypatch.setenv("GOOGLE_ENDPOINT", endpoint)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5a2V5")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{endpoint}/account")
    spool.append("stdout", b"hello\n")
    result = await Shipper(url, spool, IDENTITY).finish(deadline(), {"cause": "clean"}, tail=b"hello\n")
    await runner.cleanup()
    assert result.not_shipped == []
    assert len(seen) == 5
    assert all(raw.startswith(path) and sent.startswith(authorization) for raw, sent in seen)

"""Where a deployment's output is, while it runs and after it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import pytest

from agent.emulator.container_log import CHUNK_BYTES, ContainerLog
from tests.contract.backend import SECONDS, Backend, backend, python, quick

TALKS = """
import sys, time
print("to stdout", flush=True)
print("to stderr", file=sys.stderr, flush=True)
sys.stdout.buffer.write(b"\\xff no utf-8\\nno line end")
sys.stdout.flush()
time.sleep(600)
"""
RCLONE = os.path.join(os.path.dirname(sys.executable), "rclone")


async def storage(caller: Backend, directory: Path, **more: Any) -> str:
    """Register a directory as an endpoint storage; returns its name."""
    body = {
        "name": "kept",
        "access_key_id": "",
        "secret_access_key": "",
        "endpoint": directory.as_uri(),
        "bucket": "logs",
    }
    created = await caller.call("POST", "/v1/storage/endpoint", {**body, **more})
    assert created.status == 200, created
    return str(created.body["name"])


async def test_logs_are_there_while_it_runs_and_gone_after_without_a_storage() -> None:
    """As on the platform: nobody kept them."""
    async with backend() as caller:
        deployment_id = await caller.running(**python(TALKS))
        log = await caller.until_logged(deployment_id, "to stderr")
        assert set(log.splitlines()) >= {"to stdout", "to stderr"}
        await caller.stop(deployment_id)
        assert await caller.logs(deployment_id) == {
            "logs": "",
            "crash_logs": None,
            "crash_data": None,
            "encoding": "utf-8",
            "logs_link": None,
        }


async def test_logs_go_to_the_storage_of_the_version(tmp_path: Path) -> None:
    """As text, byte for byte in the file; `container-logs` has them too, and a link to the file."""
    async with backend() as caller:
        name = await storage(caller, tmp_path)
        deployment_id = await caller.running(**python(TALKS), endpoint_storage=name)
        await caller.until_logged(deployment_id, "no utf-8")
        await caller.stop(deployment_id)
        logs = await caller.logs(deployment_id)
        kept = Path(unquote(urlsplit(logs["logs_link"]).path))
        assert kept == tmp_path / "logs" / "game" / "v1" / f"{deployment_id}.log"
        content = kept.read_bytes()
        assert sorted(content.splitlines()) == [b"no line end", b"to stderr", b"to stdout", b"\xff no utf-8"]
        assert logs["logs"] == content.decode(errors="replace")
        assert (logs["crash_logs"], logs["crash_data"]) == (None, None)


async def test_ndjson_has_a_time_and_a_stream_for_each_line(tmp_path: Path) -> None:
    """One JSON object a line, whatever the bytes."""
    async with backend() as caller:
        name = await storage(caller, tmp_path, output_format="NDJSON")
        deployment_id = await caller.running(**python(TALKS), endpoint_storage=name)
        await caller.until_logged(deployment_id, "no utf-8")
        await caller.stop(deployment_id)
        logs = await caller.logs(deployment_id)
        assert logs["logs_link"].endswith(".ndjson")
        lines = [json.loads(line) for line in logs["logs"].splitlines()]
        assert {(line["stream"], line["message"]) for line in lines} == {
            ("stdout", "to stdout"),
            ("stderr", "to stderr"),
            ("stdout", "� no utf-8"),
            ("stdout", "no line end"),
        }
        assert all(datetime.fromisoformat(line["timestamp"]).tzinfo for line in lines)


@pytest.mark.parametrize(
    ("of_version", "asked", "kept"),
    [
        (True, None, True),
        (True, "true", True),
        (True, "false", False),
        (False, "true", False),
        (False, "kept", True),
        (False, None, False),
    ],
)
async def test_a_stop_says_where_the_logs_go(
    tmp_path: Path, *, of_version: bool, asked: str | None, kept: bool
) -> None:
    """`true` is the version's storage, `false` none, anything else a name; without a word it is the version's."""
    async with backend() as caller:
        name = await storage(caller, tmp_path)
        deployment_id = await caller.running(endpoint_storage=name if of_version else "")
        await caller.until_logged(deployment_id, "up")
        await caller.stop(deployment_id, **({} if asked is None else {"container_log_storage": asked}))
        assert ((await caller.logs(deployment_id))["logs"] == "up\n") is kept
        assert bool(list(tmp_path.rglob("*.log"))) is kept


async def test_a_crash_keeps_its_own_log(tmp_path: Path) -> None:
    """The last attempt that ended by itself, apart from all of the output; and how often it was started again."""
    source = """
import os, pathlib, sys, time
count = pathlib.Path(os.environ["COUNT"])
count.touch()
number = len(count.read_text())
count.write_text("x" * (number + 1))
print("attempt", number, flush=True)
if number < 2:
    sys.exit(7)
time.sleep(600)
"""
    async with backend() as caller:
        name = await storage(caller, tmp_path)
        envs = [{"key": "COUNT", "value": str(tmp_path / "count")}]
        deployment_id = await caller.running(
            **python(source), endpoint_storage=name, envs=envs, restart_policy="on_failure"
        )
        await caller.until_logged(deployment_id, "attempt 2")
        running = await caller.logs(deployment_id)
        await caller.stop(deployment_id)
        ended = await caller.logs(deployment_id)
        for logs in (running, ended):
            assert logs["crash_data"] == {"exit_code": 7, "message": "Exited with code 7", "restart_count": 2}
            assert logs["crash_logs"] == "attempt 1\n"
            assert logs["logs"] == "attempt 0\nattempt 1\nattempt 2\n"
        assert len(list(tmp_path.rglob("*.crash.log"))) == 1


async def test_a_storage_that_cannot_be_written_costs_the_logs_and_not_the_stop(tmp_path: Path) -> None:
    """The deployment ends all the same; its logs are gone."""
    (tmp_path / "file").write_text("in the way")
    async with backend() as caller:
        name = await storage(caller, tmp_path / "file")
        deployment_id = await caller.running(endpoint_storage=name)
        await caller.until_logged(deployment_id, "up")
        await caller.stop(deployment_id)
        assert (await caller.logs(deployment_id))["logs"] == ""
        assert "cannot keep the logs in kept" in (caller.inner(deployment_id).log_trouble or "")


async def test_logs_that_are_gone_from_their_storage_are_gone(tmp_path: Path) -> None:
    """Nothing is kept anywhere else; the link and the rest of the answer stay."""
    async with backend() as caller:
        name = await storage(caller, tmp_path)
        deployment_id = await caller.running(endpoint_storage=name)
        await caller.until_logged(deployment_id, "up")
        await caller.stop(deployment_id)
        for path in tmp_path.rglob("*.log"):
            path.unlink()
        logs = await caller.logs(deployment_id)
        assert logs["logs"] == ""
        assert logs["logs_link"].endswith(f"{deployment_id}.log")


async def test_a_name_cannot_lead_out_of_the_storage(tmp_path: Path) -> None:
    """An application called `../..` keeps its logs inside."""
    async with backend() as caller:
        name = await storage(caller, tmp_path / "inside")
        body = {"name": "../../etc", "is_active": True, "image": ""}
        assert (await caller.call("POST", "/v1/app", body)).status == 200
        version = {"name": "../..", "req_cpu": 100, "req_memory": 100, "docker_repository": "", "docker_image": ""}
        version |= {"docker_tag": "", "endpoint_storage": name, **python("print(1)"), "restart_policy": "never"}
        assert (await caller.call("POST", "/v1/app/..%2F..%2Fetc/version", version)).status == 200
        deployment_id = await caller.deploy("../..", "../../etc")
        await caller.until(deployment_id, "TERMINATED")
        assert [path.is_relative_to(tmp_path / "inside" / "logs") for path in tmp_path.rglob("*.log")] == [True]


@asynccontextmanager
async def s3_server(directory: Path) -> AsyncIterator[str]:
    """An S3-compatible server that takes one key; its URL."""
    process = await asyncio.create_subprocess_exec(
        *(RCLONE, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", "AKID,right", "--config", os.devnull),
        str(directory),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "XDG_CACHE_HOME": str(directory / "cache")},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            said = b""
            while not (found := re.search(rb"http://127\.0\.0\.1:\d+", said)):
                line = await process.stderr.readline()
                assert line, said
                said += line
        yield found[0].decode()
    finally:
        process.terminate()
        await process.communicate()


async def test_logs_go_to_an_s3_compatible_server(tmp_path: Path) -> None:
    """The object is there, and its signed link can be followed without a key; a wrong key costs the logs only."""
    (tmp_path / "bucket").mkdir()
    async with s3_server(tmp_path) as url, backend() as caller:
        keys = {"endpoint": url, "bucket": "bucket", "access_key_id": "AKID"}
        name = await storage(caller, tmp_path, **keys, secret_access_key="right")
        wrong = await storage(caller, tmp_path, **keys, secret_access_key="never-to-be-told", name="wrong")
        ids = [await caller.running(endpoint_storage=each) for each in (name, wrong)]
        for deployment_id in ids:
            await caller.until_logged(deployment_id, "up")
            await caller.stop(deployment_id)
        logs = await caller.logs(ids[0])
        assert logs["logs"] == "up\n"
        assert (tmp_path / "bucket" / "game" / "v1" / f"{ids[0]}.log").read_text() == "up\n"
        async with aiohttp.ClientSession() as session, session.get(logs["logs_link"]) as response:
            assert (response.status, await response.text()) == (200, "up\n")
        assert (await caller.logs(ids[1]))["logs"] == ""
        trouble = caller.inner(ids[1]).log_trouble or ""
        assert trouble.startswith("cannot keep the logs in wrong")
        assert "never-to-be-told" not in trouble


async def test_output_is_bounded_and_the_oldest_goes_first() -> None:
    """A game that writes megabytes is neither stopped nor slowed by nobody reading them."""
    source = (
        "import time\nfor number in range(40000): print('line', number)\nprint('done', flush=True); time.sleep(600)"
    )
    async with backend(quick(log_bytes=100_000)) as caller:
        deployment_id = await caller.running(**python(source))
        log = await caller.until_logged(deployment_id, "done")
        # The oldest goes in pieces as they were read, 64 KiB at most; how much is left depends on how they came.
        assert 1_000 < len(log) <= 100_000
        assert log.endswith("line 39999\ndone\n")
        assert caller.inner(deployment_id).container_log.dropped > 300_000


def test_a_line_in_two_pieces_is_one_line() -> None:
    """Pieces of stdout and stderr that arrive in turns do not cut each other's lines."""
    book = ContainerLog(10_000)
    book.write("stdout", b"one ")
    book.write("stderr", b"other\n")
    book.write("stdout", b"line\nand")
    assert book.text() == b"other\none line\n"
    book.flush()
    assert book.text() == b"other\none line\nand"
    messages = [json.loads(line)["message"] for line in book.ndjson().splitlines()]
    assert messages == ["other", "one line", "and"]


def test_a_reader_who_fell_behind_goes_on_with_what_is_left() -> None:
    """Positions stay valid when the oldest chunks have gone."""
    book = ContainerLog(2 * (4 + CHUNK_BYTES))
    for number in range(10):
        book.write("stdout", b"%03d\n" % number)
    chunks, position = book.since(0)
    assert (b"".join(chunk.data for chunk in chunks), position) == (b"008\n009\n", 10)
    assert book.since(position) == ([], 10)
    book.write("stdout", b"010\n")
    assert [chunk.data for chunk in book.since(position)[0]] == [b"010\n"]

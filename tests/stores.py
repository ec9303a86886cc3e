"""A real S3 server for tests, and a line to it that can be slow, busy, silent, or cut."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

ACCESS_KEY = "AKIATESTTESTTESTTEST"
SECRET_KEY = "0123456789abcdef0123456789abcdefTESTSECR"
BUCKET = "logs"


class S3Server:
    """`rclone serve s3` over a directory: real requests, real signatures, wrong keys refused.

    Attributes:
        port: where it listens on 127.0.0.1; stays the same when it is started again.
        root: the directory that holds the buckets.
    """

    def __init__(self, directory: Path) -> None:
        """Starts it."""
        self.root = directory
        self.port = 0
        (directory / BUCKET).mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Starts it (again)."""
        # A test run that is killed for its time does not clean up: its server goes with it all the same.
        with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        command = [
            *with_us,
            str(Path(sys.executable).with_name("rclone")),
            "--config=",
            "serve",
            "s3",
            f"--auth-key={ACCESS_KEY},{SECRET_KEY}",
            f"--addr=127.0.0.1:{self.port}",
            str(self.root),
        ]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError("rclone did not start")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None

    def environ(self, port: int | None = None) -> dict[str, str]:
        """The usual variables for it, or for a line to it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_REGION": "us-east-1",
        }

    def objects(self) -> dict[str, bytes]:
        """All objects of the bucket by key."""
        base = self.root / BUCKET
        found = {}
        for path in base.rglob("*"):
            # rclone writes an upload into a file beside the object, and renames it.
            if path.is_file() and not path.name.startswith(".rclone_temp"):
                with contextlib.suppress(FileNotFoundError):
                    found[str(path.relative_to(base))] = path.read_bytes()
        return found


@contextlib.contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """A server that is gone at the end."""
    server = S3Server(directory)
    try:
        yield server
    finally:
        server.kill()


Mode = Literal["pass", "busy", "silent", "cut"]


class Line:
    """A TCP proxy in front of a server.

    Attributes:
        mode: `pass`; `busy` (503 to everything); `silent` (takes everything, answers nothing); `cut` (breaks the
            connection in the middle of the next bodies, `cuts` times, then passes).
        bytes_per_second: of each direction, or None for as fast as it goes.
        requests: the first line of each request that was passed on, in order.
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, target: int) -> None:
        """Takes the port of the server behind it."""
        self.mode: Mode = "pass"
        self.cuts = 0
        self.bytes_per_second: float | None = None
        self.requests: list[str] = []
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listens."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cuts all connections."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self._requests(reader, writer)
            finally:
                writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        answers: asyncio.Task[None] | None = None
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int((re.search(rb"(?i)content-length: *(\d+)", head) or [b"", b"0"])[1])
                if self.mode == "silent":
                    await asyncio.sleep(3600)
                if self.mode == "busy":
                    await reader.readexactly(length)
                    writer.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
                    continue
                self.requests.append(head.split(b"\r\n")[0].decode())
                if server is None:
                    server = await asyncio.open_connection("127.0.0.1", self._target)
                    answers = asyncio.get_running_loop().create_task(self._pump(server[0], writer))
                server[1].write(head)
                if self.mode == "cut" and self.cuts > 0 and length:
                    self.cuts -= 1
                    server[1].write(await reader.readexactly(length // 2))
                    await server[1].drain()
                    return
                await self._body(reader, server[1], length)
        finally:
            if server is not None:
                server[1].close()
            if answers is not None:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)

    async def _body(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
        while length > 0:
            piece = await reader.read(min(length, 16384))
            if not piece:
                raise ConnectionResetError
            length -= len(piece)
            writer.write(piece)
            await writer.drain()
            if self.bytes_per_second is not None:
                await asyncio.sleep(len(piece) / self.bytes_per_second)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()


def wait_until_it_answers(port: int) -> None:
    """Waits until something listens on a port of 127.0.0.1."""
    import socket  # noqa: PLC0415 - only here

    until = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < until, "it never listened"
        time.sleep(0.02)

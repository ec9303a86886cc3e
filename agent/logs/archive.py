"""Uploads a run as one tar archive, for a presigned URL; its members are the objects that a store would contain.

A presigned URL permits one key, and each upload replaces the previous one. So the segments stay in the spool until the
end, and the archive of all held segments is uploaded repeatedly: the latest upload is complete in itself.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TypeAlias

from agent.logs import bundle, objects, runs
from agent.logs.outbox import Outbox, UploadPolicy
from agent.logs.redact import Redactor
from agent.logs.runs import Segment
from agent.logs.spool_like import SpoolLike
from agent.logs.worker import Worker

Member: TypeAlias = tuple[str, bytes | IO[bytes]]

_IN_MEMORY = 4 * 1024 * 1024
# Uploads take at most this share of the time, so that a long log on a slow connection does not use it all.
_SHARE = 0.1


class Archive:
    """Builds and uploads the archive of one run.

    Attributes:
        rate: bytes a second of the last upload, or None before the first.
    """

    def __init__(
        self,
        outbox: Outbox,
        spool: SpoolLike,
        worker: Worker,
        form: objects.Form,
        parts: Mapping[str, runs.Parts],
    ) -> None:
        """Uploads nothing yet."""
        self.rate: float | None = None
        self._outbox = outbox
        self._spool = spool
        self._worker = worker
        self._form = form
        self._parts = parts

    async def keep_up(self, interval: float, first: list[Member], policy: UploadPolicy) -> None:
        """Uploads when there is something new, every `interval` seconds, or less often if uploads are slow."""
        uploaded = -1
        while True:
            received = self._spool.counters()["bytes_in"]
            took = 0.0
            if received != uploaded:
                self._spool.seal()
                await self._worker.do(self._spool.flush, time.monotonic() + interval)
                began = time.monotonic()
                await self.upload(first, self._spool.segments(), policy)
                uploaded, took = received, time.monotonic() - began
            await asyncio.sleep(max(interval, took / _SHARE))

    async def upload(self, members: list[Member], held: list[Segment], policy: UploadPolicy) -> None:
        """Uploads one archive of these members and segments; raises StoreError."""

        def build() -> IO[bytes]:
            return _build(self._spool.run, [*members, *self._segments(held)])

        try:
            file = await self._worker.do(build)
        finally:
            for _, content in members:
                if not isinstance(content, bytes):
                    content.close()
        with file:
            size = file.seek(0, io.SEEK_END)
            began = time.monotonic()
            await self._outbox.put_file("logs.tar", file, policy)
            self.rate = size / max(0.001, time.monotonic() - began)

    def fitting(self, held: list[Segment], seconds: float) -> list[Segment]:
        """The leading segments that can be uploaded in this many seconds, estimated from the last upload."""
        # A log compresses about ten times; a larger archive is late, but may still arrive.
        left = (self.rate or 0.0) * seconds * 10
        chosen = []
        for segment in held:
            left -= segment.size
            if left < 0:
                break
            chosen.append(segment)
        return chosen

    @staticmethod
    def kept_members(
        directory: str, found: Iterable[bundle.Kept], redactor: Redactor, manifest: bundle.Manifest
    ) -> list[Member]:
        """The members for files to keep; the result for each is recorded in the manifest."""
        members: list[Member] = []
        for one in found:
            name = f"{bundle.key_of(one)}.zst"
            file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - whoever builds the archive closes it
            try:
                file.writelines(objects.compress(bundle.read(one, redactor)))
            except OSError as problem:
                file.close()
                manifest.unreadable.append({"path": one.path, "why": str(problem)})
                continue
            manifest.collected.append({"path": one.path, "bytes": one.size, "key": name})
            members.append((f"{directory}/{name}", file))
        return members

    def _segments(self, held: Iterable[Segment]) -> Iterator[Member]:
        for segment in held:
            try:
                data = objects.encode(segment, self._form, self._spool.dropped_before(segment))
            except OSError:
                continue  # its file is gone; the missing number says so
            key = runs.key_of(self._parts[segment.run], segment.number)
            yield f"{key}/{objects.name(segment, self._form)}", data


def _build(directory: str, members: Iterable[Member]) -> IO[bytes]:
    """Writes an archive to a temporary file in `directory`, or in memory where that is not possible."""
    try:
        file: IO[bytes] = tempfile.TemporaryFile(dir=directory, prefix="archive-")  # noqa: SIM115 - the caller closes it
    except OSError:
        file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mtime = int(time.time())
            source = io.BytesIO(content) if isinstance(content, bytes) else content
            info.size = source.seek(0, io.SEEK_END)
            source.seek(0)
            tar.addfile(info, source)
    return file

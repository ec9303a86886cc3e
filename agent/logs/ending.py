"""Ships the rest after the game's exit: most useful first, until a deadline; reports what was not shipped."""

from __future__ import annotations

import asyncio
import glob
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.logs import bundle, objects, runs
from agent.logs.outbox import Outbox, UploadPolicy
from agent.logs.redact import Redactor
from agent.logs.runs import Segment
from agent.logs.spool_like import SpoolLike
from agent.logs.store import StoreError
from agent.logs.worker import Worker
from agent.retry import RetryPolicy

if TYPE_CHECKING:
    from agent.game.user import User
    from agent.logs.archive import Archive, Member

SEGMENTS_AT_ONCE = 4  # segments uploaded at the same time
_PAUSES = RetryPolicy(first=0.1, cap=1.0, least=0.5)
_NO_TIME = "the deadline came first"


@dataclass(slots=True)
class ShipReport:
    """The result for the log and the bundle; a part of `exit.json`.

    Attributes:
        destination: the URL, without secrets; None without a store.
        directory: key of the run's directory below that.
        shipped: names below the directory that the store confirmed at the end (segments that were shipped while the
            game ran are counted in `spool`).
        not_shipped: name, bytes and reason of each part that it did not confirm.
        spool: the spool's counters.
        local: path of the local `exit.json`, or None if it could not be written.
    """

    destination: str | None = None
    directory: str = ""
    shipped: list[str] = field(default_factory=list)
    not_shipped: list[dict[str, object]] = field(default_factory=list)
    spool: dict[str, int] = field(default_factory=dict)
    local: str | None = None


class Ending:
    """Ships the end of one run: `main_part`, then `final_document`.

    Attributes:
        outbox: uploads to the store; None without a store.
        spool, worker, redactor: the shipper's.
        form: how segments are written.
        parts: the store directory for the segments of each run, by the run's directory.
        archive: builds the one object that a presigned URL permits, or None.
        about: the content of `run.json`, unless it was shipped before.
        report: the content of `exit.json`.
        tail: the last bytes of output.
        keep: patterns of files to keep.
        core: path of a core file, or None.
        user: the game's user, whose file permissions apply; None for the agent's user.
        result: the result of shipping.
    """

    def __init__(
        self,
        outbox: Outbox | None,
        spool: SpoolLike,
        worker: Worker,
        redactor: Redactor,
        form: objects.Form,
        *,
        report: Mapping[str, object],
        tail: bytes,
        keep: list[str],
        core: str | None,
        user: User | None = None,
    ) -> None:
        """Uploads nothing yet; the arguments are the attributes."""
        self.outbox = outbox
        self.spool = spool
        self.worker = worker
        self.redactor = redactor
        self.form = form
        self.report = report
        self.tail = tail
        self.keep = keep
        self.core = core
        self.user = user
        self.parts: Mapping[str, runs.Parts] = {}
        self.archive: Archive | None = None
        self.about = b""
        self.result = ShipReport(destination=outbox.target.shown if outbox else None)
        self._left: dict[str, tuple[int, str]] = {}  # parts that the store does not have yet: bytes, and the reason
        if outbox is not None:
            self._left = {runs.EXIT: (0, _NO_TIME), "tail.log": (len(tail), _NO_TIME)}
        self._manifest = bundle.Manifest()
        self._complete = False
        self._disk_patience = 1.0

    async def main_part(self, seconds: float) -> None:
        """Ships everything except the final `exit.json`, which `final_document` ships.

        Args:
            seconds: the available time, for the timeouts of single steps; the caller cancels it in time.
        """
        loop = asyncio.get_running_loop()
        self._disk_patience = min(1.0, seconds * 0.1)
        small = UploadPolicy(patience=max(1.0, seconds / 3), pauses=_PAUSES, give_up=True)
        large = UploadPolicy(patience=None, pauses=_PAUSES, give_up=True)
        # `exit.json` and the tail are uploaded while the other files are still being searched: there may be little time
        # left.
        first_objects = asyncio.ensure_future(self._first_objects(small))
        try:
            segments, files, core = await self._look(loop.time(), seconds)
            await self._ship(first_objects, segments, files, core, small, large, seconds)
        finally:
            first_objects.cancel()

    async def _look(self, now: float, seconds: float) -> tuple[list[Segment], list[bundle.Kept], list[bundle.Kept]]:
        """Finds what to ship: segments, files to keep, the core."""
        self.spool.seal()
        # A hanging disk must not use up the time for shipping: output that is still queued after that is lost.
        await self.worker.within(seconds * 0.25, self.spool.flush, now + seconds * 0.2)
        segments = [segment for segment in reversed(self.spool.segments()) if self._is_own(segment)]
        find, patience = bundle.find, seconds * 0.1
        files = await self.worker.within(patience, find, self.keep, self._manifest, self.user)
        if files is None:
            files = []
            why = f"it took longer than {patience:.1f} s to look for them"
            self._manifest = bundle.Manifest(not_shipped=[{"path": pattern, "why": why} for pattern in self.keep])
        cores = [glob.escape(self.core)] if self.core else []
        core = await self.worker.within(patience, find, cores, self._manifest, self.user) or []
        return segments, files, core

    async def _first_objects(self, policy: UploadPolicy) -> str:
        """Ships `exit.json` and the tail.

        Returns:
            Why the store does not accept them, or "".
        """
        if self.outbox is None or self.archive is not None:
            return ""
        try:
            # exit.json alone first: on a slow connection, parallel uploads would delay it.
            await self.outbox.put(self._key(runs.EXIT), self._exit_json(), policy)
            await self.outbox.put(self._key("tail.log"), self.tail, policy)
            if self.about:
                await self.outbox.put(self._key(runs.RUN), self.about, policy)
        except StoreError as problem:
            return self.redactor.text(str(problem))
        return ""

    async def _ship(
        self,
        first_objects: asyncio.Future[str],
        segments: list[Segment],
        files: list[bundle.Kept],
        core: list[bundle.Kept],
        small: UploadPolicy,
        large: UploadPolicy,
        seconds: float,
    ) -> None:
        if self.outbox is None:
            self._complete = True
            await self._write_locally()
            return
        self._left |= {
            **{objects.name(segment, self.form): (segment.size, _NO_TIME) for segment in segments},
            **{kept.path: (kept.size, _NO_TIME) for kept in files + core},
        }
        await self._write_locally()
        if self.archive is not None:
            await self._all_in_one(self.archive, segments, files + core, small, large, seconds)
            return
        if problem := await first_objects:
            self._left = {name: (size, problem) for name, (size, _) in self._left.items()}
            return
        self._done("tail.log")
        await self._segments(segments, large)
        for kept, key in [(kept, bundle.key_of(kept)) for kept in files] + [(kept, "core") for kept in core]:
            await self._file(kept, f"{key}.zst", large)
        if self.keep or self.core:
            await self._manifest_too(small)
        await self._segments([segment for segment in self.spool.segments() if not self._is_own(segment)], large)

    async def _manifest_too(self, policy: UploadPolicy) -> None:
        assert self.outbox is not None, "main_part looked"
        try:
            await self.outbox.put(self._key("manifest.json"), self._manifest_json(), policy)
        except StoreError as problem:
            self._left["manifest.json"] = (0, self.redactor.text(str(problem)))
        else:
            self.result.shipped.append("manifest.json")

    async def _all_in_one(
        self,
        archive: Archive,
        segments: list[Segment],
        files: list[bundle.Kept],
        small: UploadPolicy,
        large: UploadPolicy,
        seconds: float,
    ) -> None:
        """Uploads one archive: first with the parts that surely fit in the time, then, replacing it, with all parts."""
        everything = [*segments, *(segment for segment in self.spool.segments() if not self._is_own(segment))]
        sure = archive.fitting(everything, seconds / 4)
        try:
            await self._upload(archive, ["tail.log", *(objects.name(one, self.form) for one in sure)], [], sure, small)
            members = await self.worker.do(
                archive.kept_members, self.result.directory, files, self.redactor, self._manifest
            )
            members.append((self._key("manifest.json"), self._manifest_json()))
            self._complete = True
            names = [name for name in self._left if name != runs.EXIT]
            await self._upload(archive, names, members, everything, large)
        except StoreError as problem:
            self._left = {name: (size, self.redactor.text(str(problem))) for name, (size, _) in self._left.items()}
            return
        finally:
            self._complete = False
        for segment in everything:
            await self.worker.do(self.spool.confirm, segment)
        await self.worker.do(runs.mark_shipped, self.spool.run)

    async def _upload(
        self, archive: Archive, names: list[str], members: list[Member], segments: list[Segment], policy: UploadPolicy
    ) -> None:
        """Uploads `exit.json`, the tail and these members; the uploaded `exit.json` already lists them as shipped."""
        before, shipped = dict(self._left), list(self.result.shipped)
        self.result.shipped = [runs.EXIT, *(name for name in shipped if name != runs.EXIT)]
        for name in names:
            if name in self._left:
                self._done(name)
        documents = {runs.EXIT: self._exit_json(), "tail.log": self.tail, runs.RUN: self.about}
        first_objects: list[Member] = [(self._key(name), content) for name, content in documents.items()]
        try:
            await archive.upload([*first_objects, *members], segments, policy)
        except BaseException:
            self._left, self.result.shipped = before, shipped
            raise

    async def final_document(self, seconds: float) -> None:
        """Writes `exit.json` once more, with the result for everything else."""
        # What the worker still encodes is not needed any more, and the document must not wait behind it.
        self.worker.end()
        result = self.result
        self._complete = True
        exit_left = self._left.pop(runs.EXIT, None)
        result.not_shipped = [{"what": name, "bytes": size, "why": why} for name, (size, why) in self._left.items()]
        result.spool = self.spool.counters()
        if self.outbox is None or exit_left is None or self.archive is not None:
            await self._write_locally()
            return
        document = self._exit_json()
        # Until the store has confirmed it, the local copy lists it as not shipped.
        missing: dict[str, object] = {"what": runs.EXIT, "bytes": len(document), "why": _NO_TIME}
        result.not_shipped.append(missing)
        await self._write_locally()
        if not result.directory:
            return  # not even the first step, which sets the name, was done in time
        policy = UploadPolicy(patience=max(0.5, seconds / 2), pauses=_PAUSES, give_up=True)
        try:
            await self.outbox.put(self._key(runs.EXIT), document, policy)
        except StoreError as problem:
            missing["why"] = self.redactor.text(str(problem))
        else:
            result.not_shipped.remove(missing)
            result.shipped.insert(0, runs.EXIT)
            await self.worker.do(runs.mark_shipped, self.spool.run)
        await self._write_locally()

    async def _segments(self, segments: list[Segment], policy: UploadPolicy) -> None:
        """Ships the remaining segments, the newest first: they say most about the end."""
        waiting = iter(segments)

        async def some() -> None:
            for segment in waiting:
                await self._segment(segment, policy)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(SEGMENTS_AT_ONCE, len(segments))):
                group.create_task(some())

    def _is_own(self, segment: Segment) -> bool:
        """Whether it belongs to the attempt that ends now, and not to an earlier attempt or run."""
        return runs.key_of(self.parts[segment.run], segment.number) == self.result.directory

    async def _segment(self, segment: Segment, policy: UploadPolicy) -> None:
        assert self.outbox is not None, "main_part looked"
        name = objects.name(segment, self.form)
        directory = runs.key_of(self.parts[segment.run], segment.number)
        own = directory == self.result.directory
        segment.busy = True
        try:
            data = await self.worker.do(objects.encode, segment, self.form, self.spool.dropped_before(segment))
            await self.outbox.put(f"{directory}/{name}", data, policy)
        except (OSError, StoreError) as problem:
            if own:
                self._left[name] = (segment.size, self.redactor.text(str(problem)))
        else:
            if own:
                self._done(name)
            # Still marked busy: if it were dropped now, it would count as lost although the store has it.
            await self.worker.do(self.spool.confirm, segment)
        finally:
            segment.busy = False

    async def _file(self, kept: bundle.Kept, name: str, policy: UploadPolicy) -> None:
        assert self.outbox is not None, "main_part looked"

        async def pieces() -> AsyncIterator[bytes]:
            source = objects.compress(bundle.read(kept, self.redactor))
            while (piece := await self.worker.do(_next, source)) is not None:
                yield piece

        try:
            await self.outbox.put_pieces(self._key(name), pieces, policy)
        except (OSError, StoreError) as problem:
            why = self.redactor.text(str(problem))
            self._left[kept.path] = (kept.size, why)
            self._manifest.not_shipped.append({"path": kept.path, "why": why})
            return
        self._left.pop(kept.path, None)
        self.result.shipped.append(name)
        self._manifest.collected.append({"path": kept.path, "bytes": kept.size, "key": name})

    def _done(self, name: str) -> None:
        self._left.pop(name, None)
        self.result.shipped.append(name)

    def _key(self, name: str) -> str:
        return f"{self.result.directory}/{name}"

    def _manifest_json(self) -> bytes:
        return _json(self._scrub(self._manifest.as_dict()))

    def _exit_json(self) -> bytes:
        result = self.result
        not_shipped = result.not_shipped or [
            {"what": name, "bytes": size, "why": "not yet"}
            for name, (size, _) in self._left.items()
            if name != runs.EXIT
        ]
        shipping = {
            "destination": result.destination,
            "directory": result.directory,
            "complete": self._complete and not result.not_shipped,
            "shipped": result.shipped,
            "not_shipped": not_shipped if not self._complete else result.not_shipped,
            "spool": self.spool.counters(),
        }
        # On one line: Athena and Trino read JSON by lines.
        return _json(
            self._scrub({**self.report, "shipping": shipping, "bundle": self._manifest.as_dict()}), indent=None
        )

    async def _write_locally(self) -> None:
        # Does not wait longer for a hanging disk, so that the store still gets its copy.
        write = self.worker.within(self._disk_patience, runs.write, self.spool.run, runs.EXIT, self._exit_json())
        self.result.local = await write or self.result.local

    def _scrub(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.redactor.text(value)
        if isinstance(value, Mapping):
            return {self._scrub(key): self._scrub(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._scrub(item) for item in value]
        return value


def _next(source: Iterator[bytes]) -> bytes | None:
    return next(source, None)


def _json(value: object, indent: int | None = 2) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"

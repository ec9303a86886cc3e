"""Uploads the log while the game runs, and the rest after its exit.

A segment is deleted only after the store has confirmed it. Its key depends only on the run and the segment's number and
time, so that a segment shipped twice (the agent was killed between confirmation and deletion) overwrites its first
copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.config.table import TABLE
from agent.logs import objects, runs
from agent.logs.ending import Ending, ShipReport
from agent.logs.outbox import Outbox, UploadPolicy
from agent.logs.redact import Redactor
from agent.logs.runs import Segment
from agent.logs.speed import Speed
from agent.logs.spool_like import SpoolLike
from agent.logs.store import Store
from agent.logs.target import Target
from agent.logs.worker import Worker
from agent.retry import RetryPolicy

if TYPE_CHECKING:
    from agent.game.user import User
    from agent.logs.archive import Archive

__all__ = ["ShipReport", "Shipper"]


_NOWHERE = Target("file:///nowhere")
_INTERVAL: float = TABLE["ship_interval"].default
_STEADY = UploadPolicy(patience=60.0, pauses=RetryPolicy(first=0.5, cap=60.0, least=0.5), give_up=False)


class Shipper:
    """Ships one run's log, and the logs left by earlier runs in the same spool directory.

    Attributes:
        directory: key of the run's directory in the store; known once `run` or `finish` has begun.
    """

    def __init__(
        self,
        target_url: str | None,
        spool: SpoolLike,
        identity: Mapping[str, str],
        *,
        redactor: Redactor | None = None,
        interval: float = _INTERVAL,
        keep: Iterable[str] = (),
        user: User | None = None,
        form: objects.Form = "ndjson",
        say: Callable[[str], None] | None = None,
        environ: Mapping[str, str] | None = None,
        store: Store | None = None,
        first: int | None = None,
        on_prepared: Callable[[int, int], object] = lambda _first, _attempt: None,
        speed: Speed | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            target_url: `AGENT_LOG_URL`, checked; None or "" for no store: then the log and `exit.json` stay in the
                spool.
            spool: where the segments come from.
            identity: `application`, `version`, `deployment_id`, `host_id` and `attempt`, as far as known; without
                `attempt`, it is counted in the spool directory.
            redactor: for kept files, `exit.json` and messages; None to replace nothing there.
            interval: seconds after which even a small segment is shipped.
            keep: patterns of files that are shipped at the end.
            user: the game's user, whose file permissions apply; None for the agent's user.
            form: how segments are written.
            say: called with a message when shipping fails, and when it works again.
            environ: where `AGENT_STORE_*` is looked up; the process's environment by default.
            store: used instead of the store of the URL.
            first: number of the attempt's first segment, if an earlier process has begun to ship it; then `identity`
                contains the attempt.
            on_prepared: called with that number and the attempt, so that a later process can continue.
            speed: records how fast the store is.

        Raises:
            ValueError: the URL cannot be used for logs.
        """
        self.directory = ""
        self._target = Target(target_url) if target_url else None
        self._spool = spool
        self._identity = dict(identity)
        self._deployment_id = self._identity.get("deployment_id") or ""
        self._redactor = redactor or Redactor()
        self._interval = interval
        self._keep = list(keep)
        self._user = user
        self._form = form
        self._say = say or (lambda _: None)
        self._speed = speed or Speed()
        self._outbox = None
        if self._target is not None:
            self._outbox = Outbox(self._target, self._redactor, self._say, self._speed, environ, store)
        self._worker = Worker("ship")
        self._first = spool.next_number if first is None else first
        self._on_prepared = on_prepared
        self._parts: dict[str, runs.Parts] = {}  # the store directory of its segments, by the run's directory
        self._archive: Archive | None = None
        if self._outbox is not None and self._outbox.target.single:
            from agent.logs.archive import Archive  # noqa: PLC0415 - with tarfile; only for a presigned URL

            self._archive = Archive(self._outbox, spool, self._worker, form, self._parts)
        self._wakeup = asyncio.Event()
        self._finishing = False
        self._about_shipped = False
        self._preparing: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._deadline = float("inf")
        self._reserve = 0.0
        self._timeout: asyncio.Timeout | None = None

    @property
    def problem(self) -> str:
        """Why the store accepts nothing now, in words; "" while it works."""
        return self._outbox.problem if self._outbox else ""

    def counters(self) -> dict[str, int]:
        """Objects and (compressed) bytes that the store has confirmed, and failed attempts."""
        box = self._outbox
        return {
            "objects": box.objects if box else 0,
            "bytes": box.bytes if box else 0,
            "failures": box.failures if box else 0,
        }

    def keep(self, path: str) -> None:
        """Also ships this file, or the files that match this pattern, at the end."""
        if path not in self._keep:
            self._keep.append(path)

    async def run(self) -> None:
        """Ships segments as they are closed, until it is cancelled or `finish` is called. Never raises."""
        if self._finishing:
            return
        self._running = task = asyncio.create_task(self._run(), name="ship")
        try:
            await asyncio.wait([task])
            if not task.cancelled() and (problem := task.exception()) is not None:
                self._say(f"cannot go on shipping ({type(problem).__name__}: {problem}); the rest is tried at the end")
        finally:
            await _cancel(task)

    async def finish(
        self, deadline: float, report: Mapping[str, object], *, tail: bytes = b"", core: str | None = None
    ) -> ShipReport:
        """Ships the rest: `exit.json`, the tail, the segments, the files to keep, the core, and `exit.json` once more.

        To be called when the game is gone and its output was read. Never raises; parts that could not be shipped are
        listed in the report and passed to `say`, and stay in the spool.

        Args:
            deadline: seconds of the event loop's clock; `hurry` moves it.
            report: the content of `exit.json`; the result of shipping is added.
            tail: the last bytes of output, redacted.
            core: path of a core file, or None.
        """
        loop = asyncio.get_running_loop()
        self._finishing = True
        # `hurry` may have been called before it began.
        self._deadline = deadline = min(deadline, self._deadline)
        seconds = max(0.0, deadline - loop.time())
        # For the final `exit.json`: one small object, which takes a slow store some tenths of a second.
        self._reserve = min(1.0, max(seconds * 0.2, min(0.4, seconds * 0.4)))
        self._spool.listen(None)
        if self._running is not None:
            await _cancel(self._running)
        ending = Ending(
            self._outbox,
            self._spool,
            self._worker,
            self._redactor,
            self._form,
            report=report,
            tail=tail,
            keep=self._keep,
            core=core,
            user=self._user,
        )
        ending.parts = self._parts
        ending.archive = self._archive
        try:
            await self._until(deadline - self._reserve, self._main_part(ending, seconds - self._reserve))
            self._reserve = 0.0
            await self._until(self._deadline, ending.final_document(max(0.0, self._deadline - loop.time())))
        finally:
            if self._preparing is not None:
                await _cancel(self._preparing)
            self._worker.end()
            if self._outbox is not None:
                await self._outbox.close()
        self._summarize(ending.result)
        return ending.result

    def hurry(self, deadline: float) -> None:
        """Moves the deadline of a current or future `finish`, never to a later time."""
        self._deadline = deadline = min(deadline, self._deadline)
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(deadline - self._reserve)

    async def _main_part(self, ending: Ending, seconds: float) -> None:
        await self._prepare()
        ending.result.directory = self.directory
        ending.about = b"" if self._about_shipped else self._about()
        await ending.main_part(seconds)

    async def _until(self, deadline: float, work: Coroutine[Any, Any, None]) -> None:
        """Runs a part of the end until the deadline; logs all exceptions, since the agent must exit properly."""
        try:
            async with asyncio.timeout_at(deadline) as self._timeout:
                await work
        except TimeoutError:
            pass
        except Exception as problem:
            self._say(
                f"cannot finish shipping ({type(problem).__name__}: {problem}); the rest stays in {self._spool.run}"
            )
        finally:
            self._timeout = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        await self._prepare()
        await self._release()
        if self._outbox is None:
            return
        self._spool.seal_after(self._interval)
        self._spool.listen(lambda: _soon(loop, self._wakeup))
        # The first object shows immediately whether the store can be used.
        key = f"{self.directory}/{runs.RUN}"
        if self._archive is not None:
            await self._archive.keep_up(self._interval, [(key, self._about())], _STEADY)
        about, began, failures = self._about(), loop.time(), self._outbox.failures
        await self._outbox.put(key, about, _STEADY)
        self._about_shipped = True
        self._measure(len(about), began, failures)
        while not self._finishing:
            self._wakeup.clear()
            segment = next(iter(self._spool.segments()), None)
            if segment is None:
                await self._wakeup.wait()
            else:
                await self._ship(segment)
                await self._release()

    async def _ship(self, segment: Segment) -> None:
        assert self._outbox is not None, "_run looked"
        directory = runs.key_of(self._parts[segment.run], segment.number)
        began, failures = asyncio.get_running_loop().time(), self._outbox.failures
        segment.busy = True
        try:
            data = await self._worker.do(objects.encode, segment, self._form, self._spool.dropped_before(segment))
            await self._outbox.put(f"{directory}/{objects.name(segment, self._form)}", data, _STEADY)
        except OSError as problem:
            # It was deleted, the disk is broken, or its content is damaged.
            await self._worker.do(runs.keep_damaged, segment)
            self._spool.forget(segment)
            self._say(f"cannot ship segment {segment.number} of {segment.run}: {problem}; it is left out")
        else:
            self._measure(segment.size, began, failures)
            # Still marked busy: if it were dropped now, it would count as lost although the store has it.
            await self._worker.do(self._spool.confirm, segment)
        finally:
            segment.busy = False

    def _measure(self, size: int, began: float, failures: int) -> None:
        """Records how fast the store was, unless the object needed more than one attempt."""
        if self._outbox is not None and self._outbox.failures == failures:
            self._speed.measured(size, asyncio.get_running_loop().time() - began)

    async def _prepare(self) -> None:
        """Finds out which attempt this is, records the run in the spool, and adopts earlier runs. Once."""
        if self._preparing is None:
            self._preparing = asyncio.create_task(self._prepare_once())
        await asyncio.shield(self._preparing)

    async def _prepare_once(self) -> None:
        identity, spool, do = self._identity, self._spool, self._worker.do
        # Runs that were killed before they could count themselves are counted first.
        for run in await do(spool.adopt):
            known = await do(runs.attempts, run) or await self._count(run)
            self._parts[run] = [(first, self._key(run, attempt)) for first, attempt in known]
        identity["deployment_id"] = self._deployment_of(spool.run)
        if not identity.get("attempt"):
            identity["attempt"] = str(await do(runs.count_attempt, spool.directory, identity["deployment_id"]))
        self.directory = self._key(spool.run, int(identity["attempt"]))
        known = await do(runs.add_attempt, spool.run, self._first, int(identity["attempt"]))
        self._parts[spool.run] = [(first, self._key(spool.run, attempt)) for first, attempt in known]
        self._on_prepared(self._first, int(identity["attempt"]))

    async def _count(self, run: str) -> list[tuple[int, int]]:
        """Counts an earlier run, which was killed before it could count itself, as an attempt."""
        deployment_id = self._deployment_of(run)
        attempt = await self._worker.do(runs.count_attempt, self._spool.directory, deployment_id)
        return await self._worker.do(runs.add_attempt, run, 1, attempt)

    def _key(self, run: str, attempt: int) -> str:
        """The store's directory of an attempt; of the spool's content, it uses only the name of the run."""
        identity = {**self._identity, "deployment_id": self._deployment_of(run), "attempt": str(attempt)}
        return (self._target or _NOWHERE).directory(identity, _time(os.path.basename(run)))

    def _deployment_of(self, run: str) -> str:
        return self._deployment_id or f"local-{os.path.basename(run)[-8:]}"

    async def _release(self) -> None:
        """Releases the earlier runs that have nothing left to ship."""
        do = self._worker.do
        held = {segment.run for segment in self._spool.segments()}
        done = [run for run in self._parts if run not in held and run != self._spool.run]
        for run in done:
            data = await do(runs.unshipped_exit, run)
            if data is not None and self._outbox is not None and self._archive is None:
                await self._outbox.put(f"{self._parts[run][-1][1]}/{runs.EXIT}", data, _STEADY)
                await do(runs.mark_shipped, run)
            del self._parts[run]
        if done:
            for run in await do(runs.stale, self._spool.directory, done):
                await do(lambda run=run: self._spool.release(run, delete=True))

    def _about(self) -> bytes:
        """The content of run.json, which describes the run while it is under way."""
        started = objects.stamp(self._spool.started_ns)
        content = {"started": started, "form": self._form, "first_segment": self._first, **self._identity}
        return json.dumps(content, indent=2).encode() + b"\n"

    def _summarize(self, result: ShipReport) -> None:
        if result.not_shipped:
            names = ", ".join(str(part["what"]) for part in result.not_shipped[:5])
            more = f" and {len(result.not_shipped) - 5} more" if len(result.not_shipped) > 5 else ""
            size = sum(int(str(part["bytes"])) for part in result.not_shipped)
            self._say(
                f"cannot ship everything to {result.destination}: {names}{more} ({size} bytes; "
                f"{result.not_shipped[0]['why']}); what is on disk stays in {self._spool.run}"
            )


def _time(run_id: str) -> str:
    return run_id.partition("-")[0]


def _soon(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(event.set)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    # asyncio.wait() does not raise the task's exception here, not even a panic of a library.
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()

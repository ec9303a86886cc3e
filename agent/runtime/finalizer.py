"""Uploads logs while the game runs, and ships the rest and the init's `exit.json` after the game's end."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import os
import time
from collections.abc import Callable, Mapping

from agent import log
from agent.config.injected import Deployment
from agent.config.model import Settings
from agent.errors import AgentError
from agent.game.core import Core, CoreOutlook, core_outlook, look_for_core
from agent.game.user import User
from agent.link.messages import FlushAsked, FlushDone, FlushMoved, Kept, StoreMeasured
from agent.logs.files import FileFollower
from agent.logs.redact import Redactor
from agent.logs.ship import Shipper
from agent.logs.speed import Speed
from agent.logs.target import Target
from agent.metrics.exports import Exports
from agent.record import Record
from agent.runtime.link import Link
from agent.runtime.remote_spool import RemoteSpool

# The share of the shipping time for reading the rest of the game's own log files.
_FILES_SHARE = 0.3
# Time kept for reporting what was shipped and what was not.
_LAST_WORD = 0.03
# Time for a debugger to read a core; the core itself is shipped last.
_CORE_SHARE = 0.5
_KEPT = "shipping"


class GameStart(Record):
    """What shipping needs to know of the game.

    Attributes:
        program: what was executed.
        workdir: its working directory.
        pid: its main process.
        started: when, in seconds since 1970.
        env: its environment.
        user: the user that it runs as, or None for the agent's user.
    """

    program: str
    workdir: str
    pid: int
    started: float
    env: dict[str, str]
    user: User | None


class Finalizer:
    """Ships one deployment's logs, attempt after attempt."""

    def __init__(
        self,
        settings: Settings,
        deployment: Deployment,
        spool: RemoteSpool,
        redactor: Redactor,
        link: Link,
        *,
        began: float,
        environ: dict[str, str],
        kept: Mapping[str, str],
        attempt: int,
        game: Callable[[], GameStart],
        exports: Exports | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            settings: all of them.
            deployment: what the platform injected.
            spool: where segments come from.
            redactor: knows the secrets.
            link: to the init.
            began: when the container started, in seconds since 1970: older log files do not belong to this run.
            environ: the container's environment.
            kept: data stored by earlier processes of this agent: where in the store they shipped to, and how far they
                read log files.
            attempt: which start of the game this is.
            game: the current start of the game.
            exports: sends the last metrics and the trace; None if they are not exported.
        """
        self._settings = settings
        self._deployment = deployment
        self._spool = spool
        self._redactor = redactor
        self._link = link
        self._environ = environ
        self._attempt = attempt
        self._game = game
        self._exports = exports
        self._shipping: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._until = float("inf")
        self._following = False
        self._speed = Speed(lambda seconds, rate: link.send(StoreMeasured(seconds, rate)))
        self._shipper = self._make_shipper(json.loads(kept.get(_KEPT, "{}")))
        self._files = FileFollower(
            settings.log_files,
            spool,
            redactor,
            since=began,
            user=game().user,
            kept=kept,
            keep=lambda key, value: link.send_threadsafe(Kept(key, value)),
            say=log.warning,
        )
        self._outlook: CoreOutlook | None = core_outlook(game().workdir) if settings.core else None
        if self._outlook is not None and self._outlook.why_not:
            log.warning(self._outlook.why_not)
        link.handle(FlushAsked, self._on_flush)
        link.handle(FlushMoved, lambda message, _payload: self.hurry(message.until))

    def _make_shipper(self, place: dict[str, int]) -> Shipper:
        same = place.get("attempt") == self._attempt
        return Shipper(
            self._settings.log_url,
            self._spool,
            {
                "application": self._settings.app_name,
                "version": self._settings.app_version,
                "deployment_id": self._deployment.request_id or "",
                "host_id": self._deployment.host_id or "",
                "attempt": str(place["number"]) if same else "",
            },
            first=place["first"] if same else None,
            on_prepared=self._keep_place,
            speed=self._speed,
            redactor=self._redactor,
            interval=self._settings.ship_interval,
            keep=self._settings.keep,
            user=self._game().user,
            form=self._settings.log_form,
            say=log.warning,
            environ=self._environ,
        )

    def _keep_place(self, first: int, number: int) -> None:
        """Stores the place in the store, so that a later process of this agent continues there."""
        place = {"attempt": self._attempt, "first": first, "number": number}
        self._link.send(Kept(_KEPT, json.dumps(place)))

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts following the game's own log files, and shipping."""
        if not self._following:
            self._following = True
            self._files.start()
        self._shipping = loop.create_task(self._shipper.run(), name="shipper")

    def begin_again(self, attempt: int, loop: asyncio.AbstractEventLoop) -> None:
        """The game is restarted: its new log goes to a separate directory."""
        self._attempt, self._until = attempt, float("inf")
        self._shipper = self._make_shipper({})
        self.begin(loop)

    def hurry(self, until: float) -> None:
        """Moves the deadline of the flush, even before shipping has begun."""
        self._until = min(self._until, until)
        self._shipper.hurry(self._until - _LAST_WORD)

    def _on_flush(self, message: FlushAsked, tail: bytes) -> None:
        if self._flushing is not None and not self._flushing.done():
            return
        self.hurry(message.until)
        self._flushing = asyncio.get_running_loop().create_task(self._flush(message, tail), name="flush")

    async def _flush(self, message: FlushAsked, tail: bytes) -> None:
        exporting: asyncio.Future[None] | None = None
        try:
            now = time.monotonic()
            if self._settings.log_files and not message.again:
                await asyncio.to_thread(self._files.finish, now + (self._until - now) * _FILES_SHARE)
            document = json.loads(message.document)
            if self._exports is not None:
                exporting = asyncio.ensure_future(self._exports.last(document, self._until - _LAST_WORD))
            core = await self._look_for_core(message.crashed)
            if core is not None:
                document["core"] = core.as_dict()
            with contextlib.suppress(AgentError, TimeoutError):
                async with asyncio.timeout_at(self._until - _LAST_WORD):
                    await self._spool.refresh()
            result = await self._shipper.finish(
                self._until - _LAST_WORD, document, tail=tail, core=core.path if core else None
            )
            if result.destination is not None:
                log.info(f"logs: {result.destination}/{result.directory}")
            if exporting is not None and self._exports is not None:
                shipped = time.monotonic()
                async with asyncio.timeout_at(self._until - _LAST_WORD):
                    await exporting
                    await self._exports.step("ship", now, shipped)
        except TimeoutError:
            log.warning("cannot export all of the last metrics and the trace: there was no time left")
        except Exception as problem:
            log.fault("cannot finish shipping", problem)
        finally:
            if exporting is not None:
                exporting.cancel()
            self._link.send(FlushDone())

    async def _look_for_core(self, crashed: bool) -> Core | None:
        if self._outlook is None:
            return None
        game, now = self._game(), time.monotonic()
        deadline = now + (self._until - now) * _CORE_SHARE
        try:
            async with asyncio.timeout_at(self._until - _LAST_WORD):
                return await look_for_core(
                    self._outlook,
                    crashed=crashed,
                    workdir=game.workdir,
                    pid=game.pid,
                    since=game.started,
                    program=game.program,
                    env=game.env,
                    user=game.user,
                    deadline=deadline,
                )
        except TimeoutError:
            return Core(None, "there was no time to look for a core")

    async def close(self) -> None:
        """Cancels the work under way."""
        for task in (self._flushing, self._shipping):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def keep(self, path: str) -> str:
        """Marks a file to be uploaded at the end of the deployment.

        Returns:
            Where it will be in the store.

        Raises:
            AgentError: there is no store.
        """
        if not self._settings.log_url:
            raise AgentError(f"cannot keep {path}: there is no store; set AGENT_LOG_URL")
        self._shipper.keep(glob.escape(path))  # a path, whatever characters it has
        return f"{Target(self._settings.log_url).shown}/{self._shipper.directory}/keep{path}"


def working_directory(workdir: str | None) -> str:
    """The game's working directory."""
    return workdir or os.getcwd()

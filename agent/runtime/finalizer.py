"""The story that a game server leaves behind: shipped while it runs, and told to its end when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict

from agent import __version__, log
from agent.config.injected import Deployment
from agent.config.model import Settings
from agent.errors import AgentError
from agent.game.autopsy import Evidence, examine
from agent.game.cgroup import read_cgroup
from agent.game.core import Core, core_outlook, look_for_core
from agent.game.exit_report import build_report, last_line
from agent.init.main import Boot
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.states import Phase, State
from agent.lifecycle.stop_plan import Step
from agent.logs.files import FileFollower
from agent.logs.ship import Shipper
from agent.logs.target import Target
from agent.metrics.counts import LogCounts
from agent.runtime.stop_sequence import Stopping, Turn

# Output that is still on its way gets this part of the time for shipping; the rest is for what is on disk already.
_DRAIN_SHARE = 0.3
# What was shipped and what was not is said before the time is over.
_LAST_WORD = 0.05
# What a debugger may take to read a core; the core itself is shipped last.
_CORE_SHARE = 0.5


class Farewell:
    """Ships the log while the game runs; finds the cause of death and ships the rest afterwards."""

    def __init__(self, boot: Boot, settings: Settings, deployment: Deployment, report: GameReport) -> None:
        """Takes what the story is made of; nothing is opened yet."""
        assert boot.spool is not None, "boot makes it before anything else is built"
        self._boot = boot
        self._deployment = deployment
        self._report = report
        self._settings = settings
        self._following = False
        self._shipping: asyncio.Task[None] | None = None
        self._shipper = self._make_shipper()
        self._files = FileFollower(settings.log_files, boot.spool, boot.redactor, since=_wall(boot.began))
        self._outlook = core_outlook(boot.workdir or os.getcwd()) if settings.core else None
        if self._outlook is not None and self._outlook.why_not:
            log.warning(self._outlook.why_not)

    def _make_shipper(self) -> Shipper:
        assert self._boot.spool is not None, "looked at above"
        return Shipper(
            self._settings.log_url,
            self._boot.spool,
            {
                "application": self._settings.app_name,
                "version": self._settings.app_version,
                "deployment_id": self._deployment.request_id or "",
                "host_id": self._deployment.host_id or "",
            },
            redactor=self._boot.redactor,
            interval=self._settings.ship_interval,
            keep=self._settings.keep,
            form=self._settings.log_form,
            say=log.warning,
            environ=self._boot.environ,
        )

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to follow the game's own log files, and to ship."""
        if not self._following:
            self._following = True
            self._files.start()
        self._shipping = loop.create_task(self._shipper.run(), name="shipper")

    def begin_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """The game is started again: its log follows the one that was told to its end."""
        self._shipper = self._make_shipper()
        self.begin(loop)

    def log_counts(self) -> LogCounts:
        """What became of the game's output so far."""
        capture = self._boot.capture
        if capture is None:
            return LogCounts()
        counts = capture.counters()
        return LogCounts(
            received={stream: counts[f"{stream}_bytes"] for stream in ("stdout", "stderr")},
            shipped=counts["spool_bytes_shipped"],
            dropped=counts["spool_bytes_dropped"],
            not_passed_on=counts["not_passed_on"],
        )

    async def flush(self, state: State, until: float, stopping: Stopping | None) -> None:
        """Finds the cause, writes `exit.json`, ships: see `agent.logs.ship` for the order.

        Args:
            state: of the lifecycle, in `flushing`.
            until: moment of the monotonic clock by which it is over; `hurry` moves it.
            stopping: how the game was asked to end, or None where it was not.
        """
        now = time.monotonic()
        capture = self._boot.capture
        if capture is not None:
            complete = await asyncio.to_thread(capture.drain, now + (until - now) * _DRAIN_SHARE)
            if not complete:
                log.warning("cannot keep or pass on the very last output: it is held open, or what takes it is slow")
        if self._settings.log_files and not state.will_restart:
            await asyncio.to_thread(self._files.finish, now + (until - now) * _DRAIN_SHARE)
        tail = capture.tail() if capture is not None else b""
        core = await self._look_for_core(state, now + (until - now) * _CORE_SHARE)
        document = self._document(state, now, tail, core, stopping)
        log.info(f"autopsy: {document['summary']}")
        result = await self._shipper.finish(until - _LAST_WORD, document, tail=tail, core=core.path if core else None)
        if result.local is not None:
            log.info(f"exit.json: {result.local}")
        if result.destination is not None:
            log.info(f"logs: {result.destination}/{result.directory}")

    def hurry(self, until: float) -> None:
        """Moves the end of a flush that is under way."""
        self._shipper.hurry(until - _LAST_WORD)

    async def close(self) -> None:
        """Ends what is under way."""
        if self._shipping is not None:
            self._shipping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._shipping

    async def keep(self, path: str) -> str:
        """Keeps a file beyond the end of the deployment.

        Returns:
            Where it will lie.

        Raises:
            AgentError: logs go nowhere, so that no file can be kept either.
        """
        if not self._settings.log_url:
            raise AgentError(f"cannot keep {path}: there is nowhere to keep it; set AGENT_LOG_URL")
        self._shipper.keep(path)
        return f"{Target(self._settings.log_url).shown}/{self._shipper.directory}/keep{path}"

    async def _look_for_core(self, state: State, until: float) -> Core | None:
        if self._outlook is None or self._boot.game is None or state.exit is None:
            return None
        game = self._boot.game
        return await asyncio.to_thread(
            functools.partial(
                look_for_core,
                self._outlook,
                crashed=state.exit.signal is not None or (state.exit.code or 0) > 128,
                workdir=self._boot.workdir or os.getcwd(),
                pid=game.main_pid,
                since=_wall(game.started_at),
                program=game.command[0],
                deadline=until,
                started=self._boot.reaper.add_helper,
            )
        )

    def _document(
        self, state: State, now: float, tail: bytes, core: Core | None, stopping: Stopping | None
    ) -> dict[str, object]:
        turns = stopping.turns if stopping is not None else []
        before, after = self._boot.cgroup, read_cgroup()
        status, stop, report = state.exit, state.stop, self._report
        ended = state.history[-1].at
        failure = self._boot.failure
        verdict = examine(
            Evidence(
                code=status.code if status else None,
                signal=status.signal if status else None,
                core_dumped=status.core_dumped if status else False,
                could_not_start=str(failure) if state.could_not_start is not None and failure else None,
                stop_source=stop.source if stop else None,
                stop_reason=stop.reason if stop else None,
                stop_message=stop.message if stop else "",
                stopped_seconds=ended - stop.at if stop else None,
                killed=state.killed,
                kill_after_seconds=state.killed_at - state.plan_began if state.killed_at is not None else None,
                sent_signals=_sent_signals(turns),
                heartbeat_age_seconds=now - report.last_heartbeat if report.last_heartbeat is not None else None,
                before=before,
                after=after,
                last_line=last_line(tail),
            )
        )
        return build_report(
            autopsy=verdict,
            reason=state.reason,
            exit_code=state.exit_code,
            code=status.code if status else None,
            signal=status.signal if status else None,
            core_dumped=status.core_dumped if status else False,
            wall_offset=_wall(0.0),
            started_at=state.started_at,
            ready_at=state.ready_at,
            ended_at=ended,
            phases=[(moment.phase, moment.at) for moment in state.history],
            stop=asdict(stop) if stop else None,
            plan=_plan(state, stopping),
            happened=[*_happened(state), *(_shown(turn, state) for turn in turns)],
            tail=tail,
            heartbeat={"at": report.last_heartbeat, "count": report.heartbeats} if report.heartbeats else None,
            players={"count": report.count, "capacity": report.capacity, "ids": list(report.ids)},
            before=before,
            after=after,
            attempt=state.attempt,
            restarts=state.restarts,
            logs=self._boot.capture.counters() if self._boot.capture is not None else None,
            core=core.as_dict() if core else None,
            deployment=json.loads(self._deployment.model_dump_json()),
            command=[self._boot.redactor.text(word) for word in self._boot.command],
            agent_version=__version__,
            application=self._settings.app_name,
            version=self._settings.app_version,
        )


def _wall(moment: float) -> float:
    """A moment of the monotonic clock in seconds since 1970."""
    return time.time() - time.monotonic() + moment


def _sent_signals(turns: Sequence[Turn]) -> tuple[str, ...]:
    return tuple(
        turn.method.removeprefix("signal:")
        for turn in turns
        if turn.method.startswith("signal:") and turn.outcome == "applied"
    )


def _shown(turn: Turn, state: State) -> dict[str, object]:
    """A stop method's turn, beside the steps."""
    return {
        "method": turn.method,
        "after_seconds": round(max(0.0, turn.at - state.plan_began), 3),
        "seconds": round(turn.seconds, 3),
        "planned_seconds": round(turn.planned_seconds, 3),
        "outcome": turn.outcome,
        "acknowledged": turn.acknowledged,
        "more_seconds": round(turn.more_seconds, 3),
    }


def _plan(state: State, stopping: Stopping | None) -> dict[str, object] | None:
    if state.plan is None:
        return None
    steps = [{"step": share.step, "seconds": round(share.seconds, 3)} for share in state.plan.shares]
    planned = stopping.planned if stopping is not None else []
    methods = [{"method": turn.method, "seconds": round(turn.seconds, 3)} for turn in planned]
    return {"total_seconds": round(state.plan.total, 3), "steps": steps, "methods": methods}


def _happened(state: State) -> list[dict[str, object]]:
    """How long each step before the flush really took, beside what it had."""
    if state.plan is None:
        return []
    bounds = [*state.history[1:], None]
    steps: list[dict[str, object]] = []
    for moment, following in zip(state.history, bounds, strict=True):
        if following is None or moment.at < state.plan_began - 0.001:
            continue
        if moment.phase is Phase.DRAINING:
            steps.append(_step(state, Step.DRAIN, following.at - moment.at))
        elif moment.phase is Phase.STOPPING:
            asked_until = state.killed_at if state.killed_at is not None else following.at
            steps.append(_step(state, Step.STOP, asked_until - moment.at))
            if state.killed_at is not None:
                steps.append(_step(state, Step.KILL, following.at - state.killed_at))
    return steps


def _step(state: State, step: Step, seconds: float) -> dict[str, object]:
    planned = state.plan.seconds(step) if state.plan is not None else 0.0
    return {"step": step, "seconds": round(max(0.0, seconds), 3), "planned_seconds": round(planned, 3)}

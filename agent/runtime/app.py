"""The composition root of the agent's process: creates every part, connects them, and closes them.

The process is forked from the init and so starts with the init's data in its memory: inputs, bound sockets, the state
of the lifecycle, the game's reports. From then on the two processes communicate over the link. The agent may be killed
at any moment; the init restarts it, and stores what must survive the agent's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import resource
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import JsonValue

from agent import __version__, log
from agent.api import http, rpc
from agent.api.access import Peer, allowed_users
from agent.api.contracts import DropIn
from agent.api.events import COMES_BACK, EventBus
from agent.api.feed import Feed
from agent.api.models import WarningEvent
from agent.api.operations import Operations
from agent.api.page import OUTPUT_BYTES, StatusPage
from agent.config import model
from agent.config.cli import shown_settings
from agent.config.injected import Injected, parse
from agent.config.model import Settings
from agent.edgegap.self_stop import Attempt, Outcome, Result, SelfStop
from agent.edgegap.tags import DeploymentTags
from agent.errors import AgentError, Problem, SettingsError
from agent.game.tree import descendants, is_below
from agent.init.supervisor import Supervisor
from agent.lifecycle.game_report import Fact, HeartbeatReported, MetricsReported, ReportCleared
from agent.lifecycle.states import Event, GameStarted, Phase, State
from agent.link.messages import (
    EventPosted,
    FactTold,
    HealthLimited,
    Held,
    Kept,
    Leave,
    ListenersChanged,
    LogLine,
    MainNamed,
    NotificationCounted,
    PlayersUnknown,
    ReleaseAsked,
    ReleaseSettled,
    Serving,
    SettingsRefused,
    ShortVisit,
    StateChanged,
    StopAcknowledged,
    TailAsked,
    TimeRunsOut,
)
from agent.logs.shared_counts import DROPPED, LOST_STDERR, LOST_STDOUT, SHIPPED, STDERR, STDOUT
from agent.metrics.counts import LogCounts
from agent.metrics.exports import Exports, LogOrigin
from agent.metrics.registry import Metrics
from agent.runtime import player_count
from agent.runtime.finalizer import Finalizer, GameStart, working_directory
from agent.runtime.link import Link
from agent.runtime.mirror import Mirror
from agent.runtime.readiness import watch_port
from agent.runtime.remote_spool import RemoteSpool
from agent.runtime.stop_methods import RemoteMethods
from agent.runtime.tasks import Tasks

_PAGE_TOKEN = "page token"  # noqa: S105 - the name of what is kept, not a secret
if TYPE_CHECKING:
    from ssl import SSLContext

    from agent.compat.hosts import Compat
    from agent.compat.prepare import Prepared

_KEPT_COMPAT = "compat"
# Longest wait for the servers to close; after that they end with the process.
_CLOSE_SECONDS = 0.25
_METRICS_KEPT = "metrics"
_LOG_EXPORTED = "log exported"
_KEEP_EVERY = 2.0
_AFTER_FAULT = 5.0
_MOST_FAULTS = 2  # of the self-stop's own, before it is left to PID 1
# Heartbeats may arrive thousands of times a second; the init is notified this often.
_HEARTBEATS_EVERY = 0.05


class _Closable(Protocol):
    async def close(self) -> None: ...


def run(init: Supervisor, sock: socket.socket) -> int:
    """Runs the agent until the init exits.

    Args:
        init: the init as it was when this process was forked. Nothing in it may be changed, written to or waited for:
            its threads are not here.
        sock: this end of the link.

    Returns:
        The exit code of this process.
    """
    # Files that the agent writes are readable only by its own user: a log may contain secrets.
    os.umask(0o077)
    _raise_descriptor_limit()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(_on_loop_fault)
    return loop.run_until_complete(_start(init, sock, loop))


def _raise_descriptor_limit() -> None:
    """Raises this process's limit of descriptors to the maximum; the game keeps its own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_fault_said_at = -60.0


def _on_loop_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs errors reported by asyncio; "no descriptor left" would repeat for every connection, so once a minute."""
    global _fault_said_at  # noqa: PLW0603 - there is one loop
    problem = context.get("exception")
    if not isinstance(problem, OSError) or problem.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS):
        loop.default_exception_handler(context)
    elif loop.time() - _fault_said_at >= 60.0:
        _fault_said_at = loop.time()
        log.error(
            f"cannot accept connections for now: {os.strerror(problem.errno).lower()}; they wait. Close connections, "
            "or raise the container's limit (ulimit -n)"
        )


async def _start(init: Supervisor, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> int:
    over: asyncio.Future[int] = loop.create_future()

    def lost() -> None:
        if not over.done():
            over.set_result(0)

    link = Link(sock, loop, lost)
    link.handle(Leave, lambda _message, _payload: lost())
    log.send_to(lambda line: link.send_threadsafe(LogLine(), line))
    try:
        agent = Agent(init, model.load(init.inputs.options), link, loop)
    except SettingsError as wrong:
        link.send(SettingsRefused(str(wrong)))
        link.flush(1.0)
        await asyncio.sleep(3600)  # the init ends this process
        return 0
    return await agent.live(over)


class Agent:
    """All parts of one agent."""

    def __init__(self, init: Supervisor, settings: Settings, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        """Builds and wires everything; nothing is served yet.

        Raises:
            SettingsError: a setting cannot be fulfilled here.
        """
        self._init = init
        self._settings = settings
        self._loop = loop
        self._link = link
        self._injected = parse(init.inputs.environ)
        self._report = init.report.copy()
        self._events = EventBus()
        self._servers: list[_Closable] = []
        self._tasks = Tasks()
        self._heard = False
        self._from_init = False
        self._heartbeats = 0  # that the init was not told of yet
        self._main_pid = init.process.main_pid
        self._heartbeat_due: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._mirror = Mirror(init.driver.state, init.posted, self._post, loop)
        self._tags = _tags(settings, self._injected)
        self._tls = _tls(settings)
        self._spool = RemoteSpool(link, **init.spool_view)
        self._exports = Exports(
            settings,
            init.inputs.environ,
            self._injected.deployment,
            lambda: self._metrics.collect(),  # noqa: PLW0108 - they are made below, from this
            began=init.inputs.began + init.inputs.wall_offset,
            origin=LogOrigin(
                self._spool,
                int(init.kept.get(_LOG_EXPORTED, "0")),
                lambda number: link.send(Kept(_LOG_EXPORTED, str(number))),
            )
            if settings.capture
            else None,
        )
        self._finalizer = Finalizer(
            settings,
            self._injected.deployment,
            self._spool,
            init.output.redactor,
            link,
            began=init.inputs.began + init.inputs.wall_offset,
            environ=init.inputs.environ,
            kept=init.kept,
            attempt=self._mirror.state.attempt,
            game=self._game_start,
            exports=self._exports if self._exports.wanted else None,
        )
        self._metrics = Metrics(
            version=__version__,
            deployment=self._injected.deployment,
            state=lambda: self._mirror.state,
            root=os.getppid,
            without=lambda: (os.getpid(),),
            report=self._report,
            logs=self._log_counts,
            attempt_results=list(Result),
            trace_id=self._exports.trace_id,
            wall_offset=init.inputs.wall_offset,
        )
        self._operations = Operations(
            self._mirror,
            self._report,
            self._events,
            deployment=self._deployment,
            game_pid=self._game_pid,
            urls={
                name: init.process.env[key]
                for name, key in (("api", "AGENT_URL"), ("socket", "AGENT_SOCKET"), ("metrics", "AGENT_METRICS_URL"))
                if key in init.process.env
            },
            tags=self._tags if self._tags.reachable else None,
            keep=self._finalizer.keep,
            user=init.process.user,
            acknowledge=self._acknowledge,
            expected_players=self._injected.deployment.match.expected_players,
            drop_in=_drop_in(init, self._injected),
        )
        self._feed = Feed(self._mirror, self._report, self._events, self._operations.view)
        self._metrics_again()
        self._count = self._counter()
        self._compat: Compat | None = None
        self._methods = RemoteMethods(settings, link, self._tasks, self._ask_host)
        self._mirror.watch(self._feed.on_transition)
        self._mirror.watch(self._on_transition)
        self._events.on_listeners(self._tell_listeners)
        self._report.subscribe(self._tell_init)
        link.handle(StateChanged, self._mirror.on_state)
        link.handle(FactTold, self._on_fact)
        link.before_pong(self._tell_heartbeat)
        link.handle(TimeRunsOut, self._on_time_runs_out)
        link.handle(MainNamed, self._on_main_named)
        link.handle(ReleaseAsked, self._on_release)
        link.handle(
            NotificationCounted,
            lambda message, _payload: self._metrics.on_request("notify", message.operation, message.status, 0.0),
        )

    async def live(self, over: asyncio.Future[int]) -> int:
        """Serves until the init exits."""
        _route_logging()
        first = self._init.agent.starts <= 1
        if first:
            self._say_problems()
        self._link.start()
        await self._serve()
        self._finalizer.begin(self._loop)
        self._begin_tasks(first)
        # Imported objects stay until the end; excluding them makes every garbage collection faster. One before that
        # would make the first answer wait, for next to nothing.
        gc.freeze()
        gc.enable()
        self._link.send(Serving(json.dumps(self._deployment())))
        log.debug("ready to serve", seconds=round(self._loop.time() - self._init.inputs.began, 3))
        try:
            return await over
        finally:
            await self._close()
            self._link.flush(0.1)

    # Beginning -------------------------------------------------------------------------------------------------------

    def _say_problems(self) -> None:
        for trouble in self._injected.problems:
            log.warning(str(trouble))

    async def _serve(self) -> None:
        sockets = self._init.sockets
        on_request = self._metrics.on_request
        if sockets.control is not None:
            page = self._page()
            self._servers.append(
                await http.serve(sockets.control.sock, self._operations, self._feed, on_request=on_request, page=page)
            )
            if self._init.agent.starts <= 1:
                log.info(f"status page: {page.address(f'http://127.0.0.1:{sockets.control.number}')}")
        if sockets.unix is not None:
            user = self._init.process.user
            self._servers.append(
                await rpc.serve(
                    sockets.unix.sock,
                    self._operations,
                    self._feed,
                    on_request=on_request,
                    is_game=self._is_game,
                    users=allowed_users(*(() if user is None else (user.uid,))),
                )
            )
        if sockets.compat is not None:
            await self._serve_other_hosts(sockets.compat)
        if sockets.metrics is not None:
            token = self._settings.metrics_token
            self._servers.append(
                await self._metrics.serve(
                    sockets.metrics.sock, token=token.get_secret_value() if token is not None else "", tls=self._tls
                )
            )
        if sockets.statsd is not None:
            self._servers.append(await self._metrics.listen_statsd(sockets.statsd))

    def _page(self) -> StatusPage:
        settings, redactor = self._settings, self._init.output.redactor
        page = StatusPage(
            self._operations,
            metrics=self._metrics.expose,
            output=self._tail,
            settings={name: redactor.text(text) for name, text in shown_settings(settings).items()},
            token=settings.page_token.get_secret_value() if settings.page_token is not None else "",
            made_up=self._init.kept.get(_PAGE_TOKEN, ""),
        )
        # The stop button of a status page that is already open keeps working when this process is restarted.
        self._link.send(Kept(_PAGE_TOKEN, page.token))
        return page

    async def _tail(self) -> bytes:
        _, tail = await self._link.ask(lambda ask: TailAsked(ask, OUTPUT_BYTES))
        return tail

    async def _serve_other_hosts(self, prepared: Prepared) -> None:
        from agent.compat import hosts  # noqa: PLC0415 - only where AGENT_COMPAT asks for it

        kept = self._init.kept.get(_KEPT_COMPAT)
        self._compat = await hosts.serve(
            prepared,
            self._operations,
            self._events,
            self._report,
            settings=self._settings,
            deployment=self._injected.deployment,
            phase=lambda: self._mirror.state.phase,
            limit_health=lambda seconds: self._link.send(HealthLimited(seconds)),
            hold=lambda seconds: self._link.send(Held(seconds)),
            saved=json.loads(kept) if kept else None,
            save=lambda snapshot: self._link.send(Kept(_KEPT_COMPAT, json.dumps(snapshot))),
            # As the clocks stood at the start: what a host counts (a hold, silence) does not move with the clock.
            wall=lambda: time.monotonic() + self._init.inputs.wall_offset,
            on_request=self._metrics.on_request,
        )
        self._servers.append(self._compat)

    def _ask_host(self, kind: str, seconds: float) -> str:
        return self._compat.ask_to_stop(kind, seconds) if self._compat is not None else "AGENT_COMPAT is not set"

    def _begin_tasks(self, first: bool) -> None:
        settings = self._settings
        if self._exports.wanted:
            self._tasks.start(self._exports.run(), "pushing metrics")
        self._tasks.start(self._keep_metrics(), "keeping the game's figures for a later process of the agent")
        if settings.tags and first:
            self._tasks.start(self._tag(), "adding the tags of AGENT_TAGS")
        if self._count is not None:
            self._tasks.start(
                player_count.poll(
                    self._count,
                    self._report,
                    self._mirror.now,
                    settings.players_interval,
                    self._players_unknown,
                    phase=lambda: self._mirror.state.phase,
                    short_visit=lambda: self._link.send(ShortVisit()),
                ),
                "counting players",
            )
        if settings.ready_when.startswith("port"):
            self._tasks.start(
                watch_port(settings.ready_when, self._injected.deployment, self._mirror, self._game_pids),
                "seeing by a port when the game is ready",
            )

    def _counter(self) -> player_count.Count | None:
        ports = [port.internal for port in self._injected.deployment.ports.values() if port.protocol != "UDP"]
        try:
            return player_count.counter(
                self._settings.players_from, ports, self._game_pids, min_stay=self._settings.players_min_stay
            )
        except AgentError as problem:
            wrong = Problem("AGENT_PLAYERS_FROM", self._settings.players_from, f"cannot be used: {problem}")
            raise SettingsError([wrong]) from None

    def _metrics_again(self) -> None:
        """Restores the game's metrics from an earlier process of this agent, if the game was not restarted."""
        kept = json.loads(self._init.kept.get(_METRICS_KEPT) or "{}")
        if kept.get("attempt") == self._mirror.state.attempt:
            self._report.metrics.load(kept["metrics"])

    async def _keep_metrics(self) -> None:
        before = ""
        while True:
            await asyncio.sleep(_KEEP_EVERY)
            document = {"attempt": self._mirror.state.attempt, "metrics": self._report.metrics.dump()}
            text = json.dumps(document)
            if text != before and (document["metrics"] or before):
                self._link.send(Kept(_METRICS_KEPT, text))
                before = text

    async def _tag(self) -> None:
        """Gives the deployment the tags of AGENT_TAGS."""
        for name in self._settings.tags:
            try:
                await self._tags.add(name)
            except AgentError as problem:
                log.warning(f"{problem} (AGENT_TAGS: {name})")

    # What happens ----------------------------------------------------------------------------------------------------

    def _on_transition(self, before: State, after: State, event: Event) -> None:
        if after.stop is not None and before.stop is None:
            self._metrics.on_stop_request(after.stop.source, after.stop.reason)
        if isinstance(event, GameStarted):
            self._main_pid = event.pid
        if after.phase is Phase.STARTING and before.phase is Phase.RESTARTING:
            self._report.clear(event.at)
            self._finalizer.begin_again(after.attempt, self._loop)

    def _on_fact(self, message: FactTold, _payload: bytes) -> None:
        """The init received the report over sd_notify."""
        self._from_init = True
        try:
            self._report.take(message.fact)
        finally:
            self._from_init = False
        self._heartbeats = 0  # that the init was not told of yet

    def _tell_init(self, fact: Fact) -> None:
        """Sends the game's reports to the init, for policies, `exit.json` and a restarted agent."""
        if self._from_init or isinstance(fact, ReportCleared | MetricsReported):
            return  # the init keeps no metrics
        if isinstance(fact, HeartbeatReported):
            self._heartbeats += 1
            if self._heartbeat_due is None:
                self._heartbeat_due = self._loop.call_later(_HEARTBEATS_EVERY, self._tell_heartbeat)
            return
        self._link.send(FactTold(fact))

    def _tell_heartbeat(self) -> None:
        if self._heartbeat_due is not None:
            self._heartbeat_due.cancel()
            self._heartbeat_due = None
        count, self._heartbeats = self._heartbeats, 0
        if count and self._report.last_heartbeat is not None:
            self._link.send(FactTold(HeartbeatReported(self._report.last_heartbeat, count)))

    def _post(self, message: EventPosted) -> None:
        """Sends pending reports of the game before an event, so that they count when the init decides."""
        self._tell_heartbeat()
        self._link.send(message)

    def _on_time_runs_out(self, message: TimeRunsOut, _payload: bytes) -> None:
        at = self._operations.view.time(self._mirror.now())
        self._events.publish("warning", WarningEvent(at=at, seconds_left=message.seconds))

    def _on_main_named(self, message: MainNamed, _payload: bytes) -> None:
        self._main_pid = message.pid

    def _tell_listeners(self) -> None:
        heard = self._events.listened
        if heard != self._heard:
            self._heard = heard
            self._link.send(ListenersChanged(heard))
        if heard and not self._events.subscribers:
            self._loop.call_later(COMES_BACK, self._tell_listeners)

    def _players_unknown(self, unknown: bool) -> None:
        self._link.send(PlayersUnknown(unknown))

    async def _acknowledge(self, more_seconds: float) -> float:
        granted, _ = await self._link.ask(lambda ask: StopAcknowledged(ask, more_seconds))
        return float(granted)

    # The self-stop ---------------------------------------------------------------------------------------------------

    def _on_release(self, message: ReleaseAsked, _payload: bytes) -> None:
        if self._releasing is None:
            self._releasing = self._tasks.start(self._release(message.log_storage), "the self-stop")

    async def _release(self, log_storage: str) -> None:
        secrets = self._injected.secrets
        assert secrets.delete_url is not None, "the lifecycle releases only where there is what it takes"
        assert secrets.delete_token is not None, "as above"
        began = self._loop.time()

        def note(attempt: Attempt) -> None:
            self._metrics.on_self_stop_attempt(attempt.result)
            if attempt.retry_in is not None:
                log.warning(f"{attempt.message} (attempt {attempt.number}, next in {attempt.retry_in:.1f} s)")

        def refused(outcome: Outcome) -> None:
            again = outcome.ask_again_in or 0.0
            log.error(
                f"{outcome.message}. Holding, since another start would be billed as well, and asking again in "
                f"{again:.0f} s: stop it from a backend"
            )

        call, outcome, faults = None, None, 0
        while outcome is None:
            try:
                if call is None:
                    call = SelfStop(secrets.delete_url.get_secret_value(), secrets.delete_token, log_storage)
                    log.info(f"stopping the deployment: DELETE {call.shown_url}")
                outcome = await call.insist(note, refused)
            except Exception as problem:
                # An error in the agent must not leave an empty deployment running. What does not pass, such as a limit
                # of descriptors that a game has lowered, may not concern PID 1, which calls when this process is gone.
                log.fault("cannot self-stop", problem)
                faults += 1
                if faults == _MOST_FAULTS:
                    os._exit(1)
                await asyncio.sleep(_AFTER_FAULT)
        if not outcome.confirmed:
            log.error(f"{outcome.message}. The deployment may go on to be billed: stop it from a backend")
        settled = "confirmed" if outcome.confirmed else "refused"
        self._link.send(ReleaseSettled(settled))
        await self._exports.step("release", began, self._loop.time(), outcome=settled)

    # What is known ---------------------------------------------------------------------------------------------------

    def _game_pids(self) -> list[int]:
        return descendants(os.getppid(), frozenset({os.getpid()}))

    def _game_pid(self) -> int | None:
        state = self._mirror.state
        running = state.started_at is not None and state.exit is None and state.phase is not Phase.EXITED
        return self._main_pid if running else None

    def _game_start(self) -> GameStart:
        process, state = self._init.process, self._mirror.state
        # A core that is left after the clock was set back has a time before the game's start as the clock stood then.
        offset = min(self._init.inputs.wall_offset, time.time() - time.monotonic())
        started = (state.started_at or self._init.inputs.began) + offset
        return GameStart(
            process.command[0],
            working_directory(process.workdir),
            self._main_pid,
            started,
            process.env,
            process.user,
        )

    def _is_game(self, peer: Peer) -> bool:
        return is_below(peer.pid, os.getppid(), frozenset({os.getpid()}))

    def _log_counts(self) -> LogCounts:
        if not self._settings.capture:
            return LogCounts()
        counts = self._init.output.counts
        if not counts.shared:
            raise AgentError("cannot see what PID 1 counts: it had no memory to share; give the container more")
        return LogCounts(
            received={"stdout": counts[STDOUT], "stderr": counts[STDERR]},
            shipped=counts[SHIPPED],
            dropped=counts[DROPPED] + self._spool.earlier_bytes_dropped,
            not_passed_on=counts[LOST_STDOUT] + counts[LOST_STDERR],
        )

    def _deployment(self) -> dict[str, JsonValue]:
        return self._injected.deployment.document()

    # Ending ----------------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        """Closes all parts; exceptions are logged."""
        self._events.close()
        self._exports.close()
        rooms: list[_Closable] = [self._tasks, *self._servers, self._finalizer]
        closing = [asyncio.ensure_future(room.close()) for room in rooms]
        done, late = await asyncio.wait(closing, timeout=_CLOSE_SECONDS)
        for task in done:
            if not task.cancelled() and (problem := task.exception()) is not None:
                log.warning(f"cannot close everything properly ({type(problem).__name__}: {problem})")
        for task in late:
            task.cancel()


def _tags(settings: Settings, injected: Injected) -> DeploymentTags:
    secrets = injected.secrets
    return DeploymentTags(
        context_url=secrets.context_url.get_secret_value() if secrets.context_url else None,
        context_token=secrets.context_token,
        deployment_id=injected.deployment.request_id,
        organisation_token=settings.api_token,
        base_url=settings.api_url,
    )


def _tls(settings: Settings) -> SSLContext | None:
    """The TLS context of /metrics; None if no certificate is set.

    Raises:
        SettingsError: the certificate or its key cannot be used.
    """
    if settings.metrics_tls_cert is None:
        return None
    from agent.config.tls import server_context  # noqa: PLC0415 - most serve no TLS

    try:
        return server_context(settings.metrics_tls_cert, settings.metrics_tls_key)
    except ValueError as wrong:
        problem = Problem("AGENT_METRICS_TLS_CERT", settings.metrics_tls_cert, str(wrong))
        raise SettingsError([problem]) from None


def _drop_in(init: Supervisor, injected: Injected) -> DropIn | None:
    """The path of the drop-in route: that of the injected delete URL, `/v1/self/stop/<id>/<key>`."""
    secrets = injected.secrets
    if secrets.delete_url is None or secrets.delete_token is None:
        return None
    *_, identity, key = secrets.delete_url.get_secret_value().partition("?")[0].rstrip("/").split("/")
    substitute = init.inputs.substitute_token
    tokens = (secrets.delete_token.get_secret_value(), *([substitute] if substitute else []))
    return DropIn(identity, key, tokens)


class _ToOwnLog(logging.Handler):
    """Passes the log lines of libraries, which use `logging`, to the agent's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        write = log.error if record.levelno >= logging.ERROR else log.warning
        problem = record.exc_info[1] if record.exc_info else None
        why = f" ({type(problem).__name__}: {problem})" if problem is not None else ""
        write(f"{record.name}: {record.getMessage()}{why}")


def _route_logging() -> None:
    root = logging.getLogger()
    root.handlers = [_ToOwnLog()]
    root.setLevel(logging.WARNING)

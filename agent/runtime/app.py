"""The composition root: builds every room, wires them, and takes them apart. The only module that knows all of them.

Imported by boot when the game runs already; from here on there is one event loop, and everything that happens reaches
the conductor as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from agent import __version__, log
from agent.api import http, notify, rpc
from agent.api.access import Peer, allowed_users
from agent.api.contracts import DropIn
from agent.api.events import EventBus
from agent.api.feed import Feed
from agent.api.models import WarningEvent
from agent.api.operations import Operations
from agent.config import model as settings_module
from agent.config.injected import Injected, parse
from agent.config.model import Settings
from agent.edgegap.late_tags import LateTags
from agent.edgegap.self_stop import Result, SelfStop
from agent.game import signal_handling
from agent.game.main_process import MainProcess
from agent.game.tree import descendants
from agent.init.main import FORWARDED, STOP_SIGNALS, Boot, forward_signal
from agent.lifecycle.driver import Conductor
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.policies import Limits
from agent.lifecycle.states import (
    Event,
    ExitStatus,
    GameExited,
    GameGone,
    Phase,
    Rules,
    State,
    StopSignal,
)
from agent.lifecycle.stop_plan import plan_stop
from agent.lifecycle.transition import initial
from agent.metrics.registry import Metrics
from agent.runtime.background import Background
from agent.runtime.effects import Hands
from agent.runtime.finalizer import Farewell
from agent.runtime.policy_timer import Watch
from agent.runtime.stop_actions import GameAsker, Rcon
from agent.runtime.stop_sequence import Stopping

if TYPE_CHECKING:
    from agent.compat.hosts import Compat
    from agent.compat.prepare import Prepared

# Servers that do not end by themselves by then are left to the end of the process.
_CLOSE_SECONDS = 1.0


class _Closable(Protocol):
    async def close(self) -> None: ...


def run(boot: Boot) -> int:
    """Runs the whole agent around the game that boot has started.

    Returns:
        The exit code.

    Raises:
        SettingsError: a setting is wrong; nothing was built yet.
    """
    settings = settings_module.load(boot.options)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(_Agent(boot, settings, loop).live())
    finally:
        # The loop gives its signals back to their defaults, and there is still output to pass on: what comes now waits,
        # and is lost with the process, or is taken by whoever goes on (`agent.init.fallback`).
        signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, *FORWARDED})
        signal.set_wakeup_fd(-1)
        loop.close()


class _Agent:
    """All rooms of one agent."""

    def __init__(self, boot: Boot, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self._boot = boot
        self._settings = settings
        self._loop = loop
        self._injected = parse(boot.environ)
        self._report = GameReport()
        self._events = EventBus()
        self._servers: list[_Closable] = []
        self._notify: notify.NotifyServer | None = None
        self._compat: Compat | None = None
        self._main = MainProcess(loop, pids=self._game_pids, look=self._reap)
        self._tags = _tags(settings, self._injected)
        self._farewell = Farewell(boot, settings, self._injected.deployment, self._report)
        self._hands = Hands(
            boot,
            stopping=self._make_stopping,
            last_words=self._farewell,
            self_stop=self._self_stop,
            on_attempt=lambda attempt: self._metrics.on_self_stop_attempt(attempt.result),
        )
        self._conductor = self._hands.conductor = Conductor(
            initial(_rules(settings, self._injected), boot.began), self._hands, loop
        )
        self._metrics = Metrics(
            version=__version__,
            deployment=self._injected.deployment,
            state=lambda: self._conductor.state,
            pids=self._game_pids,
            report=self._report,
            logs=self._farewell.log_counts,
            attempt_results=list(Result),
        )
        self._operations = Operations(
            self._conductor,
            self._report,
            self._events,
            deployment=self._deployment,
            game_pid=lambda: boot.game.main_pid if boot.game is not None and not self._main.over else None,
            urls={
                name: boot.game_env[key]
                for name, key in (("api", "AGENT_URL"), ("socket", "AGENT_SOCKET"), ("metrics", "AGENT_METRICS_URL"))
                if key in boot.game_env
            },
            tags=self._tags if self._tags.reachable else None,
            keep=self._farewell.keep,
            acknowledge=self._acknowledge,
            expected_players=self._injected.deployment.match.expected_players,
            drop_in=_drop_in(boot, self._injected),
        )
        self._feed = Feed(self._conductor, self._report, self._events, self._operations.view)
        self._watch = Watch(
            self._conductor,
            self._report,
            _limits(settings),
            loop=loop,
            began=boot.began,
            expected_players=self._injected.deployment.match.expected_players,
            on_hang=lambda: self._background.capture_hang(),  # noqa: PLW0108 - it is made below, from this
            warn=self._warn,
        )
        self._background = Background(
            boot,
            settings,
            self._injected.deployment,
            self._conductor,
            self._report,
            self._tags,
            pids=self._game_pids,
            players_unknown=self._watch.players_unknown,
        )
        self._conductor.watch(self._metrics.on_transition)
        self._conductor.watch(self._feed.on_transition)
        self._conductor.watch(self._say)

    async def live(self) -> int:
        """From taking over to the exit code."""
        _route_logging()
        self._say_hello()
        self._hands.start_game()
        self._serve_notifications()
        self._take_over_signals()
        await self._serve()
        self._farewell.begin(self._loop)
        self._background.begin(self._loop)
        # What was imported stays until the end: keeping it out of every collection makes those, and the exit, faster.
        gc.collect()
        gc.freeze()
        log.debug("ready to serve", seconds=round(time.monotonic() - self._boot.began, 3))
        try:
            return await self._conductor.exited
        finally:
            await self._close()

    # Beginning -------------------------------------------------------------------------------------------------------

    def _say_hello(self) -> None:
        deployment = self._injected.deployment
        for problem in settings_module.unknown_variables(self._boot.environ):
            log.warning(f"{problem}; it has no effect")
        for problem in self._injected.problems:
            log.warning(str(problem))
        if deployment.on_platform:
            log.info(f"version {__version__}, deployment {deployment.request_id}")
        else:
            log.info(f"version {__version__}, not on the platform: self-stop, tags and injected values are off")

    def _take_over_signals(self) -> None:
        """From boot's handlers to the loop's; what came in between is not lost."""
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._on_stop_signal, number)
        for forwarded in FORWARDED:
            # Two real-time signals belong to the C library and cannot be had.
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                self._loop.add_signal_handler(forwarded, forward_signal, self._boot, forwarded)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._reap()
        for sent, at in self._boot.signals:
            self._conductor.post(StopSignal(at, interrupt=sent == signal.SIGINT))

    def _serve_notifications(self) -> None:
        """Before anything is reaped: what the game said before it ended counts."""
        if self._boot.notify is None:
            return
        effects = notify.Effects(
            set_text=lambda text: self._report.set_text(text, self._conductor.now()),
            name_main=lambda pid: self._main.name(self._boot.game, pid) if self._boot.game is not None else None,
            alarm=self._watch.alarm,
        )
        self._notify = notify.serve(
            self._boot.notify.sock,
            self._operations,
            effects,
            users=self._users(),
            on_request=self._metrics.on_request,
        )
        self._servers.append(self._notify)

    def _users(self) -> frozenset[int]:
        user = self._boot.user
        return allowed_users(*(() if user is None else (user.uid,)))

    async def _serve(self) -> None:
        boot = self._boot
        if boot.control is not None:
            self._servers.append(
                await http.serve(boot.control.sock, self._operations, self._feed, on_request=self._metrics.on_request)
            )
        if boot.unix is not None:
            self._servers.append(
                await rpc.serve(
                    boot.unix.sock,
                    self._operations,
                    self._feed,
                    on_request=self._metrics.on_request,
                    is_game=self._is_game,
                    users=self._users(),
                )
            )
        if boot.compat is not None:
            await self._serve_other_hosts(boot.compat)
        if boot.metrics is not None:
            self._servers.append(await self._metrics.serve(boot.metrics.sock))

    async def _serve_other_hosts(self, prepared: Prepared) -> None:
        from agent.compat import hosts  # noqa: PLC0415 - only where AGENT_COMPAT asks for it

        self._compat = await hosts.serve(
            prepared,
            self._operations,
            self._events,
            self._report,
            settings=self._settings,
            deployment=self._injected.deployment,
            phase=lambda: self._conductor.state.phase,
            limit_health=self._watch.limit_health,
            hold=self._watch.hold,
            on_request=self._metrics.on_request,
        )
        self._servers.append(self._compat)

    # Living ----------------------------------------------------------------------------------------------------------

    def _on_stop_signal(self, number: int) -> None:
        now = self._loop.time()
        self._boot.signals.append((number, now))
        self._conductor.post(StopSignal(now, interrupt=number == signal.SIGINT))

    def _reap(self) -> None:
        ended, left = self._boot.reaper.reap()
        game = self._boot.game
        for pid, how in ended.items():
            self._hands.helper_ended(pid, how)
        if game is None:
            return
        if self._notify is not None:
            self._notify.read()  # a launcher that names the game's main process and leaves says it before
        status = self._main.take(game, ended, left=left)
        if status is not None:
            game.status = status
            self._conductor.post(GameExited(self._loop.time(), _exit_status(status)))
        if self._main.over and not left:
            self._conductor.post(GameGone(self._loop.time()))

    def _make_stopping(self, state: State) -> Stopping:
        events = self._events
        asker = GameAsker(
            self._boot,
            heard=events.listened,
            settle=events.settle,
            rcon=_rcon(self._settings),
            host=self._ask_host,
        )
        return Stopping(self._settings.stop, asker, state)

    def _ask_host(self, kind: str, seconds: float) -> str:
        return self._compat.ask_to_stop(kind, seconds) if self._compat is not None else "AGENT_COMPAT is not set"

    def _acknowledge(self, more_seconds: float) -> float:
        stopping = self._hands.stopping
        return stopping.acknowledge(more_seconds) if stopping is not None else 0.0

    def _say(self, before: State, after: State, event: Event) -> None:
        """What an operator reads, and what is counted, at each transition."""
        if after.stop is not None and before.stop is None:
            self._metrics.on_stop_request(after.stop.source, after.stop.reason)
        if isinstance(event, GameExited) and after.exit is not None:
            how = f"signal {after.exit.signal}" if after.exit.signal is not None else f"code {after.exit.code}"
            log.info(f"the game has ended with {how}")
        if after.phase is not before.phase:
            log.debug(f"{before.phase} -> {after.phase}")
            if after.phase is Phase.READY:
                log.info("the game is ready for players")
                self._advise_on_signals()
            if after.phase is Phase.STARTING:
                self._main.begin_again()
                self._farewell.begin_again(self._loop)
                self._background.begin_again()
                log.info(f"starting the game again (attempt {after.attempt})")

    def _warn(self, seconds: float) -> None:
        log.info(f"the maximum duration is over in {seconds:g} s")
        at = self._operations.view.time(self._conductor.now())
        self._events.publish("warning", WarningEvent(at=at, seconds_left=seconds))

    def _advise_on_signals(self) -> None:
        """A game that would not hear its stop is told of while there is time to mend it."""
        first = self._settings.stop[0]
        if first.kind != "signal":
            return
        # The group with all its threads of command: a shell in front passes nothing on, but its child gets it as well.
        how = signal_handling.handled(signal_handling.statuses(self._game_pids()), first.signum)
        if sentence := signal_handling.advice(how, first.signum):
            log.warning(sentence)

    def _self_stop(self, state: State) -> SelfStop:
        secrets = self._injected.secrets
        assert secrets.delete_url is not None, "the lifecycle releases only where there is what it takes"
        assert secrets.delete_token is not None, "as above"
        wanted = state.stop.log_storage if state.stop is not None else None
        storage = wanted or self._settings.log_storage
        return SelfStop(secrets.delete_url.get_secret_value(), secrets.delete_token, storage)

    def _game_pids(self) -> list[int]:
        return descendants(os.getpid(), self._boot.reaper.helpers)

    def _is_game(self, peer: Peer) -> bool:
        return peer.pid in self._game_pids()

    def _deployment(self) -> dict[str, JsonValue]:
        shown: dict[str, JsonValue] = json.loads(self._injected.deployment.model_dump_json())
        return shown

    # Ending ----------------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        """Closes all rooms, inside what is left of the grace; what raises is said, and costs nobody the exit code."""
        self._watch.close()
        self._main.close()
        self._events.close()
        rooms: list[_Closable] = [self._background, self._hands, *self._servers, self._farewell]
        closing = [asyncio.ensure_future(room.close()) for room in rooms]
        seconds = max(0.02, self._boot.at_most(_CLOSE_SECONDS) - time.monotonic())
        done, late = await asyncio.wait(closing, timeout=seconds)
        for task in done:
            if not task.cancelled() and (problem := task.exception()) is not None:
                log.warning(f"cannot close everything properly ({type(problem).__name__}: {problem})")
        for task in late:
            task.cancel()


def _limits(settings: Settings) -> Limits:
    return Limits(
        ready=settings.ready_timeout,
        first_player=settings.first_player_timeout,
        empty=settings.empty_timeout,
        health=settings.health_timeout,
        duration=settings.max_duration,
        warnings=settings.max_duration_warnings,
        reserve=plan_stop(
            settings.grace_seconds, killed_at_end=False, ship=settings.ship_seconds if settings.log_url else 0.0
        ).total,
    )


def _rules(settings: Settings, injected: Injected) -> Rules:
    return Rules(
        grace=settings.grace_seconds,
        drain=settings.drain_seconds,
        ship=settings.ship_seconds if settings.log_url else 0.0,
        hold=settings.hold_seconds,
        on_exit=settings.on_exit,
        on_crash=settings.on_crash,
        restart_limit=settings.restart_limit,
        restart_backoff=settings.restart_backoff,
        can_self_stop=injected.secrets.can_self_stop,
    )


def _rcon(settings: Settings) -> Rcon | None:
    if settings.rcon_address is None:
        return None
    host, _, port = settings.rcon_address.rpartition(":")
    password = settings.rcon_password
    return Rcon(host.strip("[]"), int(port), password.get_secret_value() if password else "")


def _tags(settings: Settings, injected: Injected) -> LateTags:
    secrets = injected.secrets
    return LateTags(
        context_url=secrets.context_url.get_secret_value() if secrets.context_url else None,
        context_token=secrets.context_token,
        deployment_id=injected.deployment.request_id,
        organisation_token=settings.api_token,
        base_url=settings.api_url,
    )


def _drop_in(boot: Boot, injected: Injected) -> DropIn | None:
    """What the drop-in route answers to: the path of the injected delete URL, `/v1/self/stop/<id>/<key>`."""
    secrets = injected.secrets
    if secrets.delete_url is None or secrets.delete_token is None:
        return None
    *_, identity, key = secrets.delete_url.get_secret_value().partition("?")[0].rstrip("/").split("/")
    tokens = (secrets.delete_token.get_secret_value(), *([boot.substitute_token] if boot.substitute_token else []))
    return DropIn(identity, key, tokens)


def _exit_status(status: int) -> ExitStatus:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return ExitStatus(signal=-code, core_dumped=os.WCOREDUMP(status))
    return ExitStatus(code=code)


class _ToOwnLog(logging.Handler):
    """Libraries log through `logging`; their lines go where the agent's own go."""

    def emit(self, record: logging.LogRecord) -> None:
        write = log.error if record.levelno >= logging.ERROR else log.warning
        problem = record.exc_info[1] if record.exc_info else None
        why = f" ({type(problem).__name__}: {problem})" if problem is not None else ""
        write(f"{record.name}: {record.getMessage()}{why}")


def _route_logging() -> None:
    root = logging.getLogger()
    root.handlers = [_ToOwnLog()]
    root.setLevel(logging.WARNING)

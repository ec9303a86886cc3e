"""Connects the lifecycle, the game, its output, the policies, and the agent's process. Standard library only.

Signals arrive here (`_on_signal`). This is the only module of the init that knows all others: everything that happens
is an event for the driver, and `Effects` executes what follows. Nothing here blocks, and nothing waits for the agent's
process longer than a bounded time.
"""

from __future__ import annotations

import json
import os
import signal

from agent import log
from agent.config.game_ports import game_ports
from agent.errors import EXIT_BAD_SETTINGS, AgentError
from agent.game import signal_handling
from agent.game.cgroup import read_cgroup
from agent.game.ends import Ends
from agent.game.main_process import MainProcess
from agent.game.process import send
from agent.init.agent_process import AgentProcess
from agent.init.attempt import Attempt
from agent.init.effects import Effects
from agent.init.ending import Ending
from agent.init.limits import restore_limits
from agent.init.notify import NotifySocket
from agent.init.oom_watch import OomWatch
from agent.init.policy_timer import PolicyTimer
from agent.init.release import LightRelease
from agent.init.signals import STOP_SIGNALS
from agent.init.spool_service import SpoolService
from agent.init.stop_actions import StopActions
from agent.init.stop_sequence import StopSequence
from agent.init.unavailable import Unavailable
from agent.lifecycle.driver import Driver
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.policies import Limits
from agent.lifecycle.states import (
    GameExited,
    GameGone,
    GameReady,
    Phase,
    Reason,
    Rules,
    Source,
    SpawnFailed,
    State,
    StopRequest,
    StopRequested,
    StopSignal,
)
from agent.lifecycle.stop_plan import RELEASE_SECONDS, plan_stop
from agent.lifecycle.transition import initial
from agent.link.messages import (
    Answer,
    EventPosted,
    FactTold,
    HealthLimited,
    Held,
    Kept,
    ListenersChanged,
    LogLine,
    MainNamed,
    NotificationCounted,
    PlayersUnknown,
    Serving,
    SettingsRefused,
    ShortVisit,
    StateChanged,
    StopAcknowledged,
    StoreMeasured,
    TimeRunsOut,
)
from agent.logs.speed import DEFAULT_RATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from typing import Any, NoReturn

    from agent.game.process import GameProcess
    from agent.init.inputs import Inputs
    from agent.init.loop import Loop
    from agent.init.output import Output
    from agent.init.sockets import Sockets
    from agent.lifecycle.game_report import Fact
    from agent.lifecycle.states import Event
    from agent.record import Record

# The last steps of the shutdown: closing, and the shutdown of the agent's process.
_CLOSE_SECONDS = 1.0
_CLOSE_AT_LEAST = 0.1
_LEAVE_SECONDS = 0.3
_KILLED_SECONDS = 0.1
# How much of the grace must be left when everything is closed: on a twentieth of a CPU the exit itself takes time.
_MARGIN = 0.15
# Longest wait for an agent that still talks to a hanging store: its work is done by then.
_LEAVE_MARGIN = 0.25
# A datagram read this long after its sender has ended still counts.
_NOTIFY_LOOKS = 10
_NOTIFY_LOOK_EVERY = 0.005
# How often the game's output is read where no thread can be started for it.
_READ_EVERY = 0.02
# Delay before ended processes are looked for again where that has failed.
_REAP_AGAIN = 0.05
# A game that is not ready by then is reported, with the output lines seen instead.
_SAY_NOT_READY_AFTER = 10.0
# Shipped first, one after the other: `exit.json` and the tail of the log.
_OBJECTS_AT_THE_END = 2
# More than any plan gives: all that it can have.
_STORE_IN_TROUBLE_SECONDS = 60.0
# Longest wait for the game's last output, so that it comes before the log line about the game's end.
_LAST_OUTPUT_SECONDS = 0.2


class Supervisor:
    """All of one init, from the spawned game to the exit code.

    Attributes:
        loop, inputs, process, output, sockets: what it works on.
        driver: the lifecycle.
        report: what the game reported about itself.
        agent: the agent's process.
        kept: data that the agent stores here so that it survives the agent's process, by key.
        posted: how many events from the agent were handled.
        spool_view: what a forked agent knows of the spool.
    """

    def __init__(
        self,
        loop: Loop,
        inputs: Inputs,
        process: GameProcess,
        output: Output,
        sockets: Sockets,
        run_agent: Callable[[Supervisor, socket], NoReturn],
        isolate: Callable[[], None],
    ) -> None:
        """Creates and connects everything; starts nothing.

        Args:
            loop: of the init.
            inputs: what the agent was started with.
            process: the game, prepared.
            output: its output.
            sockets: bound.
            run_agent: what the forked agent does; it never returns.
            isolate: what each forked process of the init calls first.
        """
        self.loop = loop
        self.inputs = inputs
        self.process = process
        self.output = output
        self.sockets = sockets
        self.report = GameReport()
        self.kept: dict[str, str] = {}
        self.posted = 0
        self.refused = False
        self._signals: list[tuple[int, float]] = []
        self._look_again = 0
        self._store: StoreMeasured | None = None
        self.spool_view: dict[str, Any] = {}
        self.agent = AgentProcess(loop, process.reaper, lambda link: run_agent(self, link), self._before_fork)
        self._light = LightRelease(process.reaper, isolate, loop)
        self._oom = OomWatch()
        self._ending = Ending(loop, inputs, process, output, self.report, self.agent, self._light, self._oom)
        self._effects = Effects(
            loop, process, self._ending, new_attempt=self._new_attempt, new_sequence=self._new_sequence
        )
        self.driver = self._effects.driver = Driver(
            initial(_rules(inputs), inputs.began), self._effects, loop, self._exit
        )
        self._policies = PolicyTimer(
            self.driver,
            self.report,
            _limits(inputs),
            loop=loop,
            began=inputs.began,
            expected_players=_expected_players(inputs),
            on_hang=self._capture_hang,
            warn=self._warn,
            caught_up=self.agent.caught_up,
        )
        tls = inputs.setting("metrics_tls_cert") is not None
        self._unavailable = Unavailable(loop, sockets, self.agent, metrics_tls=tls)
        self.spool = SpoolService(output, self.agent, loop)
        self._notify: NotifySocket | None = None
        self.driver.watch(self._tell_agent)
        self.driver.watch(self._say)
        self.agent.on_up(self._policies.resumed)
        self.agent.on_back(self._policies.resumed)
        for kind, handler in (
            (Serving, self._on_serving),
            (SettingsRefused, self._on_refused),
            (EventPosted, self._on_event),
            (FactTold, self._on_fact),
            (Kept, self._on_kept),
            (ListenersChanged, self._on_listeners),
            (StopAcknowledged, self._on_acknowledged),
            (PlayersUnknown, self._on_players_unknown),
            (ShortVisit, self._on_short_visit),
            (HealthLimited, self._on_health_limited),
            (Held, self._on_held),
            (LogLine, self._on_log_line),
            (StoreMeasured, self._on_store_measured),
        ):
            self.agent.handle(kind, handler)

    # A life ----------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """From the spawned game (or the failure to spawn it) to the exit code."""
        self._effects.begin()
        self._listen()
        self.loop.on_signal(self._on_signal)
        self.loop.call_soon(self._reap)
        self._read_output()
        # After the signals that have arrived: importing, the agent would take CPU from a stop under way.
        self.loop.call_soon(self.agent.start)
        code = self.loop.run()
        self._close()
        return code

    def refuse(self) -> int:
        """With wrong settings, on the platform: stops the deployment, because another start would fail the same way."""
        self._effects.attempt = self._new_attempt()
        self.agent.forbid()
        self.refused = True
        self.loop.on_signal(self._on_signal)
        self.driver.post(SpawnFailed(self.loop.time(), EXIT_BAD_SETTINGS))
        code = self.loop.run()
        self._close()
        return code

    def _read_output(self) -> None:
        """Reads the game's output here as long as no thread can be started for it (pids limit)."""
        capture = self.output.capture
        if capture is not None and self.process.game is not None and capture.without_thread():
            self.loop.call_later(_READ_EVERY, self._read_output)

    def _before_fork(self) -> None:
        """A forked agent must not use the spool itself: a thread that the fork did not copy may hold its lock."""
        spool = self.output.spool
        self.spool_view = {
            "directory": spool.directory,
            "run_id": spool.run_id,
            "started_ns": spool.started_ns,
            "next_number": spool.next_number,
            "max_bytes": spool.max_bytes,
            "owner": spool.owner,
            "segments": self.spool.snapshot(),
        }

    def _listen(self) -> None:
        if self.sockets.notify is not None:
            users = frozenset({0, os.geteuid(), *((self.process.user.uid,) if self.process.user is not None else ())})
            self._notify = NotifySocket(self.sockets.notify.sock, self.loop, self, users)
        kind, _, pattern = self.inputs.setting("ready_when").partition(":")
        if kind == "output":
            self._see_output(pattern)

    def _see_output(self, pattern: str, *, from_now: bool = False) -> None:
        """Treats the game as ready when a line of its output says so."""
        if self.output.capture is None:
            log.warning("cannot see in its output when the game is ready: AGENT_CAPTURE is off")
            return

        def found() -> None:
            self.loop.call_soon_threadsafe(self.notified_ready)

        self.output.capture.look_for(pattern.encode(), found, from_now=from_now)
        attempt = self.driver.state.attempt

        def still_waiting() -> None:
            if self.driver.state.phase is Phase.STARTING and self.driver.state.attempt == attempt:
                self._say_not_ready("is not ready yet")

        self.loop.call_later(_SAY_NOT_READY_AFTER, still_waiting)

    def _say_not_ready(self, how: str) -> None:
        """Logs why the game was not seen ready in its output; for readiness by port the agent does it."""
        seen = self.output.capture.not_found() if self.output.capture is not None else ""
        if seen:
            log.warning(f"the game {how}: {seen} (AGENT_READY_WHEN={self.inputs.setting('ready_when')})")

    def _new_attempt(self) -> Attempt:
        game = self.process.game
        ports = _internal_ports(self.inputs.environ)
        main = None
        if game is not None:
            setting, follow = self.inputs.setting("main"), None
            if setting:
                from agent.game.follow import Follow  # noqa: PLC0415 - most games are the process that is started

                follow = Follow(setting, ports)
            elif ports:
                from agent.init.port_watch import PortWatch  # noqa: PLC0415 - off the platform no port is mapped

                PortWatch(self.loop, ports, lambda: self.process.game is game and self._game_is_to_live())
            main = MainProcess(
                game,
                self.loop,
                pids=self.process.pids,
                look=self._reap,
                follow=follow,
                lives=self._game_is_to_live,
            )
            if setting == "port" and not ports:
                log.warning(
                    "cannot follow the owner of the game's port (AGENT_MAIN=port): no port is mapped here; set "
                    "AGENT_MAIN=port:NUMBER"
                )
        actions = StopActions(self.process, self.agent, self.loop, ports=ports)
        return Attempt(self.process, main, actions, Ends(self.loop, self.process.pids, lambda: self.process.main_pid))

    def _game_is_to_live(self) -> bool:
        return self.driver.state.phase in (Phase.STARTING, Phase.READY)

    def _new_sequence(self, attempt: Attempt, state: State) -> StopSequence:
        attempt.at_stop = read_cgroup()
        if attempt.ends is not None:
            attempt.ends.look()
        return StopSequence(self.inputs.setting("stop"), attempt.actions, state, self.loop)

    # What happens ----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, at: float) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in STOP_SIGNALS:
            restore_limits()
            self._signals.append((number, at))
            self.driver.post(StopSignal(at, interrupt=number == signal.SIGINT, backlog=self._backlog()))
        else:
            self.process.forward(number)

    def _backlog(self) -> float:
        """Estimated seconds to ship the current backlog, at the speed of the store so far."""
        store, held = self._store, self.output.spool.counters()["bytes_held"]
        if store is None:  # nothing was shipped yet, or there is no store: the plan knows which
            return float(held / DEFAULT_RATE)
        if store.bytes_per_second <= 0:
            # The store accepts nothing now. Without time for another attempt not even exit.json would arrive.
            return _STORE_IN_TROUBLE_SECONDS
        return float(_OBJECTS_AT_THE_END * store.object_seconds + held / store.bytes_per_second)

    def _reap(self) -> None:
        try:
            self._look_for_ended()
        except Exception as problem:
            # SIGCHLD does not come again for what has ended already.
            log.fault("cannot look for ended processes", problem)
            self.loop.call_later(_REAP_AGAIN, self._reap)

    def _look_for_ended(self) -> None:
        # A launcher that names the game's main process and then exits has sent that message before.
        if self._notify is not None and not self._notify.idle() and self._look_again < _NOTIFY_LOOKS:
            self._look_again += 1
            self.loop.call_later(_NOTIFY_LOOK_EVERY, self._reap)
            return
        self._look_again = 0
        names: dict[int, str] = {}
        game = self.process.game
        ended, left = self.process.reaper.reap(names, game.groups() if game is not None else ())
        try:
            self._look_for_own(ended)
        except Exception as problem:  # the game's end, below, counts all the same
            log.fault("cannot handle the end of a process of the agent's", problem)
        attempt = self._effects.attempt
        how_it_ended = attempt.take(ended, left=left, names=names, at=self.loop.time())
        if how_it_ended is not None:
            self.driver.post(GameExited(self.loop.time(), how_it_ended))
        if attempt.main is not None and attempt.main.over and not left:
            self.driver.post(GameGone(self.loop.time()))

    def _look_for_own(self, ended: dict[int, int]) -> None:
        """Handles the ends of the agent's own processes, and of those that were killed for want of memory."""
        own = killed = False
        for pid, status in ended.items():
            own |= self.agent.ended(pid, status)
            self._light.ended(pid, status)
            killed |= os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if killed:
            self._oom.look(self.process.cgroup, self.loop.time(), own=own)

    def _say(self, before: State, after: State, event: Event) -> None:
        """Logs each transition for the operator."""
        if isinstance(event, GameExited) and after.exit is not None:
            if after.exit.signal is not None:
                how = f" with signal {after.exit.signal}"
            elif after.exit.code is not None:
                how = f" with code {after.exit.code}"
            else:
                how = "; how is not known, since its own parent waited for it"
            self._say_ended(f"the game has ended{how}", self.loop.time() + _LAST_OUTPUT_SECONDS)
        if before.stop is None and after.stop is not None and after.stop.reason is Reason.NOT_READY:
            self._say_not_ready("was not seen ready")
        if after.phase is before.phase:
            return
        log.debug(f"{before.phase} -> {after.phase}")
        if after.phase is Phase.READY:
            log.info("the game is ready for players")
            if self._effects.attempt.ends is not None:
                self._effects.attempt.ends.look()
            self._advise_on_signals()
        if after.phase is Phase.STARTING:
            log.info(f"starting the game again (attempt {after.attempt})")
            kind, _, pattern = self.inputs.setting("ready_when").partition(":")
            if kind == "output":
                self._see_output(pattern, from_now=True)

    def _say_ended(self, sentence: str, deadline: float) -> None:
        capture = self.output.capture
        if capture is not None and capture.unread() and self.loop.time() < deadline:
            self.loop.call_later(0.005, self._say_ended, sentence, deadline)
        else:
            log.info(sentence)

    def _advise_on_signals(self) -> None:
        """Warns about a game that does not handle its stop signal, while there is time to fix it."""
        first = self.inputs.setting("stop")[0]
        if first.kind == "signal":
            found = self._effects.attempt.actions.judge(first)
            if sentence := signal_handling.advice(found, first.signum):
                log.warning(sentence)
            elif sentence := signal_handling.unclear(found, first.signum):
                log.info(sentence)

    def _warn(self, seconds: float) -> None:
        log.info(f"the maximum duration is over in {seconds:g} s")
        self.agent.tell(TimeRunsOut(seconds))

    def _capture_hang(self) -> None:
        """Captures the state of a game that does not answer any more, as AGENT_ON_HANG says."""
        what = self.inputs.setting("on_hang")
        if self.process.game is None or what == "none":
            return
        if what == "abort":
            log.warning("SIGABRT to the game, so that it leaves a core or a crash dump")
            send(self.process.main_pid, signal.SIGABRT)
            return
        for line in signal_handling.threads(self.process.pids()):
            if self.output.capture is not None:
                self.output.capture.note(line)
            log.warning(line)

    # sd_notify: see agent.init.notify.Listener -----------------------------------------------------------------------

    def notified_ready(self) -> None:
        """The game is ready for players."""
        self.driver.post(GameReady(self.loop.time()))

    def notified_heartbeat(self) -> None:
        """The game lives."""
        self.report.heartbeat(self.loop.time())
        self.agent.tell_fact(_last(self.report))

    def notified_text(self, text: str) -> None:
        """The game's status text."""
        before = self.report.text
        self.report.set_text(text, self.loop.time())
        if self.report.text != before:
            from agent.lifecycle.game_report import TextReported  # noqa: PLC0415 - beside its only use

            self.agent.tell_fact(TextReported(self.loop.time(), self.report.text))

    def notified_ending(self) -> None:
        """The game is ending: a stop of its own, or its answer to the stop under way."""
        if self.driver.state.phase in (Phase.DRAINING, Phase.STOPPING):
            self._acknowledge(0.0)
            return
        now = self.loop.time()
        request = StopRequest(Source.GAME, Reason.REQUESTED, now, "STOPPING=1", ending=True)
        self.driver.post(StopRequested(now, request))

    def notified_main(self, pid: int) -> None:
        """The game's main process."""
        main = self._effects.attempt.main
        if main is not None:
            main.name(pid)
            self.agent.tell(MainNamed(pid))

    def notified_alarm(self) -> None:
        """The game's own watchdog reports a hang."""
        self._policies.alarm("the game's own watchdog gave the alarm")

    def notified_more_time(self, seconds: float) -> None:
        """The game is ending and asks for more time."""
        if self.driver.state.phase not in (Phase.DRAINING, Phase.STOPPING):
            raise AgentError("cannot acknowledge a stop: none is under way")
        self._acknowledge(seconds)

    def is_game(self, pid: int) -> bool:
        """Whether a process is part of the game; true for one that has just ended and may have been.

        The kernel calls a sender of another PID namespace, which is nobody's child here, 0 (man 7 pid_namespaces).
        """
        return pid > 0 and (self.process.has(pid) or not os.path.exists(f"/proc/{pid}"))

    def count_notification(self, operation: str, status: str) -> None:
        """Counts a notification; the metric itself is in the agent's process."""
        self.agent.tell(NotificationCounted(operation, status))

    def _acknowledge(self, more_seconds: float) -> float:
        sequence = self._effects.attempt.sequence
        return sequence.acknowledge(more_seconds) if sequence is not None else 0.0

    # What the agent says ---------------------------------------------------------------------------------------------

    def _tell_agent(self, _before: State, after: State, event: Event) -> None:
        self.agent.tell(StateChanged(after, event, self.posted))

    def _on_serving(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, Serving), "registered for it"
        self._ending.deployment = message.deployment

    def _on_refused(self, message: Record, _payload: bytes) -> None:
        """A setting is wrong in a way that only the agent can see: ends the game right after its start."""
        assert isinstance(message, SettingsRefused), "registered for it"
        log.error(message.text)
        self.refused = True
        self.agent.forbid()
        self.process.kill()
        self.driver.post(SpawnFailed(self.loop.time(), EXIT_BAD_SETTINGS))

    def _on_event(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, EventPosted), "registered for it"
        self.posted += 1
        before = self.driver.state
        after = self.driver.post(message.event)
        if after is before:
            self.agent.tell(StateChanged(after, message.event, self.posted))

    def _on_fact(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, FactTold), "registered for it"
        self.report.take(message.fact)

    def _on_kept(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, Kept), "registered for it"
        if message.value:
            self.kept[message.key] = message.value
        else:
            self.kept.pop(message.key, None)

    def _on_listeners(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, ListenersChanged), "registered for it"
        self.agent.heard = message.heard

    def _on_acknowledged(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, StopAcknowledged), "registered for it"
        try:
            granted = self._acknowledge(message.more_seconds)
        except AgentError as problem:
            self.agent.tell(Answer(message.ask, error=str(problem)))
        else:
            self.agent.tell(Answer(message.ask, json.dumps(granted)))

    def _on_players_unknown(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, PlayersUnknown), "registered for it"
        self._policies.players_unknown(message.unknown)

    def _on_short_visit(self, _message: Record, _payload: bytes) -> None:
        self._policies.short_visit()

    def _on_health_limited(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, HealthLimited), "registered for it"
        self._policies.limit_health(message.seconds)

    def _on_held(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, Held), "registered for it"
        self._policies.hold(message.seconds)

    def _on_store_measured(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, StoreMeasured), "registered for it"
        self._store = message

    def _on_log_line(self, _message: Record, payload: bytes) -> None:
        self.output.put_line(payload)

    # The way out -----------------------------------------------------------------------------------------------------

    def _exit(self, code: int) -> None:
        self._policies.close()
        self.loop.stop(code)

    def at_most(self, seconds: float, margin: float = _MARGIN) -> float:
        """The time in this many seconds, or the end of the grace (with a margin) if that is sooner."""
        until = self.loop.time() + seconds
        if not self._signals:
            return until
        grace: float = self.inputs.setting("grace_seconds")
        return min(until, self._signals[0][1] + grace - margin)

    def _close(self) -> None:
        try:
            self._close_all()
        except Exception as problem:  # the exit code is known, and must not be lost now
            log.fault("cannot close everything", problem)

    def _close_all(self) -> None:
        """Closes everything within the rest of the grace."""
        self.process.kill()
        self.agent.leave()
        if self.agent.serving:  # one that still imports has no connection to close, and reads nothing yet
            self.loop.run_until(lambda: not self._agent_lives(), self.at_most(_LEAVE_SECONDS, _LEAVE_MARGIN))
        self.agent.kill()
        self.loop.run_until(lambda: not self._agent_lives(), self.at_most(_KILLED_SECONDS))
        # On a machine so busy that the end is late, `exit.json` and the last lines still need a moment to be written.
        self.output.close(max(self.at_most(_CLOSE_SECONDS), self.loop.time() + _CLOSE_AT_LEAST))
        self.sockets.close()

    def _agent_lives(self) -> bool:
        if self.agent.present:
            self._reap()
        return self.agent.present


def _last(report: GameReport) -> Fact:
    from agent.lifecycle.game_report import HeartbeatReported  # noqa: PLC0415 - beside its only use

    assert report.last_heartbeat is not None, "one was just reported"
    return HeartbeatReported(report.last_heartbeat)


def _internal_ports(environ: dict[str, str]) -> tuple[int, ...]:
    """The game's ports inside the container, as the platform injects them."""
    return tuple(dict.fromkeys(port.internal for port in game_ports(environ).values()))


def _expected_players(inputs: Inputs) -> int | None:
    """How many players the match was made for: the matchmaker's tickets."""
    try:
        tickets = json.loads(inputs.environ.get("MM_TICKET_IDS", ""))
    except (ValueError, RecursionError):
        return None
    return len(tickets) if isinstance(tickets, list) and tickets else None


_EXPORT_SECONDS = 5.0


def _ship_seconds(inputs: Inputs) -> float:
    seconds: float = inputs.setting("ship_seconds")
    if inputs.raw("log_url"):
        return seconds
    # The last metrics and the trace are small, so a receiver that does not answer gets only part of the time.
    return min(seconds, _EXPORT_SECONDS) if inputs.exports_last else 0.0


def _rules(inputs: Inputs) -> Rules:
    setting = inputs.setting
    return Rules(
        grace=setting("grace_seconds"),
        drain=setting("drain_seconds"),
        ship=_ship_seconds(inputs),
        hold=setting("hold_seconds"),
        on_exit=setting("on_exit"),
        on_crash=setting("on_crash"),
        restart_limit=setting("restart_limit"),
        restart_backoff=setting("restart_backoff"),
        can_self_stop=inputs.on_platform,
    )


def _limits(inputs: Inputs) -> Limits:
    setting = inputs.setting
    grace, ship = setting("grace_seconds"), _ship_seconds(inputs)
    return Limits(
        ready=setting("ready_timeout"),
        first_player=setting("first_player_timeout"),
        empty=setting("empty_timeout"),
        health=setting("health_timeout"),
        duration=setting("max_duration"),
        warnings=setting("max_duration_warnings"),
        reserve=plan_stop(grace, killed_at_end=False, ship=ship).total + RELEASE_SECONDS,
        least_reserve=plan_stop(grace, killed_at_end=False).total + RELEASE_SECONDS,
    )

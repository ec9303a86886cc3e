"""The types of the lifecycle: phases, events, effects and the state. The rules are in `agent.lifecycle.transition`.

Every event carries the time it happened, in seconds of the monotonic clock; effects are actions that the driver has
executed. This module contains only data.
"""

from __future__ import annotations

from enum import StrEnum

from agent.lifecycle.stop_plan import Step, StopPlan
from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself takes 5 ms
    from typing import Literal, TypeAlias

    AfterExit: TypeAlias = Literal["self-stop", "exit", "restart"]


class Phase(StrEnum):
    """The phase of a deployment's lifecycle."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FLUSHING = "flushing"
    RELEASING = "releasing"
    RESTARTING = "restarting"
    EXITED = "exited"


class Source(StrEnum):
    """Who asked for the stop."""

    GAME = "game"
    PLATFORM = "platform"
    POLICY = "policy"
    OPERATOR = "operator"


class Reason(StrEnum):
    """Why the deployment ended: one word, the same in logs, events, metrics and `exit.json`."""

    REQUESTED = "requested"  # the game or an operator asked through the local API
    PLATFORM_STOP = "platform_stop"  # SIGTERM
    INTERRUPTED = "interrupted"  # SIGINT: somebody at the terminal
    GAME_EXITED = "game_exited"  # it ended by itself, with code 0
    GAME_CRASHED = "game_crashed"  # it ended by itself, with another code or a signal
    COULD_NOT_START = "could_not_start"
    FIRST_PLAYER_TIMEOUT = "first_player_timeout"
    EMPTY = "empty"
    HEARTBEAT_LOST = "heartbeat_lost"
    MAX_DURATION = "max_duration"
    NOT_READY = "not_ready"
    CRASH_LOOP = "crash_loop"


class Timer(StrEnum):
    """The timers of the lifecycle; at most one of each is running."""

    DRAIN = "drain"  # the time for players to finish is over
    KILL = "kill"  # the time for the game to stop is over
    GONE = "gone"  # the time for the kernel to remove the processes is over
    FLUSH = "flush"  # the time for autopsy and shipping is over
    HOLD = "hold"  # the time for the platform to stop the container is over
    BACKOFF = "backoff"  # the pause before a restart is over


class ExitStatus(Record):
    """How a process ended.

    Attributes:
        code: its exit code, or None when a signal ended it.
        signal: the number of that signal, or None.
        core_dumped: whether the kernel says that it wrote a core.
    """

    code: int | None = None
    signal: int | None = None
    core_dumped: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code to pass on: the game's own, or 128 plus the signal number, as in a shell."""
        if self.signal is not None:
            return 128 + self.signal
        return self.code or 0

    @property
    def clean(self) -> bool:
        """Whether it ended with code 0."""
        return self.signal is None and self.code == 0


class StopRequest(Record):
    """A request to stop. The first request counts; later callers are shown that one.

    Attributes:
        source: who asked.
        reason: why, as one word.
        message: why, in the caller's words ("match over"); may be empty.
        at: when, in seconds of the monotonic clock.
        grace_seconds: seconds the game gets to end, or None for the setting.
        log_storage: value for the platform's `container_log_storage`, or None for the setting.
        ending: whether the game is already ending by itself, so that it gets time before the stop methods.
        within_seconds: seconds until the whole stop, with the self-stop, must be over; None without such a limit.
    """

    source: Source
    reason: Reason
    at: float
    message: str = ""
    grace_seconds: float | None = None
    log_storage: str | None = None
    ending: bool = False
    within_seconds: float | None = None


class Rules(Record):
    """The settings of a lifecycle; all times in seconds.

    Attributes:
        grace: from the platform's SIGTERM to its SIGKILL; also the time for a game that asks for its own stop.
        drain: the time for players to finish, part of the grace.
        ship: the time for shipping if no SIGKILL from outside limits it; 0 without a store.
        hold: how long to stay after a confirmed self-stop, so that no restart policy starts the game again.
        on_exit: what to do when the game ends by itself with code 0.
        on_crash: what to do when it ends by itself in another way.
        can_self_stop: whether the platform injected what a self-stop needs.
        restart_limit: consecutive restarts before it counts as a crash loop.
        restart_backoff: pause before the first restart; doubles with each consecutive one.
        restart_backoff_cap: the longest such pause.
        stable_after: if a game ran this long, its restarts are counted from 0 again.
    """

    grace: float
    drain: float
    ship: float
    hold: float
    on_exit: AfterExit
    on_crash: AfterExit
    can_self_stop: bool
    restart_limit: int
    restart_backoff: float
    restart_backoff_cap: float = 30.0
    stable_after: float = 60.0


class Moment(Record):
    """A phase, and when it was entered (seconds of the monotonic clock)."""

    phase: Phase
    at: float


class State(Record):
    """The whole state of the lifecycle. Only `transition` creates new ones.

    Attributes:
        phase: the current phase.
        rules: the settings.
        history: the phases entered so far, the current one last.
        attempt: which start of the game this is, from 1.
        restarts: all restarts so far.
        restarts_in_row: restarts since the game was last stable.
        started_at, ready_at: times of this attempt, or None.
        stop: the stop request that counts, or None.
        plan: the plan of the stop under way, or None; it began at `plan_began`.
        told_by_platform: whether SIGTERM or SIGINT arrived: the sender stops the container, so no self-stop is needed.
        signals: how many of those arrived.
        killed_at: when the agent used SIGKILL, or None.
        exit: how the game's main process ended, or None.
        could_not_start: the exit code (126 or 127) if the game could not be executed.
        ended_alone: whether the game's main process ended before a stop was requested.
        release: the result of the self-stop; None while there is none.
    """

    phase: Phase
    rules: Rules
    history: tuple[Moment, ...] = ()
    attempt: int = 1
    restarts: int = 0
    restarts_in_row: int = 0
    started_at: float | None = None
    ready_at: float | None = None
    stop: StopRequest | None = None
    plan: StopPlan | None = None
    plan_began: float = 0.0
    told_by_platform: bool = False
    signals: int = 0
    killed_at: float | None = None
    exit: ExitStatus | None = None
    could_not_start: int | None = None
    ended_alone: bool = False
    release: Literal["confirmed", "refused"] | None = None

    @property
    def killed(self) -> bool:
        """Whether the agent used SIGKILL."""
        return self.killed_at is not None

    @property
    def crashes_in_row(self) -> int:
        """Consecutive restarts that count against the limit; 0 if the game that just ended had run for long."""
        ended = self.plan_began
        stable = self.ended_alone and self.started_at is not None and ended - self.started_at >= self.rules.stable_after
        return 0 if stable else self.restarts_in_row

    @property
    def will_restart(self) -> bool:
        """Whether the game, which ended by itself, is restarted."""
        crashed = self.ended_alone and self.exit is not None and not self.exit.clean
        return (
            crashed
            and self.rules.on_crash == "restart"
            and self.crashes_in_row < self.rules.restart_limit
            and self.stop is None
            and not self.told_by_platform
        )

    @property
    def exit_code(self) -> int:
        """The agent's exit code."""
        if self.could_not_start is not None:
            return self.could_not_start
        if self.exit is not None:
            return self.exit.exit_code
        return 137 if self.killed else 0

    @property
    def reason(self) -> Reason | None:
        """Why the deployment is ending or has ended; None before that."""
        if self.could_not_start is not None:
            return Reason.COULD_NOT_START
        if self.ended_alone and self.exit is not None:
            if self.exit.clean:
                return Reason.GAME_EXITED
            if self.rules.on_crash == "restart" and self.crashes_in_row >= self.rules.restart_limit:
                return Reason.CRASH_LOOP
            return Reason.GAME_CRASHED
        return self.stop.reason if self.stop is not None else None

    def due(self, step: Step) -> float:
        """The deadline of `step` in the current plan (seconds of the monotonic clock)."""
        assert self.plan is not None, "there is a plan whenever a step is waited for"
        return self.plan_began + self.plan.ends(step)


# What happens --------------------------------------------------------------------------------------------------------


class GameStarted(Record):
    """The game's process was spawned."""

    at: float
    pid: int


class SpawnFailed(Record):
    """The game could not be executed; `exit_code` is 126 or 127."""

    at: float
    exit_code: int


class GameReady(Record):
    """The game reports that it is ready for players."""

    at: float


class StopRequested(Record):
    """A client of the local API, or a policy, asked for a stop."""

    at: float
    request: StopRequest


class StopSignal(Record):
    """SIGTERM (the platform) or SIGINT (somebody at the terminal) arrived.

    Attributes:
        at: when.
        interrupt: whether it was SIGINT.
        backlog: estimated seconds to ship the waiting logs.
    """

    at: float
    interrupt: bool = False
    backlog: float = 0.0


class PlayersGone(Record):
    """No player is left."""

    at: float


class GameExited(Record):
    """The game's main process ended; others of its group may still live."""

    at: float
    status: ExitStatus


class GameGone(Record):
    """No process of the game is left."""

    at: float


class Flushed(Record):
    """Autopsy and shipping are over."""

    at: float


class Released(Record):
    """The self-stop has a result: the platform confirmed or refused it."""

    at: float
    outcome: Literal["confirmed", "refused"]


class TimerFired(Record):
    """An armed timer fired."""

    at: float
    timer: Timer


Event: TypeAlias = (
    GameStarted
    | SpawnFailed
    | GameReady
    | StopRequested
    | StopSignal
    | PlayersGone
    | GameExited
    | GameGone
    | Flushed
    | Released
    | TimerFired
)


# What is to be done --------------------------------------------------------------------------------------------------


class Arm(Record):
    """Start (or move) a timer: `TimerFired(timer)` at `at` seconds of the monotonic clock."""

    timer: Timer
    at: float


class Spawn(Record):
    """Restart the game."""


class Announce(Record):
    """Tell the game and all subscribers about the stop, and print the plan."""


class ApplyStop(Record):
    """Apply the stop methods to the game until `until`. If they are being applied already, this moves the deadline."""

    until: float


class Sweep(Record):
    """The main process is gone: send SIGTERM to the processes that it left behind."""


class Kill(Record):
    """SIGKILL to every process of the game."""


class Flush(Record):
    """Find the cause and ship, most useful first, until `until`. If this is under way, only move the deadline."""

    until: float


class Release(Record):
    """Call the platform's self-stop until there is a result."""


class Exit(Record):
    """Exit with this code."""

    code: int


Effect: TypeAlias = Arm | Spawn | Announce | ApplyStop | Sweep | Kill | Flush | Release | Exit

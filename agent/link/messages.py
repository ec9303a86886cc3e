"""The messages between the init and the agent. Standard library only.

Where a message carries something that only one side understands (a document, what the game reported in detail), it is
text or a payload of bytes to the other.
"""

from __future__ import annotations

from agent.lifecycle.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.lifecycle.game_report import Fact
    from agent.lifecycle.states import Event, State


# From the init to the agent ------------------------------------------------------------------------------------------


class StateChanged(Record):
    """The lifecycle moved.

    Attributes:
        state: the present state.
        event: what brought it about.
        taken: how many `EventPosted` of the agent have been taken in so far.
    """

    state: State
    event: Event
    taken: int


class TimeRunsOut(Record):
    """The maximum duration is over in so many seconds."""

    seconds: float


class MethodAsked(Record):
    """Ask the game to end by a method that needs the agent.

    Attributes:
        turn: number of the method's turn, which answers carry.
        kind: of the method.
        argument: of the method.
        ends: when its turn is over, in seconds of the monotonic clock.
    """

    turn: int
    kind: str
    argument: str
    ends: float


class MethodEnded(Record):
    """The turn of a method is over: what it still does ends with it."""

    turn: int


class SegmentClosed(Record):
    """A part of the log is complete and can be shipped.

    Attributes:
        number: of the segment.
        since: when its first bytes were read, in nanoseconds since 1970.
        size: bytes, with the headers of the frames.
        path: its file, or None while it is in the init's memory.
        dropped_before: bytes that were dropped right before it.
        streams: bytes of the log in it by stream, as JSON.
    """

    number: int
    since: int
    size: int
    path: str | None
    dropped_before: int
    streams: str


class SegmentsDropped(Record):
    """These segments are gone: the spool was full."""

    numbers: tuple[int, ...]


class FlushAsked(Record):
    """The game is gone: find what is left to find, and ship, until a moment. The payload is the tail of its output.

    Attributes:
        until: seconds of the monotonic clock; `FlushMoved` moves it.
        document: the content of `exit.json` as far as the init knows it, as JSON.
        crashed: whether the game ended in a way that may have left a core.
        again: whether it will be started again.
    """

    until: float
    document: str
    crashed: bool
    again: bool


class FlushMoved(Record):
    """The end of the flush that is under way, or about to begin, has moved."""

    until: float


class ReleaseAsked(Record):
    """Call the platform's self-stop until it is settled.

    Attributes:
        log_storage: value of `container_log_storage`.
    """

    log_storage: str


class Answer(Record):
    """The answer to what was asked with this number; bytes are in the payload.

    Attributes:
        ask: number of the question.
        value: JSON.
        error: a sentence, where it cannot be answered; else "".
    """

    ask: int
    value: str = "null"
    error: str = ""


class MainNamed(Record):
    """Another process is the game's main one."""

    pid: int


class NotificationCounted(Record):
    """The game said something over sd_notify: for the metrics of requests."""

    operation: str
    status: str


class Ping(Record):
    """Are you there? Answered by `Pong`."""

    number: int


class Leave(Record):
    """The init leaves: close what is open, and end."""


# From the agent to the init ------------------------------------------------------------------------------------------


class Serving(Record):
    """The agent is up.

    Attributes:
        deployment: what the platform injected, without secrets, as JSON.
    """

    deployment: str


class SettingsRefused(Record):
    """The settings are wrong in a way that only the agent can see."""

    text: str


class EventPosted(Record):
    """Something happened that the lifecycle has to know."""

    event: Event


class ListenersChanged(Record):
    """Whether anybody listens to events now."""

    heard: bool


class MethodFailed(Record):
    """A stop method has no effect."""

    turn: int
    why: str


class StopAcknowledged(Record):
    """The game heard the stop and wants so many seconds more. Answered with the seconds it gets."""

    ask: int
    more_seconds: float


class PlayersUnknown(Record):
    """Whether the number of players is not known at present."""

    unknown: bool


class ShortVisit(Record):
    """Everybody has left, and nobody of them was there long enough to be somebody who plays."""


class HealthLimited(Record):
    """So long the game may be silent after its first heartbeat, in seconds, where the settings do not say it."""

    seconds: float


class Held(Record):
    """The game wants no stop for want of players for so many seconds from now; None ends that."""

    seconds: float | None


class Kept(Record):
    """Something of the agent's own that has to outlive it, as JSON."""

    key: str
    value: str


class SegmentState(Record):
    """What became of a segment: `busy`, `idle`, `confirmed` (the store has it) or `lost` (it cannot be read)."""

    number: int
    state: str


class SealAfter(Record):
    """Close segments from this age on (seconds), though they are small; None for never."""

    seconds: float | None


class SpoolFlushAsked(Record):
    """Close the open segment; answered when all that came before is on disk, or the deadline has come."""

    ask: int
    deadline: float


class SegmentAsked(Record):
    """The frames of a segment that is in the init's memory, as the payload of the answer."""

    ask: int
    number: int


class CountersAsked(Record):
    """Answered with the counters of capture and spool, as JSON."""

    ask: int


class TailAsked(Record):
    """Answered with the last bytes of the game's output, redacted, as the payload.

    Attributes:
        ask: number of the question.
        size: how many bytes at most.
    """

    ask: int
    size: int


class LogAppended(Record):
    """Bytes for the spool, redacted, as the payload.

    Attributes:
        stream: the path of the file that they are from.
        ts: when they were read, in nanoseconds since 1970.
    """

    stream: str
    ts: int


class LogLine(Record):
    """A line of the agent's own log, as the payload, scrubbed and with its line break."""


class StoreMeasured(Record):
    """How fast the store is, by which the time that shipping needs is planned.

    Attributes:
        object_seconds: what a small object takes.
        bytes_per_second: of log, before it is compressed; 0 where the store takes nothing at present.
    """

    object_seconds: float
    bytes_per_second: float


class FlushDone(Record):
    """Shipping is over."""


class ReleaseSettled(Record):
    """The platform has answered the self-stop for good: `confirmed` or `refused`."""

    outcome: str


class Pong(Record):
    """I am here."""

    number: int


# Either way ----------------------------------------------------------------------------------------------------------


class FactTold(Record):
    """The game said something: over sd_notify to the init, over the API to the agent."""

    fact: Fact

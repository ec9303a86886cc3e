"""The messages between the init and the agent. Standard library only.

Data that only one side understands (a document, details of the game's reports) is plain text or a payload of bytes for
the other side.
"""

from __future__ import annotations

from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.lifecycle.game_report import Fact
    from agent.lifecycle.states import Event, State


# From the init to the agent ------------------------------------------------------------------------------------------


class StateChanged(Record):
    """The lifecycle made a transition.

    Attributes:
        state: the current state.
        event: the event that caused it.
        taken: how many `EventPosted` of the agent were handled so far.
    """

    state: State
    event: Event
    taken: int


class TimeRunsOut(Record):
    """The maximum duration ends in this many seconds."""

    seconds: float


class MethodAsked(Record):
    """Ask the game to end by a method that needs the agent.

    Attributes:
        turn: number of the method's turn; answers contain it.
        kind: of the method.
        argument: of the method.
        ends: when its turn is over, in seconds of the monotonic clock.
    """

    turn: int
    kind: str
    argument: str
    ends: float


class MethodEnded(Record):
    """The turn of a method is over: ends what it is still doing."""

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
    """The game is gone: collect files and ship until a deadline. The payload is the tail of its output.

    Attributes:
        until: seconds of the monotonic clock; `FlushMoved` moves it.
        document: the content of `exit.json` as far as the init knows it, as JSON.
        crashed: whether the game ended in a way that may have left a core.
        again: whether it will be restarted.
    """

    until: float
    document: str
    crashed: bool
    again: bool


class FlushMoved(Record):
    """The deadline of the current or next flush has moved."""

    until: float


class ReleaseAsked(Record):
    """Call the platform's self-stop until there is a result.

    Attributes:
        log_storage: value of `container_log_storage`.
    """

    log_storage: str


class Answer(Record):
    """The answer to the question with this number; bytes are in the payload.

    Attributes:
        ask: number of the question.
        value: JSON.
        error: a sentence if it cannot be answered; else "".
    """

    ask: int
    value: str = "null"
    error: str = ""


class MainNamed(Record):
    """Another process is the game's main one."""

    pid: int


class NotificationCounted(Record):
    """The game sent an sd_notify message: for the request metrics."""

    operation: str
    status: str


class Ping(Record):
    """Are you there? Answered by `Pong`."""

    number: int


class Leave(Record):
    """The init is exiting: close all connections, and end."""


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
    """An event for the lifecycle."""

    event: Event


class ListenersChanged(Record):
    """Whether any client is subscribed to events now."""

    heard: bool


class MethodFailed(Record):
    """A stop method has no effect."""

    turn: int
    why: str


class StopAcknowledged(Record):
    """The game acknowledges the stop and asks for more seconds. Answered with the seconds it gets."""

    ask: int
    more_seconds: float


class PlayersUnknown(Record):
    """Whether the number of players is unknown now."""

    unknown: bool


class ShortVisit(Record):
    """All connections have closed, and none lasted long enough to be a player."""


class HealthLimited(Record):
    """How long the game may be silent after its first heartbeat, in seconds, unless a setting says it."""

    seconds: float


class Held(Record):
    """For this many seconds, the game is not to be stopped for having no players; None ends that."""

    seconds: float | None


class Kept(Record):
    """Data of the agent that must survive its process, as JSON."""

    key: str
    value: str


class SegmentState(Record):
    """The new state of a segment: `busy`, `idle`, `confirmed` (the store has it) or `lost` (it cannot be read)."""

    number: int
    state: str


class SealAfter(Record):
    """Close even small segments at this age (seconds); None for never."""

    seconds: float | None


class SpoolFlushAsked(Record):
    """Close the open segment; answered when all earlier data is on disk, or at the deadline."""

    ask: int
    deadline: float


class SegmentAsked(Record):
    """The frames of a segment that is in the init's memory, as the payload of the answer."""

    ask: int
    number: int


class CountersAsked(Record):
    """Answered with the counters of the spool, as JSON."""

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
    """How fast the store is, to plan the time for shipping.

    Attributes:
        object_seconds: time for a small object.
        bytes_per_second: of uncompressed log; 0 if the store accepts nothing now.
    """

    object_seconds: float
    bytes_per_second: float


class FlushDone(Record):
    """Shipping is over."""


class ReleaseSettled(Record):
    """The final result of the self-stop: `confirmed` or `refused`."""

    outcome: str


class Pong(Record):
    """I am here."""

    number: int


# Either way ----------------------------------------------------------------------------------------------------------


class FactTold(Record):
    """The game made a report: over sd_notify to the init, or over the API to the agent."""

    fact: Fact

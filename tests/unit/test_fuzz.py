"""Whatever game, platform, disk or operator give a parser: it takes it, or says what is wrong, and nothing else.

Twenty inputs of each kind are tried here; `make fuzz` tries as many as it is told, guided by coverage. What has such a
test beside its others: the injected environment and mapping (test_deployment), sd_notify's datagrams (test_notify),
StatsD (test_metrics_statsd), templates (test_template), answers to the self-stop (test_self_stop).
"""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Awaitable, Iterator
from typing import Any

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.api.contracts import Caller
from agent.api.events import EventBus
from agent.api.jsonrpc import METHODS, Batch, Dispatcher
from agent.api.operations import Operations
from agent.config.table import TABLE
from agent.edgegap.retry_after import retry_after_seconds
from agent.errors import AgentError
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.states import Event, GameStarted, Source, State
from agent.lifecycle.transition import initial, transition
from agent.link.messages import FactTold, Kept, Ping
from agent.link.wire import BrokenLinkError, Unpacker, pack
from agent.logs import frames
from agent.logs.reader import LogReader, Run
from agent.retry import RetryPolicy
from tests.rules import default_rules

fuzz = settings(max_examples=20)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def damaged(whole: bytes, flips: list[tuple[int, int]]) -> bytes:
    """The bytes with some of them changed: at which place, and to what."""
    data = bytearray(whole)
    for at, value in flips:
        data[at % len(data)] = value
    return bytes(data)


FLIPS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=5)


# The socket ----------------------------------------------------------------------------------------------------------


class Control:
    """A lifecycle that moves without timers."""

    def __init__(self) -> None:
        self.state: State = initial(default_rules(), 0.0)
        self.post(GameStarted(0.0, 1))

    def now(self) -> float:
        """Always the same moment."""
        return 1.0

    def post(self, event: Event) -> State:
        """The pure transition, without its effects."""
        self.state = transition(self.state, event)[0]
        return self.state


CALLS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2.0, None]),
        "id": JSON,
        "method": st.sampled_from(sorted(METHODS)) | st.text(max_size=8) | JSON,
        "params": JSON
        | st.dictionaries(
            st.sampled_from(["count", "capacity", "id", "reason", "grace_seconds", "name", "value", "path", "metrics"]),
            JSON,
        ),
    },
)
LINES = st.one_of(
    st.binary(max_size=80),
    st.one_of(CALLS, JSON, st.lists(CALLS, max_size=5)).map(lambda value: json.dumps(value).encode()),
    st.lists(st.sampled_from([b"{", b"}", b"[", b"]", b'"', b":", b",", b"1e999", b"NaN", b"null", b"\xff"])).map(
        b"".join
    ),
)


def no_constant(name: str) -> Any:
    """For `json.loads`."""
    raise AssertionError(f"{name} is not JSON")


def check_answer(line: bytes) -> None:
    """Gives a line to the control socket: the answer is JSON, or nothing, and never an internal error."""
    report = GameReport()
    operations = Operations(Control(), report, EventBus(), deployment=dict)
    dispatcher = Dispatcher(operations, Caller("socket", Source.GAME), lambda: None, None)
    answer = dispatcher.message(line)
    if isinstance(answer, Batch):
        while answer.step():
            pass
        answer = answer.answer()
    if isinstance(answer, Awaitable):
        answer.close()  # type: ignore[attr-defined]  # a coroutine
    elif answer is not None:
        said = json.loads(answer, parse_constant=no_constant)
        for one in said if isinstance(said, list) else [said]:
            assert ("result" in one) != ("error" in one)
            assert one.get("error", {}).get("code") != -32603


@fuzz
@given(LINES)
def test_a_line_of_the_socket(line: bytes) -> None:
    """Whatever it is."""
    check_answer(line)


# What lies on the disk -----------------------------------------------------------------------------------------------


PIECES = [
    frames.header(frames.NAME, 1, 6, 1) + b"stdout",
    *(frames.header(frames.DATA, 1, 20, number) + b"line %014d\n" % number for number in range(20)),
    frames.gap(100, "a reason", 5),
]


@fuzz
@given(FLIPS, st.integers(0, 2000), st.integers(1, 64))
def test_frames_with_flipped_bytes(flips: list[tuple[int, int]], cut: int, size: int) -> None:
    """What stands before the damage is given as it was; all of it ends."""
    whole = b"".join(PIECES)
    data = damaged(whole, flips)[: len(whole) - cut % len(whole)]
    first = next((at for at, (a, b) in enumerate(zip(whole, data, strict=False)) if a != b), len(data))
    found = list(frames.parse(data[at : at + size] for at in range(0, len(data), size)))
    right = list(frames.parse([whole[:first]]))
    assert found[: len(right)] == right
    assert sum(len(body) for kind, _, _, body in found if kind == frames.DATA) <= len(data)


class Store:
    """A store with one segment."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def keys(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Its key."""
        yield "r/000001-20261128T000000.000Z.ndjson.zst"

    def get(self, key: str) -> bytes:
        """The segment; nothing else is there."""
        if not key.endswith(".zst"):
            raise KeyError(key)
        return self._packed

    def grows(self, key: str) -> bool:
        """It is complete."""
        return False


LINE = json.dumps({"ts": "2026-11-28T00:00:00Z", "stream": "stdout", "line": "hello", "base64": "aGVsbG8="}).encode()


@fuzz
@given(FLIPS, FLIPS, st.lists(JSON, max_size=3))
def test_a_segment_in_the_store(
    before: list[tuple[int, int]], after: list[tuple[int, int]], more: list[object]
) -> None:
    """Damage before or after compression makes gaps, and no line of another kind."""
    text = b"\n".join([damaged(LINE, before), *(json.dumps(one).encode() for one in more), LINE])
    packed = damaged(zstandard.compress(text), after)
    items = list(LogReader(Store(packed), Run("r", "20261128T000000Z", "x", 1)).more())  # type: ignore[arg-type]
    assert all(isinstance(item.text, str) for item in items)
    if not after:
        assert items[-1].text == "hello"


# The link, the platform, the operator --------------------------------------------------------------------------------


@fuzz
@given(FLIPS, st.binary(max_size=40))
def test_what_comes_over_the_link(flips: list[tuple[int, int]], rest: bytes) -> None:
    """A broken agent is understood, or given up; it does not hurt the init."""
    whole = pack(Ping(1)) + pack(Kept("key", "value"), b"payload") + pack(Ping(2))
    unpacker = Unpacker()
    try:
        for message, payload in unpacker.feed(damaged(whole, flips) + rest):
            assert message is not None
            assert isinstance(payload, bytes)
    except BrokenLinkError:
        pass


@fuzz
@given(st.one_of(JSON.map(json.dumps), JSON.map(lambda value: json.dumps({"_": FactTold.__name__, "fact": value}))))
def test_a_message_of_another_shape(text: str) -> None:
    """So is JSON that is no message."""
    data = text.encode()
    with contextlib.suppress(BrokenLinkError):
        Unpacker().feed(len(data).to_bytes(4, "big") + bytes(4) + data)


@fuzz
@given(st.text(max_size=40) | st.integers().map(str) | st.floats().map(str), st.integers(0, 100), st.integers())
def test_a_wait_that_a_server_asks_for(value: str, retry: int, seed: int) -> None:
    """Retry-After is a number of seconds or not there, and never switches the policy's own wait off."""
    asked = retry_after_seconds({"Retry-After": value}, 1_000_000.0)
    assert asked is None or (math.isfinite(asked) and asked >= 0)
    policy = RetryPolicy(least=0.5)
    wait = policy.wait(retry, random.Random(seed), asked)
    assert math.isfinite(wait)
    assert wait >= policy.ceiling(retry) * 0.5


SETTING_TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(["signal", "SIGTERM", "rcon", "stdin", ":", "=", "@", "%", ",", " ", "1", "60", "s", "/", "\\"])
    ).map("".join),
    st.sampled_from(
        ["1e999", "nan", "inf", "-1", "0", "9" * 400, "٣", "\x00", "\ud800", "[" * 500, "{0}" * 50, "http://["]
    ),
)


@fuzz
@given(SETTING_TEXTS)
def test_a_setting(text: str) -> None:
    """Each is read, or refused with a sentence that says what it takes."""
    for row in TABLE.values():
        try:
            row.parse(text)
        except (ValueError, AgentError) as refused:
            said = str(refused)
        else:
            said = "taken"
        assert said, row.name

"""StatsD and DogStatsD datagrams: what becomes of them, and that nothing else waits for them."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lifecycle.game_metrics import MAX_METRICS, GameMetrics
from agent.metrics.counts import StatsdCounts
from agent.metrics.statsd import StatsdListener


class Listening:
    """A listener on a UDP socket of its own, and a client's socket."""

    def __init__(self) -> None:
        self.metrics = GameMetrics()
        self.counts = StatsdCounts()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.connect(self.socket.getsockname())
        self.listener = StatsdListener(self.socket, self.metrics, self.counts, asyncio.get_running_loop())


@pytest.fixture
async def statsd() -> AsyncIterator[Listening]:
    """A listener."""
    it = Listening()
    yield it
    await it.listener.close()
    it.socket.close()
    it.client.close()


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (b"shots:2|c\nshots:1|c", {"shots_total": 3}),
        (b"shots:1|c|@0.1", {"shots_total": 10}),
        (b"shots_total:1|c|#weapon:awp,ranked", {'shots_total{ranked="true",weapon="awp"}': 1}),
        (b"load:0.5|g\nload:+0.25|g\nload:-0.5|g", {"load": 0.25}),
        (b"my-game.load.avg:7|g|c:container|T1656581400", {"my_game_load_avg": 7}),
        (b"tick_duration:16|ms", {"tick_duration_seconds_count": 1, "tick_duration_seconds_sum": 0.016}),
        (b"damage:10:20:30|d|@0.5", {"damage_count": 6, "damage_sum": 120}),
        (b"2nd:1|h", {"_2nd_count": 1, "_2nd_sum": 1}),
    ],
)
async def test_what_samples_become(statsd: Listening, datagram: bytes, expected: dict[str, float]) -> None:
    """Types, tags, sampling, several values and signs, by the words of both protocols."""
    statsd.listener.take(datagram)
    assert statsd.metrics.flat() == pytest.approx(expected)
    assert statsd.counts.refused == 0


@pytest.mark.parametrize(
    "datagram",
    [
        b"users:alice|s",
        b"_e{5,4}:title|text",
        b"_sc|redis|0",
        b"shots:many|c",
        b"shots:-1|c",
        b"shots:nan|c",
        b"load:inf|g",
        b"shots:1|c|@0",
        b"shots:1|c|@7",
        b"shots",
        b"shots:1",
        b":1|c|#__reserved:1",
        b"\xff\xfe\x00",
    ],
)
async def test_what_is_refused_is_counted(statsd: Listening, datagram: bytes) -> None:
    """Sets, events, service checks, and what makes no sense: no series has a value from them."""
    statsd.listener.take(datagram)
    assert statsd.counts.refused == 1
    assert sum(statsd.metrics.refused.values()) == 1
    assert not any(statsd.metrics.flat().values())


async def test_a_flood_of_names_is_bounded(statsd: Listening) -> None:
    """Every player's name in a metric's name costs 200 series, and the rest is counted as refused."""
    for number in range(MAX_METRICS + 50):
        statsd.listener.take(b"player_%d:1|g" % number)
    assert len(statsd.metrics) == MAX_METRICS
    assert statsd.counts.refused == statsd.metrics.refused["limit"] == 50


async def test_after_a_restart_of_the_game_its_figures_begin_anew(statsd: Listening) -> None:
    """Series that were known before are not written to any more."""
    statsd.client.send(b"shots:5|c")
    await until(lambda: statsd.counts.taken == 1)
    statsd.metrics.clear()
    statsd.client.send(b"shots:1|c")
    await until(lambda: statsd.counts.taken == 2)
    assert statsd.metrics.flat() == {"shots_total": 1}


async def test_the_loop_goes_on_while_datagrams_wait(statsd: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn takes what fits in its time: a heartbeat comes in between. What was not read is known to be lost."""
    monkeypatch.setattr("agent.metrics.statsd._TURN_SECONDS", 0.0)
    sent = 1000
    for _ in range(sent):
        statsd.client.send(b"tick:16|ms|#room:1")
    before, most = -1, 0
    while statsd.counts.datagrams > before:
        before = statsd.counts.datagrams
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        most = max(most, statsd.counts.datagrams - before)
    assert 0 < most <= 2 * 18
    statsd.client.send(b"tick:16|ms|#room:1")  # the kernel says how many were lost with the next one
    await until(lambda: statsd.counts.datagrams + statsd.counts.lost == sent + 1)
    assert statsd.counts.taken == statsd.counts.datagrams


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_datagram_does_any_harm(datagrams: list[bytes]) -> None:
    """Whatever comes, each line is taken or refused."""

    async def run() -> None:
        it = Listening()
        for datagram in datagrams:
            it.listener.take(datagram)
        await it.listener.close()
        it.socket.close()
        it.client.close()
        assert len(it.metrics) <= MAX_METRICS

    asyncio.run(run())


async def until(condition: object) -> None:
    """Waits for it, a few seconds at most."""
    assert callable(condition)
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)

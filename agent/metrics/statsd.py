"""Receives the game's own metrics in the protocols StatsD and DogStatsD: small datagrams on loopback, without answers.

Protocols: https://github.com/statsd/statsd/blob/master/docs/metric_types.md and
https://docs.datadoghq.com/developers/dogstatsd/datagram_shell/ (tags, sampling, several values in one datagram).

Conversion to the metrics of `/metrics`: a character of a name that is not a letter, digit or underscore becomes an
underscore; a counter (`c`) gets the suffix `_total`; a timer (`ms`) becomes a histogram in seconds; histograms and
distributions (`h`, `d`) become histograms; a gauge (`g`) with a sign is a change, as in StatsD. Tags become labels.
Sets, events and service checks are refused and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import time
from typing import NamedTuple

from agent.descriptors import guarded
from agent.lifecycle.game_metrics import GameMetrics, Kind, LabelPairs, MetricError, Series
from agent.metrics.counts import StatsdCounts

# Limit for one round of the event loop, so that heartbeats and signals are handled in between.
_TURN_SECONDS = 0.002
_DATAGRAMS_BETWEEN_LOOKS = 16
_LONGEST = 65536
_RECEIVE_BUFFER = 4 * 1024 * 1024
# Size of the cache from the sender's names and tags to their series; each entry takes a few hundred bytes.
_MOST_CELLS = 5000
# include/uapi/asm-generic/socket.h; the second says how many datagrams the kernel had to throw away.
_SO_RCVBUFFORCE = 33
_SO_RXQ_OVFL = 40
_LARGEST = 1e300
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_]")


class _Cell(NamedTuple):
    """The series for samples of one name with one set of tags."""

    kind: Kind
    series: Series
    bounds: tuple[float, ...]
    scale: float
    weight: float


class StatsdListener:
    """Reads datagrams from a socket into the game's metrics."""

    def __init__(
        self, listening: socket.socket, metrics: GameMetrics, counts: StatsdCounts, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Starts reading.

        Args:
            listening: a bound datagram socket; it belongs to the caller.
            metrics: the game's metrics.
            counts: the counters of the received data.
            loop: the event loop.
        """
        self._unix = listening.family == socket.AF_UNIX
        self._socket = listening = guarded(listening)
        self._metrics = metrics
        self._counts = counts
        self._loop = loop
        self._cells: dict[tuple[bytes, bytes], _Cell | None] = {}
        self._generation = metrics.generation
        listening.setblocking(False)
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):  # the first one takes a privilege, and is not bounded by the machine
                listening.setsockopt(socket.SOL_SOCKET, option, _RECEIVE_BUFFER)
                break
        if not self._unix:
            with contextlib.suppress(OSError):
                listening.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        loop.add_reader(listening, self._read)

    async def close(self) -> None:
        """Stops reading."""
        self._loop.remove_reader(self._socket)

    def _read(self) -> None:
        if self._generation != self._metrics.generation:  # the game was started again
            self._generation = self._metrics.generation
            self._cells.clear()
        end = time.perf_counter() + _TURN_SECONDS
        receive, take, counts = self._socket.recv, self.take, self._counts
        try:
            data = receive(_LONGEST) if self._unix else self._receive_and_count_lost()
            while True:
                counts.datagrams += 1
                take(data)
                for _ in range(_DATAGRAMS_BETWEEN_LOOKS):
                    data = receive(_LONGEST)
                    counts.datagrams += 1
                    take(data)
                if time.perf_counter() > end:
                    return
                data = receive(_LONGEST)
        except (BlockingIOError, InterruptedError):
            return

    def _receive_and_count_lost(self) -> bytes:
        # Read once in each round, because this call takes twice as long. A sender to a Unix socket waits and loses
        # nothing.
        data, ancillary, _, _ = self._socket.recvmsg(_LONGEST, socket.CMSG_SPACE(4))
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                (self._counts.lost,) = struct.unpack("=I", value[:4])
        return data

    def take(self, data: bytes) -> None:
        """Handles one datagram: one sample on each line."""
        for line in data.split(b"\n") if b"\n" in data else (data,):
            if not line:
                continue
            name, _, rest = line.partition(b":")
            value, _, how = rest.partition(b"|")
            key = (name, how)
            cell = self._cells.get(key)
            if cell is None:
                if key not in self._cells:
                    cell = self._learn(key)
                if cell is None:
                    self._counts.refused += 1
                    continue
            if b":" in value:
                for each in value.split(b":"):
                    self._sample(cell, each)
            else:
                self._sample(cell, value)

    def _sample(self, cell: _Cell, text: bytes) -> None:
        kind, series, bounds, scale, weight = cell
        try:
            number = float(text)
        except ValueError:
            number = _LARGEST
        if not -_LARGEST < number < _LARGEST or (kind == "counter" and number < 0):
            self._counts.refused += 1
            self._metrics.refuse("value")
            return
        self._counts.taken += 1
        if kind == "counter":
            series.value += number * weight
        elif kind == "histogram":
            series.observe(number * scale, bounds, weight)
        elif text[:1] in (b"+", b"-"):
            series.value += number
        else:
            series.value = number

    def _learn(self, key: tuple[bytes, bytes]) -> _Cell | None:
        """The series for a name and the part after the value; None if it is refused. Both results are cached."""
        if len(self._cells) >= _MOST_CELLS:
            self._cells.clear()
        cell = self._cells[key] = self._understand(*key)
        return cell

    def _understand(self, name: bytes, how: bytes) -> _Cell | None:
        kind_text, *fields = how.decode("utf-8", "replace").strip().split("|")
        if kind_text not in _KINDS or name.startswith((b"_e{", b"_sc|")):
            self._metrics.refuse("type")
            return None
        kind, scale = _KINDS[kind_text]
        rate, labels = 1.0, {}
        for field in fields:
            if field.startswith("@"):
                with contextlib.suppress(ValueError):
                    rate = float(field[1:])
            elif field.startswith("#"):
                labels = _labels(field[1:])
        if not 0 < rate <= 1:
            self._metrics.refuse("value")
            return None
        pairs: LabelPairs = tuple(labels.items())
        try:
            metric, series = self._metrics.series(_name(name, kind, kind_text), kind, pairs)
        except MetricError:
            return None
        return _Cell(kind, series, metric.bounds, scale, 1.0 if kind == "gauge" else 1 / rate)


_KINDS: dict[str, tuple[Kind, float]] = {
    "c": ("counter", 1.0),
    "g": ("gauge", 1.0),
    "ms": ("histogram", 0.001),
    "h": ("histogram", 1.0),
    "d": ("histogram", 1.0),
}


def _name(name: bytes, kind: Kind, kind_text: str) -> str:
    text = _NOT_IN_A_NAME.sub("_", name.decode("utf-8", "replace").strip())[:90]
    if text[:1].isdigit():
        text = f"_{text}"
    if kind_text == "ms":
        text = text.removesuffix("_ms").removesuffix("_seconds") + "_seconds"
    if kind == "counter":
        return text if text.endswith("_total") else f"{text}_total"
    return text.removesuffix("_total")


def _labels(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for tag in text.split(","):
        name, colon, value = tag.strip().partition(":")
        if name:
            found[_NOT_IN_A_NAME.sub("_", name)] = value if colon else "true"
    return found

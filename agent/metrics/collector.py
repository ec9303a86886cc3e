"""Reads all values of a scrape. Imported, with its dependencies, at the first scrape."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar

from agent import log
from agent.config.injected import Deployment
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.states import State
from agent.metrics import families
from agent.metrics.container import ContainerReader, ContainerReading
from agent.metrics.counts import Counted, LogCounts, Tally
from agent.metrics.exposition import Family
from agent.metrics.game import (
    GameProcesses,
    OwnProcesses,
    ProcessTable,
    Reaped,
    Stats,
    Usage,
    below,
    own_processes,
    reaped_here,
)
from agent.metrics.network import Network, NetworkReader, game_ports

_T = TypeVar("_T")

_PARTS = (
    "build",
    "deployment",
    "lifecycle",
    "game",
    "container",
    "network",
    "players",
    "logs",
    "requests",
    "process",
    "custom",
)


class Reading(NamedTuple):
    """The values from files of the kernel, or the errors."""

    game: Usage | Exception
    own: OwnProcesses | Exception
    container: ContainerReading | Exception
    network: Network | Exception


class Collector:
    """Collects all families of a scrape.

    A part that cannot be read is omitted, counted, and logged once until it can be read again.

    Attributes:
        took: seconds of CPU time of the last reading; infinite before the first one, which may take long.
    """

    def __init__(
        self,
        *,
        version: str,
        deployment: Deployment,
        state: Callable[[], State],
        report: GameReport,
        counted: Counted,
        root: Callable[[], int],
        without: Callable[[], Collection[int]],
        logs: Callable[[], LogCounts],
        container: Callable[[], ContainerReading] | None,
        network: Callable[[], Network] | None,
        trace_id: str | None,
        clock: Callable[[], float],
        wall_offset: float,
    ) -> None:
        """Takes the sources; see `agent.metrics.registry.Metrics`."""
        self.took = math.inf
        self._state = state
        self._report = report
        self._counted = counted
        self._root = root
        self._without = without
        self._logs = logs
        self._trace_id = trace_id
        self._clock = clock
        self._wall_offset = wall_offset
        self._table = ProcessTable()
        self._everything: Stats = {}
        self._processes = GameProcesses(self._reaped)
        self._container = container or ContainerReader().read
        ports = game_ports((port.internal, port.protocol) for port in deployment.ports.values())
        self._network = network or NetworkReader(ports).read
        # Families that never change are created once.
        self._build = list(families.build(version))
        self._deployment = list(families.deployment(deployment))
        self._failures = Tally((part,) for part in _PARTS)
        self._failing: set[str] = set()

    def read(self) -> Reading:
        """Reads the files of the kernel; many processes take a while: see `took`. Not for two threads at once."""
        begun = time.thread_time()
        self._everything = {}
        reading = Reading(
            _attempt(lambda: self._processes.sample(self._game)),
            _attempt(lambda: own_processes(self._everything, self._root())),
            _attempt(self._container),
            _attempt(self._network),
        )
        self.took = time.thread_time() - begun
        return reading

    def _reaped(self) -> Reaped:
        """Reads all processes, and returns what the init had reaped before: its own numbers are read first."""
        root = self._root()
        here = reaped_here() if root == os.getpid() else None
        self._everything = self._table.read(root)
        if here is not None:
            return here
        init = self._everything.get(root)
        return Reaped() if init is None else Reaped(init.children_cpu)

    def _game(self) -> Stats:
        return below(self._everything, self._root(), self._without())

    def families(self, reading: Reading) -> list[Family]:
        """All families, in the order in which they are shown.

        Args:
            reading: the result of `read`.
        """
        found: list[Family] = []
        for part, make in self._parts(reading).items():
            try:
                found.extend(make())
            except Exception as problem:
                # Whatever the error, the other metrics are better than none.
                self._failures.add(part)
                if part not in self._failing:
                    log.warning(f"cannot read the metrics of {part}: {problem!r}; the others are served")
                self._failing.add(part)
            else:
                self._failing.discard(part)
        found.append(families.failures(self._failures))
        return found

    def _parts(self, reading: Reading) -> Mapping[str, Callable[[], Iterable[Family]]]:
        return {
            "build": lambda: self._build,
            "deployment": lambda: self._deployment,
            "lifecycle": lambda: families.lifecycle(self._state(), self._counted, self._wall_offset, self._trace_id),
            "game": lambda: families.game(_known(reading.game)),
            "container": lambda: families.container(_known(reading.container)),
            "network": lambda: families.network(_known(reading.network)),
            "players": lambda: families.players(self._report, self._counted, self._clock()),
            "logs": lambda: families.logs(self._logs()),
            "requests": lambda: families.requests(self._counted),
            "process": lambda: families.process(_known(reading.own)),
            "custom": lambda: families.custom(self._report.metrics),
        }


def _attempt(read: Callable[[], _T]) -> _T | Exception:
    try:
        return read()
    except Exception as problem:
        return problem


def _known(value: _T | Exception) -> _T:
    """The value; raises if reading it failed."""
    if isinstance(value, Exception):
        raise value
    return value

"""Every metric family as a row for the README, from a scrape of a game that has done a little of everything."""

from __future__ import annotations

import asyncio
import os
import socket

from prometheus_client.parser import text_string_to_metric_families

from agent.config.injected import parse
from agent.edgegap.self_stop import Result
from agent.game.cgroup import CgroupReading
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.states import GameReady, GameStarted
from agent.lifecycle.transition import initial, transition
from agent.metrics.container import ContainerReading
from agent.metrics.counts import LogCounts
from agent.metrics.network import Device, Network, Port, Queue
from agent.metrics.registry import Metrics
from tests.rules import default_rules

# Every counter that a container can have, whatever this machine has.
CGROUP = CgroupReading(
    version=2,
    memory_limit=1,
    memory_current=1,
    memory_peak=1,
    oom_kills=1,
    oom_events=1,
    cpu_seconds=1.0,
    cpu_periods=1,
    cpu_throttled_periods=1,
    cpu_throttled_seconds=1.0,
    cpu_limit=1.0,
)
CONTAINER = ContainerReading(
    CGROUP, {(resource, share): 0.0 for resource in ("cpu", "memory", "io") for share in ("some", "full")}, 0, 1, 1
)
UDP = Port(7777, "udp")
NETWORK = Network(
    {"eth0": Device(*range(8))},
    dict.fromkeys(("InDatagrams", "OutDatagrams", "RcvbufErrors", "SndbufErrors", "InCsumErrors", "NoPorts"), 0),
    {UDP: Queue(0, 0, 0)},
)


def rows() -> list[tuple[str, ...]]:
    """Name, type, labels, help; the game's own figures are left out."""
    return asyncio.run(_rows())


async def _rows() -> list[tuple[str, ...]]:
    started = transition(transition(initial(default_rules(), 0.0), GameStarted(0.0, 1))[0], GameReady(1.0))[0]
    report = GameReport()
    game = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        metrics = Metrics(
            version="0",
            deployment=parse(os.environ | {"ARBITRIUM_REQUEST_ID": "23c01225b99d"}).deployment,
            state=lambda: started,
            report=report,
            logs=lambda: LogCounts({"stdout": 0, "stderr": 0}),
            container=lambda: CONTAINER,
            network=lambda: NETWORK,
            attempt_results=list(Result),
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
            await (await metrics.listen_statsd(statsd)).close()
        metrics.on_request("http", "health", 200, 0.001)
        report.heartbeat(0.0)
        report.set_players(0.0, 1, 8)
        body, _ = await metrics.expose()
    finally:
        game.kill()
        await game.wait()
    found: list[tuple[str, ...]] = []
    for family in text_string_to_metric_families(body.decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        found.append(
            (f"`{name}`", family.type, ", ".join(f"`{label}`" for label in sorted(labels)), family.documentation)
        )
    return found

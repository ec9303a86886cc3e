"""A deployment's use of resources over time, and its means over steps, in the contract's form."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any

MOST_SAMPLES = 90_000
"""More than a day of one a second, which is the longest that `max_duration` allows."""
MOST_POINTS = 120
"""Points of an answer when `steps` is not given."""
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a deployment's processes and ports."""

    at: float
    """Unix time in seconds."""
    cpu_percent: float
    """Of one vCPU, since the sample before."""
    memory_mb: float
    """Resident memory of all its processes, in MB (1024 * 1024 bytes)."""
    receive_rate: float
    """Bytes a second from players, since the sample before."""
    transmit_rate: float
    """Bytes a second to players."""
    received: float
    """Bytes since the deployment was placed."""
    transmitted: float
    disk_read: float
    """Bytes since its game first started."""
    disk_written: float


class Samples(deque[Sample]):
    """The samples of one deployment, oldest first, bounded."""

    def __init__(self) -> None:
        """An empty one."""
        super().__init__(maxlen=MOST_SAMPLES)


def parse_steps(text: str) -> float:
    """The seconds of a step such as `30s`, `5m` or `1h`; a bare number is seconds.

    Raises:
        ValueError: it is none of these, or not above zero.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smh]?)", text.strip(), re.ASCII)
    seconds = float(match[1]) * UNITS.get(match[2], 1.0) if match else 0.0
    if seconds <= 0:
        raise ValueError("steps is a length of time such as 30s, 5m or 1h")
    return seconds


def averaged(samples: Sequence[Sample], start: float, step: float) -> list[Sample]:
    """One sample for each step that has any: the mean of its samples, at the step's beginning."""
    steps: dict[int, list[Sample]] = {}
    for sample in samples:
        steps.setdefault(int((sample.at - start) // step), []).append(sample)
    means = []
    for number, group in sorted(steps.items()):
        columns = list(zip(*(astuple(sample) for sample in group), strict=True))
        means.append(Sample(start + number * step, *(sum(column) / len(group) for column in columns[1:])))
    return means


def _series(samples: Sequence[Sample], values: Sequence[float]) -> dict[str, Any]:
    """The contract's `Series`; times are UTC, values whole numbers, as the platform's document has them."""
    moments = [datetime.fromtimestamp(sample.at, UTC) for sample in samples]
    return {
        "labels": [moment.strftime("%H:%M:%S") for moment in moments],
        "datasets": [round(value) for value in values],
        "timestamps": [moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] for moment in moments],
    }


def metrics_json(samples: Sequence[Sample], start: float, end: float, step: float | None) -> dict[str, Any]:
    """The contract's `Metrics` over a span of Unix time; `step` None is raw.

    A process game is never throttled by the emulator, so both throttle series are zero.
    """
    inside = [sample for sample in samples if start <= sample.at <= end]
    if step is not None:
        inside = averaged(inside, start, step)
    nothing = [0.0] * len(inside)
    return {
        "total": {
            "receive_total": _series(inside, [sample.received for sample in inside]),
            "transmit_total": _series(inside, [sample.transmitted for sample in inside]),
            "disk_read_total": _series(inside, [sample.disk_read for sample in inside]),
            "disk_write_total": _series(inside, [sample.disk_written for sample in inside]),
        },
        "cpu": _series(inside, [sample.cpu_percent for sample in inside]),
        "cpu_throttle_rate": _series(inside, nothing),
        "cpu_throttle_total": _series(inside, nothing),
        "mem": _series(inside, [sample.memory_mb for sample in inside]),
        "network": {
            "receive": _series(inside, [sample.receive_rate for sample in inside]),
            "transmit": _series(inside, [sample.transmit_rate for sample in inside]),
        },
    }

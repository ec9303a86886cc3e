"""Resource use over time: real samples, and their means over steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from agent.emulator.samples import Sample, averaged, metrics_json, parse_steps
from tests.contract.backend import backend, poll, python, quick

WORKS = """
import os, pathlib, time
held = bytearray(60_000_000)
path = pathlib.Path(os.environ["SCRATCH"])
while True:
    sum(range(200_000))
    with path.open("wb") as file:
        file.write(bytes(1_000_000))
        os.fsync(file.fileno())
"""


def sample(at: float, value: float = 0.0) -> Sample:
    """A sample with one value everywhere."""
    return Sample(at, *([value] * 8))


async def test_a_deployments_processes_are_measured(tmp_path: Any) -> None:
    """CPU, memory and disk of a game that uses all three, its children included."""
    source = f"import os\nos.fork()\n{WORKS}"
    async with backend(quick(sample_seconds=0.1)) as caller:
        envs = [{"key": "SCRATCH", "value": str(tmp_path / "scratch")}]
        deployment_id = await caller.running(**python(source), envs=envs, req_cpu=1024, req_memory=2048)
        path = f"/v1/metrics/deployment/{deployment_id}"

        def busy(body: Any) -> bool:
            series = body["cpu"]["datasets"], body["mem"]["datasets"], body["total"]["disk_write_total"]["datasets"]
            return all(series) and series[0][-1] > 1 and series[1][-1] > 100 and series[2][-1] >= 1_000_000

        body = await poll(lambda: caller.get(path, raw="true"), busy)
        assert body["mem"]["datasets"][-1] < 500
        written = body["total"]["disk_write_total"]["datasets"]
        assert all(before <= after for before, after in pairwise(written))
        assert set(body) == {"total", "cpu", "cpu_throttle_rate", "cpu_throttle_total", "mem", "network"}
        count = len(body["cpu"]["datasets"])
        assert all(len(each) == count for each in (body["cpu"]["labels"], body["cpu"]["timestamps"], written))


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 200),
        ({"steps": "30s"}, 200),
        ({"steps": "1.5m", "raw": "false"}, 200),
        ({"steps": "0s"}, 422),
        ({"steps": "soon"}, 422),
        ({"raw": "yes"}, 400),
        ({"start_time": "yesterday"}, 400),
        ({"start_time": "2026-01-02T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}, 422),
        ({"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-02T00:00:00+02:00"}, 200),
    ],
)
async def test_spans_and_steps_are_checked(params: dict[str, str], status: int) -> None:
    """400 for what cannot be read, 422 for what makes no sense."""
    async with backend() as caller:
        deployment_id = await caller.deploy(await caller.version())
        answer = await caller.call("GET", f"/v1/metrics/deployment/{deployment_id}", params=params)
        assert answer.status == status


def test_a_step_is_the_mean_of_its_samples() -> None:
    """Steps without a sample are left out; each stands at its own beginning."""
    samples = [sample(100, 1), sample(104, 3), sample(105, 5), sample(131, 7)]
    assert averaged(samples, 100, 5) == [sample(100, 2), sample(105, 5), sample(130, 7)]


def test_a_span_leaves_out_what_is_outside() -> None:
    """Both ends belong to it; times are written as the platform writes them."""
    body = metrics_json([sample(at, at) for at in (0, 1, 2, 3)], 1, 2, None)
    assert body["cpu"] == {
        "labels": ["00:00:01", "00:00:02"],
        "datasets": [1, 2],
        "timestamps": ["1970-01-01 00:00:01.000", "1970-01-01 00:00:02.000"],
    }


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("90", 90), ("0.5s", 0.5)])
def test_steps_are_read(text: str, seconds: float) -> None:
    """Seconds, minutes, hours."""
    assert parse_steps(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1e3s", "٣s", "1" * 20])
def test_what_is_no_step_is_refused(text: str) -> None:
    """No negative, no other unit, no other digits."""
    with pytest.raises(ValueError, match="steps is a length of time"):
        parse_steps(text)

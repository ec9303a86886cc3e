"""Random lives, each from one seed: as many as CHAOS_LIVES says."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from tests.chaos import lives
from tests.chaos.lives import Scenario, live, play
from tests.process.harness import Run

LIVES = int(os.environ.get("CHAOS_LIVES", "100"))
FIRST = int(os.environ.get("CHAOS_SEED", "1000"))
AT_ONCE = 4


def test_every_end_is_drawn_in_both_modes() -> None:
    """PID 1 and a subreaper hear of a stop in different ways: each trigger has to come to both."""
    drawn = {(scenario.trigger, scenario.mode) for scenario in map(Scenario.draw, range(100))}
    assert drawn == set(itertools.product(("sigterm", "api", "itself"), ("pid1", "subreaper")))


@pytest.mark.parametrize("problem", [pytest.fail.Exception("still runs"), ValueError("no JSON"), KeyError("reason")])
def test_a_life_that_cannot_be_judged_is_wrong_and_no_end_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    """Its verdict names the seed, and the lives after it are played."""
    monkeypatch.setattr(lives, "_play", Mock(side_effect=problem))
    (wrong,) = live(FIRST, tmp_path / "life").wrong
    assert wrong == f"{type(problem).__name__}: {problem}"


CALLS = [("GET", "/one", None), ("GET", "/two", None), ("GET", "/three", None)]


def test_a_call_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent falls and comes back; what the game calls then is part of its life."""
    request = Mock(side_effect=[200, ConnectionRefusedError(), 200])
    monkeypatch.setattr(lives, "_request", request)
    lives._call(_run_that_is(None), CALLS)
    assert [call.args[2] for call in request.call_args_list] == ["/one", "/two", "/three"]


def test_nothing_is_called_once_the_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may listen on its port by then."""
    request = Mock(return_value=200)
    monkeypatch.setattr(lives, "_request", request)
    lives._call(_run_that_is(0), CALLS)
    request.assert_not_called()


def _run_that_is(code: int | None) -> Run:
    """A run of that exit code; None for one that goes on."""
    return cast(Run, Mock(spec=["process"], process=Mock(spec=subprocess.Popen, poll=lambda: code)))


def in_time(ends: Sequence[float]) -> str:
    """What there is to say of the ends after a SIGTERM, each a part of its grace, sorted; one life may have none."""
    if not ends:
        return "nothing ended after a SIGTERM"
    return (
        f"ended at {ends[len(ends) // 2]:.0%} (median), {ends[-1]:.0%} (latest) of the grace after SIGTERM, "
        f"{sum(end > 1 for end in ends)} of {len(ends)} past it"
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every deployment stopped once or honestly refused, code and `exit.json` right, nothing left, not too late."""
    verdicts = play(range(FIRST, FIRST + LIVES), tmp_path, AT_ONCE)
    wrong = [verdict for verdict in verdicts if verdict.wrong]
    ends = sorted(verdict.late for verdict in verdicts if verdict.late)
    with capsys.disabled():
        print(
            f"\n  {LIVES} random lives (seeds from {FIRST}): {len(wrong)} not as they should be; self-stop confirmed "
            f"{sum(one.confirmed for one in verdicts)} times, refused {sum(one.refused for one in verdicts)} times; "
            f"{in_time(ends)}"
        )
    assert not wrong, "\n".join(f"seed {one.scenario.seed}: {one.wrong}" for one in wrong)

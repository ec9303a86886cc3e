"""Random lives, each from one seed: as many as CHAOS_LIVES says."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.chaos.lives import Scenario, play

LIVES = int(os.environ.get("CHAOS_LIVES", "100"))
FIRST = int(os.environ.get("CHAOS_SEED", "1000"))
AT_ONCE = 4


def test_every_end_is_drawn_in_both_modes() -> None:
    """PID 1 and a subreaper hear of a stop in different ways: each trigger has to come to both."""
    drawn = {(scenario.trigger, scenario.mode) for scenario in map(Scenario.draw, range(100))}
    assert drawn == set(itertools.product(("sigterm", "api", "itself"), ("pid1", "subreaper")))


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
            f"ended at {ends[len(ends) // 2]:.0%} (median), {ends[-1]:.0%} (latest) of the grace after SIGTERM, "
            f"{sum(end > 1 for end in ends)} of {len(ends)} past it"
        )
    assert not wrong, "\n".join(f"seed {one.scenario.seed}: {one.wrong}" for one in wrong)

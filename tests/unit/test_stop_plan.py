"""The stop plan: one deadline, and all steps inside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lifecycle.stop_plan import RELEASE_SECONDS, Step, plan_stop, plan_within

seconds = st.floats(0, 4000)


@given(seconds, st.booleans(), seconds, seconds, seconds)
def test_the_shares_are_in_order_and_end_inside_the_deadline(
    total: float, killed_at_end: bool, drain: float, ship: float, backlog: float
) -> None:
    """No share is negative, none ends before the one ahead of it, and the last one ends in time."""
    plan = plan_stop(total, killed_at_end=killed_at_end, drain=drain, ship=ship, backlog=backlog)
    end = 0.0
    for share in plan.shares:
        assert share.seconds >= 0
        assert share.ends == pytest.approx(end + share.seconds)
        end = share.ends
    assert end <= plan.total + 1e-6
    assert [share.step for share in plan.shares] == [step for step in Step if step is not Step.RELEASE]


@given(seconds, seconds, seconds, seconds)
def test_under_a_kill_from_outside_everything_ends_before_it(
    total: float, drain: float, ship: float, backlog: float
) -> None:
    """The platform's SIGKILL comes at the end of the grace; a margin is kept before it, and most is the game's."""
    plan = plan_stop(total, killed_at_end=True, drain=drain, ship=ship, backlog=backlog)
    assert plan.total == total
    assert plan.ends(Step.SHIP) <= total - min(0.2, total * 0.04)
    assert plan.ends(Step.STOP) >= total * 0.7
    if total >= 5 and backlog <= 0.1:
        assert plan.ends(Step.STOP) >= total * 0.9 - 1e-6


@given(seconds, seconds, seconds, seconds)
def test_a_stop_within_a_moment_leaves_time_for_the_self_stop(
    within: float, grace: float, drain: float, ship: float
) -> None:
    """The end of the maximum duration: the game, shipping and the call to the platform, all before it."""
    plan = plan_within(within, grace=grace, drain=drain, ship=ship)
    assert plan.ends(Step.KILL) <= grace + 1e-6
    assert plan.total <= within - min(RELEASE_SECONDS, within * 0.25) + 0.2, "0.1 s each for autopsy and shipping"


@given(seconds, seconds, seconds)
def test_the_game_gets_at_least_half_of_what_there_is_before_the_kill(total: float, drain: float, ship: float) -> None:
    """Draining never takes the time in which the game saves its world."""
    plan = plan_stop(total, killed_at_end=False, drain=drain, ship=ship)
    assert plan.seconds(Step.STOP) + 1e-9 >= plan.seconds(Step.DRAIN)


def test_the_five_seconds_of_the_platform() -> None:
    """The platform's default grace, in numbers a person can check."""
    plan = plan_stop(5.0, killed_at_end=True, ship=30.0)
    assert plan.seconds(Step.STOP) == pytest.approx(4.5)
    assert plan.ends(Step.KILL) == pytest.approx(4.6)
    assert plan.ends(Step.SHIP) == pytest.approx(4.75)
    much = plan_stop(5.0, killed_at_end=True, ship=30.0, backlog=0.6)
    assert much.seconds(Step.STOP) == pytest.approx(4.0)
    assert much.ends(Step.SHIP) == pytest.approx(4.75)


def test_a_minute_at_most_is_planned_to_its_end() -> None:
    """The last 12 s of a maximum duration of 60 s, with a grace of 5 s and somewhere to ship to."""
    plan = plan_within(12.0, grace=5.0, ship=30.0)
    assert plan.ends(Step.KILL) == pytest.approx(5.0)
    assert plan.total == pytest.approx(9.0), "the rest is for the self-stop"


def test_a_stop_without_a_killer_ships_behind_its_grace() -> None:
    """Where nobody kills the container the game gets its whole grace, and shipping its own time."""
    plan = plan_stop(5.0, killed_at_end=False, ship=30.0)
    assert plan.ends(Step.KILL) == pytest.approx(5.0)
    assert plan.total == pytest.approx(35.15)


def test_a_plan_is_one_line_for_people() -> None:
    """It is printed at the start of every stop."""
    assert str(plan_stop(5.0, killed_at_end=True)) == "5.0 s: stop 4.50 s, kill 0.10 s, autopsy 0.05 s, ship 0.10 s"

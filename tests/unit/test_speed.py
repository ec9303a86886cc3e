"""How fast the store is, as it is told to the init."""

from __future__ import annotations

import pytest

from agent.logs.speed import DEFAULT_OBJECT_SECONDS, DEFAULT_RATE, Speed


def test_the_speed_of_a_store_is_told_when_it_changes() -> None:
    """Small objects say how long an answer takes, large ones how much goes through; one that fails takes nothing."""
    told: list[tuple[float, float]] = []
    speed = Speed(lambda seconds, rate: told.append((seconds, rate)))
    speed.measured(300, 0.2)
    assert told == [(0.2, DEFAULT_RATE)]
    speed.measured(300, 0.21)
    assert len(told) == 1, "no change worth a word"
    speed.measured(10_000_000, 10.0)
    assert told[-1] == pytest.approx((0.203, 1e6))
    speed.failed()
    assert told[-1][1] == 0.0
    speed.works_again()
    assert told[-1] == pytest.approx((0.203, 1e6))


def test_a_store_that_never_took_anything() -> None:
    """It is told as one that takes nothing, once."""
    told: list[tuple[float, float]] = []
    speed = Speed(lambda seconds, rate: told.append((seconds, rate)))
    speed.failed()
    speed.failed()
    assert told == [(DEFAULT_OBJECT_SECONDS, 0.0)]

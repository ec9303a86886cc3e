"""The stop plan: one deadline, split into the steps of a stop. Pure: numbers in, numbers out.

Every wait between the stop request and the agent's own exit is part of this deadline. A step that ends early leaves its
time to the next steps; no step may run past its own end, so the last one ends in time.
"""

from __future__ import annotations

from enum import StrEnum

from agent.record import Record


class Step(StrEnum):
    """The steps of a stop, in the order in which they happen."""

    ANNOUNCE = "announce"  # the game and all subscribers are told
    DRAIN = "drain"  # players may finish
    STOP = "stop"  # the stop methods are applied and the game gets time to end
    KILL = "kill"  # SIGKILL, and the kernel removes the processes
    AUTOPSY = "autopsy"  # the cause of death is found and written down
    SHIP = "ship"  # exit.json, the log tail, the rest of the spool, the bundle
    RELEASE = "release"  # the self-stop, until it is confirmed; not bounded by the deadline


class Share(Record):
    """The share of one step: it may run until `ends` seconds after the stop began."""

    step: Step
    seconds: float
    ends: float


class StopPlan(Record):
    """Shares of one deadline.

    Attributes:
        total: seconds from the start of the stop to the end of the last bounded step.
        shares: one for each step, in order; their sum is `total` minus the safety margin.
    """

    total: float
    shares: tuple[Share, ...]

    def ends(self, step: Step) -> float:
        """The deadline of `step`, in seconds after the start of the stop; without a share, that of the step before."""
        order = list(Step)
        return max(
            (share.ends for share in self.shares if order.index(share.step) <= order.index(step)),
            default=0.0,
        )

    def seconds(self, step: Step) -> float:
        """How many seconds `step` has; 0 if it is not part of this plan."""
        return sum(share.seconds for share in self.shares if share.step is step)

    def __str__(self) -> str:
        """One line for people, printed when the stop begins."""
        parts = ", ".join(f"{share.step} {share.seconds:.2f} s" for share in self.shares if share.seconds > 0)
        return f"{self.total:.1f} s: {parts}"


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))


# Under the platform's deadline the game gets nine tenths of a grace of 5 s or more: the other steps are short, and a
# step that ends early leaves its time to shipping.
_KILL_PART, _AUTOPSY_PART, _SHIP_PART = 0.02, 0.01, 0.02
# Upper limit for shipping: saving the game's world is more important than logs.
_MOST_SHIPPING = 0.2


def plan_stop(
    total: float, *, killed_at_end: bool, drain: float = 0.0, ship: float = 0.0, backlog: float = 0.0
) -> StopPlan:
    """Splits a deadline into the steps of a stop.

    Args:
        total: seconds from now. With `killed_at_end`, everything is killed from outside then (by the platform after its
            grace), so all steps end before it, with a margin. Otherwise it is the time that the game has to end, and
            the later steps (autopsy, ship) get additional time.
        killed_at_end: whether a SIGKILL from outside ends the stop after `total`.
        drain: seconds for players to finish; limited to half of the time before the kill.
        ship: seconds for shipping without `killed_at_end`; 0 without a store (the local `exit.json` is still
            written).
        backlog: estimated seconds to ship the waiting logs, from the store's measured speed; used with
            `killed_at_end` only, up to a fifth of `total`.

    Returns:
        The plan. Its shares are never negative and their ends never decrease.
    """
    total = max(0.0, total)
    if killed_at_end:
        margin = min(0.25, total * 0.05)
        kill, autopsy = min(1.0, total * _KILL_PART), min(1.0, total * _AUTOPSY_PART)
        shipping = max(min(1.0, total * _SHIP_PART), min(backlog, ship, total * _MOST_SHIPPING))
        before_kill = max(0.0, total - margin - kill - autopsy - shipping)
        whole = total
    else:
        kill, autopsy = min(total * 0.2, _clamp(total * 0.05, 0.1, 1.0)), _clamp(total * 0.03, 0.1, 1.0)
        shipping = ship if ship > 0 else 1.0
        before_kill = max(0.0, total - kill)
        whole = total + autopsy + shipping
    draining = min(drain, before_kill / 2)
    shares: list[Share] = []
    end = 0.0
    for step, seconds in (
        (Step.ANNOUNCE, 0.0),  # takes no time: subscribers receive the announcement while the game drains or stops
        (Step.DRAIN, draining),
        (Step.STOP, before_kill - draining),
        (Step.KILL, kill),
        (Step.AUTOPSY, autopsy),
        (Step.SHIP, shipping),
    ):
        end += seconds
        shares.append(Share(step, seconds, end))
    return StopPlan(whole, tuple(shares))


RELEASE_SECONDS = 3.0
"""The time reserved for the self-stop if the whole stop has a deadline: one call and one repetition."""


def plan_within(within: float, *, grace: float, drain: float = 0.0, ship: float = 0.0) -> StopPlan:
    """Splits a deadline that includes the self-stop: the end of the maximum duration.

    Args:
        within: seconds from now until everything must be over.
        grace: seconds for the game to end; limited to four fifths of the available time.
        drain: as in `plan_stop`.
        ship: as in `plan_stop`; limited to the time left by the game and the self-stop.

    Returns:
        The plan; the rest of `within` is for the self-stop.
    """
    left = max(0.0, within - min(RELEASE_SECONDS, within * 0.25))
    grace = min(grace, left * 0.8)
    plan = plan_stop(grace, killed_at_end=False, drain=drain)
    behind = left - grace - plan.seconds(Step.AUTOPSY)
    shipping = max(0.01, min(ship if ship > 0 else plan.seconds(Step.SHIP), behind))
    return plan_stop(grace, killed_at_end=False, drain=drain, ship=shipping)
